"""What real clients send, replayed against the server.

A transcript in `transcripts/` has requests, whose lines begin with `>`, and behind each the expected response: `<`, the
status, and fields that it must have, `Name` or `Name=part of the value`. `! media` expects a keyframe, `! connect` is
another connection, `! password` a server with that key, `! line feeds` another end of line. `#` is a comment, which
names the source; where that shows only some of the requests, the others are the usual ones. In requests `\\xNN` is a
byte, and braces stand for what the client has learned.
"""

import base64
import hashlib
import re
from pathlib import Path

import pytest

from softcam.runtime.http_auth import authorization
from tests.support.rtsp_viewers import Peer, Response, Stage, UdpReceiver

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
USER = "admin"


class Replay:
    """One client."""

    def __init__(self, stage: Stage, password: str) -> None:
        self.stage, self.password = stage, password
        self.ports: UdpReceiver = stage.ports()
        self.peer: Peer = stage.connect()
        self.session = self.transport = ""
        self.challenges: list[str] = []
        self.end_of_line = "\r\n"

    def request(self, lines: list[str]) -> Response:
        first = next(line for line in lines if line)
        method, url, _ = self.fill(first, "").split(" ")
        text = self.end_of_line.join([*(self.fill(line, f"{method.upper()} {url}") for line in lines), "", ""])
        self.peer.send(re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), text).encode("latin-1"))
        response = self.peer.response()
        if method.upper() == "PAUSE":
            self.peer.packets.clear()  # sent before it
        number = re.search(r"(?i)^cseq: *(\d+)", text, re.MULTILINE)
        assert number
        assert response["CSeq"] == number[1]
        self.challenges = response.fields.get("www-authenticate", self.challenges)
        if "session" in response.fields:
            self.session = response.session
        if "transport" in response.fields:
            self.transport = response["Transport"]
        return response

    def fill(self, text: str, request: str) -> str:
        method, _, url = request.partition(" ")
        if "{digest" in text:
            text = re.sub(r"{digest:(\w+):(\w+)}", lambda match: self.digest(method, url, match[1], match[2]), text)
        host = "{}:{}".format(*self.stage.address)
        names = {"url": self.peer.url, "host": host, "session": self.session, "basic": self.basic}
        for name, port in zip(("rtp", "rtcp"), (self.ports.rtp, self.ports.rtcp), strict=True):
            names[name] = str(port.getsockname()[1])
        return re.sub(r"{(\w+)}", lambda match: names[match[1]], text)

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{USER}:{self.password}".encode()).decode()

    def digest(self, method: str, url: str, which: str, kind: str) -> str:
        """By the first or the last Digest challenge, as RFC 7616 has it, as FFmpeg sends it, or MD5 in any case."""
        offered = [each for each in self.challenges if each.startswith("Digest")]
        challenge = offered[0 if which == "first" else -1]
        if kind == "RFC":
            return authorization([challenge], method, url, (USER, self.password), 1)
        fields = dict(re.findall(r'(\w+)="?([^",]+)', challenge))
        secret = hashlib.md5(f"{USER}:{fields['realm']}:{self.password}".encode()).hexdigest()
        request = hashlib.md5(f"{method}:{url}".encode()).hexdigest()
        values = {
            "username": USER,
            "realm": fields["realm"],
            "nonce": fields["nonce"],
            "uri": url,
            "response": hashlib.md5(f"{secret}:{fields['nonce']}:{request}".encode()).hexdigest(),
        }
        text = ("," if kind == "ffmpeg" else ", ").join(f'{name}="{value}"' for name, value in values.items())
        if kind == "ffmpeg":
            assert fields["algorithm"] == "MD5", "another one is unsupported"
            text += ",algorithm=MD5"
        return f"Digest {text}"

    def expect_media(self) -> None:
        unit = self.peer.unit() if "interleaved" in self.transport else self.ports.unit()
        assert unit.is_keyframe

    def check(self, response: Response, expected: str) -> None:
        status, *fields = self.fill(expected, "").split(" ")
        assert response.status == int(status), response
        for field in fields:
            name, _, part = field.partition("=")
            assert any(part in value for value in response.fields.get(name.lower(), [])), (field, response)


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    password = next((line.split()[-1] for line in lines if line.startswith("! password")), "")
    stage = Stage(passwords=(password,) if password else ())
    replay = Replay(stage, password)
    request: list[str] = []
    responses = 0
    with stage.flow():
        for line in lines:
            mark, _, text = line.partition(" ")
            if mark == ">":
                request.append(text)
            elif mark == "<":
                replay.check(replay.request(request), text)
                request = []
                responses += 1
            elif line == "! media":
                replay.expect_media()
            elif line == "! connect":
                replay.peer = stage.connect()
            elif line == "! line feeds":
                replay.end_of_line = "\n"
            else:
                assert mark == "#" or line.startswith("! password"), line
    assert responses >= 3
    assert request == []
    assert any(line.startswith("# Source: ") for line in lines)
    stage.stop()


def test_many_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 25

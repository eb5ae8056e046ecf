"""Digest and Basic authentication of HTTP and RTSP requests. Pure functions but for the client's nonce; any thread."""

import base64
import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Final

_FIELD: Final = re.compile(r'([\w-]+)=(?:"([^"]*)"|([^\s,"]+))')


def authorization(challenges: Sequence[str], method: str, url: str, credentials: tuple[str, str], count: int) -> str:
    """The value of `Authorization` for the strongest challenge (RFC 7616, 7617); `count` is the nonce count.

    Raises ValueError if no challenge is supported.
    """
    user, password = credentials
    for algorithm in ("SHA-256", "MD5"):
        for challenge in challenges:
            scheme, _, text = challenge.partition(" ")
            fields = {name.lower(): quoted or plain for name, quoted, plain in _FIELD.findall(text)}
            if scheme.lower() != "digest" or fields.get("algorithm", "MD5").upper() != algorithm:
                continue
            realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
            secret = _digest(algorithm, user, realm, password)
            request = _digest(algorithm, method, url)
            values = {"username": user, "realm": realm, "nonce": nonce, "uri": url}
            tail = f", algorithm={algorithm}" if "algorithm" in fields else ""
            if "auth" in re.split(r"[\s,]+", fields.get("qop", "")):
                own, number = secrets.token_hex(8), f"{count:08x}"
                values["cnonce"] = own
                values["response"] = _digest(algorithm, secret, nonce, number, own, "auth", request)
                tail += f", qop=auth, nc={number}"
            else:
                values["response"] = _digest(algorithm, secret, nonce, request)
            if "opaque" in fields:
                values["opaque"] = fields["opaque"]
            return "Digest " + ", ".join(f'{name}="{_escape(value)}"' for name, value in values.items()) + tail
    if any(challenge.partition(" ")[0].lower() == "basic" for challenge in challenges):
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    raise ValueError("unsupported authentication scheme (401)")


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _digest(algorithm: str, *parts: str) -> str:
    name = algorithm.replace("-", "")
    return hashlib.new(name, ":".join(parts).encode(), usedforsecurity=False).hexdigest()

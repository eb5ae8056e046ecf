"""RTSP over a network: every packet of a session as tshark dissects it, and viewers where packets are lost and late."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.support.bad_network import CLIENT, SERVER, BadNetwork, require_namespaces
from tests.support.timeouts import PATIENCE_S, RUN_LIMIT_S, TIMEOUT_FACTOR

FPS = 30
URL = f"rtsp://{SERVER}:8554/"
PORTAL = (
    *(sys.executable, "-u", str(PROJECT / "soft_stream.py"), "--camera", "pattern", "--port", "0"),
    *("--rtsp-host", SERVER, "--rtsp-port", "8554", "--width", "640", "--height", "360", "--fps", str(FPS)),
    *("--bitrate", "1000000", "--no-autofocus", "--state-dir"),
)
KEYFRAME_S = 2.0  # the longest interval, as documented
LOSS, DELAY_S = 0.01, 0.05
LOSSES = 10  # packets
AFTER_LOSSES = 120  # pictures: those on the way, and up to the next keyframe that arrives whole
RIGHT = 150  # pictures without a fault after that
FFMPEG_INTERRUPTED = 255  # its exit code
CLOCK_HZ = 90_000


@contextmanager
def portal(network: BadNetwork, folder: Path) -> Iterator[list[str]]:
    """Run a portal at the server's end; the list gets its log when it has ended."""
    command = network.command(SERVER, *PORTAL, str(folder / "state"))
    log: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                log.append(line)
                if "Listening on http" in line:
                    break
            else:
                pytest.fail("".join(log))
            yield log
        finally:
            process.terminate()
            log += process.communicate(timeout=PATIENCE_S)[0].splitlines()


def ffmpeg(transport: str, *output: str) -> list[str]:
    return ["ffmpeg", "-nostdin", "-v", "error", "-rtsp_transport", transport, "-i", URL, *output]


@pytest.fixture(autouse=True)
def _programs() -> None:
    require_namespaces()
    for program in ("ffmpeg", "tshark"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")


# --- tshark ------------------------------------------------------------------------------------------------------


def dissect(capture: Path, *arguments: str) -> str:
    command = ["tshark", "-r", str(capture), "-d", "rtp.pt==96,h264", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S)
    assert run.returncode == 0, run.stderr
    return run.stdout


def rows(capture: Path, of: str, *names: str) -> list[list[str]]:
    """The fields of each frame with a packet of a protocol; those of several packets are separated by commas."""
    options = [word for name in names for word in ("-e", name)]
    return [line.split("\t") for line in dissect(capture, "-Y", of, "-T", "fields", *options).splitlines()]


def fields(capture: Path, of: str, *names: str) -> list[list[str]]:
    """The fields of each packet."""
    frames = rows(capture, of, *names)
    return [list(row) for frame in frames for row in zip(*(column.split(",") for column in frame), strict=True)]


@pytest.fixture(scope="module", params=["tcp", "udp"])
def capture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of ffmpeg, as it was on the network."""
    require_namespaces()
    folder = tmp_path_factory.mktemp(request.param)
    path = folder / "session.pcap"
    with BadNetwork(capture=path) as network, portal(network, folder):
        command = network.command(CLIENT, *ffmpeg(request.param, "-t", "8", "-c", "copy", "-f", "null", "-"))
        watched = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S)
    assert (watched.returncode, watched.stderr) == (0, "")
    return path


def test_nothing_malformed(capture: Path) -> None:
    warnings = [line.split(maxsplit=3) for line in dissect(capture, "-q", "-z", "expert,warn").splitlines()]
    found = {(row[1], row[2], row[3].strip()) for row in warnings if len(row) == 4 and row[0].isdigit()}
    # Wireshark does not decode slices. What it says about TCP is about the kernel, on a busy machine.
    assert {row for row in found if row[1] != "TCP"} <= {("Undecoded", "H.264", "[Not decoded yet]")}
    # In the SDP it reads the emulation prevention bytes of parameter sets as data; FFmpeg above has read them.
    assert dissect(capture, "-Y", "_ws.malformed and not sdp") == ""


def test_dissected_requests(capture: Path) -> None:
    said = fields(capture, "rtsp.status", "rtsp.status")
    assert said == [["200"]] * len(said)
    assert len(said) >= 4  # OPTIONS, DESCRIBE, SETUP, PLAY; ffmpeg does not wait for the response to TEARDOWN
    assert "TEARDOWN" in {row[0] for row in fields(capture, "rtsp.method", "rtsp.method")}


def test_dissected_packets(capture: Path) -> None:
    names = ("rtp.seq", "rtp.timestamp", "rtp.marker", "rtp.ssrc", "rtp.p_type", "rtp.version")
    # Others are sent by the client. ICMP quotes what arrives when the client has closed its port.
    packets = [row for row in fields(capture, "rtp and not icmp", *names) if row[4] == "96"]
    assert len(packets) > 8 * FPS
    assert {tuple(row[3:]) for row in packets} == {(packets[0][3], "96", "2")}
    numbers = [int(row[0]) for row in packets]
    assert [(after - before) % 65536 for before, after in pairwise(numbers)] == [1] * (len(numbers) - 1)
    for before, after in pairwise(packets):
        passed = (int(after[1]) - int(before[1])) % 2**32
        is_last_of_picture = before[2] in ("1", "True")
        assert (passed > 0) is is_last_of_picture
        assert passed < CLOCK_HZ


def test_dissected_reports(capture: Path) -> None:
    times: dict[int, tuple[int, float]] = {}  # frame number and arrival, by RTP timestamp
    columns = ("frame.number", "frame.time_epoch", "rtp.timestamp", "rtp.p_type")
    for number, arrived_s, stamps, kinds in rows(capture, "rtp and not icmp", *columns):
        for stamp, kind in zip(stamps.split(","), kinds.split(","), strict=True):
            if kind == "96":
                times[int(stamp)] = int(number), float(arrived_s)
    names = ("frame.number", "rtcp.timestamp.ntp.msw", "rtcp.timestamp.ntp.lsw", "rtcp.timestamp.rtp", "rtcp.sdes.text")
    reports = [[value.split(",")[0] for value in row] for row in rows(capture, "rtcp.pt == 200 and not icmp", *names)]
    assert len(reports) >= 2  # with the first picture, and then every five seconds
    (first_frame, _), *_ = times.values()
    assert int(reports[0][0]) - first_frame <= 40  # within the frames of the first picture
    for _, seconds, fraction, stamp, name in reports:
        assert name == "soft-stream"
        wall_s = int(seconds) - 2_208_988_800 + int(fraction) / 2**32
        delays_s = [arrived_s - (wall_s + (each - int(stamp)) / CLOCK_HZ) for each, (_, arrived_s) in times.items()]
        # By this report's clock each picture was exposed shortly before it arrived.
        assert min(delays_s) > 0
        assert sorted(delays_s)[len(delays_s) // 2] < 0.25 * TIMEOUT_FACTOR


# --- losses ------------------------------------------------------------------------------------------------------


def pictures(path: Path) -> list[str]:
    """The checksums of decoded pictures, so far."""
    lines = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
    return [line.rsplit(",", 1)[1].strip() for line in lines if not line.startswith("#")]


def test_viewers_with_losses(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """Checksums show which of a viewer's pictures are exactly those of another one, which gets every packet."""
    sums = ("-fps_mode", "passthrough", "-f", "framemd5", "-flush_packets", "1")
    with BadNetwork(delay_s=DELAY_S, loss=LOSS) as network, portal(network, tmp_path) as log, ExitStack() as stack:
        viewers: dict[str, subprocess.Popen[bytes]] = {}

        def start(name: str, where: str, transport: str) -> None:
            command = network.command(where, *ffmpeg(transport, *sums, str(tmp_path / name)))
            viewers[name] = stack.enter_context(subprocess.Popen(command))
            stack.callback(viewers[name].kill)

        def wait_for(names: tuple[str, ...], more: int) -> None:
            """Wait until each of them has that many pictures more than now."""
            seen = {name: len(pictures(tmp_path / name)) + more for name in names}
            wait_until(
                lambda: all(len(pictures(tmp_path / name)) >= count for name, count in seen.items()),
                f"{more} pictures more than {seen}",
                timeout_s=RUN_LIMIT_S,
            )

        def stop(*names: str) -> None:
            for name in names:
                viewers[name].send_signal(signal.SIGINT)
            assert {viewers[name].wait(PATIENCE_S) for name in names} == {FFMPEG_INTERRUPTED}

        start("all", SERVER, "tcp")
        wait_for(("all",), 1)
        start("tcp", CLIENT, "tcp")
        start("udp", CLIENT, "udp")
        wait_until(lambda: network.lost >= LOSSES, f"{LOSSES} losses", timeout_s=RUN_LIMIT_S)
        network.stop_losing()
        wait_for(("tcp", "udp"), AFTER_LOSSES + RIGHT)
        stop("tcp", "udp")
        wait_until(lambda: {pictures(tmp_path / name)[-1] for name in ("tcp", "udp")} <= {*pictures(tmp_path / "all")})
        stop("all")
    order = {each: number for number, each in enumerate(pictures(tmp_path / "all"))}
    by_tcp, by_udp = pictures(tmp_path / "tcp"), pictures(tmp_path / "udp")
    print(f"{network.lost} of {network.lost + network.delivered} packets lost; TCP {len(by_tcp)}, UDP {len(by_udp)}")
    # By TCP every picture arrives, one after the other.
    numbers = [order[each] for each in by_tcp]
    assert {after - before for before, after in pairwise(numbers)} == {1}
    # By UDP those after a loss are wrong, up to the next keyframe that arrives whole.
    good = [number for number, each in enumerate(by_udp) if each in order]
    wrong = [after - before - 1 for before, after in pairwise([-1, *good, len(by_udp)]) if after - before > 1]
    print(f"UDP: {len(good)} pictures are right; runs of wrong ones: {wrong}")
    assert wrong  # the losses were seen
    assert min(wrong) <= KEYFRAME_S * FPS
    assert by_udp[-1] in order
    last_wrong = max(number for number, each in enumerate(by_udp) if each not in order)
    assert len(by_udp) - last_wrong > RIGHT
    assert good == sorted(good)
    assert re.findall(r" ([1-9]\d*) dropped", "\n".join(log)) == []


def test_viewer_with_a_small_mtu(tmp_path: Path) -> None:
    """As in a VPN: the kernel fragments what is sent by UDP, and splits no run of datagrams."""
    with BadNetwork(mtu=1280) as network, portal(network, tmp_path) as log:
        command = network.command(CLIENT, *ffmpeg("udp", "-t", "3", "-f", "null", "-"))
        watched = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S)
    assert (watched.returncode, watched.stderr) == (0, "")
    assert re.findall(r"connected \((UDP|TCP)\)", "\n".join(log)) == ["UDP"]  # ffmpeg did not have to try TCP

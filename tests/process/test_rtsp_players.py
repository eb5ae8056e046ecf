"""Programs that play or record RTSP, each for 30 s by TCP and by UDP, all at the same time from one portal."""

import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Portal
from tests.support.background import eventually
from tests.support.http_client import status_of
from tests.support.rtsp_players import EXIT_CODES, FPS, PLAYERS, SIZE, Player, end, require
from tests.support.timeouts import PATIENCE_S

Start = Callable[..., Portal]
WATCH_S = 30
SHORT_S = 4
RTSP = re.compile(r"Listening on (rtsp://\S+)")
FLAGS = ("--width", str(SIZE[0]), "--height", str(SIZE[1]), "--fps", str(FPS), "--rtsp-port", "0", "--linger", "0.5")


def run_together(players: Iterable[Player], url: str, folder: Path, seconds: float) -> Callable[[], dict[str, int]]:
    """Start the players that are installed; the result waits for their ends and returns their exit codes by name."""
    started: dict[str, subprocess.Popen[bytes]] = {}
    for player in players:
        if player.missing() is None:
            (folder / player.id).mkdir()
            started[player.id] = player.start(url, folder / player.id, seconds)

    def wait() -> dict[str, int]:
        try:
            return {name: process.wait(seconds + PATIENCE_S) for name, process in started.items()}
        finally:
            for process in started.values():
                end(process)

    return wait


class Watched:
    """The end of all players: exit codes and output by name, and the portal's log."""

    def __init__(self, start: Start, folder: Path) -> None:
        self.folder = folder
        self.portal = start(*FLAGS)
        wait = run_together(PLAYERS.values(), self.portal.wait_for_log(RTSP)[1], folder, WATCH_S)
        try:
            self.fps = self._measured_fps(WATCH_S / 2)
        finally:
            self.codes = wait()

    def _measured_fps(self, seconds: float) -> float:
        """The rate of the encoder, which is lower than that of the camera on a busy machine."""
        eventually(lambda: status_of(self.portal)["h264"] is not None, "the encoder runs")
        began_s, before = time.monotonic(), status_of(self.portal)["h264"]["encoded"]
        time.sleep(seconds)
        return float((status_of(self.portal)["h264"]["encoded"] - before) / (time.monotonic() - began_s))

    def output(self, player: Player) -> str:
        return output_of(player, self.folder)


def output_of(player: Player, folder: Path) -> str:
    return (folder / player.id / "output").read_text(errors="replace")


@pytest.fixture(scope="module")
def watched(start_shared_portal: Start) -> Iterator[Watched]:
    # Not pytest's folder: VLC runs as another user, who must not enter that.
    with tempfile.TemporaryDirectory(prefix="soft-stream-players-") as folder:
        Path(folder).chmod(0o755)
        yield Watched(start_shared_portal, Path(folder))


@pytest.mark.parametrize("player", PLAYERS.values(), ids=list(PLAYERS))
def test_player(watched: Watched, player: Player) -> None:
    require(player)
    output = watched.output(player)
    assert player.complaints(output) == []
    assert watched.codes[player.id] == EXIT_CODES.get(player.name, 0), output
    received_s = player.received_s(watched.folder / player.id, output, watched.fps)
    print(f"{player.id}: {received_s:.1f} s received")
    assert received_s > 0.9 * WATCH_S, output


def test_portal_after_players(watched: Watched) -> None:
    """Every viewer got every frame, and the portal has nothing to complain about."""
    ends = re.findall(
        r"RTSP viewer \S+ disconnected \(.*\): (\d+) s, (\d+) frames sent, (\d+) dropped", watched.portal.log
    )
    assert len(ends) >= len(watched.codes) - 1 > 0  # ffplay by UDP ends without a word, so its session ends later
    assert [dropped for _, _, dropped in ends if dropped != "0"] == []
    assert re.findall(r".* (?:WARNING|ERROR) .*", watched.portal.log) == []


def test_password_in_address(start_portal: Start, tmp_path: Path) -> None:
    # Not Debian's VLC, which opens the address first with a client for SAT>IP that knows no passwords.
    players = [PLAYERS[f"{name}-tcp"] for name in ("ffmpeg", "gstreamer", "mpv", "opencv", "pyav")]
    portal = start_portal(*FLAGS, environment={"CAMERA_VIEW_KEY": "secret-of-the-test"})
    url = portal.wait_for_log(RTSP)[1].replace("rtsp://", "rtsp://camera:secret-of-the-test@")
    codes = run_together(players, url, tmp_path, SHORT_S)()
    assert codes == dict.fromkeys(codes, 0)
    for player in players:
        require(player)
        output = output_of(player, tmp_path)
        assert player.complaints(output) == []
        assert player.received_s(tmp_path / player.id, output, FPS) > SHORT_S / 2, player.id
    assert "secret-of-the-test" not in portal.log

"""`Logbook`: the lines of earlier runs, and how the previous one ended."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from softcam.runtime.log.lines import MAX_ID, encode, make_line
from softcam.runtime.log.logbook import Logbook, LogPlaces
from tests.support.background import soon

log = logging.getLogger("test.logbook")
Run = Callable[..., list[str]]
UNEXPECTED = "Previous run ended unexpectedly: killed, crashed, or the power failed"


def files_of(places: LogPlaces) -> dict[Path, bytes]:
    """The files in both places."""
    folders = [places.folder, None if places.copy is None else places.copy.parent]
    found = [path for folder in folders if folder is not None and folder.exists() for path in folder.iterdir()]
    return {path: path.read_bytes() for path in found if path.is_file()}


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.fixture
def places(tmp_path: Path) -> LogPlaces:
    (tmp_path / "run").mkdir()
    return LogPlaces(tmp_path / "run", "log", tmp_path / "state" / "log-cam0.jsonl")


@pytest.fixture
def run(no_leaks: Callable[[], AbstractContextManager[None]]) -> Iterator[Run]:
    """`run(places, *messages, code=0)` is a whole run; returns the lines it shows. Without a code it is killed."""

    def run_once(places: LogPlaces, *messages: str, code: int | None = 0) -> list[str]:
        logbook = Logbook()
        logbook.install()
        log.info("early")
        logbook.open(places, list[str]().append)
        for message in messages:
            log.info(message)
        shown = [f"{line.run}: {line.message}" for line in logbook.memory.newest(1000)[0]]
        before = files_of(places)
        logbook.close(code or 0, soon())
        logbook.close(code or 0, soon())  # once more does nothing
        if code is None:
            for path in files_of(places):
                path.write_bytes(before[path]) if path in before else path.unlink()
        return shown

    with no_leaks():
        yield run_once


def test_lines_before_open_are_kept(run: Run, places: LogPlaces) -> None:
    assert run(places, "one") == ["1: early", "1: one"]
    assert run(places, "two") == ["1: early", "1: one", "1: Exit code 0", "2: early", "2: two"]


def test_killed_run_is_reported(run: Run, places: LogPlaces) -> None:
    run(places, "one", code=None)
    assert run(places) == ["1: early", "1: one", "2: early", f"2: {UNEXPECTED}"]
    assert run(places)[-1] == "3: early", "the second run has exited"


def test_result_of_systemd(run: Run, places: LogPlaces, tmp_path: Path) -> None:
    run(places, code=None)
    (tmp_path / "run/result").write_text("watchdog killed ABRT\n")
    assert run(places, code=None)[-1] == "2: Previous run ended unexpectedly: watchdog (killed ABRT)"
    assert run(places, code=None)[-1] == f"3: {UNEXPECTED}", "it is used once"


def test_result_of_a_run_that_exited(run: Run, places: LogPlaces, tmp_path: Path) -> None:
    run(places, code=70)
    (tmp_path / "run/result").write_text("exit-code exited 70\n")
    assert run(places) == ["1: early", "1: Exit code 70", "2: early"]


def test_reason_of_a_restart_outlasts_the_traffic(run: Run, places: LogPlaces, tmp_path: Path) -> None:
    run(places, "Camera frontend has timed out", code=None)
    (tmp_path / "run/result").write_text("watchdog killed ABRT\n")
    logbook = Logbook()
    logbook.install()
    logbook.open(places, list[str]().append)
    for number in range(11_000):
        logbook.memory.append(1_700_000_000.0, logging.INFO, "softcam", "http", [f"GET {number}"])
    shown = [f"{line.run}: {line.message}" for line in logbook.memory.newest(20_000)[0]]
    logbook.close(0, soon())
    assert shown[:4] == [
        "1: early",
        "1: Camera frontend has timed out",
        "2: Previous run ended unexpectedly: watchdog (killed ABRT)",
        f"2: GET {11_000 - len(shown) + 3}",
    ]


@pytest.mark.parametrize("content", [b"", b"\0" * 1000, b"one two", b"a b c d", b"a\nb c", b"\xff \xff \xff"])
def test_damaged_result(run: Run, places: LogPlaces, tmp_path: Path, content: bytes) -> None:
    run(places, code=None)
    (tmp_path / "run/result").write_bytes(content)
    assert run(places)[-1] == f"2: {UNEXPECTED}"


def test_power_failure(run: Run, places: LogPlaces, tmp_path: Path) -> None:
    """The files in memory are lost; the copy has the lines up to the last save."""
    run(places, "one")
    run(places, "two", code=None)
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    assert run(places) == ["1: early", "1: one", "1: Exit code 0", "2: early"]


@pytest.mark.parametrize("has_copy", [True, False])
def test_numbers_after_lost_lines(places: LogPlaces, has_copy: bool) -> None:
    """Without files in memory: clients have seen them."""
    clock_s = 1_700_000_000.0
    place = LogPlaces(copy=places.copy if has_copy else None)

    def run_once() -> list[int]:
        nonlocal clock_s
        logbook = Logbook(lambda: clock_s)
        logbook.open(place, list[str]().append)
        for _ in range(500):
            logbook.record(logging.INFO, "x")
        logbook.close(0, soon())
        clock_s += 1
        return [line.id for line in logbook.memory.newest(1000)[0] if line.run == logbook.memory.run]

    run_once()
    saved = files_of(place)
    lost = run_once()
    for path, content in saved.items():
        path.write_bytes(content)
    fresh = run_once()
    assert lost[-1] < fresh[0]
    clock_s = 1_500_000_000.0
    assert not has_copy or run_once()[0] == fresh[-1] + 1, "the clock is behind, but these lines were saved"


def test_numbers_continue_with_files_in_memory(places: LogPlaces) -> None:
    numbers = []
    for _ in range(2):
        logbook = Logbook()
        logbook.open(places, list[str]().append)
        logbook.record(logging.INFO, "x")
        logbook.close(0, soon())
        numbers += [line.id for line in logbook.memory.newest(1000)[0]]
    assert numbers == [*range(numbers[0], numbers[0] + 2), *range(numbers[0], numbers[0] + 4)]


def test_folder_that_systemd_removed_at_a_stop(run: Run, places: LogPlaces, tmp_path: Path) -> None:
    run(places, "one", code=66)
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    assert run(places) == ["1: early", "1: one", "1: Exit code 66", "2: early"]


def test_copy_is_not_written_by_each_restart(run: Run, places: LogPlaces) -> None:
    assert places.copy is not None
    run(places, code=69)
    first = places.copy.stat().st_mtime_ns
    for _ in range(3):
        run(places, code=69)
    assert places.copy.stat().st_mtime_ns == first
    run(places, code=0)  # perhaps the machine is stopped
    assert places.copy.stat().st_mtime_ns != first


def test_disk_alone(run: Run, places: LogPlaces) -> None:
    only_disk = LogPlaces(copy=places.copy)
    run(only_disk, "one", code=70)
    run(only_disk, "two", code=70)
    assert [line for line in run(only_disk) if "o" in line] == [
        "1: one", "1: Exit code 70", "2: two", "2: Exit code 70"
    ]  # fmt: skip


def test_no_place(run: Run) -> None:
    assert run(LogPlaces(), "one") == ["1: early", "1: one"]


def test_files_of_another_process(run: Run, places: LogPlaces) -> None:
    assert places.copy is not None
    first = Logbook()
    first.open(places, list[str]().append)
    shown = run(places, "one")
    assert shown[-2].startswith("1: Log lines will not survive this process: another process uses ")
    assert not places.copy.exists()
    first.close(0, soon())


def test_folder_that_cannot_be_used(run: Run, places: LogPlaces, tmp_path: Path) -> None:
    (tmp_path / "run/log.0").mkdir()
    assert run(places, "one")[1].startswith("1: Log lines will not survive this process: [Errno 21]")


def test_foreign_numbers(run: Run, places: LogPlaces, tmp_path: Path) -> None:
    """A file whose numbers leave no room for further lines."""
    line = make_line(MAX_ID, 1, 0.0, 20, "softcam", "main", "Forged")
    (tmp_path / "run/log.0").write_bytes(encode([line]))
    assert run(places, "one") == ["1: early", "1: one"]
    assert run(places, "two") == ["1: early", "1: one", "1: Exit code 0", "2: early", "2: two"]


def test_crash_is_recorded(places: LogPlaces) -> None:
    logbook = Logbook()
    logbook.open(places, list[str]().append)
    try:
        raise RuntimeError("a bug")
    except RuntimeError as error:
        logbook.record(logging.CRITICAL, "Portal crashed", error)
    logbook.close(1, soon())
    shown = [line.message for line in logbook.memory.newest(100)[0]]
    assert (shown[0], shown[-2], shown[-1]) == ("Portal crashed", "| RuntimeError: a bug", "Exit code 1")


def test_secrets_do_not_reach_the_files(run: Run, places: LogPlaces, tmp_path: Path) -> None:
    logbook = Logbook()
    logbook.install()
    logbook.hide(["a-key-that-nobody-guesses"])
    logbook.open(places, list[str]().append)
    log.info("key a-key-that-nobody-guesses")
    logbook.close(0, soon())
    contents = [path.read_bytes() for path in tmp_path.rglob("log*") if path.is_file()]
    assert len(contents) == 3
    assert sum(b"key ***" in content for content in contents) == 2
    assert not any(b"nobody" in content for content in contents)


# Places


def test_places_of_a_service(tmp_path: Path) -> None:
    environ = {"RUNTIME_DIRECTORY": "/run/camera-soft-cam/0:/run/other", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert LogPlaces.of(environ) == LogPlaces(Path("/run/camera-soft-cam/0"), "log", None)
    assert LogPlaces.of(environ, "cam0", "/var/lib/camera-soft-cam/0") == LogPlaces(
        Path("/run/camera-soft-cam/0"), "log", Path("/var/lib/camera-soft-cam/0/log-cam0.jsonl")
    )


def test_places_of_a_user(tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert LogPlaces.of(environ, "url1", None) == LogPlaces(tmp_path / "soft-stream", "log-url1", None)
    assert LogPlaces.of(environ) == LogPlaces(), "no camera is known"


@pytest.mark.parametrize("folder", ["", "relative", "/nowhere/at/all", "/proc/1"])
def test_folder_of_nobody_or_of_another_user(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 4711)
    assert LogPlaces.of({"XDG_RUNTIME_DIR": folder, "RUNTIME_DIRECTORY": "x"}, "cam0") == LogPlaces()

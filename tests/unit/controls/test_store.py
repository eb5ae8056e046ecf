"""The state file: atomic writes, quarantine, unreadable files, the attempt mark."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from softcam.controls.state import RequestedControls
from softcam.controls.state_file import StateFile
from softcam.controls.store import Store
from tests.unit.controls.test_state import ZOOM, requested


def test_round_trip(tmp_path: Path) -> None:
    state = requested(roi=ZOOM, auto_exposure={"enabled": False})
    state = state.with_frozen("auto_exposure", {"ExposureTime": 9000, "AnalogueGain": 2.0})
    store = Store(tmp_path / "deep" / "folder", "cam0")
    store.save(state)
    assert store.error is None
    again = Store(tmp_path / "deep" / "folder", "cam0")
    assert again.load() == state
    assert again.quarantine_reason is None
    assert (tmp_path / "deep/folder/cam0.json").stat().st_mode & 0o077 == 0
    store.save(RequestedControls())
    assert store.error is None
    assert list((tmp_path / "deep/folder").iterdir()) == []


def test_failure_to_save_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "folder"
    folder.write_text("a file in place of the folder")
    store = Store(folder, "cam0")
    for _ in range(2):
        store.start_attempt(requested(roi=ZOOM))
        store.save(requested(roi=ZOOM))
    (line,) = caplog.messages
    assert line.startswith(f"Failed to save controls: {folder / 'cam0.json'}: ")
    assert store.is_unsaved
    folder.unlink()
    for _ in range(2):
        store.save(requested(roi=ZOOM))
    assert caplog.messages[1:] == [f"Controls are saved again: {folder / 'cam0.json'}"]
    assert (store.error, store.is_unsaved) == (None, False)


def test_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    store = Store(tmp_path, "cam0")
    with monkeypatch.context() as patch:
        patch.setattr("softcam.controls.state_file.replace_file", fail)
        store.save(requested(roi=ZOOM))
    assert (store.error, store.is_unsaved) == (f"{tmp_path / 'cam0.json'}: out of memory", True)
    store.save(requested(roi=ZOOM))
    assert (store.error, store.is_unsaved) == (None, False)
    with monkeypatch.context() as patch:
        patch.setattr("softcam.controls.state_file.read_file", fail)
        again = Store(tmp_path, "cam0")
        assert again.load().is_empty
        assert again.error == f"{tmp_path / 'cam0.json'}: out of memory"
    assert not Store(tmp_path, "cam0").load().is_empty


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cam0.json"),
        (b"{", "cam0.json: Expecting"),
        (b"\xff\xfe", "cam0.json"),
        (b"[" * 60_000, "cam0.json"),
        (b" " * 70_000, "cam0.json: must have at most 65536 bytes"),
        (b'{"version": 2, "asked": {}, "held": {}}', "cam0.json: must be a version 1 state file"),
        (b'{"version": 1}', "cam0.json: must contain controls"),
        (b'{"version": 1, "asked": {"zoom": {}}, "held": {}}', "zoom: unknown control"),
        (b'{"version": 1, "asked": {"roi": {"x": 9}}, "held": {}}', "roi: x: must be"),
        (b'{"version": 1, "asked": {}, "held": {"awb": {}}}', "awb: invalid frozen"),
        (
            b'{"version": 1, "asked": {"exposure_limits": {"min_gain": 9, "max_gain": 2}}, "held": {}}',
            "exposure_limits: min_gain: must be at most max_gain (2)",
        ),
        (b'{"version": 1, "asked": {"": {}}, "held": {"": []}}', ": unknown control"),
    ],
)
def test_damaged_file_is_quarantined(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "cam0.json"
    path.write_bytes(content)
    store = Store(tmp_path, "cam0")
    assert store.load() == RequestedControls()
    assert store.quarantine_reason is not None
    assert reason in store.quarantine_reason
    assert not path.exists()
    assert (tmp_path / "cam0.json.bad").read_bytes() == content
    assert Store(tmp_path, "cam0").load() == RequestedControls()


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ('"asked": {%s, "exposure_limits": {"min_exposure_us": 9, "max_exposure_us": 2}}, "held": {}',
         "exposure_limits: min_exposure_us: must be at most max_exposure_us (2)"),
        ('"asked": {%s, "awb": {"enabled": false}, "manual_awb": {"red_gain": 1, "blue_gain": 1}}, "held": {}',
         "awb: contradicts manual_awb"),
        ('"asked": {%s, "autofocus_mode": {"mode": "manual"}}, "held": {"autofocus_mode": {"LensPosition": 1e22}}',
         "autofocus_mode: invalid frozen"),
        ('"asked": {%s, "zoom": {"by": 2}}, "held": {}', "zoom: unknown control"),
        ('"asked": {%s, "roi": {"x": 9}}, "held": {}', "roi: x: must be"),
        ('"asked": {%s, "awb": {"enabled": true}}, "held": {"awb": {"ColourGains": [1.5, 1.5]}}', "awb: invalid"),
        ('"asked": {%s, "awb": {"enabled": false}}, "held": {"awb": {"ColourGains": 5}}', "awb: invalid frozen"),
        ('"asked": {%s, "awb": {"enabled": false}}, "held": {"awb": {"ColourGains": [1, "x"]}}', "awb: invalid frozen"),
        ('"asked": {%s, "awb": {"enabled": false}}, "held": {"awb": {"ColourGains": [1, NaN]}}', "awb: invalid frozen"),
        ('"asked": {%s, "awb": {"enabled": false}}, "held": {"awb": {"Evil": 3}}', "awb: invalid frozen"),
        ('"asked": {%s, "awb": {"enabled": false}}, "held": {"awb": 7}', "awb: invalid frozen"),
        ('"asked": {%s, "auto_exposure": {"enabled": false}}, "held": {"auto_exposure": {"ExposureTime": "x"}}',
         "auto_exposure: invalid frozen"),
        ('"asked": {%s, "autofocus_mode": {"mode": "manual"}}, "held": {"autofocus_mode": {"LensPosition": -1}}',
         "autofocus_mode: invalid frozen"),
        ('"asked": {%s}, "held": {"lens_position": {}}', "lens_position: invalid frozen"),
    ],
)  # fmt: skip
def test_invalid_part_is_ignored(tmp_path: Path, part: str, reason: str) -> None:
    content = '{"version": 1, ' + part % '"image_processing": {"brightness": 0.5}' + "}"
    (tmp_path / "cam0.json").write_text(content)
    store = Store(tmp_path, "cam0")
    state = store.load()
    assert state.get("image_processing", "brightness") == 0.5
    assert dict(state.frozen) == {}
    assert store.quarantine_reason is not None
    assert reason in store.quarantine_reason
    assert (tmp_path / "cam0.json").read_text() == content  # for an upgrade
    assert (tmp_path / "cam0.json.bad").read_text() == content


@pytest.mark.parametrize("then", [{"brightness": 0.5}, None])
def test_unreadable_file_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, then: dict[str, float] | None
) -> None:
    Store(tmp_path, "cam0").save(requested(roi=ZOOM))
    content = (tmp_path / "cam0.json").read_text()

    def deny(path: Path, _max_bytes: int) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    store = Store(tmp_path, "cam0")
    with monkeypatch.context() as patch:
        patch.setattr("softcam.controls.state_file.read_file", deny)
        assert store.load() == RequestedControls()
    assert "Permission denied" in str(store.error)
    assert f"Failed to read controls: {store.error}" in caplog.text
    store.save(RequestedControls() if then is None else requested(image_processing=then))
    assert store.error is None
    assert store.quarantine_reason == "cam0.json could not be read (Permission denied)"
    assert (tmp_path / "cam0.json.bad").read_text() == content
    store.save(requested(roi=ZOOM))  # only once: the content is known from now on
    assert store.error is None
    assert (tmp_path / "cam0.json.bad").read_text() == content


def test_temporary_files_are_removed(tmp_path: Path) -> None:
    Store(tmp_path, "cam0").save(requested(roi=ZOOM))
    for left in (".cam0.json.abc", ".cam0.trial.def", ".cam1.json.abc"):
        (tmp_path / left).write_text("{")
    assert not Store(tmp_path, "cam0").load().is_empty
    assert {path.name for path in tmp_path.iterdir()} == {"cam0.json", ".cam1.json.abc"}


def test_deletion_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, "cam0")
    store.save(requested(roi=ZOOM))
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append((tmp_path / "cam0.json").exists()))
    store.save(RequestedControls())
    assert store.error is None
    assert synced == [False], "the directory, once the file is deleted"


def test_interrupted_attempt_is_quarantined(tmp_path: Path) -> None:
    Store(tmp_path, "cam0").save(requested(roi=ZOOM))
    store = Store(tmp_path, "cam0")
    store.start_attempt(store.load())  # and then the process hangs or crashes
    store = Store(tmp_path, "cam0")
    assert store.load().is_empty
    assert "hung or crashed" in str(store.quarantine_reason)
    assert {path.name for path in tmp_path.iterdir()} == {"cam0.json.bad"}


def test_interrupted_attempt_with_a_part_ignored(tmp_path: Path) -> None:
    (tmp_path / "cam0.json").write_text('{"version": 1, "asked": {"zoom": {}, "awb": {"enabled": true}}, "held": {}}')
    store = Store(tmp_path, "cam0")
    store.start_attempt(store.load())
    assert Store(tmp_path, "cam0").load().is_empty


@pytest.mark.parametrize("mark", ["1", "[", '{"version": 1, "asked": {}, "held": {}}'])
def test_mark_of_another_state(tmp_path: Path, mark: str) -> None:
    Store(tmp_path, "cam0").save(requested(roi=ZOOM))
    (tmp_path / "cam0.trial").write_text(mark)
    assert not Store(tmp_path, "cam0").load().is_empty
    assert {path.name for path in tmp_path.iterdir()} == {"cam0.json"}


def test_mark_without_a_state_is_removed(tmp_path: Path) -> None:
    Store(tmp_path, "cam0").start_attempt(requested(roi=ZOOM))
    assert Store(tmp_path, "cam0").load().is_empty
    assert list(tmp_path.iterdir()) == []


def test_quarantine_with_a_replacement(tmp_path: Path) -> None:
    store = Store(tmp_path, "cam0")
    store.save(requested(roi=ZOOM))
    content = (tmp_path / "cam0.json").read_text()
    store.quarantine("a reason", requested(hdr={"mode": "sensor"}))
    assert store.quarantine_reason == "a reason"
    assert (tmp_path / "cam0.json.bad").read_text() == content
    assert set(Store(tmp_path, "cam0").load().groups) == {"hdr"}


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_quarantine_that_fails_is_repeated_before_the_file_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspect, fallback = requested(roi=ZOOM), requested(hdr={"mode": "sensor"})
    store = Store(tmp_path, "cam0")
    store.save(suspect)
    content = (tmp_path / "cam0.json").read_bytes()
    store.start_attempt(suspect)
    with monkeypatch.context() as patch:
        patch.setattr(StateFile, "_move_to_quarantine", no_space)
        store.quarantine("a reason", fallback)
        for state in (fallback, RequestedControls()):
            store.save(state)
            assert store.is_unsaved
            assert (tmp_path / "cam0.json").read_bytes() == content
        assert (tmp_path / "cam0.trial").exists(), "for the next process"
    store.refresh_quarantine()
    store.save(fallback)
    assert (store.quarantine_reason, store.is_unsaved) == ("a reason", False)
    assert (tmp_path / "cam0.json.bad").read_bytes() == content
    assert Store(tmp_path, "cam0").load() == fallback


def test_copy_of_a_partly_invalid_file_that_fails_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = '{"version": 1, "asked": {"zoom": {}, "awb": {"enabled": true}}, "held": {}}'
    (tmp_path / "cam0.json").write_text(content)
    store = Store(tmp_path, "cam0")
    with monkeypatch.context() as patch:
        patch.setattr("softcam.controls.state_file.replace_file", no_space)
        state = store.load()
        store.save(state)
    assert (tmp_path / "cam0.json").read_text() == content
    store.save(state)
    assert (tmp_path / "cam0.json.bad").read_text() == content
    assert Store(tmp_path, "cam0").load() == state


def test_reason_without_a_quarantined_file_ends_with_the_next_save(tmp_path: Path) -> None:
    for store in (Store(tmp_path, "cam0"), Store(None, "cam0")):
        store.load()
        store.quarantine("a reason")  # of a state that could not be saved
        store.refresh_quarantine()
        assert store.quarantine_reason == "a reason"
        store.save(requested(roi=ZOOM))
        assert store.quarantine_reason is None


def test_earlier_quarantined_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "cam0.json"
    for content in ("{", "[", "[", "{}"):  # one of them twice, as by a program that restores it
        path.write_text(content)
        store = Store(tmp_path, "cam0")
        store.load()
        assert store.quarantine_reason is not None
    contents = {name.name: name.read_text() for name in tmp_path.iterdir()}
    assert contents == {"cam0.json.bad.1": "{", "cam0.json.bad.2": "[", "cam0.json.bad": "{}"}


def test_copy_of_a_partly_invalid_file_is_made_once(tmp_path: Path) -> None:
    (tmp_path / "cam0.json").write_text('{"version": 1, "asked": {"zoom": {}, "awb": {"enabled": true}}, "held": {}}')
    for _ in range(3):
        assert not Store(tmp_path, "cam0").load().is_empty
    assert {name.name for name in tmp_path.iterdir()} == {"cam0.json", "cam0.json.bad"}


def test_reason_ends_with_the_quarantined_file(tmp_path: Path) -> None:
    (tmp_path / "cam0.json").write_text("{")
    store = Store(tmp_path, "cam0")
    store.load()
    assert "Expecting" in str(store.quarantine_reason)
    store = Store(tmp_path, "cam0")
    store.load()
    assert "cam0.json.bad" in str(store.quarantine_reason)
    store.save(requested(roi=ZOOM))
    assert store.quarantine_reason is not None
    (tmp_path / "cam0.json.bad").unlink()
    store.refresh_quarantine()
    assert store.quarantine_reason is None


def test_reason_remains_while_the_disk_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "cam0.json").write_text("{")
    store = Store(tmp_path, "cam0")
    store.load()
    monkeypatch.setattr(Path, "exists", fail)
    store.refresh_quarantine()
    assert "Expecting" in str(store.quarantine_reason)


def test_finished_attempts_do_not_count(tmp_path: Path) -> None:
    Store(tmp_path, "cam0").save(requested(roi=ZOOM))
    for _ in range(5):
        store = Store(tmp_path, "cam0")
        state = store.load()
        assert not state.is_empty
        store.start_attempt(state)
        store.end_attempt()


def test_without_a_directory() -> None:
    store = Store(None, "cam0")
    assert store.load() == RequestedControls()
    store.save(requested(roi=ZOOM))
    store.start_attempt(requested(roi=ZOOM))
    store.end_attempt()
    store.quarantine("a reason")
    assert store.quarantine_reason == "a reason"
    assert store.error is not None
    assert "--state-dir" in store.error


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "folder", "cam0")
    store.load()
    store.save(requested(roi=ZOOM))
    assert store.error is not None
    assert "Not a directory" in store.error


WRITER = """
import os
import sys
from pathlib import Path
from softcam.controls.schema import BY_NAME
from softcam.controls.state import RequestedControls
from softcam.controls.store import Store

for line in sys.stdin:  # each line starts a writer, whose process id is printed; it ends by a signal
    if pid := os.fork():
        os.waitpid(pid, 0)
        print("end", flush=True)
        continue
    break
store = Store(Path(sys.argv[1]), "cam0")
print(os.getpid(), flush=True)
for number in range(int(line), 1_000_000_000):
    state = RequestedControls().with_values(BY_NAME["manual_exposure"], {"exposure_us": number, "gain": 2.0})
    state = state.with_values(BY_NAME["image_processing"], {"brightness": 0.1, "contrast": number % 32 / 1})
    store.save(state)
    assert store.error is None
    print(number, flush=True)
"""


def test_crash_during_a_write(tmp_path: Path) -> None:
    kept = 0
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(25):
            print(kept + 1, file=process.stdin, flush=True)
            writer = int(process.stdout.readline())
            # At a different moment of a write each time.
            deadline_s = time.monotonic() + 0.001 * (number + 1)
            while time.monotonic() < deadline_s or not (tmp_path / "cam0.json").exists():
                os.sched_yield()
            os.kill(writer, signal.SIGKILL)
            saved = []
            while not (line := process.stdout.readline()).endswith("end\n"):  # a number may be cut off before it
                assert line, "the program that starts the writers ended"
                saved.append(line)
            store = Store(tmp_path, "cam0")
            state = store.load()
            assert store.quarantine_reason is None
            least = int(saved[-1]) if saved else kept
            kept = state.get("manual_exposure", "exposure_us")
            assert least <= kept <= least + 1  # the last one reported as saved, or the one being written
            assert state.get("image_processing", "contrast") == kept % 32  # not parts of two states
            json.loads((tmp_path / "cam0.json").read_text())
        process.stdin.close()
    assert kept > 1


def test_large_files_with_the_same_beginning_are_both_kept(tmp_path: Path) -> None:
    path = tmp_path / "cam0.json"
    for end in (b"one", b"two"):
        path.write_bytes(b" " * 70_000 + end)
        Store(tmp_path, "cam0").load()
    kept = {each.name: each.read_bytes()[-3:] for each in tmp_path.iterdir()}
    assert kept == {"cam0.json.bad": b"two", "cam0.json.bad.1": b"one"}

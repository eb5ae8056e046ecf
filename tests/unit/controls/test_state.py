"""What was asked, as a value; and its file, which no crash, no full disk and no bad content spoils."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from softcam.controls.schema import BY_NAME
from softcam.controls.state import RequestedControls, Store, held_values

ZOOM = {"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}


def asked(**groups: Mapping[str, object]) -> RequestedControls:
    state = RequestedControls()
    for name, values in groups.items():
        state = state.with_values(BY_NAME[name], values)
    return state


def test_fields_add_up_within_a_group() -> None:
    state = asked(image_processing={"brightness": 0.1}).with_values(BY_NAME["image_processing"], {"contrast": 1.2})
    assert dict(state.groups["image_processing"]) == {"brightness": 0.1, "contrast": 1.2}
    assert state.get("image_processing", "sharpness") == 1.0


@pytest.mark.parametrize(
    ("before", "values", "after"),
    [
        ("auto_exposure", ("manual_exposure", {"exposure_us": 1}), {"manual_exposure"}),
        ("manual_exposure", ("auto_exposure", {"enabled": True}), {"auto_exposure"}),
        ("awb", ("awb_preset", {"preset": "ir_850nm"}), {"awb_preset"}),
        ("awb_preset", ("manual_awb", {"red_gain": 1.0, "blue_gain": 1.0}), {"manual_awb"}),
        ("lens_position", ("autofocus_mode", {"mode": "auto"}), {"autofocus_mode"}),
        ("roi", ("hdr", {"mode": "off"}), {"roi", "hdr"}),
    ],
)
def test_what_contradicts_is_replaced(before: str, values: tuple[str, dict[str, object]], after: set[str]) -> None:
    first = {"auto_exposure": {"enabled": False}, "manual_exposure": {"exposure_us": 9, "gain": 8.0},
             "awb": {"enabled": False}, "awb_preset": {"preset": "cloudy"}, "lens_position": {"position": 2.0},
             "roi": ZOOM}[before]  # fmt: skip
    state = asked(**{before: first}).with_values(BY_NAME[values[0]], values[1])
    assert set(state.groups) == after


def test_null_takes_a_field_back() -> None:
    state = asked(stream={"width": 640, "fps": 10.0}, day_night_mode={"night_saturation": None})
    state = state.with_values(BY_NAME["stream"], {"width": None})
    assert dict(state.groups["stream"]) == {"fps": 10.0}
    state = state.with_values(BY_NAME["stream"], {"fps": None})
    assert not state.has("stream")
    assert state.get("day_night_mode", "night_saturation") is None, "its default is a value"


def test_manual_exposure_is_told_anew_each_time() -> None:
    state = asked(manual_exposure={"exposure_us": 9, "gain": 8.0})
    assert state.with_values(BY_NAME["manual_exposure"], {"exposure_us": 7}).get("manual_exposure", "gain") == 1.0


def test_a_round_through_the_file(tmp_path: Path) -> None:
    state = asked(roi=ZOOM, auto_exposure={"enabled": False})
    state = state.with_held("auto_exposure", {"ExposureTime": 9000, "AnalogueGain": 2.0})
    store = Store(tmp_path / "deep" / "folder", "cam0")
    assert store.save(state)
    assert Store(tmp_path / "deep" / "folder", "cam0").load() == state
    assert (tmp_path / "deep/folder/cam0.json").stat().st_mode & 0o077 == 0
    assert store.save(RequestedControls())
    assert list((tmp_path / "deep/folder").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cam0.json"),
        (b"{", "cam0.json"),
        (b"\xff\xfe", "cam0.json"),
        (b"[" * 60_000, "cam0.json"),
        (b" " * 70_000, "too large"),
        (b'{"version": 2, "asked": {}, "held": {}}', "version 1"),
        (b'{"version": 1}', "no controls"),
        (b'{"version": 1, "asked": {"zoom": {}}, "held": {}}', "zoom: no such control"),
        (b'{"version": 1, "asked": {"roi": {"x": 9}}, "held": {}}', "roi: x: wants"),
        (b'{"version": 1, "asked": {}, "held": {"awb": {}}}', "awb: holds"),
        (
            b'{"version": 1, "asked": {"exposure_limits": {"min_gain": 9, "max_gain": 2}}, "held": {}}',
            "exposure_limits: min_gain: wants to be at most max_gain, which is 2",
        ),
        (b'{"version": 1, "asked": {"": {}}, "held": {"": []}}', ": no such control"),
    ],
)
def test_fail_bad_files_are_set_aside(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "cam0.json"
    path.write_bytes(content)
    store = Store(tmp_path, "cam0")
    assert store.load() == RequestedControls()
    assert store.set_aside_because is not None
    assert reason in store.set_aside_because
    assert not path.exists()
    assert (tmp_path / "cam0.json.bad").read_bytes() == content
    assert Store(tmp_path, "cam0").load() == RequestedControls()


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ('"asked": {%s, "exposure_limits": {"min_exposure_us": 9, "max_exposure_us": 2}}, "held": {}',
         "exposure_limits: min_exposure_us: wants to be at most max_exposure_us, which is 2"),
        ('"asked": {%s, "awb": {"enabled": false}, "manual_awb": {"red_gain": 1, "blue_gain": 1}}, "held": {}',
         "awb: is contradicted by manual_awb"),
        ('"asked": {%s, "autofocus_mode": {"mode": "manual"}}, "held": {"autofocus_mode": {"LensPosition": 1e22}}',
         "autofocus_mode: holds"),
        ('"asked": {%s, "zoom": {"by": 2}}, "held": {}', "zoom: no such control"),
        ('"asked": {%s, "roi": {"x": 9}}, "held": {}', "roi: x: wants"),
        ('"asked": {%s, "awb": {"enabled": true}}, "held": {"awb": {"ColourGains": [1.5, 1.5]}}', "awb: holds"),
        ('"asked": {%s, "awb": {"enabled": false}}, "held": {"awb": {"ColourGains": 5}}', "awb: holds"),
        ('"asked": {%s, "awb": {"enabled": false}}, "held": {"awb": {"ColourGains": [1, "x"]}}', "awb: holds"),
        ('"asked": {%s, "awb": {"enabled": false}}, "held": {"awb": {"ColourGains": [1, NaN]}}', "awb: holds"),
        ('"asked": {%s, "awb": {"enabled": false}}, "held": {"awb": {"Evil": 3}}', "awb: holds"),
        ('"asked": {%s, "awb": {"enabled": false}}, "held": {"awb": 7}', "awb: holds"),
        ('"asked": {%s, "auto_exposure": {"enabled": false}}, "held": {"auto_exposure": {"ExposureTime": "x"}}',
         "auto_exposure: holds"),
        ('"asked": {%s, "autofocus_mode": {"mode": "manual"}}, "held": {"autofocus_mode": {"LensPosition": -1}}',
         "autofocus_mode: holds"),
        ('"asked": {%s}, "held": {"lens_position": {}}', "lens_position: holds"),
    ],
)  # fmt: skip
def test_a_bad_part_costs_only_itself(tmp_path: Path, part: str, reason: str) -> None:
    content = '{"version": 1, ' + part % '"image_processing": {"brightness": 0.5}' + "}"
    (tmp_path / "cam0.json").write_text(content)
    store = Store(tmp_path, "cam0")
    state = store.load()
    assert state.get("image_processing", "brightness") == 0.5
    assert dict(state.held) == {}
    assert store.set_aside_because is not None
    assert reason in store.set_aside_because
    assert (tmp_path / "cam0.json").read_text() == content  # a newer version may come back
    assert (tmp_path / "cam0.json.bad").read_text() == content


@pytest.mark.parametrize(
    ("name", "values", "held"),
    [
        ("auto_exposure", {"enabled": False}, {"ExposureTime": 9000, "AnalogueGain": 1.5}),
        ("awb", {"enabled": False}, {"ColourGains": (1.5, 2.5)}),
        ("autofocus_mode", {"mode": "manual"}, {"LensPosition": 0.0}),
    ],
)
def test_ok_what_is_held_goes_through_the_file(
    tmp_path: Path, name: str, values: dict[str, object], held: dict[str, object]
) -> None:
    state = asked(**{name: values})
    assert state.to_hold == (name,)
    state = state.with_held(name, held)
    assert state.to_hold == ()
    assert Store(tmp_path, "cam0").save(state)
    store = Store(tmp_path, "cam0")
    assert store.load() == state
    assert store.set_aside_because is None


def test_what_is_held_is_what_could_be_set() -> None:
    told = {"ExposureTime": 9000, "AnalogueGain": 1.5, "ColourGains": [1.5, 40.0], "LensPosition": 32.0}
    assert held_values("auto_exposure", told) == {"ExposureTime": 9000, "AnalogueGain": 1.5}
    assert held_values("awb", told) == {"ColourGains": (1.5, 32.0)}
    assert held_values("autofocus_mode", told) == {"LensPosition": 15.0}


@pytest.mark.parametrize("then", [{"brightness": 0.5}, None])
def test_a_file_that_could_not_be_read_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: dict[str, float] | None
) -> None:
    assert Store(tmp_path, "cam0").save(asked(roi=ZOOM))
    content = (tmp_path / "cam0.json").read_text()

    def deny(path: Path, **_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    store = Store(tmp_path, "cam0")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", deny)
        assert store.load() == RequestedControls()
    assert "Permission denied" in str(store.trouble)
    assert store.save(RequestedControls() if then is None else asked(image_processing=then))
    assert store.trouble is None
    assert store.set_aside_because == "cam0.json could not be read (Permission denied)"
    assert (tmp_path / "cam0.json.bad").read_text() == content
    assert store.save(asked(roi=ZOOM))  # once: what is written from now on is known
    assert (tmp_path / "cam0.json.bad").read_text() == content


def test_what_a_crash_left_behind_is_taken_away(tmp_path: Path) -> None:
    Store(tmp_path, "cam0").save(asked(roi=ZOOM))
    for left in (".cam0.json.abc", ".cam0.trial.def", ".cam1.json.abc"):
        (tmp_path / left).write_text("{")
    assert not Store(tmp_path, "cam0").load().is_empty
    assert {path.name for path in tmp_path.iterdir()} == {"cam0.json", ".cam1.json.abc"}


def test_an_empty_state_is_written_through_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, "cam0")
    store.save(asked(roi=ZOOM))
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append((tmp_path / "cam0.json").exists()))
    assert store.save(RequestedControls())
    assert synced == [False], "the folder, when the file is gone"


def test_a_state_that_ended_two_processes_is_set_aside(tmp_path: Path) -> None:
    Store(tmp_path, "cam0").save(asked(roi=ZOOM))
    for _ in range(2):
        store = Store(tmp_path, "cam0")
        assert not store.load().is_empty
        store.begin_trial()  # and then the process is no more
    store = Store(tmp_path, "cam0")
    assert store.load().is_empty
    assert store.suspicion == "the camera did not start with it"
    # Its owner looks whether the camera starts without it.
    assert (tmp_path / "cam0.json").exists()
    store.set_aside(store.suspicion)
    assert not (tmp_path / "cam0.json").exists()


def test_what_was_set_aside_is_told_for_as_long_as_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "cam0.json").write_text("{")
    store = Store(tmp_path, "cam0")
    store.load()
    assert "Expecting" in str(store.set_aside_because)
    store = Store(tmp_path, "cam0")
    store.load()
    assert "cam0.json.bad" in str(store.set_aside_because)
    store.save(asked(roi=ZOOM))
    assert store.set_aside_because is not None
    (tmp_path / "cam0.json.bad").unlink()
    assert store.set_aside_because is None


def test_a_state_that_works_is_tried_any_number_of_times(tmp_path: Path) -> None:
    Store(tmp_path, "cam0").save(asked(roi=ZOOM))
    for _ in range(5):
        store = Store(tmp_path, "cam0")
        assert not store.load().is_empty
        store.begin_trial()
        store.end_trial()


def test_without_a_folder_nothing_is_kept_and_it_is_told() -> None:
    store = Store(None, "cam0")
    assert store.load() == RequestedControls()
    assert store.save(asked(roi=ZOOM)) is False
    store.begin_trial()
    store.set_aside("no reason")
    assert store.trouble is not None
    assert "--state-dir" in store.trouble


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "folder", "cam0")
    store.load()
    assert store.save(asked(roi=ZOOM)) is False
    assert store.trouble is not None
    assert "Not a directory" in store.trouble


WRITER = """
import sys
from pathlib import Path
from softcam.controls.state import RequestedControls, Store
from softcam.controls.schema import BY_NAME

store = Store(Path(sys.argv[1]), "cam0")
print("begins", flush=True)
for number in range(int(sys.argv[2]), 1_000_000_000):
    state = RequestedControls().with_values(BY_NAME["manual_exposure"], {"exposure_us": number, "gain": 2.0})
    state = state.with_values(BY_NAME["image_processing"], {"brightness": 0.1, "contrast": number % 32 / 1})
    assert store.save(state)
    print(number, flush=True)
"""


def test_a_crash_while_it_is_written_loses_nothing(tmp_path: Path) -> None:
    kept = 0
    for number in range(25):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(kept + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            # Somewhere within a few writes, elsewhere each time.
            deadline_s = time.monotonic() + 0.001 * (number + 1)
            while time.monotonic() < deadline_s or not (tmp_path / "cam0.json").exists():
                os.sched_yield()
            process.send_signal(signal.SIGKILL)
            told = process.stdout.read().split(b"\n")[:-1]  # without a number that was cut short
        store = Store(tmp_path, "cam0")
        state = store.load()
        assert store.set_aside_because is None
        least = int(told[-1]) if told else kept
        kept = state.get("manual_exposure", "exposure_us")
        assert least <= kept <= least + 1  # the last that was told to be kept, or the one that was being written
        assert state.get("image_processing", "contrast") == kept % 32  # one state, and not parts of two
        json.loads((tmp_path / "cam0.json").read_text())
    assert kept > 1

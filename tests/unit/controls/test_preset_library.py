"""The library of presets: saving, renaming, deleting, applying, importing; the current one; limits, restarts, disks."""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from softcam.camera.base import StreamRequest
from softcam.controls.built_in_presets import BUILT_IN
from softcam.controls.preset_library import MAX_BYTES, MAX_PRESETS, Current, PresetLibrary
from softcam.controls.preset_store import PresetStore
from softcam.controls.presets import Deviation, Scope
from softcam.controls.writer import BackgroundWriter
from softcam.errors import BadValue, CameraError, NoPreset, PresetError
from tests.support.background import eventually
from tests.support.control_scene import FOCUSED, ControlScene
from tests.support.fakes import STEADY
from tests.unit.controls.test_state import ZOOM

BRIGHT = {"image_processing": {"brightness": 0.5}}


class Presets(ControlScene):
    """A camera with controls and presets, saved in `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.presets = PresetLibrary(self.control_manager, PresetStore(folder, "presets"), self.writer)

    @property
    def names(self) -> list[str]:
        """Those of the owner."""
        return [preset.name for preset in self.presets.list_all() if not preset.is_built_in]

    @property
    def current(self) -> Mapping[Scope, Current | None]:
        return self.presets.current(self.presets.outcomes())

    @property
    def look(self) -> Current | None:
        return self.current["look"]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Presets]:
    scene = Presets(tmp_path)
    with scene.held:
        yield scene


# Applying


def test_preset_is_one_change_with_one_reopening(scene: Presets) -> None:
    with scene.held.open():
        scene.take_sent()
        scene.camera.requests.clear()
        with scene.camera.flowing():
            outcome = scene.presets.apply("low-light-motion")
        assert scene.camera.requests == [StreamRequest(32, 16, 25.0)]
        sent = scene.take_sent()
        assert "ExposureTime" in sent
        assert outcome.is_in_effect
        assert {each.field for each in outcome.left_out} >= {
            "image_processing.noise_reduction",
            "ae_exposure_mode.mode",
        }
        with scene.camera.flowing():
            scene.presets.apply("normal")
        assert scene.control_manager.requested.is_empty


def test_preset_without_reopening_is_sent_at_once(scene: Presets) -> None:
    scene.presets.save("Bright", None, {**BRIGHT, "manual_awb": {"red_gain": 1.5, "blue_gain": 1.8}})
    with scene.held.open():
        scene.take_sent()
        scene.presets.apply("Bright")
        assert scene.camera.opens == 1
        assert scene.camera.sent == [{"Brightness": 0.5, "AwbEnable": False, "ColourGains": (1.5, 1.8)}]


@pytest.mark.parametrize("is_reopened", [True, False])
def test_rejected_preset_is_reverted_as_a_whole(scene: Presets, is_reopened: bool) -> None:
    scene.presets.save("Bright", None, {**BRIGHT, "stream": {"fps": 30.0}} if is_reopened else BRIGHT)
    scene.change("image_processing", contrast=2.0)
    scene.change("roi", **ZOOM)
    before = scene.control_manager.requested
    with scene.held.open(), scene.camera.flowing():
        if is_reopened:
            scene.camera.fail_next("open", CameraError("not like this"))
        else:
            scene.camera.control_error = CameraError("not like this")
        with pytest.raises(CameraError, match=r"not like this|delivered no frames"):
            scene.presets.apply("Bright")
        scene.camera.control_error = None
        assert scene.control_manager.requested == before
        assert scene.look is None


def test_numbers_out_of_range_are_limited(scene: Presets) -> None:
    with scene.held.open(), scene.camera.flowing():
        outcome = scene.presets.apply("long-exposure")
        assert Deviation("manual_exposure.exposure_us", "this camera supports 10 to 1000000; using 1000000") in (
            outcome.limited
        )
        assert scene.value("manual_exposure", "exposure_us") == 1_000_000
        assert scene.problem("not_applied") == []


def test_frame_rate_out_of_range_is_limited(scene: Presets) -> None:
    scene.presets.save("Fast", None, {"stream": {"fps": 240.0}})
    assert scene.presets.outcome(scene.presets.find("Fast")).limited == ()
    with scene.held.open(), scene.camera.flowing():
        assert scene.presets.apply("Fast").limited == (
            Deviation("stream.fps", "the camera delivers at most 100 in its current mode"),
        )


def test_focus_is_kept_over_the_reopening(scene: Presets) -> None:
    with scene.held.open():
        scene.settle(FOCUSED)
        scene.presets.save("Still", None, {"autofocus_mode": {"mode": "manual"}, "stream": {"fps": 5.0}})
        with scene.camera.flowing({**STEADY, "AfState": 0, "LensPosition": 1.0}):
            scene.presets.apply("Still")
        assert scene.camera.opens == 2
        assert scene.take_sent()["LensPosition"] == 1.8


def test_preset_applied_to_a_closed_camera(scene: Presets) -> None:
    assert scene.presets.apply("sports").left_out == ()
    assert [*scene.presets.notes(BUILT_IN["sports"])] == ["applied when the camera opens"]
    with scene.held.open():
        assert scene.camera.requests[-1].fps == 50.0
        assert scene.take_sent()["AfSpeed"] == 1
        outcome = scene.presets.outcome(BUILT_IN["sports"])
        assert outcome.is_in_effect
        assert "image_processing.noise_reduction" in {each.field for each in outcome.left_out}
        assert [*scene.presets.notes(BUILT_IN["sports"])] == []


@pytest.mark.parametrize(
    ("exposure_us", "notes"), [(19_000, []), (200_000, ["exposure_us: the frame rate is reduced to 4.98 fps"])]
)
def test_note_on_a_fixed_exposure(scene: Presets, exposure_us: int, notes: list[str]) -> None:
    scene.presets.save("Fixed", None, {"manual_exposure": {"exposure_us": exposure_us}, "stream": {"fps": 50.0}})
    with scene.held.open(), scene.camera.flowing():
        scene.presets.apply("Fixed")
        assert [*scene.presets.notes(scene.presets.find("Fixed"))] == notes


def test_notes(scene: Presets) -> None:
    scene.change("day_night_mode", mode="night", night_saturation=0.0)
    scene.presets.save(
        "Slow", None, {"exposure_limits": {"max_exposure_us": 200_000}, "image_processing": {"saturation": 2}}
    )
    with scene.held.open():
        scene.presets.apply("Slow")
        assert [*scene.presets.notes(scene.presets.find("Slow"))] == [
            "max_exposure_us: the frame rate limits the exposure time to 49000",
            "saturation: overridden at night by night_saturation, which is 0",
        ]


# What is current


def test_current_preset(scene: Presets) -> None:
    assert scene.look == Current("normal", is_modified=False)
    scene.presets.apply("sports")
    assert scene.look == Current("sports", is_modified=False)
    scene.change("roi", **ZOOM)
    assert scene.look == Current("sports", is_modified=False), "the zoom is not part of the look"
    scene.change("image_processing", brightness=0.5)
    assert scene.look == Current("sports", is_modified=True)
    scene.presets.save("Bright sports")
    assert scene.look == Current("Bright sports", is_modified=False)
    scene.control_manager.reset()
    assert scene.look == Current("normal", is_modified=False)
    scene.presets.apply("Bright sports")
    scene.presets.rename("Bright sports", "Bright")
    scene.change("hdr", mode="auto")
    assert scene.look == Current("Bright", is_modified=True)
    scene.presets.delete("Bright")
    assert scene.look is None


def test_look_and_installation_are_independent(scene: Presets) -> None:
    scene.presets.save("door", "installation", {"roi": ZOOM})
    scene.presets.apply("sports")
    scene.presets.apply("door")
    assert scene.current == {
        "look": Current("sports", is_modified=False),
        "installation": Current("door", is_modified=False),
    }


def test_current_preset_of_both_scopes(scene: Presets) -> None:
    """A change of one part does not modify the other one."""
    scene.change("roi", **ZOOM)
    scene.change("image_processing", brightness=0.5)
    scene.presets.save("both", "all")
    unmodified, modified = Current("both", is_modified=False), Current("both", is_modified=True)
    assert scene.current == {"look": unmodified, "installation": unmodified}
    scene.change("image_processing", brightness=0.4)
    assert scene.current == {"look": modified, "installation": unmodified}
    scene.presets.apply("sports")
    assert scene.current == {"look": Current("sports", is_modified=False), "installation": unmodified}
    scene.presets.apply("both")
    scene.change("transform", hflip=True)
    assert scene.current == {"look": unmodified, "installation": modified}
    scene.presets.save("both", "look")
    assert scene.current == {"look": unmodified, "installation": None}, "saved again with another scope"


# Saving


def test_current_controls_are_saved(scene: Presets) -> None:
    scene.change("image_processing", brightness=0.5, flicker="50hz")
    scene.change("roi", **ZOOM)
    assert scene.presets.save("Look").controls == BRIGHT
    assert scene.presets.save("Whole", "all").controls == {
        "image_processing": {"brightness": 0.5, "flicker": "50hz"},
        "roi": ZOOM,
    }
    scene.change("image_processing", brightness=0.7)
    assert scene.presets.save("Whole").controls["image_processing"]["brightness"] == 0.7, "with the scope as before"
    assert scene.presets.find("Whole").scope == "all"
    assert scene.names == ["Look", "Whole"]


def test_invalid_preset_changes_nothing(scene: Presets) -> None:
    scene.presets.save("a", None, BRIGHT)
    with pytest.raises(BadValue, match="zoom: unknown control; roi: must be absent"):
        scene.presets.save("a", None, {"zoom": {}, "roi": ZOOM})
    with pytest.raises(BadValue, match="name: must be 1 to 60"):
        scene.presets.save("", None, BRIGHT)
    for name in ("normal", "Normal", "3D print", "LOW-LIGHT"):
        with pytest.raises(PresetError, match="name: must not be that of a built-in preset"):
            scene.presets.save(name)
        with pytest.raises(PresetError, match="name: must not be that of a built-in preset"):
            scene.presets.rename("a", name)
    assert scene.names == ["a"]
    assert scene.presets.find("a").controls == BRIGHT


@pytest.mark.parametrize("name", ["low-light", "Low light", "LOW-LIGHT"])
def test_find_built_in_preset_by_title(scene: Presets, name: str) -> None:
    assert scene.presets.find(name).name == "low-light"


def test_rename(scene: Presets) -> None:
    scene.presets.save("a", None, BRIGHT)
    scene.presets.save("c", None, {})
    assert scene.presets.rename("a", "b").controls == BRIGHT
    assert scene.presets.rename("b", "b").name == "b"
    assert scene.names == ["b", "c"]
    with pytest.raises(PresetError, match="name: must not be in use; there is a preset 'c'"):
        scene.presets.rename("b", "c")
    with pytest.raises(NoPreset, match="there is none with the name 'a'"):
        scene.presets.rename("a", "d")
    with pytest.raises(PresetError, match="preset: must be one of the owner's; 'normal' is built in"):
        scene.presets.rename("normal", "d")


def test_delete(scene: Presets) -> None:
    scene.presets.save("a", None, BRIGHT)
    scene.presets.delete("a")
    assert scene.names == []
    with pytest.raises(NoPreset):
        scene.presets.delete("a")
    with pytest.raises(PresetError, match="'normal' is built in"):
        scene.presets.delete("normal")
    with pytest.raises(NoPreset):
        scene.presets.apply("a")


def test_number_of_presets_is_limited(scene: Presets) -> None:
    entries = [{"name": f"{number:03}", "scope": "look", "controls": {}} for number in range(MAX_PRESETS)]
    scene.presets.import_document({"version": 1, "presets": entries}, replace_existing=False)
    with pytest.raises(PresetError, match="presets: must be at most 100"):
        scene.presets.save("one more")
    scene.presets.save("000", None, BRIGHT)
    scene.presets.rename("000", "first")
    scene.presets.delete("first")
    scene.presets.save("one more")
    assert len(scene.names) == MAX_PRESETS


def test_export_fits_into_a_request(scene: Presets) -> None:
    controls = {
        "roi": ZOOM,
        "transform": {"hflip": True, "vflip": True, "rotation": 270},
        "day_night_mode": {"mode": "auto", "threshold_lux": 1.25, "night_awb_preset": "daylight_noir"},
        "image_processing": {"brightness": 0.125, "noise_reduction": "high_quality", "exposure_value": 0.125},
        "manual_exposure": {"exposure_us": 1_000_000, "gain": 1.125},
    }

    def save(number: int) -> None:
        scene.presets.save("\N{WASTEBASKET}" * 55 + f"{number:03}", "all", controls)

    with pytest.raises(PresetError, match="60000 bytes"):
        deque(map(save, range(MAX_PRESETS)))
    assert len(scene.names) > 50
    compact = json.dumps(scene.presets.export(), ensure_ascii=False, separators=(",", ":")).encode()
    assert MAX_BYTES * 0.98 < len(compact) <= MAX_BYTES


# Export and import


def test_import_is_all_or_nothing(scene: Presets) -> None:
    scene.presets.save("a", None, BRIGHT)
    scene.presets.save("b", None, {})
    exported = scene.presets.export()
    scene.presets.delete("b")
    scene.presets.save("a", None, {})
    with pytest.raises(PresetError, match=r"unless replace is 1; there are 'a'$"):
        scene.presets.import_document(exported, replace_existing=False)
    assert scene.names == ["a"]
    assert [each.name for each in scene.presets.import_document(exported, replace_existing=True)] == ["a", "b"]
    assert scene.presets.find("a").controls == BRIGHT
    exported["presets"][0]["name"] = "Sports"
    with pytest.raises(PresetError, match="'Sports' is one"):
        scene.presets.import_document(exported, replace_existing=True)
    assert scene.names == ["a", "b"]


# Over restarts


def test_presets_survive_a_restart(scene: Presets, tmp_path: Path) -> None:
    scene.presets.save("a", None, BRIGHT)
    scene.presets.apply("a")
    scene.change("image_processing", brightness=0.7)
    again = Presets(tmp_path)
    with again.held:
        assert again.names == ["a"]
        assert again.look == Current("a", is_modified=True)
        assert again.presets.problems() == {"presets_set_aside": None, "presets_not_kept": None}


def test_preset_with_the_name_of_a_later_built_in_one(tmp_path: Path) -> None:
    document = {"version": 1, "presets": [{"name": "sports", "scope": "look", "controls": BRIGHT}], "applied": {}}
    (tmp_path / "presets.json").write_text(json.dumps(document))
    scene = Presets(tmp_path)
    with scene.held:
        assert scene.presets.find("sports").controls == BRIGHT
        assert [preset.name for preset in scene.presets.list_all()].count("sports") == 1
        scene.presets.rename("sports", "mine")
        assert scene.presets.find("sports").is_built_in


def test_damaged_file_is_reported_until_it_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "presets.json").write_text("{")
    scene = Presets(tmp_path)
    with scene.held:
        assert "presets.json: Expecting" in scene.presets.problems()["presets_set_aside"]
        scene.presets.save("a")
        (tmp_path / "presets.json.bad").unlink()
        eventually(lambda: scene.presets.problems()["presets_set_aside"] is None, "the reason ends")
        assert Presets(tmp_path).names == ["a"]


def test_disk_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    scene = Presets(tmp_path / "file")
    with scene.held:
        scene.presets.save("a", None, BRIGHT)
        assert scene.names == ["a"]
        assert str(tmp_path / "file") in scene.presets.problems()["presets_not_kept"]


def test_disk_that_does_not_respond(tmp_path: Path) -> None:
    writer = BackgroundWriter(list[str]().append, timeout_s=0.0)
    scene = ControlScene(tmp_path, writer=writer)
    with scene.held:
        library = PresetLibrary(scene.control_manager, PresetStore(tmp_path, "presets"), writer)
        library.save("a", None, BRIGHT)
        assert library.find("a").controls == BRIGHT


def test_log_names_what_was_left_out(scene: Presets, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    scene.change("lens_position", position=2.0)
    scene.presets.save("a", None, {"autofocus_mode": {"mode": "auto"}})
    scene.presets.apply("a")
    assert "Preset 'a' applied; left out: autofocus_mode.mode" in caplog.messages


def test_step_of_the_loading_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The presets are saved again without a change."""

    def fail(*_: object) -> None:
        raise OSError("Input/output error")

    first = Presets(tmp_path)
    first.presets.save("mine")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", fail)
        scene = Presets(tmp_path)
    eventually(lambda: scene.presets.problems()["presets_not_kept"] is None, "saved")
    assert Presets(tmp_path).names == ["mine"]

"""The file and the document of presets: round trips, damaged files, invalid documents."""

import json
from pathlib import Path
from typing import Any

import pytest

from softcam.controls.preset_store import PresetStore, SavedPresets, document, parse_document
from softcam.controls.presets import Preset
from softcam.errors import BadValue
from tests.unit.controls.test_state import ZOOM

NIGHT = Preset("Night", {"image_processing": {"brightness": 0.5}, "stream": {"fps": 5.0}})
DOOR = Preset("door/ü", {"roi": ZOOM}, "installation")
SAVED = SavedPresets({"Night": NIGHT, "door/ü": DOOR}, {"look": "Night", "installation": "door/ü"})
ENTRY = {"name": "a", "scope": "look", "controls": {}}


def test_round_trip(tmp_path: Path) -> None:
    store = PresetStore(tmp_path / "deep", "presets-cam0")
    assert store.load() == SavedPresets()
    store.save(SAVED)
    assert store.error is None
    again = PresetStore(tmp_path / "deep", "presets-cam0")
    assert again.load() == SAVED
    assert again.quarantine_reason is None
    assert (tmp_path / "deep/presets-cam0.json").stat().st_mode & 0o077 == 0


def test_document_is_in_order_and_can_be_imported() -> None:
    exported = json.loads(json.dumps(document([NIGHT, DOOR])))
    assert [each["name"] for each in exported["presets"]] == ["door/ü", "Night"]
    assert parse_document(exported) == [DOOR, NIGHT]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "presets-cam0.json: Expecting"),
        (b"[]", "presets-cam0.json: must be a JSON object"),
        (b"[" * 60_000, "presets-cam0.json"),
        (b" " * 600_000, "presets-cam0.json: must have at most 524288 bytes"),
        (b'{"version": 2, "presets": []}', "must be a version 1 document"),
        (b'{"version": 1, "presets": {}}', "must be a version 1 document"),
        (b'{"version": 1, "presets": [7]}', "preset 1: must be a JSON object with name, scope, controls"),
    ],
)
def test_damaged_file_is_quarantined(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "presets-cam0.json").write_bytes(content)
    store = PresetStore(tmp_path, "presets-cam0")
    assert store.load() == SavedPresets()
    assert reason in str(store.quarantine_reason)
    assert {path.name for path in tmp_path.iterdir()} == {"presets-cam0.json.bad"}


def test_invalid_part_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As written by a later version."""
    later = {"name": "later", "scope": "look", "controls": {"shutter": {"angle": 180}, "hdr": {"mode": "off"}}}
    entries = [{**ENTRY, "scope": "lens"}, later, {**ENTRY, "name": "x" * 61}]
    content = json.dumps({"version": 1, "presets": entries, "applied": {"look": 7}})
    (tmp_path / "presets-cam0.json").write_text(content)
    store = PresetStore(tmp_path, "presets-cam0")
    assert dict(store.load().own) == {"later": Preset("later", {"hdr": {"mode": "off"}})}
    for reason in ("preset 1: scope: must be", "preset 2: shutter: unknown control", "preset 3: name: must be"):
        assert reason in str(store.quarantine_reason)
    assert (tmp_path / "presets-cam0.json.bad").read_text() == content
    assert "Some saved presets are invalid and were ignored" in caplog.text


@pytest.mark.parametrize("applied", [None, [], "x"])
def test_invalid_names_of_applied_presets_are_ignored(tmp_path: Path, applied: Any) -> None:
    content = {**document([NIGHT]), "applied": applied}
    (tmp_path / "presets-cam0.json").write_text(json.dumps(content))
    assert PresetStore(tmp_path, "presets-cam0").load() == SavedPresets({"Night": NIGHT})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "body: must be an exported document"),
        ([], "body: must be an exported document"),
        ({"version": 1}, "body: must be an exported document"),
        ({"version": 1, "presets": [], "more": 1}, "body: must be an exported document"),
        ({"version": "1", "presets": []}, "body: must be a version 1 document"),
        ({"version": 1, "presets": {}}, "body: must be a version 1 document"),
        ({"version": 1, "presets": [None]}, "preset 1: must be a JSON object with name, scope, controls"),
        ({"version": 1, "presets": [{**ENTRY, "more": 1}]}, "preset 1: must be a JSON object with"),
        ({"version": 1, "presets": [ENTRY, ENTRY]}, "preset 2: name: must be present at most once"),
        ({"version": 1, "presets": [{**ENTRY, "scope": []}]}, "preset 1: scope: must be one of look"),
        ({"version": 1, "presets": [{**ENTRY, "name": ""}]}, "preset 1: name: must be 1 to 60"),
        ({"version": 1, "presets": [{**ENTRY, "controls": []}]}, "preset 1: controls: must be a JSON object"),
        ({"version": 1, "presets": [{**ENTRY, "controls": {"roi": ZOOM}}]}, "preset 1: roi: must be absent"),
    ],
)
def test_invalid_document_is_rejected(content: Any, reason: str) -> None:
    with pytest.raises(BadValue) as caught:
        parse_document(content)
    assert reason in str(caught.value)


def test_every_error_of_a_document_is_named() -> None:
    entries = [{**ENTRY, "scope": "x"}, {**ENTRY, "name": 3}]
    with pytest.raises(BadValue, match=r"preset 1: scope: .*; preset 2: name: "):
        parse_document({"version": 1, "presets": entries})

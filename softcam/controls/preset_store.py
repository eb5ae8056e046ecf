"""The owner's presets as a JSON document, and the file of one camera's; `state_file` has the writes and the quarantine.

The document is that of exports and imports. The file has it with one more field, the presets that were applied last.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from softcam.controls.presets import SCOPES, Preset, parse_controls, parse_name
from softcam.controls.state_file import StateFile
from softcam.errors import BadValue

_VERSION: Final = 1
_LARGEST: Final = 512 * 1024  # bytes; the library accepts less
_FIELDS: Final = ("name", "scope", "controls")


@dataclass(frozen=True, slots=True)
class SavedPresets:
    """The owner's presets by name. `applied`: the name of the preset applied last, by the scope that it replaced."""

    own: Mapping[str, Preset] = field(default_factory=dict)
    applied: Mapping[str, str] = field(default_factory=dict)


class PresetStore(StateFile):
    """The file of one camera's presets; without a `folder` nothing is saved."""

    def __init__(self, folder: Path | None, name: str) -> None:
        super().__init__(folder, name, "presets", _LARGEST)

    def load(self) -> SavedPresets:
        """What is saved; nothing if the file does not exist, or if it was quarantined."""
        saved, errors = self._read(_parse_file, _NOTHING)
        self._report_ignored(errors, is_all=not saved.own)
        return saved

    def save(self, saved: SavedPresets) -> None:
        """Write the file and sync it to disk; `error` is the reason if that fails."""
        content = {**document(saved.own.values()), "applied": dict(saved.applied)}
        self._write(json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1).encode())


_NOTHING: Final[tuple[SavedPresets, tuple[str, ...]]] = (SavedPresets(), ())


def document(presets: Iterable[Preset]) -> dict[str, Any]:
    """The presets as a JSON document, by name."""
    ordered = sorted(presets, key=lambda preset: (preset.name.casefold(), preset.name))
    return {
        "version": _VERSION,
        "presets": [{"name": each.name, "scope": each.scope, "controls": each.controls} for each in ordered],
    }


def parse_document(content: Any) -> list[Preset]:
    """The presets of a document. Raises BadValue with every error."""
    if not isinstance(content, Mapping) or content.keys() != {"version", "presets"}:
        raise BadValue("body: must be an exported document, a JSON object with version and presets")
    try:
        presets, errors = _parse_presets(content)
    except ValueError as error:
        raise BadValue(f"body: {error}") from error
    if errors:
        raise BadValue("; ".join(errors))
    return presets


def _parse_file(text: str) -> tuple[SavedPresets, tuple[str, ...]]:
    """The presets, and the errors of the parts that were ignored. Raises ValueError for a text that `save` did not
    write."""
    content = json.loads(text)
    if not isinstance(content, Mapping):
        raise ValueError("must be a JSON object")
    presets, errors = _parse_presets(content)
    applied = content.get("applied")
    words = applied.items() if isinstance(applied, Mapping) else ()
    saved = SavedPresets({each.name: each for each in presets}, {part: str(name) for part, name in words})
    return saved, tuple(errors)


def _parse_presets(content: Mapping[str, Any]) -> tuple[list[Preset], list[str]]:
    """The presets, also those whose controls are valid in part, and the errors.

    Raises ValueError for a document of another version.
    """
    entries = content.get("presets")
    if content.get("version") != _VERSION or not isinstance(entries, list):
        raise ValueError(f"must be a version {_VERSION} document with a list of presets")
    presets: dict[str, Preset] = {}
    errors = list[str]()
    for number, entry in enumerate(entries, 1):
        try:
            if not isinstance(entry, Mapping) or entry.keys() != set(_FIELDS):
                raise BadValue(f"must be a JSON object with {', '.join(_FIELDS)}")
            name, scope = parse_name(entry["name"]), entry["scope"]
            if name in presets:
                raise BadValue("name: must be present at most once")
            if scope not in SCOPES:
                raise BadValue(f"scope: must be one of {', '.join(SCOPES)}")
            controls, ignored = parse_controls(entry["controls"], scope)
            errors += [f"preset {number}: {each}" for each in ignored]
            presets[name] = Preset(name, controls, scope)
        except BadValue as error:
            errors.append(f"preset {number}: {error}")
    return list(presets.values()), errors

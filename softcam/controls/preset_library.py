"""The presets of one camera, the built-in ones and the owner's: saves, renames, deletes, applies, exports, imports.

Any thread may call it. A change is complete when the method returns, and on the disk if that responds.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from softcam.controls import capabilities, mapping, preset_store, presets
from softcam.controls.built_in_presets import BUILT_IN
from softcam.controls.controller import ControlManager
from softcam.controls.preset_store import PresetStore, SavedPresets
from softcam.controls.presets import Deviation, Preset, Scope
from softcam.controls.schema import BY_NAME
from softcam.controls.state_file import FileProblems
from softcam.controls.writer import BackgroundWriter
from softcam.errors import BadValue, NoPreset, PresetError

log = logging.getLogger(__name__)

MAX_PRESETS: Final = 100  # of the owner
MAX_BYTES: Final = 60_000  # as exported: a request that imports them has at most 64 KiB
_SHOWN: Final = 60  # characters of an unknown name
_PARTS: Final[Mapping[Scope, tuple[Scope, ...]]] = {
    "look": ("look",),
    "installation": ("installation",),
    "all": ("look", "installation"),
}
# Titles, too: they are what a page shows.
_TAKEN: Final = {word.casefold(): preset for preset in BUILT_IN.values() for word in (preset.name, preset.title)}


@dataclass(frozen=True, slots=True)
class PresetOutcome:
    """What this camera makes of a preset.

    `left_out` are the fields that it does not apply, `limited` those that it applies with another value.
    """

    preset: Preset
    is_in_effect: bool
    left_out: tuple[Deviation, ...]
    limited: tuple[Deviation, ...]


@dataclass(frozen=True, slots=True)
class Current:
    """The preset of a part of the controls; it `is_modified` if the controls were changed since it was applied."""

    name: str
    is_modified: bool


class PresetLibrary:
    """The presets of one camera. An owner's preset hides a built-in one of a later version with the same name."""

    def __init__(self, controls: ControlManager, store: PresetStore, writer: BackgroundWriter) -> None:
        """Load the saved presets."""
        self._controls = controls
        self._store = store
        self._writer = writer  # alone calls the store after the loading
        self._problems = FileProblems(store, writer)
        self._lock = threading.Lock()  # guards changes of `_saved`, which may be read without it
        self._saved = store.load()
        if store.is_unsaved:  # a step of the loading failed
            writer.submit_job(self._save)

    def problems(self) -> dict[str, Any]:
        """The fields of the status that report presets that are not used or not saved, and why."""
        return self._problems.fields()

    def unsaved_note(self) -> str | None:
        """Why the presets are not saved, for the response to a change; None if they are."""
        return self._problems.note()

    # --- reading ----------------------------------------------------------------------------------------------

    def list_all(self) -> list[Preset]:
        """The built-in presets, then the owner's by name."""
        own = self._saved.own
        ordered = sorted(own.values(), key=lambda preset: (preset.name.casefold(), preset.name))
        return [*(preset for name, preset in BUILT_IN.items() if name not in own), *ordered]

    def find(self, name: str) -> Preset:
        """The preset with this name, or the built-in one with this title. Raises NoPreset."""
        preset = self._saved.own.get(name) or _TAKEN.get(name.casefold())
        if preset is None:
            raise NoPreset(f"preset: must be one of /v1/presets; there is none with the name {name[:_SHOWN]!r}")
        return preset

    def outcome(self, preset: Preset) -> PresetOutcome:
        """What this camera makes of a preset, as far as its ranges are known."""
        requested, config = self._controls.requested, self._controls.config
        fitted = presets.fit_preset(requested, preset, config)
        is_in_effect = presets.is_in_effect(requested, preset, config)
        limited = fitted.limited
        if is_in_effect and (opened := self._controls.current_config) is not None:
            # Of the frame rate and the size, the limits are known only once the camera was opened with them.
            texts = (text.partition(": ") for text in capabilities.stream_deviations(requested, opened))
            named = preset.controls.get("stream", {})
            limited += tuple(Deviation(f"stream.{name}", reason) for name, _, reason in texts if name in named)
        return PresetOutcome(preset, is_in_effect, fitted.left_out, limited)

    def notes(self, preset: Preset) -> Iterator[str]:
        """What else keeps an applied preset from its full effect, now or after a restart."""
        controls = self._controls
        if (reason := controls.unsaved_note()) is not None:
            yield reason
        if controls.current_config is None:
            yield "applied when the camera opens"
        if "manual_exposure" in preset.controls:
            yield from mapping.exposure_notes(controls.requested, controls.stream_request, controls.config)
        if "exposure_limits" in preset.controls:
            yield from mapping.limits_notes(controls.requested, controls.stream_request, controls.config)
        if controls.is_night:
            for name, values in preset.controls.items():
                yield from mapping.night_notes(BY_NAME[name], values, controls.requested)

    def outcomes(self) -> list[PresetOutcome]:
        """What this camera makes of all presets: the built-in ones, then the owner's by name."""
        return [self.outcome(preset) for preset in self.list_all()]

    def current(self, outcomes: Sequence[PresetOutcome]) -> Mapping[Scope, Current | None]:
        """The preset of the look and that of the installation: the one in effect, or the one that was modified.

        `outcomes` are those of all presets.
        """
        requested, config = self._controls.requested, self._controls.config
        known = {each.preset.name: each.preset for each in outcomes}
        found: dict[Scope, Current | None] = {}
        for part in _PARTS["all"]:
            last = known.get(self._saved.applied.get(part, ""))
            if last is not None and part not in _PARTS[last.scope]:
                last = None  # saved again with another scope
            names = [each.preset.name for each in outcomes if each.is_in_effect and part in _PARTS[each.preset.scope]]
            if last is not None and presets.is_in_effect(requested, presets.part_of(last, part), config):
                found[part] = Current(last.name, is_modified=False)
            elif names:
                found[part] = Current(names[0], is_modified=False)
            else:
                found[part] = None if last is None else Current(last.name, is_modified=True)
        return found

    def export(self) -> dict[str, Any]:
        """The owner's presets as a JSON document."""
        return preset_store.document(self._saved.own.values())

    # --- changes ----------------------------------------------------------------------------------------------

    def apply(self, name: str) -> PresetOutcome:
        """Replace the controls of the preset's scope, as far as this camera supports it, all or none.

        Raises NoPreset, and the CameraError with which the camera rejected the change.
        """
        preset = self.find(name)
        self._controls.change_several(lambda requested, config: presets.apply_preset(requested, preset, config))
        with self._lock:
            self._saved = _with_applied(self._saved, preset)
        self._writer.submit_job(self._save)
        outcome = self.outcome(preset)
        fields = ", ".join(each.field for each in outcome.left_out)
        log.info("Preset %r applied%s", preset.name, f"; left out: {fields}" if fields else "")
        return outcome

    def save(self, name: str, scope: Scope | None = None, controls: Any = None) -> Preset:
        """Save these controls, or the current ones, under a name; replaces the owner's preset of that name.

        Without a scope it is that of the replaced preset, or the look. Raises BadValue and PresetError.
        """
        name = presets.parse_name(name)
        _reject_built_in(name)

        def add(saved: SavedPresets) -> SavedPresets:
            before = saved.own.get(name)
            chosen: Scope = scope or ("look" if before is None else before.scope)
            if controls is None:
                preset = Preset(name, presets.capture_controls(self._controls.requested, chosen), chosen)
            else:
                parsed, errors = presets.parse_controls(controls, chosen)
                if errors:
                    raise BadValue("; ".join(errors))
                preset = Preset(name, parsed, chosen)
            saved = replace(saved, own={**saved.own, name: preset})
            return _with_applied(saved, preset) if controls is None else saved

        return self._change(add).own[name]

    def rename(self, name: str, new_name: Any) -> Preset:
        """Raises NoPreset, BadValue for an invalid name, and PresetError for one in use or a built-in preset."""
        after = presets.parse_name(new_name)

        def rename(saved: SavedPresets) -> SavedPresets:
            preset = self._find_own(saved, name)
            if after != name:
                _reject_built_in(after)
                if after in saved.own:
                    raise PresetError(f"name: must not be in use; there is a preset {after!r}")
            own = {each: value for each, value in saved.own.items() if each != name}
            applied = {part: after if each == name else each for part, each in saved.applied.items()}
            return SavedPresets({**own, after: replace(preset, name=after)}, applied)

        return self._change(rename).own[after]

    def delete(self, name: str) -> None:
        """Raises NoPreset, and PresetError for a built-in preset."""

        def delete(saved: SavedPresets) -> SavedPresets:
            self._find_own(saved, name)
            return replace(saved, own={each: preset for each, preset in saved.own.items() if each != name})

        self._change(delete)

    def import_document(self, content: Any, *, replace_existing: bool) -> list[Preset]:
        """Add the presets of an exported document, all or none.

        With `replace_existing`, presets of the same names are replaced. Raises BadValue, and PresetError that names the
        presets in use.
        """
        imported = {preset.name: preset for preset in preset_store.parse_document(content)}
        for name in imported:
            _reject_built_in(name)

        def add(saved: SavedPresets) -> SavedPresets:
            in_use = [repr(name) for name in imported if name in saved.own]
            if in_use and not replace_existing:
                raise PresetError(f"name: must not be in use, unless replace is 1; there are {', '.join(in_use)}")
            return replace(saved, own={**saved.own, **imported})

        self._change(add)
        return list(imported.values())

    # --- inside -----------------------------------------------------------------------------------------------

    def _change(self, change: Callable[[SavedPresets], SavedPresets]) -> SavedPresets:
        """Make the result of `change` current and save it. Raises PresetError if it has too many presets."""
        with self._lock:
            saved = change(self._saved)
            is_deletion = len(saved.own) < len(self._saved.own)
            if not is_deletion and (len(saved.own) > MAX_PRESETS or _size(saved) > MAX_BYTES):
                raise PresetError(f"presets: must be at most {MAX_PRESETS}, with {MAX_BYTES} bytes as exported")
            self._saved = saved
        self._writer.run_job(self._save)
        return saved

    def _save(self) -> bool:
        """On the writer's thread. Returns False if it has to be tried again."""
        self._store.save(self._saved)
        return not self._store.is_unsaved

    def _find_own(self, saved: SavedPresets, name: str) -> Preset:
        if name not in saved.own:
            self.find(name)
            raise PresetError(f"preset: must be one of the owner's; {name!r} is built in")
        return saved.own[name]


def _with_applied(saved: SavedPresets, preset: Preset) -> SavedPresets:
    return replace(saved, applied={**saved.applied, **dict.fromkeys(_PARTS[preset.scope], preset.name)})


def _reject_built_in(name: str) -> None:
    if name.casefold() in _TAKEN:
        raise PresetError(f"name: must not be that of a built-in preset; {name!r} is one")


def _size(saved: SavedPresets) -> int:
    document = preset_store.document(saved.own.values())
    return len(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())

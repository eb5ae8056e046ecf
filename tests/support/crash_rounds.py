"""Kills a portal at random moments while it changes, and checks that nothing it has acknowledged is lost.

    python3 -m tests.support.crash_rounds --rounds 100 [--seed 1]

In each round, three clients set a control, save and delete presets, and make and delete recordings, until SIGKILL; some
kills hit the start instead. The next round starts on the same folders. A change without a response may have happened.
"""

import argparse
import calendar
import http.client
import itertools
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import av

from tests.conftest import Portal, portals
from tests.support.http_client import Answer, ask, post
from tests.support.timeouts import PATIENCE_S

_SMALL = ("--width", "160", "--height", "90", "--fps", "20", "--no-autofocus")
_LONGEST_S = 2.0  # of a round, from the first request on
_START_S = 0.6  # a kill during the start is within this time
_EARLY = 0.15  # of the rounds
_MAX_RECORDINGS = 3
_JSON = {"Content-Type": "application/json"}


class Known:
    """What a client knows about one thing: its acknowledged value, and one that was requested without a response."""

    def __init__(self, value: object = None) -> None:
        self._values = [value]

    @property
    def value(self) -> object:
        return self._values[0]

    def request(self, value: object) -> None:
        self._values.append(value)

    def acknowledge(self) -> None:
        self._values = self._values[-1:]

    def settle(self, found: object) -> bool:
        """Whether `found` is possible; it is the value from now on."""
        is_possible, self._values = found in self._values, [found]
        return is_possible

    @property
    def is_open(self) -> bool:
        return len(self._values) > 1


class Rounds:
    """Runs rounds on one pair of folders. `figures` counts what happened, `faults` lists what must not happen."""

    def __init__(self, start: Callable[..., Portal], folder: Path, seed: int) -> None:
        self._start = start
        self._state, self._recordings = folder / "state", folder / "recordings"
        self._random = random.Random(seed)
        self._numbers = itertools.count(1)
        self._brightness = Known(0.0)
        self._presets: dict[str, Known] = {f"crash{number}": Known() for number in range(4)}
        self._files: dict[str, Known] = {}  # True: it exists
        self._is_over = threading.Event()
        self._errors: list[tuple[float, Exception]] = []  # of the clients of this round, by the monotonic clock
        self.figures: Counter[str] = Counter()
        self.faults: list[str] = []
        self.longest_start_s = 0.0

    def run(self) -> None:
        """One round: start, check what the previous kill left, change things, kill."""
        self.figures["rounds"] += 1
        began_s = time.monotonic()
        portal = self._start(*_SMALL, "--state-dir", str(self._state), "--recordings", str(self._recordings))
        if self._random.random() < _EARLY:
            time.sleep(self._random.uniform(0.0, _START_S))
            self.figures["killed during the start"] += 1
        else:
            assert portal.url
            self.longest_start_s = max(self.longest_start_s, time.monotonic() - began_s)
            self.check(portal)
            self._change(portal)
        portal.process.send_signal(signal.SIGKILL)
        portal.end()
        self._check_files()

    def finish(self) -> None:
        """Check what the last kill left, and stop in order."""
        portal = self._start(*_SMALL, "--state-dir", str(self._state), "--recordings", str(self._recordings))
        self.check(portal)
        self._expect(portal.stop() == 0, "a stop in order fails")
        self._expect("Traceback" not in portal.log, portal.log)

    # --- changes ----------------------------------------------------------------------------------------------

    def _change(self, portal: Portal) -> None:
        """Run the clients until the kill, of which they notice a connection that ends."""
        self._is_over.clear()
        self._errors.clear()
        seeds = [self._random.random() for _ in range(3)]
        clients = [
            threading.Thread(target=self._run_client, args=(portal, client, random.Random(seed)), daemon=True)
            for client, seed in zip((self._set_control, self._change_preset, self._record), seeds, strict=True)
        ]
        for client in clients:
            client.start()
        time.sleep(self._random.uniform(0.02, _LONGEST_S))
        killed_s = time.monotonic()
        portal.process.send_signal(signal.SIGKILL)
        self._is_over.set()
        for client in clients:
            client.join(PATIENCE_S)
        for failed_s, error in self._errors:
            self._expect(failed_s >= killed_s, f"a request failed before the kill: {error!r}")
        for known in (self._brightness, *self._presets.values(), *self._files.values()):
            self.figures["changes without a response"] += known.is_open

    def _run_client(self, portal: Portal, act: Callable[[Portal, random.Random], None], chance: random.Random) -> None:
        try:
            while not self._is_over.is_set():
                act(portal, chance)
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
            self._errors.append((time.monotonic(), error))

    def _acknowledge(self, answer: Answer, known: Known, what: str) -> None:
        if answer.status == 200:
            known.acknowledge()
            self.figures[f"acknowledged: {what}"] += 1
        else:
            self.faults.append(f"{what}: {answer.status} {answer.body!r}")

    def _set_control(self, portal: Portal, _chance: random.Random) -> None:
        value = next(self._numbers) % 1000 / 1000
        self._brightness.request(value)
        answer = post(portal, "/v1/camera/image_processing", {"brightness": value})
        self._acknowledge(answer, self._brightness, "controls")

    def _change_preset(self, portal: Portal, chance: random.Random) -> None:
        name = chance.choice([*self._presets])
        known, path = self._presets[name], f"/v1/presets/{name}"
        if known.value is not None and chance.random() < 0.4:
            known.request(None)
            self._acknowledge(ask(portal, path, method="DELETE"), known, "presets deleted")
            return
        value = next(self._numbers) % 1000 / 1000
        known.request(value)
        body = json.dumps({"controls": {"image_processing": {"brightness": value}}}).encode()
        self._acknowledge(ask(portal, path, method="PUT", headers=_JSON, body=body), known, "presets saved")

    def _record(self, portal: Portal, chance: random.Random) -> None:
        # The name of a recording that is deleted in its first second is used again.
        present = [name for name, known in self._files.items() if known.value and _age_s(name) > 2.0]
        if len(present) > _MAX_RECORDINGS:
            name = chance.choice(present)
            self._files[name].request(False)
            answer = ask(portal, f"/v1/recordings/{name}", method="DELETE")
            self._acknowledge(answer, self._files[name], "recordings deleted")
        elif chance.random() < 0.3:
            self._note(post(portal, "/v1/recordings/still", {}).json["recording"]["name"], "stills taken")
        else:
            post(portal, "/v1/recordings/start", {})
            time.sleep(chance.uniform(0.1, 0.8))
            ended = post(portal, "/v1/recordings/stop", {}).json["recording"]
            if ended is not None and ended["name"] is not None:
                self._note(ended["name"], "videos recorded")

    def _note(self, name: str, what: str) -> None:
        self._files[name] = Known(True)
        self.figures[f"acknowledged: {what}"] += 1

    # --- checks -----------------------------------------------------------------------------------------------

    def _expect(self, is_so: bool, fault: str) -> None:
        if not is_so:
            self.faults.append(f"round {self.figures['rounds']}: {fault}")

    def _check_files(self) -> None:
        """The state files as the kill has left them."""
        for path in self._state.glob("[!.]*.json"):
            try:
                json.loads(path.read_text())
            except ValueError as error:
                self._expect(False, f"{path.name} is damaged: {error}")
        self.figures["temporary files after kills"] += sum(1 for _ in self._temporary_files())

    def check(self, portal: Portal) -> None:
        """What a portal that runs again has kept."""
        was_running = ask(portal, "/v1/recordings").json["running"]["video"] is not None
        self.figures["recordings resumed"] += was_running
        if was_running:
            post(portal, "/v1/recordings/stop", {})
        self._check_quarantine()
        fields = ask(portal, "/v1/camera/controls").json["controls"]["image_processing"]["fields"]
        found = fields["brightness"]["value"]
        self._expect(self._brightness.settle(found or 0.0), f"brightness {found}, another one was acknowledged")
        for name, known in self._presets.items():
            answer = ask(portal, f"/v1/presets/{name}")
            value = answer.json["controls"]["image_processing"]["brightness"] if answer.status == 200 else None
            self._expect(known.settle(value), f"preset {name} is {value}, something else was acknowledged")
        # It runs in the background, and no event reports its end.
        self._expect(_becomes_true(lambda: self._is_recovered(portal)), "recordings are not recovered")
        listed = {entry["name"] for entry in ask(portal, "/v1/recordings?limit=500").json["recordings"]}
        for name, known in self._files.items():
            is_listed = name in listed
            self._expect(known.settle(is_listed), f"{name}: {'is' if is_listed else 'is not'} in the list")
        self._files = {name: Known(True) for name in listed}
        for name in sorted(listed):
            self._expect(self._is_playable(name), f"{name} cannot be played")
        is_clean = _becomes_true(lambda: not any(self._temporary_files()))
        self._expect(is_clean, f"left over: {[path.name for path in self._temporary_files()]}")
        self._expect(not [*self._state.glob("*.bad*")], "state was quarantined")

    def _check_quarantine(self) -> None:
        """Controls with which the camera was being opened when the portal was killed may be the reason for its end.

        So they are quarantined, and not lost. They are discarded here, as an owner may do.
        """
        for path in self._state.glob("controls-*.json.bad"):
            self.figures["controls quarantined after a kill while the camera opened"] += 1
            found = json.loads(path.read_text())["asked"]["image_processing"]["brightness"]
            self._expect(self._brightness.settle(found), f"brightness {found} in {path.name}")
            self._brightness.request(0.0)
            path.unlink()

    def _is_recovered(self, portal: Portal) -> bool:
        entries = ask(portal, "/v1/recordings?limit=500").json["recordings"]
        return all(entry["duration_s"] or entry["kind"] == "still" for entry in entries)

    def _is_playable(self, name: str) -> bool:
        try:
            with av.open(str(self._recordings / name)) as container:
                frames = sum(1 for _ in container.decode(video=0))
        except (av.FFmpegError, OSError):
            return False
        self.figures["files played"] += 1
        return frames > 0

    def _temporary_files(self) -> Iterator[Path]:
        """Files that belong to no recording and no state."""
        if self._state.exists():
            yield from self._state.glob(".*")
        if not self._recordings.exists():
            return
        names = {path.name for path in self._recordings.iterdir()}
        hidden = {name for name in names if name.startswith(".")}
        belonging = {f".{name}{suffix}" for name in names - hidden for suffix in (".jpg", ".keep")}
        yield from (self._recordings / name for name in hidden - belonging - {".order"})


def _age_s(name: str) -> float:
    return time.time() - calendar.timegm(time.strptime(name[:19], "%Y-%m-%d_%H-%M-%S"))


def _becomes_true(predicate: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + PATIENCE_S
    while not (is_true := predicate()) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return is_true


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soft-stream-crash-") as folder, portals(Path(folder)) as start:
        rounds = Rounds(start, Path(folder), options.seed)
        for _ in range(options.rounds):
            rounds.run()
        rounds.finish()
    for what, number in sorted(rounds.figures.items()):
        print(f"{number:7} {what}")
    print(f"longest start {rounds.longest_start_s:.1f} s, {time.monotonic() - began_s:.0f} s in all")
    for fault in rounds.faults:
        print(f"FAULT {fault}")
    return 1 if rounds.faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""From what was measured to what is shown: medians over the rounds, the tables, the goals. Pure functions.

A measurement is a flat dict: `round`, `server`, `stage`, `kind`, `viewers`, and the output of the load generator. Each
ratio is computed within one round; the median over the rounds is reported.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Measurement = dict[str, Any]


class Results:
    """The measurements of one run; lookups return None for what was not measured."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        self.measurements = list(measurements)

    @property
    def rounds(self) -> list[int]:
        return sorted({one["round"] for one in self.measurements})

    def find(
        self, number: int, server: str, stage: str, kind: str = "viewers", viewers: int | None = None
    ) -> Measurement | None:
        for one in self.measurements:
            if (one["round"], one["server"], one["stage"], one["kind"]) == (number, server, stage, kind) and (
                viewers is None or one["viewers"] == viewers
            ):
                return one
        return None

    def median(self, value_in: Callable[[int], float | None]) -> float | None:
        """The median of `value_in(round)` over the rounds that have a value."""
        values = [value for number in self.rounds if (value := value_in(number)) is not None]
        return statistics.median(values) if values else None

    def value(
        self, key: str, server: str, stage: str, kind: str = "viewers", viewers: int | None = None
    ) -> float | None:
        """The median of one figure; `latency.p99_ms` is a nested key."""

        def value_in(number: int) -> float | None:
            found: Any = self.find(number, server, stage, kind, viewers)
            for name in key.split("."):
                found = None if found is None else found.get(name)
            return None if found is None else float(found)

        return self.median(value_in)

    def core_share(self, server: str, stage: str, viewers: int) -> float | None:
        """CPU of the server in percent of one core."""
        return self.median(lambda number: _percent(self.find(number, server, stage, viewers=viewers)))

    def added_us(
        self, number: int, server: str, stage: str, viewers: int, *, with_reader: bool = False
    ) -> float | None:
        """CPU microseconds per additional delivered frame, from one client to `viewers`, in one round.

        `with_reader` includes the load generator's CPU time: the kernel charges the transfer to either of the two.
        """
        one, many = self.find(number, server, stage, viewers=1), self.find(number, server, stage, viewers=viewers)
        if one is None or many is None or viewers == 1:
            return None
        frames_per_s = many["frames"] / many["seconds"] - one["frames"] / one["seconds"]
        keys = ["server_cpu_ms", "load_cpu_ms"] if with_reader else ["server_cpu_ms"]
        cpu_ms_per_s = sum(many[key] / many["seconds"] - one[key] / one["seconds"] for key in keys)
        return float(cpu_ms_per_s * 1000 / frames_per_s) if frames_per_s > 0 else None

    def added_median_us(self, server: str, stage: str, viewers: int, *, with_reader: bool = False) -> float | None:
        return self.median(lambda number: self.added_us(number, server, stage, viewers, with_reader=with_reader))

    def added_ratio(self, server: str, other: str, stage: str, viewers: int) -> float | None:
        def ratio_in(number: int) -> float | None:
            ours, theirs = (self.added_us(number, name, stage, viewers) for name in (server, other))
            # A cost below zero means that the measurement was disturbed.
            return ours / theirs if ours is not None and theirs is not None and ours > 0 and theirs > 0 else None

        return self.median(ratio_in)


def _percent(one: Measurement | None) -> float | None:
    return None if one is None else float(one["server_cpu_ms"] / one["seconds"] / 10)


# --- goals -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit for one figure; `measured` is None if a measurement that it needs is missing."""

    what: str
    measured: float | None
    limit: float
    unit: str = "x"
    is_least: bool = False

    @property
    def holds(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.is_least else self.measured <= self.limit


def judge(results: Results) -> list[Goal]:
    """The goals of the streaming engine with the figures of this run.

    The cost and the latency of a frame are compared for `passthrough`, which does the same work with the same bytes as
    the other servers. Rendering and encoding vary by more than the cost of a hundred clients.
    """

    def portal(key: str, kind: str = "viewers", viewers: int | None = None, stage: str = "VGA") -> float | None:
        return results.value(key, "portal", stage, kind, viewers)

    def busy(key: str) -> float | None:
        return results.value(key, "passthrough", "VGA", "busy", None)

    def p99_ratio(number: int) -> float | None:
        # Both stamp a finished JPEG; the pattern camera stamps the exposure, many milliseconds earlier.
        ours, theirs = (results.find(number, name, "VGA", viewers=100) for name in ("passthrough", "limit"))
        if ours is None or theirs is None or not ours["latency"] or not theirs["latency"]:
            return None
        return float(ours["latency"]["p99_ms"] / theirs["latency"]["p99_ms"])

    ratio = results.added_ratio
    return [
        Goal("one more frame, 100 viewers VGA, against ustreamer", ratio("passthrough", "ustreamer", "VGA", 100), 0.30),
        Goal("one more frame, 100 viewers VGA, against the limit", ratio("passthrough", "limit", "VGA", 100), 1.3),
        Goal("one more frame, 200 viewers VGA, against the limit", ratio("passthrough", "limit", "VGA", 200), 1.3),
        Goal(
            "one more frame, 50 viewers 1080p, against ustreamer", ratio("passthrough", "ustreamer", "1080p", 50), 0.25
        ),
        Goal("latency p99, 100 viewers VGA, against the limit", results.median(p99_ratio), 1.5),
        Goal("slowest of 200 viewers", portal("fps_slowest", viewers=200), 29, "fps", is_least=True),
        Goal("longest gap of 200 viewers", portal("gap_longest_ms", viewers=200), 100, "ms"),
        Goal("beside a busy thread, slowest of 100 viewers", busy("fps_slowest"), 28, "fps", is_least=True),
        Goal("beside a busy thread, latency p99", busy("latency.p99_ms"), 10, "ms"),
        Goal("throttled viewer, age of its frames p99", portal("throttled_age.p99_ms", "throttled"), 250, "ms"),
        Goal("one more viewer, user memory", user_bytes_per_viewer(results), 8 * 1024, "bytes"),
        Goal("stuck viewer, kernel memory", portal("kernel_bytes_each", "stuck"), 160 * 1024, "bytes"),
        Goal("first picture on connect, p50", portal("first_picture.p50_ms", "connects"), 5, "ms"),
        # Five, plus those of a frame that is being encoded when counting starts or ends.
        Goal("20 viewers of five qualities, encodes for each frame", portal("encoded_each", "encodes"), 5.1, "encodes"),
        Goal("1080p frame, one viewer, against simplejpeg alone", pipeline_ratio(results), 1.25),
        Goal("1080p frame as MP4, against libx264 alone", portal("ratio", "fmp4 encode", stage="1080p"), 1.15),
        Goal(
            "smaller stream, 640x360 of 1080p, against libx264 alone", portal("ratio", "substream", stage="1080p"), 1.1
        ),
        Goal("ten viewers of MP4, 1080p, against one", portal("ratio", "fmp4 watch", stage="1080p"), 1.1),
        *(
            Goal(
                f"one more RTSP viewer by {transport}, 50 of 1080p, against GStreamer",
                portal(f"{transport.lower()}_ratio", "rtsp", stage="1080p"),
                0.5,
            )
            for transport in ("TCP", "UDP")
        ),
    ]


def user_bytes_per_viewer(results: Results, server: str = "passthrough", stage: str = "VGA") -> float | None:
    """Bytes per client, from the fewest to the most measured; `passthrough`, as rendering allocates megabytes."""

    def value_in(number: int) -> float | None:
        measured = [one for one in results.measurements if (one["round"], one["server"]) == (number, server)]
        watched = [one for one in measured if one["stage"] == stage and one["kind"] == "viewers"]
        if len(watched) < 2:
            return None
        few, many = min(watched, key=lambda one: one["viewers"]), max(watched, key=lambda one: one["viewers"])
        grown_bytes, more = many["user_bytes"] - few["user_bytes"], many["viewers"] - few["viewers"]
        return float(grown_bytes / more)

    return results.median(value_in)


def pipeline_ratio(results: Results, stage: str = "1080p") -> float | None:
    """CPU per frame that the first client adds to the open camera, divided by that of the encoder alone."""

    def value_in(number: int) -> float | None:
        idle, one = results.find(number, "portal", stage, "held open"), results.find(number, "portal", stage, viewers=1)
        encoder = results.find(number, "encoder", stage, "encode")
        if idle is None or one is None or encoder is None or not one["frames"]:
            return None
        cpu_ms_per_s = one["server_cpu_ms"] / one["seconds"] - idle["server_cpu_ms"] / idle["seconds"]
        return float(cpu_ms_per_s / (one["frames"] / one["seconds"]) / encoder["encode_cpu_ms"])

    return results.median(value_in)


def disturbance(results: Results) -> dict[str, float]:
    """CPU use by all other processes during the measurements, in percent of the machine."""
    shares = [one["others_percent"] for one in results.measurements if "others_percent" in one]
    return {"median_percent": statistics.median(shares), "most_percent": max(shares)} if shares else {}


# --- tables ------------------------------------------------------------------------------------------------------


def show(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


QUIET_PERCENT = 10.0  # load by other processes that does not need a warning


def format_machine(here: dict[str, object], results: Results) -> str:
    """The machine, the versions and the load during the measurements."""
    programs = f"Linux {here['kernel']}, Python {here['python']}, ustreamer {here['ustreamer'] or '(none)'}"
    load = f"load average before {here['load_average']}, after {here.get('load_average_after', '-')}"
    lines = [
        f"{here['processor']}, {here['cores']} cores, {programs}, {here['compiler']}",
        f"Median of {len(results.rounds)} rounds; {load}",
    ]
    if shares := disturbance(results):
        lines.append(
            f"Other processes used {shares['median_percent']:.0f} % of the machine (median), "
            f"{shares['most_percent']:.0f} % at most."
        )
        if shares["median_percent"] > QUIET_PERCENT:
            lines.append("THE MACHINE WAS BUSY: latencies and gaps are not representative.")
    return "\n".join(lines)


def format_verdict(goals: Sequence[Goal]) -> str:
    """The missed goals, then those not measured, one line each; or that all goals are met."""
    lines = []
    for word, holds in (("MISSED", False), ("not measured", None)):
        if found := [goal.what for goal in goals if goal.holds is holds]:
            lines.append(f"{len(found)} of {len(goals)} goals {word}: {'; '.join(found)}.")
    return "\n".join(lines) or f"All {len(goals)} goals met."


def format_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = (
        "|" + "|".join("-" * (width + 2) if i == 0 else "-" * (width + 1) + ":" for i, width in enumerate(widths)) + "|"
    )
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def format_stage(
    results: Results, servers: Sequence[str], titles: dict[str, str], stage: str, counts: Sequence[int]
) -> str:
    """CPU per additional frame, and latency, of each server by number of clients."""
    many = [count for count in counts if count > 1]
    costs = [
        [
            titles[name],
            show(results.core_share(name, stage, 1)),
            *(show(results.added_median_us(name, stage, count)) for count in many),
            show(results.added_median_us(name, stage, many[-1], with_reader=True)) if many else "",
        ]
        for name in servers
    ]
    latencies = [
        [
            titles[name],
            *(format_latency(results, name, stage, count) for count in counts),
            show(results.value("fps_slowest", name, stage, viewers=counts[-1]), 2),
        ]
        for name in servers
    ]
    cost_head = [f"{stage}: CPU µs of one more frame", "1: % of a core", *map(str, many)]
    cost_head.append(f"{many[-1]}, reader too" if many else "reader too")
    latency_head = [f"{stage}: latency p50 / p99, ms", *map(str, counts), f"slowest of {counts[-1]}, fps"]
    return f"{format_table(cost_head, costs)}\n\n{format_table(latency_head, latencies)}"


def format_latency(results: Results, server: str, stage: str, viewers: int) -> str:
    p50, p99 = (results.value(f"latency.{key}", server, stage, viewers=viewers) for key in ("p50_ms", "p99_ms"))
    return f"{show(p50)} / {show(p99)}"


def format_rest(results: Results, servers: Sequence[str], titles: dict[str, str], stage: str = "VGA") -> str:
    """The table of the first frame, the throttled and the stuck client, and memory."""

    def kib(value: float | None) -> str:
        return show(None if value is None else value / 1024)

    rows = [
        [
            titles[name],
            show(results.value("first_picture.p50_ms", name, stage, "connects")),
            show(results.value("throttled_age.p50_ms", name, stage, "throttled"), 0),
            # For the portal it would measure rendering.
            kib(None if name == "portal" else user_bytes_per_viewer(results, name, stage)),
            kib(results.value("kernel_bytes_each", name, stage, "stuck")),
        ]
        for name in servers
    ]
    head = [
        f"{stage}",
        "first picture p50, ms",
        "throttled: age p50, ms",
        "one viewer, user KiB",
        "stuck: kernel KiB",
    ]
    return format_table(head, rows)


def format_goals(goals: Sequence[Goal]) -> str:
    verdicts = {True: "met", False: "MISSED", None: "not measured"}
    rows = [
        [
            goal.what,
            f"{'≥' if goal.is_least else '≤'} {goal.limit:g} {goal.unit}",
            show(goal.measured, 2),
            verdicts[goal.holds],
        ]
        for goal in goals
    ]
    return format_table(["goal", "limit", "measured", ""], rows)

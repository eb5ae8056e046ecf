"""Draws the results as an SVG: the servers' CPU by the number of clients, one panel per frame size. Pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 1000, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 170, 64, 52  # margins of a panel; the names of the lines are in the right one
LEAST_TICK_DISTANCE = 16
LABEL_STEP = 15  # least distance between two names
COLOURS = {
    "portal": "#0a7d55",
    "passthrough": "#56b08f",
    "limit": "#7a7a7a",
    "ustreamer": "#c2413b",
    "threads": "#b07d12",
}


@dataclass(frozen=True, slots=True)
class Line:
    """`points` are (viewers, percent of a core)."""

    key: str
    title: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    lines: tuple[Line, ...]


def draw(title: str, note: str, panels: Sequence[Panel]) -> str:
    """Return the SVG. It has a white background, as the page may be dark."""
    width = WIDTH / max(1, len(panels))
    body = "".join(_draw_panel(panel, i * width, width) for i, panel in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12">'
        f"<title>{escape(title)}</title>"
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<text x="{LEFT - 40}" y="24" font-size="16" font-weight="600" fill="#111">{escape(title)}</text>'
        f"{body}"
        f'<text x="{LEFT - 40}" y="{HEIGHT - 8}" font-size="11" fill="#555">{escape(note)}</text>'
        "</svg>\n"
    )


def _draw_panel(panel: Panel, x0: float, width: float) -> str:
    counts = sorted({count for line in panel.lines for count, _ in line.points})
    most = max((share for line in panel.lines for _, share in line.points), default=1.0)
    step = _step(most)
    top_value = math.ceil(most / step) * step or step
    left, right, top, bottom = x0 + LEFT, x0 + width - RIGHT, TOP, HEIGHT - BOTTOM

    def x(count: float) -> float:
        return left + (right - left) * (count / counts[-1] if counts else 0)

    def y(share: float) -> float:
        return bottom - (bottom - top) * share / top_value

    out = [f'<text x="{left}" y="{top - 14}" font-weight="600" fill="#333">{escape(panel.title)}</text>']
    value = 0.0
    while value <= top_value + step / 2:
        out.append(f'<line x1="{left}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#555">{value:g} %</text>')
        value += step
    out += [
        f'<text x="{x(count):.1f}" y="{bottom + 18}" text-anchor="middle" fill="#555">{count}</text>'
        for count in counts
        if count == counts[0] or x(count) - x(counts[0]) > LEAST_TICK_DISTANCE
    ]
    out.append(f'<text x="{right + 16}" y="{bottom + 18}" fill="#555">viewers</text>')
    labels: list[tuple[float, Line]] = []
    for line in panel.lines:
        path = " ".join(f"{x(count):.1f},{y(share):.1f}" for count, share in line.points)
        colour, is_ours = COLOURS.get(line.key, "#333"), line.key == "portal"
        dash = ' stroke-dasharray="5 4"' if line.key == "limit" else ""
        out.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{3 if is_ours else 2}"{dash}/>'
        )
        out += [
            f'<circle cx="{x(count):.1f}" cy="{y(share):.1f}" r="3" fill="{colour}"/>' for count, share in line.points
        ]
        if line.points:
            labels.append((y(line.points[-1][1]), line))
    out += _draw_labels(labels, right + 10, bottom)
    return "".join(out)


def _draw_labels(labels: list[tuple[float, Line]], x: float, bottom: float) -> list[str]:
    """The names, each near the end of its line, moved up where two would overlap."""
    out = []
    above = bottom + LABEL_STEP
    for wanted, line in sorted(labels, key=lambda label: -label[0]):
        above = min(wanted, above - LABEL_STEP)
        weight = ' font-weight="600"' if line.key == "portal" else ""
        colour = COLOURS.get(line.key, "#333")
        out.append(f'<text x="{x:.1f}" y="{above + 4:.1f}" fill="{colour}"{weight}>{escape(line.title)}</text>')
    return out


def _step(most: float) -> float:
    """The distance of grid lines: a round number that results in three to six lines."""
    rough = max(most, 1e-6) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1, 2, 5) if rough <= factor * power), 10 * power)

"""Draws the pauses of a soak as an SVG: memory, threads and descriptors over time. Pure functions."""

from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT, MARGIN, GAP = 760, 150, 60, 24
ROWS = (
    ("rss_mb", "Memory, MB", "#0a7d55"),
    ("threads", "Threads", "#c2413b"),
    ("descriptors", "Descriptors", "#3b5fc2"),
)


def draw(samples: Sequence[Any]) -> str:
    """The SVG; it has a white background, as the page may be dark. Each panel begins at zero."""
    height = len(ROWS) * (HEIGHT + GAP) + GAP
    panels = "".join(_draw_panel(samples, *row, top=GAP + i * (HEIGHT + GAP)) for i, row in enumerate(ROWS))
    minutes = samples[-1].after_s / 60 if samples else 0
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12"><title>Memory, threads and descriptors over {minutes:.0f} '
        f'minutes of random use</title><rect width="{WIDTH}" height="{height}" fill="#fff"/>{panels}</svg>\n'
    )


def _draw_panel(samples: Sequence[Any], name: str, title: str, colour: str, top: float) -> str:
    values = [float(getattr(sample, name)) for sample in samples]
    last_s = max((sample.after_s for sample in samples), default=1.0)
    most = max([*values, 1.0]) * 1.1
    points = [
        (MARGIN + (WIDTH - 2 * MARGIN) * sample.after_s / last_s, top + HEIGHT - HEIGHT * value / most)
        for sample, value in zip(samples, values, strict=True)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    base = top + HEIGHT
    labels = "".join(
        f'<text x="{x + dx:.0f}" y="{y + 4:.1f}" text-anchor="{anchor}" fill="{colour}">{value:g}</text>'
        for (x, y), value, dx, anchor in (
            [(points[0], values[0], -6, "end"), (points[-1], values[-1], 6, "start")] if points else []
        )
    )
    return (
        f'<text x="{MARGIN}" y="{top + 12}" font-weight="600" fill="#333">{title}</text>'
        f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{base}" y2="{base}" stroke="#bbb"/>'
        f'<text x="{WIDTH - MARGIN}" y="{base + 14}" text-anchor="end" fill="#555">{last_s / 60:.0f} min</text>'
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{labels}'
    )

"""The measurement as a figure: a row a workload, a mark a contestant, on a logarithmic axis of time. SVG for papers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from math import ceil, floor, log10
from typing import Final

from mmuemu.bench.figures import Measurement, Row
from mmuemu.bench.table import duration, names
from mmuemu.errors import printable

_MARKS: Final[dict[str, tuple[str, str, str]]] = {
    # shape, colour on light ground, on dark ground
    "python": ("disc", "#0b5cad", "#6cb2ff"),
    "native": ("ring", "#0b5cad", "#6cb2ff"),
    "bare": ("bar", "#30363d", "#d0d7de"),
    "qemu": ("square", "#b35900", "#ffb366"),
    "qiling": ("triangle", "#a3245f", "#ff8fc0"),
    "blink": ("diamond", "#3d7a1f", "#9fdc7c"),
}
_OTHERS: Final = (("cross", "#6b4fa0", "#c4b0f0"), ("plus", "#00707a", "#7fdbe3"), ("cross", "#7a5a00", "#e8cf70"))
_LEFT: Final = 392
_PLOT: Final = 520
_RIGHT: Final = 190
"""Room for who was wrong."""
_ROW: Final = 24
_TOP: Final = 92
_SIZE: Final = 5.0
_SHAPES: Final[dict[str, Callable[[float, float], str]]] = {
    "disc": lambda x, y: f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_SIZE}"/>',
    "ring": lambda x, y: f'<circle class="hollow" cx="{x:.1f}" cy="{y:.1f}" r="{_SIZE + 1.5}"/>',
    "bar": lambda x, y: f'<path d="M{x - 1.5:.1f} {y - 8:.1f}h3v16h-3z"/>',
    "square": lambda x, y: f'<path d="M{x - 4:.1f} {y - 4:.1f}h8v8h-8z"/>',
    "triangle": lambda x, y: f'<path d="M{x:.1f} {y - 5:.1f}l5.5 10h-11z"/>',
    "diamond": lambda x, y: f'<path d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6-6z"/>',
    "cross": lambda x, y: f'<path class="line" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0-8l-8 8"/>',
    "plus": lambda x, y: f'<path class="line" d="M{x - 5:.1f} {y:.1f}h10m-5-5v10"/>',
}
_STYLE: Final = """\
text { font: 13px ui-sans-serif, system-ui, "DejaVu Sans", sans-serif; fill: #1f2328; }
.title { font-size: 17px; font-weight: 600; } .dim { fill: #5c6570; } .ground { fill: #ffffff; }
.grid { stroke: #d5dae0; } .track { stroke: #e9ecf0; } .hollow { fill: none; stroke-width: 2; }
.line { stroke-width: 2.5; }
"""
_DARK: Final = """\
text { fill: #e6e9ee; } .dim { fill: #a1abb8; } .ground { fill: #14171c; } .grid { stroke: #363d47; }
.track { stroke: #252b33; }
"""


def marks(found: Measurement) -> dict[str, tuple[str, str, str]]:
    """(shape, colours) of each contestant that took part; those that nobody knows get what is left."""
    own = iter(_OTHERS * len(found.contestants))
    return {name: _MARKS.get(name) or next(own) for name in names(found)}


def draw(found: Measurement) -> str:
    """The figure. Rows without any figure are left out."""
    rows = [row for row in found.rows if any(row.figure(name) for name in row.results)]
    low, high = _decades(rows)
    shown = marks(found)
    numbers = {name: f"c{number}" for number, name in enumerate(shown)}
    bottom = _TOP + _ROW * len(rows)
    width, tall = _LEFT + _PLOT + _RIGHT, bottom + 56

    def x(seconds: float) -> float:
        return _LEFT + _PLOT * (log10(seconds) - low) / (high - low)

    body = [_text(16, 26, "mmuemu bench", "title"), _text(16, 48, _note(found), "dim"), _legend(shown, numbers)]
    for exponent in range(low, high + 1):
        at = x(10.0**exponent)
        body.append(f'<path class="grid" d="M{at:.1f} {_TOP - 8}V{bottom}"/>\n')
        body.append(
            _text(at, bottom + 18, duration(10.0**exponent).replace(".00", "").replace(".0", ""), "dim", "middle")
        )
    body += [_drawn(row, _TOP + _ROW * number + _ROW / 2, x, shown, numbers) for number, row in enumerate(rows)]
    body.append(_text(16, bottom + 42, "CPU time of one unit, start-up subtracted; further left is faster.", "dim"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {tall}" width="{width}" height="{tall}" '
        f'role="img" aria-label="mmuemu bench">\n<style>\n{_STYLE}{_colours(shown, numbers, 1)}'
        f"@media (prefers-color-scheme: dark) {{\n{_DARK}{_colours(shown, numbers, 2)}}}\n</style>\n"
        f'<rect class="ground" width="{width}" height="{tall}"/>\n{"".join(body)}</svg>\n'
    )


def _decades(rows: list[Row]) -> tuple[int, int]:
    """The powers of ten between which all figures lie."""
    figures = [figure for row in rows for name in row.results if (figure := row.figure(name))] or [1e-6]
    low = floor(log10(min(figures)))
    return low, max(ceil(log10(max(figures))), low + 1)


def _note(found: Measurement) -> str:
    return f"{found.machine.get('cpu', '')}, {found.machine.get('kernel', '')}; rounds: {found.rounds}"


def _colours(shown: dict[str, tuple[str, str, str]], numbers: dict[str, str], which: int) -> str:
    return "".join(
        f".{numbers[name]} {{ fill: {mark[which]}; stroke: {mark[which]}; }}\n" for name, mark in shown.items()
    )


def _legend(shown: dict[str, tuple[str, str, str]], numbers: dict[str, str]) -> str:
    parts, at = [], float(_LEFT)
    for name, mark in shown.items():
        parts.append(f'<g class="{numbers[name]}">{_SHAPES[mark[0]](at, 68)}</g>{_text(at + 12, 72.5, name, "label")}')
        at += 34 + 8 * len(name)
    return "".join(parts)


def _drawn(
    row: Row, y: float, x: Callable[[float], float], shown: dict[str, tuple[str, str, str]], numbers: dict[str, str]
) -> str:
    """A workload: its words, its marks, and who did not get there."""
    parts = [_text(_LEFT - 12, y + 4.5, row.title, "label", "end")]
    parts.append(f'<path class="track" d="M{_LEFT} {y:.1f}h{_PLOT}"/>\n')
    for name, mark in shown.items():
        figure = row.figure(name)
        if figure:
            told = f"<title>{escape(printable(f'{name}: {duration(figure)}'))}</title>"
            parts.append(f'<g class="{numbers[name]}">{told}{_SHAPES[mark[0]](x(figure), y)}</g>\n')
    failed = ", ".join(_failed(row))
    return "".join(parts) + (_text(_LEFT + _PLOT + 12, y + 4.5, failed, "dim") if failed else "")


def _failed(row: Row) -> Iterator[str]:
    return (f"{name}: {found.status}" for name, found in row.results.items() if found.status != "ok")


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escape(printable(text))}</text>\n'

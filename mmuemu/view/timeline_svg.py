"""The picture of a transient window as SVG: one file, no script, readable on light and on dark ground."""

from __future__ import annotations

import re
from html import escape
from textwrap import wrap
from typing import Final

from mmuemu.speculation.trace import NEVER
from mmuemu.view.timeline import Picture, Scale
from mmuemu.view.transient_rows import Row

_ROW: Final = 28
_LETTER: Final = 7.3
"""Width of a letter of the 12 px fixed font."""
_PLOT: Final = 640
_MARGIN: Final = 16
_SENTENCE: Final = 125
"""Letters in a line of the text below."""
_STYLE: Final = """\
text { font: 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1f2328; }
.ground { fill: #ffffff; } .band { fill: #f3f5f8; } .window { fill: #fff4d6; }
.title { font-weight: bold; font-size: 15px; } .dim, .never text { fill: #6b7480; } .opener text { font-weight: bold; }
.grid { stroke: #d5dae1; } .runs { fill: #1f7a8c; } .late { fill: #c9a227; } .open { fill: #5b6ee1; }
.waits { stroke: #8b95a3; stroke-dasharray: 2 3; } .closes { stroke: #c62828; stroke-width: 2; }
.closing { fill: #c62828; } .fill { fill: #b0279b; stroke: #ffffff; }
.arrives { fill: none; stroke: #b0279b; stroke-width: 2; }
.flight { stroke: #b0279b; stroke-dasharray: 5 3; } .marked { fill: #8f1f7e; }
.needs { fill: none; stroke: #55606e; stroke-width: 1.2; } .tip { fill: #55606e; }
@media (prefers-color-scheme: dark) {
text { fill: #e6e9ee; } .ground { fill: #14171c; } .band { fill: #1b2028; } .window { fill: #2e2817; }
.dim, .never text { fill: #8c96a3; } .grid { stroke: #343b46; } .runs { fill: #4fb6c9; } .late { fill: #d9b84a; }
.open { fill: #8796ff; } .waits { stroke: #7d8793; } .closes { stroke: #ff6b6b; } .closing { fill: #ff6b6b; }
.fill { fill: #ee6fdb; stroke: #14171c; } .arrives, .flight { stroke: #ee6fdb; } .marked { fill: #f293e4; }
.needs { stroke: #a4afbd; } .tip { fill: #a4afbd; }
}
"""
_FORBIDDEN: Final = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LEGEND: Final = (
    ("open", "opener not decided"),
    ("runs", "runs"),
    ("late", "no result in time"),
    ("waits", "waits for operands"),
    ("fill", "asks for a line"),
    ("arrives", "line is there"),
    ("needs", "result goes to"),
    ("closes", "window closes"),
    ("shortened", "a stretch drawn shorter"),
)


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    clean = escape(_FORBIDDEN.sub("?", text))
    return (
        f'<text x="{x:.1f}" y="{y:.1f}"{f" class={chr(34)}{style}{chr(34)}" if style else ""}'
        f'{"" if anchor == "start" else f" text-anchor={chr(34)}{anchor}{chr(34)}"} xml:space="preserve">{clean}</text>'
    )


def _rect(x: float, y: float, width: float, height: float, style: str, round: int = 0) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{round}" class="{style}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def _diamond(x: float, y: float, style: str) -> str:
    return f'<path d="M{x:.1f} {y - 6:.1f} l6 6 l-6 6 l-6 -6 z" class="{style}"/>'


class _Drawing:
    """The parts of the picture, and where things lie in it."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        rows = picture.rows
        self.place_x = _MARGIN + 28
        self.text_x = self.place_x + (max(len(row.place) for row in rows) + 2) * _LETTER
        self.plot_x = self.text_x + (max(len(row.text) for row in rows) + 2) * _LETTER
        self.top = 92
        self.bottom = self.top + _ROW * len(rows)
        self.width = max(self.plot_x + _PLOT + 2 * _MARGIN, _SENTENCE * _LETTER + 2 * _MARGIN)
        self.parts: list[str] = []
        self.scale = Scale(picture, _PLOT)

    def x(self, cycle: int) -> float:
        """Where a cycle lies."""
        return self.plot_x + self.scale(cycle)

    def y(self, index: int) -> float:
        """The middle of a row."""
        return self.top + _ROW * index + _ROW / 2

    def grid(self) -> None:
        """Bands, the window's own stretch, and the cycles."""
        left, right = self.x(0), self.x(self.picture.closes)
        for index in range(0, len(self.picture.rows), 2):
            self.parts.append(_rect(_MARGIN, self.top + _ROW * index, self.plot_x - _MARGIN + _PLOT, _ROW, "band"))
        self.parts.append(_rect(left, self.top, right - left, self.bottom - self.top, "window"))
        for cycle in self.scale.labels(self.picture.closes, lambda cycle: (len(str(cycle)) + 1.5) * _LETTER):
            x = self.x(cycle)
            self.parts += [
                _line(x, self.top, x, self.bottom, "grid"),
                _text(x, self.top - 6, str(cycle), "dim", "middle"),
            ]
        for one, two in self.scale.shortened:
            x = (self.x(one) + self.x(two)) / 2
            self.parts.append(_text(x, self.top - 5, "\u2248", "title", "middle"))
        self.parts.append(_text(self.plot_x - 3 * _LETTER, self.top - 6, "cycle", "dim", "end"))

    def row(self, index: int, row: Row) -> None:
        """One instruction: its words and its bar."""
        y, closes = self.y(index), self.picture.closes
        number = str(row.number) if row.number else ""
        never = row.state == "never"
        style = "never" if row.kind == "gap" or (row.kind == "step" and row.state in ("never", "ends")) else row.kind
        words = [_text(_MARGIN + 20, y + 4, number, "dim", "end"), _text(self.place_x, y + 4, row.place, "dim")]
        words.append(_text(self.text_x, y + 4, row.text))
        self.parts.append(f'<g class="{style}">{"".join(words)}</g>')
        if row.kind == "step" and (never or (row.waits and row.start > 0 and row.state != "ends")):
            self.parts.append(_line(self.x(0), y + 2, self.x(closes if never else row.start), y + 2, "waits"))
        if row.kind == "opener":
            self._bar(0, closes, y, "open")
        elif not never and row.state != "ends":
            self._bar(row.start, row.done if row.state == "runs" else closes, y, row.state)

    def _bar(self, start: int, end: int, y: float, style: str) -> None:
        self.parts.append(_rect(self.x(start), y - 4, max(self.x(end) - self.x(start), 3), 12, style, 2))

    def needs(self, index: int, row: Row) -> None:
        """An arrow from each row whose result this one waited for."""
        if row.state in ("never", "ends"):
            return
        end = self.picture.closes if row.kind == "opener" else row.start
        for source in row.waits:
            origin = self.picture.rows[source]
            if origin.done >= NEVER:
                continue
            begin = min(origin.done, end) if origin.kind != "opener" else min(0, end)
            x1, y1, x2, y2 = self.x(begin), self.y(source) + 9, self.x(end), self.y(index) - 5
            way = f"M{x1:.1f} {y1:.1f} V{y2 - 8:.1f} H{x2:.1f} V{y2 - 2:.1f}"
            self.parts.append(
                f'<path d="{way}" class="needs"/><path d="M{x2:.1f} {y2:.1f} l-4 -6 l8 0 z" class="tip"/>'
            )

    def fills(self, index: int, row: Row) -> None:
        """The lines that a row filled."""
        y = self.y(index) + 2
        for mark in row.fills:
            x = self.x(mark.cycle)
            end = self.x(mark.arrives) if mark.arrives < NEVER else self.plot_x + _PLOT
            self.parts.append(_line(x, y, end, y, "flight"))
            if mark.arrives < NEVER:
                self.parts.append(_diamond(end, y, "arrives"))
            self.parts.append(_diamond(x, y, "fill"))
            label = f"{mark.label} from {mark.level} ({mark.causes})"
            room = self.plot_x + _PLOT - len(label) * _LETTER
            self.parts.append(_text(max(min(x + 10, room), self.plot_x), y - 8, label, "marked"))

    def closing(self) -> None:
        """The line where everything younger than the opener is gone."""
        x = self.x(self.picture.closes)
        self.parts.append(_line(x, self.top - 2, x, self.bottom, "closes"))
        label = f"closes at {self.picture.closes}"
        middle = min(x, self.width - _MARGIN - len(label) * _LETTER / 2)
        self.parts.append(_text(middle, self.top - 22, label, "closing", "middle"))

    def legend(self, y: float) -> None:
        """What the signs mean."""
        x: float = _MARGIN
        for style, meaning in _LEGEND:
            self.parts.append(_sign(style, x, y))
            self.parts.append(_text(x + 28, y + 4, meaning))
            x += 28 + (len(meaning) + 2) * _LETTER
            if x > self.width - 24 * _LETTER:
                x, y = _MARGIN, y + _ROW


def _sign(style: str, x: float, y: float) -> str:
    if style in ("waits", "closes"):
        return _line(x, y, x + 20, y, style)
    if style in ("fill", "arrives"):
        return _diamond(x + 10, y, style)
    if style == "shortened":
        return _text(x + 10, y + 5, "\u2248", "title", "middle")
    if style == "needs":
        return f'<path d="M{x} {y} h16" class="needs"/><path d="M{x + 20} {y} l-6 -4 l0 8 z" class="tip"/>'
    return _rect(x, y - 6, 20, 12, style, 2)


def svg(picture: Picture, subtitle: str) -> str:
    """The picture as the text of an SVG file; ``subtitle`` says what run it is of."""
    drawing = _Drawing(picture)
    drawing.grid()
    for draw in (drawing.row, drawing.needs, drawing.fills):
        for index, row in enumerate(picture.rows):
            draw(index, row)
    drawing.closing()
    y = drawing.bottom + 28
    drawing.legend(y)
    y += 2 * _ROW + 12
    for sentence in picture.words:
        for piece in wrap(sentence, _SENTENCE) or [""]:
            drawing.parts.append(_text(_MARGIN, y, piece))
            y += 18
        y += 4
    width, height = round(drawing.width), round(y + 4)
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<title>{escape(_FORBIDDEN.sub('?', picture.title))}</title>",
        f"<style>{_STYLE}</style>",
        _rect(0, 0, width, height, "ground"),
        _text(_MARGIN, 26, picture.title, "title"),
        _text(_MARGIN, 46, subtitle, "dim"),
    ]
    return "\n".join([*head, *drawing.parts, "</svg>", ""])

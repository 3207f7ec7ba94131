"""The picture of a transient window in a terminal."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.console import Console
from rich.text import Text

from mmuemu.speculation.trace import NEVER
from mmuemu.view.timeline import Picture, Scale
from mmuemu.view.transient_rows import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_WIDTH: Final = 60
MOST_WIDTH: Final = 400
_WIDE: Final = 110
"""From this width on the place of each instruction has a column."""


class _Signs(NamedTuple):
    """What a timeline is drawn with."""

    waits: str
    runs: str
    late: str
    open: str
    fill: str
    arrives: str
    closes: str
    shortened: str
    tick: str


UNICODE: Final = _Signs("·", "█", "░", "═", "◆", "◇", "│", "≈", "┬")
ASCII: Final = _Signs(".", "#", "-", "=", "*", "o", "|", "/", "+")
_STYLES: Final = _Signs(
    waits="dim", runs="cyan", late="yellow", open="bold blue", fill="bold magenta", arrives="magenta", closes="red",
    shortened="dim", tick="dim",
)  # fmt: skip
_MEANINGS: Final = _Signs(
    waits="waits for its operands",
    runs="runs",
    late="began, no result in time",
    open="the opener is not decided",
    fill="asks for a line",
    arrives="the line is there",
    closes="the window closes",
    shortened="a stretch drawn shorter",
    tick="",
)


class _Bar:
    """The timeline of one row: a sign and its style in each column."""

    def __init__(self, scale: Scale, width: int, signs: _Signs) -> None:
        self._scale = scale
        self._signs = signs
        self._cells = [(" ", "")] * width

    def draw(self, what: str, start: int, end: int | None = None) -> None:
        """From ``start`` up to but not including ``end``, at least one column."""
        first = int(self._scale(start))
        last = max(first + 1, first if end is None else int(self._scale(end)))
        cell = (getattr(self._signs, what), getattr(_STYLES, what))
        self._cells[first:last] = [cell] * (last - first)

    def text(self) -> Text:
        """The finished bar."""
        out = Text()
        for sign, style in self._cells:
            out.append(sign, style)
        return out


def _bar(row: Row, picture: Picture, scale: Scale, width: int, signs: _Signs) -> Text:
    bar = _Bar(scale, width, signs)
    closes = picture.closes
    never = row.state == "never"
    if row.kind == "step" and (never or (row.waits and row.start > 0 and row.state != "ends")):
        bar.draw("waits", 0, closes if never else row.start)
    if row.kind == "opener":
        bar.draw("open", 0, closes)
    elif not never and row.state != "ends":
        bar.draw(row.state, row.start, row.done if row.state == "runs" else closes)
    if row.kind != "before":
        bar.draw("closes", closes)
    for mark in row.fills:
        if mark.arrives < NEVER:
            bar.draw("arrives", mark.arrives)
        bar.draw("fill", mark.cycle)
    return bar.text()


def _axis(picture: Picture, scale: Scale, width: int, signs: _Signs) -> tuple[str, str]:
    """The line of numbers and the line of marks."""
    numbers, marks = [" "] * width, [" "] * width
    for one, two in scale.shortened:
        middle = int((scale(one) + scale(two)) / 2)
        marks[middle - 1 : middle + 1] = signs.shortened * 2
    for cycle in scale.labels(picture.closes, lambda cycle: len(str(cycle)) + 2):
        column, text = int(scale(cycle)), str(cycle)
        marks[column] = signs.tick
        at = min(max(column - len(text) // 2, 0), width - len(text))
        numbers[at : at + len(text)] = text
    return "".join(numbers[:width]), "".join(marks[:width])


def _legend(signs: _Signs, width: int) -> Text:
    out = Text(style="dim")
    used = 0
    for name, meaning in _MEANINGS._asdict().items():
        if not meaning:
            continue
        item = f"{getattr(signs, name)} {meaning}"
        if used and used + len(item) + 3 > width:
            out.append("\n")
            used = 0
        elif used:
            out.append("   ")
            used += 3
        out.append(getattr(signs, name), getattr(_STYLES, name))
        out.append(item[1:])
        used += len(item)
    return out


def _columns(rows: Sequence[Row], width: int) -> tuple[int, int, int]:
    """Widths of place (0: not shown), instruction and waits."""
    waits = min(max([len("waits"), *(len(_waits(rows, row)) for row in rows)]), 9)
    text = min(max([len("instruction"), *(len(row.text) for row in rows)]), width * 2 // 5)
    place = min(max(len(row.place) for row in rows), 24) if width >= _WIDE else 0
    return place, text, waits


def _waits(rows: Sequence[Row], row: Row) -> str:
    return ",".join(str(rows[index].number) for index in row.waits)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"


def _cut_place(text: str, width: int) -> str:
    """A name with its distance, the name cut."""
    name, plus, distance = text.rpartition("+")
    return _cut(name, width - len(distance) - 1) + plus + distance if plus and len(text) > width else _cut(text, width)


def draw(picture: Picture, console: Console) -> None:
    """Print the picture at the console's width; without colour it says the same."""
    width = min(max(console.width, LEAST_WIDTH), MOST_WIDTH)
    signs = UNICODE if (console.encoding or "").lower().startswith("utf") else ASCII
    rows = picture.rows
    place, text, waits = _columns(rows, width)
    digits = len(str(max(row.number for row in rows)))
    indent = digits + 1 + (place + 1 if place else 0) + text + 1 + waits + 1
    room = width - indent
    scale = Scale(picture, room - 1)

    def line(text: Text) -> None:
        text.rstrip()
        console.print(text, no_wrap=True, overflow="ignore", crop=False, highlight=False, soft_wrap=True)

    line(Text(picture.title, "bold"))
    heads = [f"{'#':>{digits}}", *([f"{'at':<{place}}"] if place else []), f"{'instruction':<{text}}", "waits"]
    numbers, marks = _axis(picture, scale, room, signs)
    line(Text(f"{'cycle':>{indent - 1}} {numbers}".rstrip(), "dim"))
    line(Text(f"{' '.join(heads):<{indent}}", "bold").append(marks.rstrip(), "dim"))
    for row in rows:
        style = {"opener": "bold", "gap": "dim italic", "before": "dim"}.get(
            row.kind, "dim" if row.state == "never" else ""
        )
        cells = [f"{row.number or '':>{digits}}", *([f"{_cut_place(row.place, place):<{place}}"] if place else [])]
        cells += [f"{_cut(row.text, text):<{text}}", f"{_cut(_waits(rows, row), waits):<{waits}}"]
        out = Text(" ".join(cells) + " ", style)
        line(out.append_text(_bar(row, picture, scale, room, signs)))
    for row in rows:
        for mark in row.fills:
            arrives = f"there at {mark.arrives}" if mark.arrives < NEVER else "never there"
            line(Text(f"{row.number:>{digits}} ").append(signs.fill, _STYLES.fill).append(
                f" {mark.label} from {mark.level}, asked for at {mark.cycle}, {arrives}; cause: {mark.causes}"
            ))  # fmt: skip
    line(Text())
    line(_legend(signs, width))
    line(Text())
    for sentence in picture.words:
        for piece in wrap(sentence, width):
            line(Text(piece))

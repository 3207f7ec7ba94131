"""One transient window as a picture: rows of instructions against cycles, before anybody draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mmuemu.speculation.trace import NEVER
from mmuemu.view.listing import printable
from mmuemu.view.transient import where
from mmuemu.view.transient_file import Traced
from mmuemu.view.transient_rows import Row, rows_of
from mmuemu.view.transient_words import sentences

MOST_ROWS: Final = 40
"""Windows with more rows show those that matter."""


@dataclass(slots=True)
class Picture:
    """All that a renderer needs. Cycle 0 is where the window opens."""

    title: str
    rows: list[Row]
    first: int
    """The earliest cycle shown, at most 0."""
    closes: int
    last: int
    words: list[str]
    """Sentences that say what happened."""
    hidden: int = 0
    """Instructions that are not shown."""


def _needed(rows: list[Row]) -> set[int]:
    """The rows that a picture cannot do without: what led to the fills, the opener, the ends."""
    opener = next(index for index, row in enumerate(rows) if row.kind == "opener")
    wanted = {index for index, row in enumerate(rows) if row.fills or row.note.startswith(("forwarded", "nested"))}
    wanted |= {opener, opener + 1, len(rows) - 1} & set(range(len(rows)))
    queue = list(wanted)
    while queue:
        for one in rows[queue.pop()].waits:
            if one not in wanted:
                wanted.add(one)
                queue.append(one)
    return wanted


def _shortened(rows: list[Row], limit: int) -> tuple[list[Row], int]:
    """At most about ``limit`` rows, gaps in place of the others, and how many those are."""
    if len(rows) <= limit:
        return rows, 0
    wanted = sorted(_needed(rows))
    wanted = wanted[: limit // 2] + wanted[-(limit - limit // 2) :] if len(wanted) > limit else wanted
    out: list[Row] = []
    moved: dict[int, int] = {}
    previous = -1
    for index in wanted:
        if index - previous > 1:
            missing = index - previous - 1
            text = f"({missing} instruction{'s' if missing > 1 else ''} not shown)"
            out.append(Row("gap", 0, "", text, NEVER, NEVER))
        moved[index] = len(out)
        out.append(rows[index])
        previous = index
    for row in out:
        row.waits = [moved[one] for one in row.waits if one in moved]
    return out, len(rows) - len(wanted)


def picture(traced: Traced, limit: int | None = MOST_ROWS) -> Picture:
    """The picture of a window, of at most about ``limit`` rows (None: all of them)."""
    window = traced.window
    rows = rows_of(traced)
    words = sentences(traced, rows)
    for number, row in enumerate(rows, 1):
        row.number = number
    closes = window.closes - window.opened
    times = [time for row in rows for time in (row.start, row.done) if time < NEVER]
    times += [time for row in rows for mark in row.fills for time in (mark.cycle, mark.arrives) if time < NEVER]
    shown, hidden = _shortened(rows, len(rows) if limit is None else limit)
    return Picture(
        title=f"Window {window.number}: {printable(window.flaw)} at {where(traced, window.opener)}",
        rows=shown,
        first=min([0, *times]),
        closes=closes,
        last=max([closes, 1, *times]),
        words=words,
        hidden=hidden,
    )


def ticks(first: int, last: int, most: int) -> list[int]:
    """Round cycles between ``first`` and ``last``, at most about ``most``."""
    step = 1
    while (last - first) / step > most:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return list(range(-(-first // step) * step, last + 1, step))

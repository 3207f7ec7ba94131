"""One transient window as a picture: rows of instructions against cycles, before anybody draws it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import log2
from typing import Final

from mmuemu.errors import printable
from mmuemu.speculation.trace import NEVER
from mmuemu.view.transient import where
from mmuemu.view.transient_file import Traced
from mmuemu.view.transient_rows import Row, rows_of
from mmuemu.view.transient_words import sentences

MOST_ROWS: Final = 40
"""Windows with more rows show those that matter."""
PLAIN_CYCLES: Final = 12
"""Longer stretches in which nothing begins or ends are shortened, to about the logarithm."""


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
    wanted |= {opener, min(opener + 1, len(rows) - 1)}
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
    for index in [*wanted, len(rows)]:
        missing = index - previous - 1
        if missing:
            text = f"({missing} instruction{'s' if missing > 1 else ''} not shown)"
            out.append(Row("gap", 0, "", text, NEVER, NEVER, state="never"))
        if index < len(rows):
            moved[index] = len(out)
            out.append(rows[index])
        previous = index
    for row in out:
        row.waits = [moved[one] for one in row.waits if one in moved]
    return out, len(rows) - len(wanted)


def times_of(row: Row, closes: int) -> list[int]:
    """The cycles in which something of a row is drawn."""
    times = [] if row.state in ("never", "ends") else [row.start, row.done if row.state == "runs" else closes]
    times += [time for mark in row.fills for time in (mark.cycle, mark.arrives) if time < NEVER]
    return times


def picture(traced: Traced, limit: int | None = MOST_ROWS) -> Picture:
    """The picture of a window, of at most about ``limit`` rows (None: all of them)."""
    window = traced.window
    rows = rows_of(traced)
    words = sentences(traced, rows)
    for number, row in enumerate(rows, 1):
        row.number = number
    closes = window.closes - window.opened
    shown, hidden = _shortened(rows, len(rows) if limit is None else limit)
    times = [time for row in shown for time in times_of(row, closes)]
    return Picture(
        title=f"Window {window.number}: {printable(window.flaw)} at {where(traced, window.opener)}",
        rows=shown,
        first=min([0, *times]),
        closes=closes,
        last=max([closes, 1, *times]),
        words=words,
        hidden=hidden,
    )


class Scale:
    """Cycles to places from 0 to ``width``. Stretches in which nothing begins or ends are shortened."""

    def __init__(self, picture: Picture, width: float) -> None:
        times = {picture.first, 0, picture.closes, picture.last}
        for row in picture.rows:
            times.update(times_of(row, picture.closes))
        self.events = sorted(times)
        """The cycles in which something begins or ends."""
        self.shortened: list[tuple[int, int]] = []
        places = [0.0]
        for one, two in pairwise(self.events):
            length = two - one
            if length > PLAIN_CYCLES:
                self.shortened.append((one, two))
            over = max(length / PLAIN_CYCLES, 1)
            places.append(places[-1] + min(length, PLAIN_CYCLES) + PLAIN_CYCLES / 4 * log2(over))
        whole = places[-1] or 1.0
        self._places = [place * width / whole for place in places]

    def __call__(self, cycle: int) -> float:
        """The place of a cycle; those beyond the ends lie at them."""
        index = bisect_left(self.events, cycle)
        if index == len(self.events) or self.events[index] == cycle or not index:
            return self._places[min(index, len(self._places) - 1)]
        one, two = self.events[index - 1 : index + 1]
        left, right = self._places[index - 1 : index + 1]
        return left + (cycle - one) * (right - left) / (two - one)

    def labels(self, closes: int, room: Callable[[int], float]) -> list[int]:
        """The cycles to write on the axis, no two nearer than they have ``room`` for; the important ones first."""
        chosen: list[int] = []
        for cycle in dict.fromkeys([0, closes, self.events[-1], self.events[0], *self.events]):
            here = self(cycle)
            if all(abs(self(other) - here) >= (room(other) + room(cycle)) / 2 for other in chosen):
                chosen.append(cycle)
        return sorted(chosen)

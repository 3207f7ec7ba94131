"""The rows of a transient window: its instructions with what waited for what and which lines each filled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mmuemu.cpu.decode import accesses
from mmuemu.errors import printable
from mmuemu.speculation.trace import NEVER, Step
from mmuemu.view.listing import named
from mmuemu.view.transient import LEVELS, instruction, where
from mmuemu.view.transient_file import Traced

LINE: Final = 64
LONG_CYCLES: Final = 40
"""Windows so long had an opener that waited for memory."""
_SCALING: Final = ("shl", "sal", "imul", "mul", "sll")
BRANCHES: Final = frozenset({"v1", "v2", "rsb"})
"""What opens at a prediction: the opener gives those behind it no data."""


@dataclass(slots=True)
class Mark:
    """A line that a row filled: requested at ``cycle``, there at ``arrives`` (of the picture's time, or NEVER)."""

    cycle: int
    arrives: int
    label: str
    level: str
    causes: str


@dataclass(slots=True)
class Row:
    """One instruction. Times count from the window's opening; NEVER stays NEVER."""

    kind: str
    """``before`` (older than the window), ``opener``, ``step``, or ``gap``: rows that are not shown."""
    address: int
    place: str
    text: str
    start: int
    done: int
    number: int = 0
    waits: list[int] = field(default_factory=list)
    """Indexes of the rows whose results it waited for."""
    address_from: list[int] | None = None
    """Indexes of the rows that last wrote the registers its address is made of; None when the code does not tell."""
    note: str = ""
    fills: list[Mark] = field(default_factory=list)
    loads: bool = False
    linear: int | None = None
    data: str = ""
    """What it loaded or stored, by name; empty when that is not known."""
    level: int = 0
    state: str = "runs"
    """``runs``; ``late``: it began and had no result before the window closed; ``never``: its operands were not there
    in time, it did nothing; ``ends``: nothing younger could start because of it."""


def _relative(cycle: int, opened: int) -> int:
    return NEVER if cycle >= NEVER else cycle - opened


def _row(traced: Traced, step: Step, kind: str) -> Row:
    opened = traced.window.opened
    return Row(
        kind=kind,
        address=step.address,
        place=where(traced, step.address),
        text=named(step.code, step.address, traced.symbols),
        start=_relative(step.start, opened),
        done=_relative(step.done, opened),
        note=printable(step.note),
        loads=step.level > 0 or step.note.startswith("forwarded") or accesses(step.code).loads,
        linear=step.linear,
        data="" if step.linear is None else where(traced, step.linear),
        level=step.level,
    )


def rows_of(traced: Traced) -> list[Row]:
    """The rows of a window, in program order, with what waited for what and the lines that each filled."""
    window = traced.window
    before = window.before or [
        Step(address, traced.instruction(address), NEVER, NEVER) for address in window.waited_for
    ]
    rows = [_row(traced, step, "before") for step in before]
    latest = {row.address: index for index, row in enumerate(rows)}
    for row, step in zip(rows, before, strict=True):
        row.waits = [latest[one] for one in step.waits_for if one in latest and rows[latest[one]] is not row]
    opener = len(rows)
    rows.append(
        Row(
            kind="opener",
            address=window.opener,
            place=where(traced, window.opener),
            text=instruction(traced, window.opener) or "(?)",
            start=0,
            done=window.closes - window.opened,
            waits=sorted({latest[one] for one in window.waited_for if one in latest}),
            loads=window.flaw not in BRANCHES,
        )
    )
    latest[window.opener] = opener
    writers = dict.fromkeys(accesses(traced.instruction(window.opener)).writes, opener)
    steps = window.steps
    if steps and steps[0].address == window.start == window.opener:
        _join(rows[opener], _row(traced, steps[0], "step"))
        steps = steps[1:]
    for step in steps:
        row = _row(traced, step, "step")
        row.waits = sorted({latest[one] for one in step.waits_for if one in latest})
        what = accesses(step.code)
        if what.address or what.loads:
            row.address_from = sorted({writers[register] for register in what.address if register in writers})
        writers.update(dict.fromkeys(what.writes, len(rows)))
        latest[step.address] = len(rows)
        rows.append(row)
    _place_fills(traced, rows, opener)
    for row in rows:
        _judge(row, window.closes - window.opened)
    if steps and window.reason and steps[-1].note == window.reason:
        rows[-1].state = "ends"
    return rows


def _join(opener: Row, step: Row) -> None:
    """A window that begins with its opener (a load that faults, or passes a store): one row for both."""
    opener.note, opener.linear, opener.data, opener.level = step.note, step.linear, step.data, step.level


def _judge(row: Row, closes: int) -> None:
    """Find the row's state; an access that asked for a line began when it did, whenever its data came."""
    if row.kind == "opener":
        return
    row.start = min([row.start, *(mark.cycle for mark in row.fills)])
    if (row.start >= min(closes, NEVER) and not row.fills and row.kind == "step") or row.start >= NEVER:
        row.state = "never"
    elif row.kind == "step" and row.done > closes:
        row.state = "late"


def _place_fills(traced: Traced, rows: list[Row], opener: int) -> None:
    """Give each fill to the row that made it: the one at its address whose time it falls into, else the last there."""
    opened = traced.window.opened
    for fill in traced.window.fills:
        cycle = fill.cycle - opened
        mark = Mark(
            cycle=cycle,
            arrives=_relative(fill.arrives, opened),
            label=where(traced, fill.linear),
            level=LEVELS.get(fill.level, str(fill.level)),
            causes=printable(" > ".join(fill.causes)),
        )
        there = [row for row in rows[opener:] if row.address == fill.address]
        timely = [row for row in there if cycle <= row.done and not row.fills and row.kind != "before"]
        for row in timely[:1] or there[-1:]:
            if row.linear is not None and row.linear & -LINE == fill.linear & -LINE:
                mark.label = row.data
            row.fills.append(mark)
            row.loads = True


def path_of(rows: list[Row], index: int) -> list[int]:
    """From the nearest load that the address of row ``index``'s access was made of to that row, as far as the window
    tells; empty without such a load."""
    row = rows[index]
    came_from = {index: index}
    queue = [(one, index) for one in reversed(row.waits if row.address_from is None else row.address_from)]
    while queue:
        at, after = queue.pop(0)
        if at in came_from:
            continue
        came_from[at] = after
        if rows[at].loads and rows[at].kind != "before":
            path = [at]
            while path[-1] != index:
                path.append(came_from[path[-1]])
            return path
        queue += [(one, at) for one in reversed(rows[at].waits)]
    return []


def _scaled(rows: list[Row], path: list[int]) -> bool:
    """Whether what was read became an index of lines on the way."""
    return any(rows[at].text.startswith(_SCALING) for at in path[1:]) or any("*" in rows[at].text for at in path[1:])


def interest(traced: Traced) -> tuple[bool, bool, bool, bool, int]:
    """How much there is to see in a window: the larger, the more.

    Most telling is a fill whose address was computed of what a transient load read, as an index (not as when a list is
    walked), in a window that was open for long, with little else in it.
    """
    window = traced.window
    rows = rows_of(traced) if window.fills else []
    paths = [path_of(rows, index) for index, row in enumerate(rows) if row.fills]
    long = window.closes - window.opened >= LONG_CYCLES
    return any(_scaled(rows, path) for path in paths), any(paths), long and any(paths), bool(rows), -len(window.fills)

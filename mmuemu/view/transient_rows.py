"""The rows of a transient window: its instructions with what waited for what and which lines each filled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mmuemu.cpu.decode import accesses
from mmuemu.speculation.trace import NEVER, Step
from mmuemu.view.listing import named, printable
from mmuemu.view.transient import LEVELS, instruction, where
from mmuemu.view.transient_file import Traced

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
    address_from: list[int] = field(default_factory=list)
    """Indexes of the rows that last wrote the registers its address is made of."""
    note: str = ""
    fills: list[Mark] = field(default_factory=list)
    loads: bool = False
    data: str = ""
    """What it loaded or stored, by name."""
    level: int = 0
    state: str = "runs"
    """``runs``; ``late``: it began and had no result before the window closed; ``never``: its operands were not there
    in time, it did nothing."""


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
        row.address_from = sorted({writers[register] for register in what.address if register in writers})
        writers.update(dict.fromkeys(what.writes, len(rows)))
        latest[step.address] = len(rows)
        rows.append(row)
    _place_fills(traced, rows, opener)
    for row in rows:
        _judge(row, window.closes - window.opened)
    return rows


def _join(opener: Row, step: Row) -> None:
    """A window that begins with its opener (a load that faults, or passes a store): one row for both."""
    opener.note, opener.data, opener.level = step.note, step.data, step.level


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
            row.fills.append(mark)
            row.loads = True


def source_of(rows: list[Row], index: int) -> int | None:
    """The nearest load that the address of row ``index``'s access was made of, as far as the window tells."""
    seen = {index}
    queue = list(reversed(rows[index].address_from or rows[index].waits))
    while queue:
        at = queue.pop(0)
        if at in seen:
            continue
        seen.add(at)
        if rows[at].loads and rows[at].kind != "before":
            return at
        queue += [one for one in reversed(rows[at].waits) if one not in seen]
    return None


def interest(traced: Traced) -> tuple[int, int, int, int]:
    """How much there is to see in a window: the larger, the more."""
    rows = rows_of(traced)
    telling = [row for index, row in enumerate(rows) if row.fills and source_of(rows, index) is not None]
    fills = traced.window.fills
    farthest = max((fill.level for fill in fills), default=0)
    return len(telling), farthest, len(fills), len(traced.window.steps)

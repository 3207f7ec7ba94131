"""What happened in a transient window, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.errors import printable
from mmuemu.speculation.flaws import FLAWS
from mmuemu.view.transient import LEVELS, span, where
from mmuemu.view.transient_rows import path_of

if TYPE_CHECKING:
    from mmuemu.view.transient_file import Traced
    from mmuemu.view.transient_rows import Row

_PREDICTED: Final = "{opener} waited {wait}. Meanwhile the CPU went where {predictor} said, to {start}"
_FAULTS: Final = "{opener} {why} and will fault; that takes effect only after {wait}. Until then {what}"
_DATA: Final = "its data went on to the instructions behind it"
_OPENINGS: Final[dict[str, str]] = {
    "v1": _PREDICTED.replace("{predictor}", "the pattern history table"),
    "v2": _PREDICTED.replace("{predictor}", "the branch target buffer"),
    "rsb": _PREDICTED.replace("{predictor}", "the return stack buffer"),
    "v4": "{opener} did not wait for the address of an older store, which came only after {wait}: it read what memory "
    "held before that store",
    "meltdown": _FAULTS.replace("{why}", "reads what only ring 0 may (U/S)").replace("{what}", _DATA),
    "meltdown-rw": _FAULTS.replace("{why}", "writes where it may only read (R/W)").replace(
        "{what}", "younger loads got the bytes it stored"
    ),
    "meltdown-pk": _FAULTS.replace("{why}", "reads what a protection key forbids").replace("{what}", _DATA),
    "meltdown-nm": _FAULTS.replace("{why}", "uses the FPU, which is switched off (#NM)").replace(
        "{what}", "it computed with what another process had left in the registers"
    ),
    "meltdown-ac": _FAULTS.replace("{why}", "is not aligned (#AC)").replace("{what}", _DATA),
    "meltdown-de": _FAULTS.replace("{why}", "divides by zero").replace("{what}", "its result went on"),
    "l1tf": _FAULTS.replace("{why}", "goes by an entry that is not present").replace(
        "{what}", "L1 gave what it held of the frame in that entry"
    ),
    "mfbds": _FAULTS.replace("{why}", "cannot be done").replace("{what}", "it got stale bytes of a line fill buffer"),
    "msbds": _FAULTS.replace("{why}", "cannot be done").replace("{what}", "it got stale bytes of the store buffer"),
    "mlpds": _FAULTS.replace("{why}", "cannot be done").replace("{what}", "it got stale bytes of a load port"),
    "fault": _FAULTS.replace("{why}", "cannot be done").replace(
        "{what}", "the instructions behind it ran, but it gave them no data"
    ),
}
_OTHERWISE: Final = "{opener} took {wait}. Meanwhile the CPU went on at {start}"
_RESOLVED: Final[dict[str, str]] = {
    "v1": "Then the branch was decided, and the prediction was wrong",
    "v2": "Then the branch's target was known, and the prediction was wrong",
    "rsb": "Then the return address was known, and the prediction was wrong",
    "v4": "Then the store's address was known, and it was the load's own",
}
_NO_MORE: Final = "{}, so nothing younger could start"
_ENDS: Final[dict[str, str]] = {
    "reorder buffer full": _NO_MORE.format("The reorder buffer was full before that"),
    "no prediction": _NO_MORE.format("There was no prediction for a branch"),
    "page fault on fetch": _NO_MORE.format("No instruction could be fetched there"),
    "lfence": _NO_MORE.format("An LFENCE came"),
    "mfence": _NO_MORE.format("An MFENCE came"),
    "rdtsc": _NO_MORE.format("An RDTSC came"),
    "rdtscp": _NO_MORE.format("An RDTSCP came"),
    "verw": _NO_MORE.format("A VERW came"),
    "serializing instruction": _NO_MORE.format("An instruction came that lets nothing pass"),
    "store to code": "A store to code came, which ends it",
    "exception": "An exception came that ends it",
}
"""Why a window that was not resolved first ended, by the reason in its record."""
_MOST_FILLS: Final = 3


def _quoted(row: Row) -> str:
    return row.place if row.text.startswith("(") else f"`{row.text}` ({row.place})"


def _plural(count: int, one: str) -> str:
    return f"{count} {one}{'' if count == 1 else 's'}"


def _wait(traced: Traced, rows: list[Row], opener: int) -> str:
    """How long the opener waited, and for what."""
    window = traced.window
    text = f"{span(window.closes - window.opened)} cycles"
    before = rows[:opener]
    slow = max((row for row in before if row.level), key=lambda row: row.done - row.start, default=None)
    if slow is not None and slow.data:
        return f"{text} for {slow.data}, which came from {LEVELS.get(slow.level, slow.level)}"
    direct = [before[index] for index in rows[opener].waits]
    return f"{text} for {' and '.join(_quoted(row) for row in direct)}" if direct else text


def _opening(traced: Traced, rows: list[Row], opener: int) -> str:
    window = traced.window
    form = _OPENINGS.get(window.flaw, _OTHERWISE)
    text = form.format(
        opener=_quoted(rows[opener]), wait=_wait(traced, rows, opener), start=where(traced, window.start)
    )
    return f"{text}."


def _inside(rows: list[Row], opener: int) -> str:
    steps = [row for row in rows[opener + 1 :] if row.state != "ends"]
    if not steps:
        return "Nothing ran before the window closed."
    never = sum(row.state == "never" for row in steps)
    late = sum(row.state == "late" for row in steps)
    text = f"{_plural(len(steps), 'instruction')} ran that the program never gets to."
    if never:
        whose = "its" if never == 1 else "their"
        text += f" {never} of them did nothing: {whose} operands were not there in time."
    if late:
        text += f" {late} began and had no result in time."
    return text


def _fills(rows: list[Row]) -> list[str]:
    out = []
    marks = [(index, mark) for index, row in enumerate(rows) for mark in row.fills]
    for index, mark in marks[:_MOST_FILLS]:
        text = f"{_quoted(rows[index])} fetched the line of {mark.label} from {mark.level}"
        path = path_of(rows, index)
        if path:
            read = rows[path[0]]
            text += f"; which line that is depends on what {_quoted(read)} read"
            text += f" at {read.data}" if read.data else ""
        out.append(f"{text} (cause: {mark.causes}).")
    if len(marks) > _MOST_FILLS:
        out.append(f"Lines that moved besides: {len(marks) - _MOST_FILLS}.")
    return out


def _ending(traced: Traced) -> list[str]:
    window = traced.window
    if window.reason == "resolved":
        end = _RESOLVED.get(window.flaw, "Then the fault was taken")
    else:
        end = _ENDS.get(window.reason, f"The window ended: {printable(window.reason) or 'for a reason not recorded'}")
    goes_on = f"the program goes on at {where(traced, window.resumed)}"
    out = [f"{end}. Registers and memory are as if nothing had run; {goes_on}."]
    lines = len({fill.line for fill in window.fills})
    if not lines:
        out.append("No line was moved: nothing is left that a clock could find.")
    elif lines == 1:
        out.append("But the line stays in the cache, where a clock finds it.")
    else:
        out.append(f"But the {lines} lines stay in the cache, where a clock finds them.")
    return out


def sentences(traced: Traced, rows: list[Row]) -> list[str]:
    """What happened, one thing after another; ``rows`` are those of :func:`mmuemu.view.transient_rows.rows_of`."""
    opener = next(index for index, row in enumerate(rows) if row.kind == "opener")
    out = [_opening(traced, rows, opener), _inside(rows, opener), *_fills(rows), *_ending(traced)]
    names = list(dict.fromkeys([traced.window.flaw, *(one for fill in traced.window.fills for one in fill.causes)]))
    out += [f"{name}: {FLAWS[name]}." for name in names if name in FLAWS]
    return out

"""Page tables as a tree whose neighbouring, equal entries are merged into runs.

The tables are read as words of guest RAM, as the processor reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mmuemu.mmu.modes import FIVE_LEVEL, FOUR_LEVEL, PagingMode
from mmuemu.mmu.rules import pse36_bits
from mmuemu.view.entries import bit_names, rights
from mmuemu.view.sheet import Sheet, human
from mmuemu.x86.paging import ADDRESS_MASK, NX, PAGE_SIZE, RW, US, A, D, P

if TYPE_CHECKING:
    from mmuemu.memory.page_table import PageTable
    from mmuemu.mmu.state import PagingState

_MASK: Final = (1 << 64) - 1
_RIGHTS: Final = RW | US
_OFTEN_CHANGES: Final = A | D


@dataclass(slots=True)
class Run:
    """Neighbouring entries of one table that say the same but for A, D and the frame: pages, or kept entries without P.

    ``first`` is the first entry's index; ``frames`` are physical addresses, in order. ``flags`` are the entry's own
    flags; ``user``, ``writable`` and ``executable`` what all levels together give.
    """

    level: str
    first: int
    start: int
    page_size: int
    flags: int
    user: bool
    writable: bool
    executable: bool
    frames: list[int] = field(default_factory=list)
    accessed: int = 0
    dirty: int = 0

    @property
    def count(self) -> int:
        """Entries."""
        return len(self.frames)

    @property
    def end(self) -> int:
        """Linear address behind it."""
        return self.start + self.count * self.page_size

    @property
    def present(self) -> bool:
        """Whether the entries have P."""
        return bool(self.flags & P)

    @property
    def contiguous(self) -> bool:
        """Whether the frames follow one another."""
        return all(frame == self.frames[0] + index * self.page_size for index, frame in enumerate(self.frames))

    @property
    def rights(self) -> str:
        """``rwx`` of present pages, ``---`` of others."""
        return rights(
            readable=self.present,
            writable=self.present and self.writable,
            executable=self.present and self.executable,
        )


@dataclass(slots=True)
class Table:
    """One table, and where its entries lead: runs of pages and further tables. ``index`` is its entry's in the table
    above and ``flags`` that entry's (the root has neither: -1 and 0); ``[start, end)`` is what it translates.
    """

    level: str
    index: int
    flags: int
    physical: int
    start: int
    end: int
    parts: list[Table | Run] = field(default_factory=list)
    note: str = ""
    """Why it is empty here, when it was not read."""

    def runs(self) -> Iterator[Run]:
        """Every run below, in address order."""
        for part in self.parts:
            if isinstance(part, Run):
                yield part
            else:
                yield from part.runs()

    def tables(self) -> Iterator[Table]:
        """This table and every one below, in address order."""
        yield self
        for part in self.parts:
            if isinstance(part, Table):
                yield from part.tables()


class _Reader:
    """Reads the tables of one address space, by a paging ``mode``; memory is in ``words`` of an entry's size.

    ``kept`` turns an entry without P into what was kept in it (0: nothing). ``large``: bit 7 may map a page. No more
    than ``most`` tables are read, and none in itself: the others stay empty, with a note.
    """

    def __init__(
        self,
        mode: PagingMode,
        words: memoryview,
        start: int,
        end: int,
        *,
        kept: Callable[[int], int],
        large: bool = True,
        high_bits: int = 0,
        most: int = 1 << 30,
    ) -> None:
        self.mode = mode
        self.words = words
        self.kept = kept
        self.large = large
        self.high_bits = high_bits
        self.left = most
        self.start, self.end = start, end
        self.sign = 1 << mode.linear_bits - 1 if mode.canonical else 0
        self.flags = ~ADDRESS_MASK & _MASK if mode.entry_bytes == 8 else PAGE_SIZE - 1
        self.path: list[int] = []

    def _extend(self, linear: int) -> int:
        return (linear | -self.sign) & _MASK if linear & self.sign else linear

    def read(self, physical: int, depth: int, base: int, above: tuple[int, int, int]) -> Table:
        """The table at ``physical``, of the mode's level ``depth``; ``above``: index and flags of its entry, rights."""
        index, flags, allowed = above
        level = self.mode.levels[depth]
        first = self._extend(base)
        count = 1 << level.index_bits
        found = Table(level.name, index, flags, physical, first, first + level.size * count)
        at = physical // self.mode.entry_bytes
        self.left -= 1
        if at + count > len(self.words):
            found.note = "beyond memory"
        elif physical in self.path:
            found.note = "the table itself"
        elif self.left < 0:
            found.note = "not shown: there are too many tables"
        if found.note:
            return found
        self.path.append(physical)
        for number, entry in enumerate(self.words[at : at + count].tolist()):
            linear = self._extend(base + number * level.size)
            if entry and linear < self.end and linear + level.size > self.start:
                self._entry(found, depth, number, entry, (base + number * level.size, linear, allowed))
                if self.left < 0:
                    break
        self.path.pop()
        return found

    def _entry(self, found: Table, depth: int, number: int, entry: int, place: tuple[int, int, int]) -> None:
        base, linear, allowed = place
        level = self.mode.levels[depth]
        last = depth == len(self.mode.levels) - 1
        page = last or (self.large and self.mode.maps_page(depth, entry))
        if last and not entry & P:
            entry = self.kept(entry)
            if not entry:
                return
        elif not entry & P:
            return
        if level.has_rights:
            allowed = allowed & (entry | ~_RIGHTS) | entry & NX
        if not page:
            flags = entry & self.flags
            found.parts.append(self.read(entry & ~self.flags, depth + 1, base, (number, flags, allowed)))
            return
        self._page(found, number, entry, (linear, allowed, level.size))

    def _page(self, found: Table, number: int, entry: int, place: tuple[int, int, int]) -> None:
        """Lengthen the last run, or begin one."""
        linear, allowed, size = place
        frame = entry & ~self.flags & -size
        flags = (entry ^ frame) & ~_OFTEN_CHANGES
        if size > PAGE_SIZE and self.high_bits:
            frame |= (entry & self.high_bits) << 19
            flags &= ~self.high_bits
        run = found.parts[-1] if found.parts else None
        if not isinstance(run, Run) or run.flags != flags or run.first + run.count != number:
            run = Run(
                found.level, number, linear, size, flags, bool(allowed & US), bool(allowed & RW), not allowed & NX
            )
            found.parts.append(run)
        run.frames.append(frame)
        run.accessed += bool(entry & A)
        run.dirty += bool(entry & D)


def read_tables(table: PageTable, start: int = 0, end: int = 1 << 64, *, root: int | None = None) -> Table:
    """The tree of ``table`` from its root, or another one, as far as ``[start, end)`` reaches."""
    mode = FIVE_LEVEL if table.levels == 5 else FOUR_LEVEL
    reader = _Reader(mode, table.frames.ram.qwords, start, end, kept=table.kept)
    return reader.read(table.root if root is None else root, 0, 0, (-1, 0, _RIGHTS))


def read_paging(words: memoryview, state: PagingState, most: int) -> Table:
    """The tree that a processor in ``state``, paging on, walks in memory (64-bit ``words``), ``most`` tables of it."""
    mode = state.mode
    narrow = mode.entry_bytes == 4
    reader = _Reader(
        mode,
        words.cast("B").cast("I") if narrow else words,
        0,
        1 << 64,
        kept=lambda _entry: 0,
        large=not narrow or state.page_size_extensions,
        high_bits=pse36_bits(state) if narrow else 0,
        most=most,
    )
    return reader.read(state.cr3 & mode.root_mask, 0, 0, (-1, 0, _RIGHTS))


# -- words -----------------------------------------------------------------------------------------------------------


def frames_text(run: Run) -> str:
    """Where a run of pages leads, in a few words."""
    first = f"{run.frames[0]:#x}"
    if run.count == 1:
        return first
    if run.contiguous:
        return f"{first}-{run.frames[-1] + run.page_size - 1:#x}"
    shown = ", ".join(f"{frame:#x}" for frame in run.frames[:2])
    return f"{shown}{', ...' if run.count > 2 else ''}"


def bits_text(run: Run) -> str:
    """The flags of a run's entries; of A and D how many have them where not all do."""
    large = run.page_size > PAGE_SIZE
    if not run.present:
        return "not present (kept for PROT_NONE)"
    counted = [
        name if seen == run.count else f"{name}:{seen}"
        for name, seen in (("A", run.accessed), ("D", run.dirty))
        if seen
    ]
    return " ".join([*bit_names(run.flags, page=True, large=large), *counted])


def _add(sheet: Sheet, table: Table, digits: int, depth: int) -> None:
    pad = "  " * depth
    for part in table.parts:
        span = f"{part.start:0{digits}x}-{part.end - 1:0{digits}x}"
        if isinstance(part, Table):
            bits = " ".join(bit_names(part.flags, page=False))
            entry = f"{pad}{table.level}[{part.index}]"
            sheet.add(entry, span, human(part.end - part.start), "", f"table {part.physical:#x}", bits)
            _add(sheet, part, digits, depth + 1)
            continue
        last = part.first + part.count - 1
        numbers = f"{part.first}" if part.count == 1 else f"{part.first}..{last}"
        what = f"{part.rights} {'user' if part.user else 'kernel'}"
        size = human(part.page_size * part.count)
        sheet.add(
            f"{pad}{part.level}[{numbers}]", span, size, what, frames_text(part), bits_text(part), style=_style(part)
        )


def _style(run: Run) -> str:
    if not run.user:
        return "red"
    return "yellow" if run.rights[1] == "w" else ""


def tree_sheet(table: Table, digits: int) -> Sheet:
    """The tree, a row for each table and each run of pages; addresses have ``digits`` digits."""
    sheet = Sheet(("entry", "linear addresses", ">size", "rights", "leads to", "bits"))
    _add(sheet, table, digits, 0)
    return sheet


def summary(table: Table) -> str:
    """A line of counts."""
    tables = sum(1 for _ in table.tables())
    runs = list(table.runs())
    pages = sum(run.count for run in runs if run.present)
    size = human(sum(run.count * run.page_size for run in runs if run.present))
    kept = sum(run.count for run in runs if not run.present)
    more = f", {kept} kept without P" if kept else ""
    return f"{tables} tables, {pages} pages in {sum(run.present for run in runs)} runs, {size} mapped{more}\n"


def tree_facts(table: Table) -> dict[str, Any]:
    """The tree for JSON: addresses are text in hexadecimal."""
    return {
        "level": table.level,
        "index": None if table.index < 0 else table.index,
        "bits": list(bit_names(table.flags, page=False)),
        "table": f"{table.physical:#x}",
        "start": f"{table.start:#x}",
        "end": f"{table.end:#x}",
        "parts": [tree_facts(part) if isinstance(part, Table) else run_facts(part) for part in table.parts],
    }


def run_facts(run: Run) -> dict[str, Any]:
    """A run of pages for JSON."""
    return {
        "level": run.level,
        "first": run.first,
        "count": run.count,
        "start": f"{run.start:#x}",
        "end": f"{run.end:#x}",
        "page_size": run.page_size,
        "present": run.present,
        "bits": list(bit_names(run.flags, page=True, large=run.page_size > PAGE_SIZE)),
        "rights": run.rights,
        "user": run.user,
        "accessed": run.accessed,
        "dirty": run.dirty,
        "frames": _frame_facts(run.frames, run.page_size),
    }


def _frame_facts(frames: Sequence[int], size: int) -> list[list[str]]:
    """[first, last] of each stretch of frames that follow one another."""
    stretches: list[list[int]] = []
    for frame in frames:
        if stretches and stretches[-1][1] + size == frame:
            stretches[-1][1] = frame
        else:
            stretches.append([frame, frame])
    return [[f"{first:#x}", f"{last:#x}"] for first, last in stretches]


__all__ = [
    "Run",
    "Table",
    "bits_text",
    "frames_text",
    "read_paging",
    "read_tables",
    "run_facts",
    "summary",
    "tree_facts",
    "tree_sheet",
]

"""The memory of a bare machine as regions: address spaces by their page tables, and what lies where physically."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.view.regions import Region, fill_gaps
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.mmu.modes import PagingMode
    from mmuemu.view.tables import Run, Table

PHYSICAL_END: Final = 1 << 40
"""Physical addresses have so many bits on a board."""
_KINDS: Final = {"x": ("code", "code"), "w": ("data", "data"), "": ("rodata", "read-only data")}


class Place(NamedTuple):
    """Physical addresses from ``start`` to ``end`` (exclusive) that have a use, which ``kind`` and ``what`` say."""

    start: int
    end: int
    kind: str
    what: str


class Ground(NamedTuple):
    """What physical addresses lead to: ``ram`` bytes of memory from 0, and ``devices`` beyond, in address order."""

    ram: int
    devices: Sequence[Place]

    def device(self, start: int, end: int) -> Place | None:
        """The first device in ``[start, end)``."""
        return next((one for one in self.devices if one.start < end and start < one.end), None)


class _Stretch:
    """Runs of pages side by side with equal rights to the same kind of thing."""

    def __init__(self, run: Run, kind: str, what: str) -> None:
        self.start = self.end = run.start
        self.permissions = run.rights + ("u" if run.user else "s")
        self.kind, self.what = kind, what
        self.resident = self.dirty = 0
        self.identity = True

    def add(self, run: Run, ground: Ground) -> None:
        """Lengthen it."""
        self.end = run.end
        size = run.page_size
        self.resident += sum(max(min(ground.ram - frame, size), 0) for frame in run.frames)
        self.dirty += run.dirty * size
        self.identity = self.identity and run.frames[0] == run.start and run.frames[-1] + size == run.end

    def region(self) -> Region:
        """As a region."""
        what = f"{self.what}, at its physical address" if self.identity and self.kind != "device" else self.what
        return Region(self.start, self.end, self.permissions, self.kind, what, self.resident, self.dirty)


def _use(run: Run, ground: Ground) -> tuple[str, str]:
    """(kind, words) of a run of pages."""
    first = run.frames[0]
    if first >= ground.ram:
        found = ground.device(min(run.frames), max(run.frames) + run.page_size)
        if found is not None and run.page_size == PAGE_SIZE:
            return "device", found.what
        return ("device", "devices") if found is not None else ("device", "beyond memory")
    rights = run.rights
    kind, words = _KINDS["x" if rights[2] == "x" and rights[1] != "w" else "w" if rights[1] == "w" else ""]
    ring = "user" if run.user else "kernel"
    both = ", executable" if rights == "rwx" else ""
    return f"{ring}-{kind}", f"{'user' if run.user else 'supervisor'} {words}{both}"


def _stretches(table: Table, ground: Ground) -> Iterator[_Stretch]:
    last: _Stretch | None = None
    for run in table.runs():
        kind, what = _use(run, ground)
        new = _Stretch(run, kind, what)
        if last is None or (last.end, last.permissions, last.what) != (run.start, new.permissions, what):
            if last is not None:
                yield last
            last = new
        last.add(run, ground)
    if last is not None:
        yield last


def space_regions(table: Table, mode: PagingMode, ground: Ground) -> list[Region]:
    """What the tree ``table`` of a paging ``mode`` maps, with what lies between, in address order."""
    half = 1 << mode.linear_bits - 1
    pieces = [(0, half, "unmapped"), (half, half * 2, "unmapped")]
    if mode.canonical:
        top = 1 << 64
        pieces = [(0, half, "unmapped"), (half, top - half, "not canonical"), (top - half, top, "unmapped")]
    return fill_gaps(pieces, [stretch.region() for stretch in _stretches(table, ground)])


def _overlaid(under: Sequence[Place], over: Sequence[Place]) -> list[Place]:
    """Both, in address order; of ``under`` what ``over`` leaves. Neither overlaps itself, both are in order."""
    found = list(over)
    ends = [place.end for place in over]
    for place in under:
        at = place.start
        for top in over[bisect_right(ends, at) :]:
            if top.start >= place.end:
                break
            if top.start > at:
                found.append(place._replace(start=at, end=top.start))
            at = top.end
        if at < place.end:
            found.append(place._replace(start=at))
    return sorted(found)


def physical_regions(ground: Ground, loaded: Sequence[Place], tables: Mapping[int, int]) -> list[Region]:
    """What lies where in physical memory: the ``tables`` (address -> bytes), else what was ``loaded``, the devices."""
    merged: list[Place] = []
    for start, size in sorted(tables.items()):
        first = merged.pop().start if merged and start <= merged[-1].end else start
        merged.append(Place(first, start + size, "tables", "page tables"))
    places = _overlaid([Place(0, ground.ram, "memory", "memory")], _overlaid(sorted(loaded), merged))
    found = [Region(one.start, one.end, "", one.kind, one.what, one.end - one.start) for one in places]
    found += [Region(one.start, one.end, "", "device", one.what) for one in ground.devices]
    return fill_gaps([(0, PHYSICAL_END, "nothing answers")], found)


__all__ = ["Ground", "Place", "physical_regions", "space_regions"]

"""Virtual memory areas and the sorted list of them: find, split, merge, and search for room.

Flag values and merge rules are Linux's (include/linux/mm.h; mm/vma.c: ``is_mergeable_vma``,
``is_mergeable_anon_vma``, ``anon_vma_compatible``), because /proc/self/maps shows them to programs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol

from mmuemu.x86.paging import KEY_SHIFT, NX, US, P

if TYPE_CHECKING:
    from mmuemu.kernel.faults import PagedSpace
    from mmuemu.kernel.page_cache import FileMapping, MappedInode

PROT_READ: Final = 1
PROT_WRITE: Final = 2
PROT_EXEC: Final = 4

VM_READ: Final = 0x1
VM_WRITE: Final = 0x2
VM_EXEC: Final = 0x4
VM_SHARED: Final = 0x8
VM_MAYREAD: Final = 0x10
VM_MAYWRITE: Final = 0x20
VM_MAYEXEC: Final = 0x40
VM_MAYSHARE: Final = 0x80
VM_GROWSDOWN: Final = 0x100
VM_LOCKED: Final = 0x2000
VM_SEQ_READ: Final = 0x8000
VM_RAND_READ: Final = 0x1_0000
VM_DONTCOPY: Final = 0x2_0000
VM_DONTEXPAND: Final = 0x4_0000
VM_ACCOUNT: Final = 0x10_0000
VM_NORESERVE: Final = 0x20_0000
VM_WIPEONFORK: Final = 0x200_0000
VM_DONTDUMP: Final = 0x400_0000
VM_HUGEPAGE: Final = 0x2000_0000
VM_NOHUGEPAGE: Final = 0x4000_0000
VM_MERGEABLE: Final = 0x8000_0000
VM_KEY_SHIFT: Final = 32
"""Bits 32 to 35 are the protection key (VM_PKEY_SHIFT)."""
VM_ACCESS: Final = VM_READ | VM_WRITE | VM_EXEC
VM_MAYACCESS: Final = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC

STACK_GUARD_GAP: Final = 256 << 12
"""Unmapped bytes kept below an area that grows down (mm/mmap.c)."""


class OpenedFile(Protocol):
    """What is mapped: Linux's ``struct file``. Areas merge only when they map the same one."""

    @property
    def inode(self) -> MappedInode:
        """The file."""

    @property
    def readable(self) -> bool:
        """Whether it was opened for reading."""

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing."""


class Vma:
    """One area ``[start, end)`` of an address space.

    ``offset`` is the byte offset into ``file`` of ``start``; for private anonymous memory the address the
    area was first mapped at. ``anon`` numbers the area's anonymous pages' owner (0 before the first write):
    areas with two different ones cannot merge. ``name`` is a path or ``"[vdso]"``; /proc/self/maps finds
    the heap and stack itself.
    """

    __slots__ = ("anon", "end", "entry_flags", "file", "flags", "mapping", "name", "offset", "start")

    def __init__(
        self,
        start: int,
        end: int,
        flags: int,
        file: OpenedFile | None = None,
        offset: int = 0,
        name: str = "",
        mapping: FileMapping | None = None,
    ) -> None:
        self.start = start
        self.end = end
        self.flags = 0
        self.file = file
        self.offset = offset
        self.name = name
        self.mapping = mapping
        self.anon = 0
        self.entry_flags = 0
        """P, US, NX and the protection key of the entries of this area's pages."""
        self.set_flags(flags)

    def __repr__(self) -> str:
        return f"<Vma {self.start:#x}-{self.end:#x} {self.permissions} {self.name}>"

    def set_flags(self, flags: int) -> None:
        """Replace the VM_* flags."""
        self.flags = flags
        self.entry_flags = P | US | (0 if flags & VM_EXEC else NX) | flags >> VM_KEY_SHIFT << KEY_SHIFT

    @property
    def key(self) -> int:
        """The protection key."""
        return self.flags >> VM_KEY_SHIFT

    @property
    def prot(self) -> int:
        """The PROT_* bits."""
        return self.flags & VM_ACCESS

    @property
    def shared(self) -> bool:
        """Whether stores reach everybody who maps the same file (MAP_SHARED)."""
        return bool(self.flags & VM_MAYSHARE)

    @property
    def permissions(self) -> str:
        """As in /proc/self/maps: ``"rw-p"``."""
        flags = self.flags
        letters = [letter if flags & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4))]
        return "".join(letters) + ("s" if flags & VM_MAYSHARE else "p")

    @property
    def guarded_start(self) -> int:
        """``start``, less the guard gap of an area that grows down (``vm_start_gap``)."""
        return max(self.start - STACK_GUARD_GAP, 0) if self.flags & VM_GROWSDOWN else self.start

    def page_index(self, la: int) -> int:
        """The page of the file that ``la`` shows."""
        return (la - self.start + self.offset) >> 12

    def copy(self, start: int, end: int) -> Vma:
        """This area moved or cut to ``[start, end)``; the offset stays that of ``start`` here."""
        twin = Vma(start, end, self.flags, self.file, self.offset, self.name, self.mapping)
        twin.anon = self.anon
        return twin


def _compatible(left: Vma, right: Vma) -> bool:
    """Whether two areas are neighbours in memory and in what they show, and could share an anon number."""
    return (
        left.end == right.start
        and left.file is right.file
        and left.mapping is right.mapping
        and left.name == right.name
        and left.offset + left.end - left.start == right.offset
    )


def mergeable(left: Vma, right: Vma) -> bool:
    """Whether Linux makes one area of the two."""
    return (
        left.flags == right.flags
        and _compatible(left, right)
        and not left.flags & VM_DONTEXPAND
        and _same_owner(left, right)
    )


def _same_owner(left: Vma, right: Vma) -> bool:
    return not left.anon or not right.anon or left.anon == right.anon


class VmaList:
    """The areas of one address space in address order; they never overlap."""

    __slots__ = ("_anons", "_owner", "_room_below", "_room_high", "_room_size", "_starts", "_vmas")

    def __init__(self, owner: PagedSpace | None = None) -> None:
        """``owner`` is named to the file mappings of areas that come and go."""
        self._owner = owner
        self._starts: list[int] = []
        self._vmas: list[Vma] = []
        self._anons = 0
        # No gap of _room_size bytes or more lies between _room_below and _room_high.
        self._room_high = 0
        self._room_below = 1 << 64
        self._room_size = 0

    def __len__(self) -> int:
        return len(self._vmas)

    def __iter__(self) -> Iterator[Vma]:
        return iter(self._vmas)

    def find(self, la: int) -> Vma | None:
        """The area that contains ``la``."""
        index = bisect_right(self._starts, la) - 1
        if index >= 0:
            vma = self._vmas[index]
            if la < vma.end:
                return vma
        return None

    def at_or_above(self, la: int) -> Vma | None:
        """The first area that ends above ``la`` (Linux's ``find_vma``)."""
        index = bisect_right(self._starts, la)
        if index and la < self._vmas[index - 1].end:
            return self._vmas[index - 1]
        return self._vmas[index] if index < len(self._vmas) else None

    def before(self, la: int) -> Vma | None:
        """The last area that starts below ``la``."""
        index = bisect_left(self._starts, la)
        return self._vmas[index - 1] if index else None

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """The areas that have a byte in ``[start, end)``, in order."""
        first = bisect_right(self._starts, start)
        if first and start < self._vmas[first - 1].end:
            first -= 1
        return self._vmas[first : bisect_left(self._starts, end)]

    def insert(self, vma: Vma) -> None:
        """Add an area where nothing is (``carve`` makes room)."""
        index = bisect_left(self._starts, vma.start)
        self._starts.insert(index, vma.start)
        self._vmas.insert(index, vma)
        if index + 1 < len(self._vmas) and self._vmas[index + 1].flags & VM_GROWSDOWN:
            self._room_below = 1 << 64  # a guard gap may have become plain room
        if vma.mapping is not None and self._owner is not None:
            vma.mapping.attach(self._owner, bool(vma.flags & VM_SHARED))

    def move_start(self, vma: Vma, start: int) -> None:
        """Let ``vma`` begin at ``start``, lower than now: a stack has grown."""
        self._starts[bisect_left(self._starts, vma.start)] = start
        vma.offset -= vma.start - start
        vma.start = start

    def split(self, vma: Vma, at: int) -> Vma:
        """Cut ``vma`` at ``at``, inside of it; the new upper part."""
        upper = vma.copy(at, vma.end)
        upper.offset = vma.offset + at - vma.start
        vma.end = at
        self.insert(upper)
        return upper

    def carve(self, start: int, end: int) -> list[Vma]:
        """Take out ``[start, end)``, splitting areas that stick out; what was taken out, detached.

        The file mappings still count the areas: the caller tells them when their pages are gone.
        """
        areas = self.overlapping(start, end)
        if not areas:
            return areas
        if areas[0].start < start:
            areas[0] = self.split(areas[0], start)
        if areas[-1].end > end:
            self.split(areas[-1], end)
        first = bisect_left(self._starts, areas[0].start)
        del self._starts[first : first + len(areas)]
        del self._vmas[first : first + len(areas)]
        if areas[-1].end >= self._room_below:
            self._room_below = 1 << 64
        return areas

    def join(self, vma: Vma, *, left_only: bool = False) -> Vma:
        """Merge ``vma`` with its neighbours as far as Linux would; the area it is part of then."""
        index = bisect_left(self._starts, vma.start)
        left = self._vmas[index - 1] if index else None
        right = self._vmas[index + 1] if index + 1 < len(self._vmas) and not left_only else None
        if left is not None and not mergeable(left, vma):
            left = None
        if right is not None and (not mergeable(vma, right) or (left is not None and not _same_owner(left, right))):
            right = None
        if right is not None:
            self._absorb(vma, right, index + 1)
        if left is not None:
            self._absorb(left, vma, index)
            return left
        return vma

    def _absorb(self, left: Vma, right: Vma, index: int) -> None:
        left.end = right.end
        left.anon = left.anon or right.anon
        right.end = right.start  # so that no cached reference to it finds anything
        del self._starts[index]
        del self._vmas[index]
        if right.mapping is not None and self._owner is not None:
            right.mapping.detach(self._owner, bool(right.flags & VM_SHARED))

    def own_pages(self, vma: Vma) -> None:
        """Give ``vma`` an owner number for anonymous pages, a compatible neighbour's if there is one."""
        index = bisect_left(self._starts, vma.start)
        for near in (index + 1, index - 1):
            if 0 <= near < len(self._vmas):
                other = self._vmas[near]
                pair = (vma, other) if near > index else (other, vma)
                if other.anon and not (vma.flags ^ other.flags) & ~VM_ACCESS and _compatible(*pair):
                    vma.anon = other.anon
                    return
        self._anons += 1
        vma.anon = self._anons

    def is_free(self, start: int, end: int) -> bool:
        """Whether a mapping may be placed at ``[start, end)`` without replacing one or touching a guard
        gap.
        """
        above = self.at_or_above(start)
        return above is None or end <= above.guarded_start

    def highest_gap(self, length: int, low: int, high: int) -> int:
        """The highest address in ``[low, high)`` with ``length`` free bytes above it; -1 if there is none."""
        top = high
        if length >= self._room_size and self._room_below < high <= self._room_high:
            top = self._room_below
        index = bisect_left(self._starts, top)
        if index < len(self._vmas):
            top = min(top, self._vmas[index].guarded_start)
        for vma in self._downwards(index):
            if top - vma.end >= length:
                break
            top = vma.guarded_start
        if top - length < low:
            return -1
        self._room_below = top
        self._room_high = high
        self._room_size = length
        return top - length

    def _downwards(self, index: int) -> Iterator[Vma]:
        while index:
            index -= 1
            yield self._vmas[index]

    def lowest_gap(self, length: int, low: int, high: int) -> int:
        """The lowest address in ``[low, high)`` with ``length`` free bytes above it; -1 if there is none."""
        bottom = low
        for vma in self.overlapping(low, high):
            if vma.guarded_start - bottom >= length:
                break
            bottom = max(bottom, vma.end)
        return bottom if bottom + length <= high else -1

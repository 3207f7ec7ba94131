"""Transparent huge pages: one fault maps an aligned 2 MiB of private anonymous memory.

After mm/huge_memory.c (``do_huge_pmd_anonymous_page``, ``do_huge_zero_wp_pmd``) and
Documentation/admin-guide/mm/transhuge.rst. The 2 MiB are a block: 512 entries of 4 KiB for neighbouring frames in
place of one entry of 2 MiB, so that what changes a part of it (mprotect, munmap, copy on write) has nothing to split.
A block that was written is accessed and dirty as a whole, as one entry would be; one of zeros only where it was read.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from mmuemu.errors import OutOfFrames, UsageError
from mmuemu.kernel.vma import VM_EXEC, VM_HUGEPAGE, VM_LOCKED, VM_NOHUGEPAGE
from mmuemu.memory.ram import ZERO_PAGE
from mmuemu.x86.paging import ADDRESS_MASK, PAGE_SIZE, RW, SIZE_2M, A, D, P

if TYPE_CHECKING:
    from mmuemu.kernel.faults import PagedSpace
    from mmuemu.kernel.vma import Vma

ALWAYS: Final = "always"
MADVISE: Final = "madvise"
NEVER: Final = "never"
POLICIES: Final = (ALWAYS, MADVISE, NEVER)
"""Of /sys/kernel/mm/transparent_hugepage/enabled."""

PAGES: Final = SIZE_2M // PAGE_SIZE
"""4 KiB pages of a block."""
_EACH: Final = int.from_bytes(struct.pack("<Q", 1) * PAGES, "little")
"""Times an entry: a table of it."""
_NEIGHBOURS: Final = int.from_bytes(struct.pack(f"<{PAGES}Q", *range(0, SIZE_2M, PAGE_SIZE)), "little")
"""Added to a table of one entry: a table of neighbouring frames."""
_FEW: Final = 64
"""Memory is short when this part of it is free, or less."""
_SAMPLES: Final = (SIZE_2M - PAGE_SIZE, 3 * SIZE_2M // 4, SIZE_2M // 2, SIZE_2M // 4)
_ACCESSED: Final = _EACH * A
_USED: Final = _EACH * (A | D)


def known_policy(name: str) -> str:
    """``name``, if it is one of POLICIES. Raises UsageError."""
    if name not in POLICIES:
        raise UsageError(f"no policy of huge pages: {name!r} (choose from {', '.join(POLICIES)})")
    return name


def _slot(table: int, la: int) -> int:
    """Index into qwords of the entry for ``la`` in the last-level ``table``."""
    return (table >> 3) + (la >> 12 & PAGES - 1)


class HugePages:
    """The blocks of one address space."""

    __slots__ = ("_space", "blocks", "disabled", "policy")

    def __init__(self, space: PagedSpace, policy: str) -> None:
        """``policy`` is one of POLICIES."""
        self._space = space
        self.policy = policy
        self.disabled = False
        """prctl(PR_SET_THP_DISABLE)."""
        self.blocks: set[int] = set()
        """First addresses of what was mapped as blocks; whether one is whole still, its table says."""

    def allowed(self, vma: Vma) -> bool:
        """Whether ``vma`` may have blocks, for its kind and its advice (``thp_vma_allowable_order``)."""
        if self.disabled or vma.mapping is not None or self.policy == NEVER or vma.flags & (VM_NOHUGEPAGE | VM_EXEC):
            return False
        return self.policy == ALWAYS or bool(vma.flags & VM_HUGEPAGE)

    def eligible(self, vma: Vma) -> bool:
        """Whether a first touch of ``vma`` could map a block (THPeligible of smaps)."""
        return self.allowed(vma) and (vma.start + SIZE_2M - 1 & -SIZE_2M) + SIZE_2M <= vma.end

    def whole(self, start: int = 0, end: int = 1 << 64) -> list[int]:
        """First addresses of the whole blocks in ``[start, end)``."""
        tables = ((base, self._space.page_table.entry_address(base)) for base in self._within(start, end))
        return [base for base, table in tables if table >= 0 and self._is_whole(table)]

    def holds(self, la: int) -> bool:
        """Whether ``la`` lies in a block that is whole, of zeros or not."""
        base = la & -SIZE_2M
        table = self._space.page_table.entry_address(la) & -PAGE_SIZE
        return base in self.blocks and table >= 0 and (self._reads_zeros(table) or self._is_whole(table))

    def inherit(self, other: HugePages) -> None:
        """What a fork copies: ``other``'s rules, and where its blocks are."""
        self.policy, self.disabled, self.blocks = other.policy, other.disabled, set(other.blocks)

    def first_touch(self, vma: Vma, la: int, write: int, table: int) -> int:
        """Map the block around ``la``, which lies in ``vma``; the entry for ``la``, 0 if it is to be a page of its own.

        ``table`` is where the block's entries lie, negative without a table; the one for ``la`` is empty. Raises
        OutOfFrames.
        """
        space = self._space
        if not self.allowed(vma) or (table >= 0 and space.frames.ram.bytes[table : table + PAGE_SIZE] != ZERO_PAGE):
            return 0
        base = la & -SIZE_2M
        if not self._has_room():
            return 0
        first = space.frames.allocate_block() if write else space.frames.zero_frame
        if first < 0:
            return 0
        entry = first | vma.entry_flags
        if table < 0:
            try:
                space.page_table.map_page(base, entry)
            except OutOfFrames:
                if write:
                    space.frames.release_block(first)
                raise
            table = space.page_table.entry_address(base)
        if write:
            return self._own(table, base, entry, la)
        space.frames.share_many(first, PAGES)
        self._write(table, entry * _EACH)
        self.blocks.add(base)
        space.frames.ram.qwords[_slot(table, la)] = entry | A
        return entry | A

    def first_store(self, vma: Vma, la: int, table: int) -> int:
        """Give the block of zeros around ``la`` frames of its own; the entry for ``la``, 0 if only its page gets one.

        The block lies in ``vma``, its entries at ``table``. It is flushed if another page of it may be in the TLB.
        """
        space, base = self._space, la & -SIZE_2M
        if not self.allowed(vma) or not self._has_room() or not self._reads_zeros(table):
            return 0
        first = space.frames.allocate_block()
        if first < 0:
            return 0
        space.frames.release_many(space.frames.zero_frame, PAGES)
        own = space.frames.ram.qwords[_slot(table, la)] & A
        if space.serving != la & -PAGE_SIZE or (self._entries(table) & _ACCESSED).bit_count() > bool(own):
            space.on_flush(base, base + SIZE_2M)
        return self._own(table, base, first | vma.entry_flags, la)

    def _has_room(self) -> bool:
        """Whether another block leaves half of memory to pages."""
        frames = self._space.frames
        return 2 * (frames.used + PAGES) <= frames.limit

    def _own(self, table: int, base: int, entry: int, la: int) -> int:
        """Write the entries of the block at ``base``, whose first is to be ``entry``; the one for ``la``."""
        entry |= RW | A | D
        self._write(table, entry * _EACH + _NEIGHBOURS)
        self._space.anon_pages += PAGES
        self._space.on_pages(PAGES)
        self.blocks.add(base)
        if self._is_dense(base - SIZE_2M):
            self._space.frames.ram.populate(entry & ADDRESS_MASK, SIZE_2M)
        return entry + (la - base & -PAGE_SIZE)

    def _is_dense(self, base: int) -> bool:
        """Whether a few pages of the block at ``base``, first the last one, hold something: so will the next block."""
        table = self._space.page_table.entry_address(base) if base in self.blocks else -1
        if table < 0 or not self._is_whole(table):
            return False
        memory = self._space.frames.ram.bytes
        first = self._first_frame(table)
        # To look at memory that nobody has used costs the host a page fault.
        return all(memory[first + at : first + at + PAGE_SIZE] != ZERO_PAGE for at in _SAMPLES)

    def _entries(self, table: int) -> int:
        """The entries at ``table`` as one number."""
        return int.from_bytes(self._space.frames.ram.bytes[table : table + PAGE_SIZE], "little")

    def _write(self, table: int, entries: int) -> None:
        self._space.frames.ram.bytes[table : table + PAGE_SIZE] = entries.to_bytes(PAGE_SIZE, "little")

    def _read(self, table: int) -> tuple[int, int]:
        """The entries at ``table`` as one number, each with A and D; the first of them."""
        entries = self._entries(table) | _USED
        return entries, entries & (1 << 64) - 1

    def _reads_zeros(self, table: int) -> bool:
        entries, first = self._read(table)
        return first & ADDRESS_MASK == self._space.frames.zero_frame and entries == first * _EACH

    def _is_whole(self, table: int) -> bool:
        entries, first = self._read(table)
        return entries == first * _EACH + _NEIGHBOURS

    def _first_frame(self, table: int) -> int:
        return self._space.page_table.kept(self._space.frames.ram.qwords[table >> 3]) & ADDRESS_MASK

    def take(self, start: int, end: int) -> int:
        """Take the whole blocks of ``[start, end)`` out of the tables; how many pages they were.

        What is not a block any more stays, for whoever looks at each entry.
        """
        space, taken = self._space, 0
        for base in self._within(start, end):
            self.blocks.discard(base)
            table = space.page_table.entry_address(base)
            if table < 0:
                continue
            if self._reads_zeros(table):
                space.frames.release_many(space.frames.zero_frame, PAGES)
            elif self._is_whole(table):
                space.frames.release_block(self._first_frame(table))
                space.anon_pages -= PAGES
            else:
                continue
            space.frames.ram.bytes[table : table + PAGE_SIZE] = ZERO_PAGE
            taken += PAGES
        return taken

    def relieve(self) -> None:
        """When hardly a frame is free: give back the zeros of every block that is not locked, they read as before
        (``shrink_underused``, ``try_to_map_unused_to_zeropage``). Not while the tables are being edited.
        """
        space = self._space
        frames, memory, words = space.frames, space.frames.ram.bytes, space.frames.ram.qwords
        if not self.blocks or frames.free > frames.limit // _FEW:
            return
        blocks, self.blocks = self.blocks, set()
        for base in sorted(blocks):
            table = space.page_table.entry_address(base)
            if table < 0 or not self._is_whole(table):
                continue
            if any(vma.flags & VM_LOCKED for vma in space.vmas.overlapping(base, base + SIZE_2M)):
                self.blocks.add(base)
                continue
            for slot in range(table >> 3, (table >> 3) + PAGES):
                entry = words[slot]
                frame = entry & ADDRESS_MASK
                if not entry & P or frames.refcount(frame) != 1 or memory[frame : frame + PAGE_SIZE] != ZERO_PAGE:
                    continue
                words[slot] = entry & ~(ADDRESS_MASK | RW | D) | frames.zero_frame
                frames.share(frames.zero_frame)
                frames.release(frame)
                space.anon_pages -= 1
            space.on_flush(base, base + SIZE_2M)

    def _within(self, start: int, end: int) -> list[int]:
        """The blocks inside of ``[start, end)``, in address order."""
        first, last = -(-start // SIZE_2M) * SIZE_2M, end & -SIZE_2M
        if last - first >> 21 < len(self.blocks):
            return [base for base in range(first, last, SIZE_2M) if base in self.blocks]
        return sorted(base for base in self.blocks if first <= base < last)

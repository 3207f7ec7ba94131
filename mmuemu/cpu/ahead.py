"""Fills the engine's TLB ahead of accesses that go from page to page: one miss in place of up to 63.

A miss asks Python, and costs more than all else that a first touch takes. Processors meet such runs with one entry
for several pages (Pham et al., "CoLT: Coalesced Large-Reach TLBs", MICRO 2012; AMD's "PTE coalescing"). Here the
entries of the pages that follow are written into the engine's table (``CPUTLBEntry`` and ``CPUIOTLBEntry`` of
``include/exec/cpu-defs.h``, as ``tlb_set_page_with_attrs`` writes them), like that of the page before, which the
engine has made itself.

Only pages come in that the tables give to user stores now, in neighbouring frames: their entries differ in the frame
alone, and have A and D set, so that nothing but the TLB changes (SDM volume 3, section 4.10.2.3: a processor may cache
translations that no access has asked for).
"""

from __future__ import annotations

import ctypes
from array import array
from typing import TYPE_CHECKING, Final

from mmuemu.x86.paging import ADDRESS_MASK, NX, PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.cpu.tlbsize import TlbSize
    from mmuemu.memory.ram import GuestRam

GROUP: Final = 64
"""Pages that may come in together: aligned, so that they lie side by side in the TLB, which never has fewer entries."""
USER_MODE: Final = 1
"""MMU_USER_IDX."""
_WORDS: Final = 8
"""64-bit words of a ``CPUTLBEntry``: addresses for reads, stores and fetches, physical page, addend, padding."""
_NOT_DIRTY: Final = 1 << 10
"""TLB_NOTDIRTY: the first store looks for translated code in the page."""
_EMPTY: Final = (1 << 64) - 1
_MOST_STREAMS: Final = 32
_EACH: Final = [sum(1 << 64 * place for place in range(count)) for count in range(GROUP)]
"""Times an entry: so many of them."""
_STEPS: Final = [sum(place * PAGE_SIZE << 64 * place for place in range(count)) for count in range(GROUP)]
"""Added to so many entries of one frame: those of neighbouring frames."""


class FillAhead:
    """The streams of one engine, for tables that only the kernel here edits.

    It flushes whenever it takes a right, and before it gives an entry like these the right to store, the frame's code
    is forgotten (``PagedSpace``): stores through them change none.
    """

    def __init__(self, ram: GuestRam, size: TlbSize) -> None:
        self._ram = ram
        self._size = size
        self._next: set[int] = set()
        self._at = (0, 0, 0)
        self._table = self._more = memoryview(b"")

    def follows(self, page: int) -> bool:
        """Whether ``page``, which misses, is where a stream has got to; the page behind it is, now."""
        streams = self._next
        follows = page in streams
        if follows:
            streams.discard(page)
        elif len(streams) >= _MOST_STREAMS:
            streams.clear()
        streams.add(page + PAGE_SIZE)
        return follows

    def load(self, page: int, slot: int) -> range:
        """Fill the TLB for the pages behind ``page`` in its group that are like it; their frames.

        ``slot`` is the index of the entry for ``page``, which user stores may use.
        """
        frames = self._alike(page, slot)
        return frames if frames and self._fill(page, frames) else range(0)

    def _alike(self, page: int, slot: int) -> range:
        """The frames of the pages behind ``page`` in its group as far as they are like it."""
        count, words = GROUP - 1 - (page >> 12 & GROUP - 1), self._ram.qwords
        entry = words[slot] + PAGE_SIZE
        if not count or words[slot + 1] != entry or not entry & NX:
            return range(0)
        first = 8 * (slot + 1)
        there = int.from_bytes(self._ram.bytes[first : first + 8 * count], "little")
        unlike = there ^ entry * _EACH[count] + _STEPS[count]
        if unlike:
            count = (unlike & -unlike).bit_length() - 1 >> 6
        frame = entry & ADDRESS_MASK
        return range(frame, frame + count * PAGE_SIZE, PAGE_SIZE)

    def _fill(self, page: int, frames: range) -> bool:
        """Write entries for the pages behind ``page``, which lie in ``frames``; whether the one before it shows how."""
        size, count = self._size, len(frames)
        where = size.table(USER_MODE)
        if where != self._at:
            self._look(*where)
        table = self._table
        place = page >> 12 & where[2] - 1
        before = (place - 1 & where[2] - 1) * _WORDS
        store, _, frame, addend = table[before + 1 : before + 5].tolist()
        if store & ~_NOT_DIRTY != page - PAGE_SIZE or frame != frames.start - 2 * PAGE_SIZE:
            return False
        first = page + PAGE_SIZE
        new = array("Q", (_EMPTY,)) * (_WORDS * count)
        new[::_WORDS] = array("Q", range(first, first + count * PAGE_SIZE, PAGE_SIZE))
        new[1::_WORDS] = array("Q", range(first | _NOT_DIRTY, first + count * PAGE_SIZE, PAGE_SIZE))
        new[3::_WORDS] = array("Q", frames)
        new[4::_WORDS] = array("Q", (addend,)) * count
        at = (place + 1) * _WORDS
        size.use(USER_MODE, table[at : at + _WORDS * count : _WORDS].tolist().count(_EMPTY))
        table[at : at + _WORDS * count] = new
        before = before // _WORDS * 2
        self._more[2 * place + 2 : 2 * (place + 1 + count)] = array("Q", self._more[before : before + 2]) * count
        self._next.discard(first)
        self._next.add(first + count * PAGE_SIZE)
        return True

    def _look(self, table: int, more: int, entries: int) -> None:
        """The engine's tables lie there now."""
        self._at = table, more, entries
        self._table = _words(table, _WORDS * entries)
        self._more = _words(more, 2 * entries)


def _words(address: int, count: int) -> memoryview:
    return memoryview((ctypes.c_uint64 * count).from_address(address)).cast("B").cast("Q")

"""The upper half of the linear address space, kept once and shared by every address space."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from mmuemu.memory.page_table import PageTable
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.memory.frames import FrameAllocator


class KernelHalf:
    """The tables under entries 256 to 511 of the top table. ``table`` is their own address space, without a
    user half: map the kernel's pages in it, or in any :class:`PageTable` made with ``kernel=`` this.

    Every such table's upper entries point to the same lower tables; a new upper entry reaches all of them.
    """

    __slots__ = ("__weakref__", "_live", "inverts", "table", "trampoline")

    def __init__(
        self, frames: FrameAllocator, levels: int = 4, *, isolated: bool = False, inverts: bool = False
    ) -> None:
        """With ``isolated`` (page-table isolation, KPTI) every table made with this half has a second root, for ring 3,
        whose upper half is that of ``trampoline``. With ``inverts`` the entries of those tables that lose P and keep
        their frame hold its number inverted (arch/x86/include/asm/pgtable-invert.h). Raises OutOfFrames.
        """
        self.inverts = inverts
        self._live: weakref.WeakSet[PageTable] = weakref.WeakSet()
        self.trampoline = PageTable(frames, levels=levels) if isolated else None
        """What little of the kernel ring 3's tables hold: complete before the first table is made with this half."""
        self.table = PageTable(frames, levels=levels, kernel=self)

    def adopt(self, table: PageTable) -> None:
        """Let ``table`` take part: it gets all upper entries there are, now and later.

        Raises ValueError when it has another number of levels.
        """
        if self._live:
            if table.levels != self.table.levels:
                raise ValueError(f"the kernel half has {self.table.levels} levels, the table {table.levels}")
            memory = table.frames.ram.bytes
            source, target = self.table.root, table.root
            half = PAGE_SIZE // 2
            memory[target + half : target + PAGE_SIZE] = memory[source + half : source + PAGE_SIZE]
            if self.trampoline is not None:
                source, target = self.trampoline.root, table.user_root
                memory[target + half : target + PAGE_SIZE] = memory[source + half : source + PAGE_SIZE]
        self._live.add(table)

    def __contains__(self, table: PageTable) -> bool:
        """Whether ``table`` takes part, and has not been freed."""
        return table in self._live

    def publish(self, index: int, entry: int) -> None:
        """Put ``entry`` at ``index`` (256 to 511) of every live top table."""
        for table in self._live:
            table.frames.ram.qwords[(table.root >> 3) + index] = entry

    def forget(self, table: PageTable) -> None:
        """No more upper entries for ``table``: it is being freed."""
        self._live.discard(table)

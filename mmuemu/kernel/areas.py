"""Areas of an address space coming and going: finding room, unmapping, splitting and merging, accounting.

After mm/mmap.c (``arch_get_unmapped_area_topdown``, ``__vm_enough_memory``) and mm/vma.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.faults import PagedSpace
from mmuemu.kernel.vma import VM_ACCOUNT, VM_LOCKED, VM_NORESERVE, VM_SHARED, VM_WRITE, Vma
from mmuemu.loader.layouts import LINUX, Layout
from mmuemu.x86.paging import PAGE_MASK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmuemu.memory.frames import FrameAllocator
    from mmuemu.memory.page_table import PageTable

MAX_MAP_COUNT: Final = 65530
"""Linux's default of vm.max_map_count."""
MLOCK_LIMIT: Final = 8 << 20
DEFAULT_MMAP_BASE: Final = 0x7FFF_F7FF_F000
"""Where the search for room starts, downwards, without randomization (8 MiB of stack and its gap below the
top).
"""


def page_align(length: int) -> int:
    """``length`` rounded up to whole pages, as a 64-bit number (so the largest lengths become 0)."""
    return (length + PAGE_MASK) & ~PAGE_MASK & 0xFFFF_FFFF_FFFF_FFFF


class AreaSpace(PagedSpace):
    """Areas with their limits and counters.

    ``mmap_base`` is where the search for room starts, downwards or (``layout.mmap_top_down`` false) upwards.
    """

    def __init__(self, frames: FrameAllocator, page_table: PageTable, layout: Layout = LINUX) -> None:
        """Raises OutOfFrames."""
        super().__init__(frames, page_table)
        self.layout = layout
        self.mmap_base = DEFAULT_MMAP_BASE
        self.task_size = layout.user_top
        """The first address no user mapping may reach."""
        self.user_start = layout.user_start
        self.max_map_count = MAX_MAP_COUNT
        self.def_flags = 0
        """VM_LOCKED after mlockall(MCL_FUTURE): flags of every new area."""
        self.total_vm = 0
        """Bytes in areas (VmSize)."""
        self.locked_vm = 0
        """Bytes in areas that are mlocked."""

    def charge(self, vm_flags: int, length: int, *, shared_memory: bool = False) -> int:
        """VM_ACCOUNT for memory that must be backed some day, else 0; ENOMEM beyond all reason.

        The heuristic of vm.overcommit_memory 0: one request may not exceed all memory there is.
        """
        private = vm_flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE
        if (private or shared_memory) and not vm_flags & VM_NORESERVE and length >> 12 > self.frames.limit:
            raise SyscallError(Errno.ENOMEM)
        return VM_ACCOUNT if private else 0

    def check_locked(self, vm_flags: int, length: int) -> None:
        """EAGAIN when ``length`` more bytes of mlocked area are over the limit (RLIMIT_MEMLOCK)."""
        if vm_flags & VM_LOCKED and self.locked_vm + length > MLOCK_LIMIT:
            raise SyscallError(Errno.EAGAIN)

    def account(self, vm_flags: int, change: int) -> None:
        """Count ``change`` bytes of areas with ``vm_flags`` that came or went."""
        self.total_vm += change
        if vm_flags & VM_LOCKED:
            self.locked_vm += change

    def unmapped_area(self, addr: int, length: int, *, fixed: bool = False) -> int:
        """Where ``length`` bytes go: at ``addr`` if ``fixed``, else there if it is free, else the first place found.

        ``addr`` is a hint; one above the layout's map window also opens what lies above the window to the search
        (Documentation/arch/x86/x86_64/5level-paging.rst).
        """
        top = self.task_size
        if length > top:
            raise SyscallError(Errno.ENOMEM)
        if fixed:
            if addr > top - length:
                raise SyscallError(Errno.ENOMEM)
            if addr & PAGE_MASK:
                raise SyscallError(Errno.EINVAL)
            if addr < self.user_start:
                raise SyscallError(Errno.EPERM)
            return addr
        window = self.layout.map_window
        beyond = addr > window
        fits = addr and addr <= top - length and beyond == (addr + length > window)
        if fits and self.vmas.is_free(addr, addr + length):
            return addr
        found = self._search(length, top if beyond else window)
        if found < 0:
            raise SyscallError(Errno.ENOMEM)
        return found

    def _search(self, length: int, top: int) -> int:
        """Free room below ``top``, searched in the layout's direction, then from a third of it on; -1: none."""
        base, window = self.mmap_base, self.layout.map_window
        if self.layout.mmap_top_down:
            found = self.vmas.highest_gap(length, self.user_start, min(base, window) + top - window)
            return found if found >= 0 else self.vmas.lowest_gap(length, page_align(window // 3), top)
        found = self.vmas.lowest_gap(length, base, top)
        return found if found >= 0 else self.vmas.highest_gap(length, self.user_start, base)

    def unmap_areas(self, start: int, end: int) -> None:
        """Unmap ``[start, end)``, checked already. ENOMEM when that would make too many areas."""
        areas = self.vmas.overlapping(start, end)
        if not areas:
            return
        if areas[0].start < start and areas[0].end > end and len(self.vmas) >= self.max_map_count:
            raise SyscallError(Errno.ENOMEM)
        self.forget_last()
        present = False
        for vma in self.vmas.carve(start, end):
            present |= self.zap(vma, vma.start, vma.end)
            self.account(vma.flags, vma.start - vma.end)
            if vma.mapping is not None:
                vma.mapping.detach(self, bool(vma.flags & VM_SHARED))
        if present:
            self.on_flush(start, end)

    def each(self, start: int, end: int) -> Iterator[tuple[Vma, int, int]]:
        """(area, from, to) for the part of each area in ``[start, end)``; areas may split and merge
        meanwhile.
        """
        while start < end:
            vma = self.vmas.at_or_above(start)
            if vma is None or vma.start >= end:
                return
            start = max(start, vma.start)
            stop = min(vma.end, end)
            yield vma, start, stop
            start = stop

    def covered(self, start: int, end: int) -> list[Vma]:
        """The areas of ``[start, end)``. ENOMEM when they leave a hole."""
        areas = self.vmas.overlapping(start, end)
        at = start
        for vma in areas:
            if vma.start > at:
                break
            at = vma.end
        if at < end:
            raise SyscallError(Errno.ENOMEM)
        return areas

    def set_flags(self, vma: Vma, start: int, end: int, flags: int) -> Vma:
        """Give ``[start, end)`` of ``vma`` new VM_* flags, splitting and merging; the area then."""
        if flags == vma.flags:
            return vma
        cuts = (vma.start < start) + (end < vma.end)
        if cuts and len(self.vmas) + cuts > self.max_map_count:
            raise SyscallError(Errno.ENOMEM)
        if vma.start < start:
            vma = self.vmas.split(vma, start)
        if end < vma.end:
            self.vmas.split(vma, end)
        self.locked_vm += (end - start) * (bool(flags & VM_LOCKED) - bool(vma.flags & VM_LOCKED))
        vma.set_flags(flags)
        self.forget_last()
        return self.vmas.join(vma)

"""A process's address space: the memory system calls over areas and pages.

After mm/mmap.c (``do_mmap``), mm/vma.c (``do_vmi_munmap``, ``do_brk_flags``), mm/mprotect.c and the man
pages. Every method raises SyscallError with the errno of the call it is named after.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mmuemu.kernel import advice, remap
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.mman import (
    LEGACY_MAP_MASK,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_LOCKED,
    MAP_NONBLOCK,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MAP_STACK,
    MAP_TYPE,
    MS_ASYNC,
    MS_INVALIDATE,
    MS_SYNC,
    PROT_GROWSDOWN,
    PROT_GROWSUP,
    PROT_SEM,
    PROT_WRITE,
)
from mmuemu.kernel.areas import (
    DEFAULT_MMAP_BASE,
    MLOCK_LIMIT,
    AreaSpace,
    page_align,
)
from mmuemu.kernel.faults import PROTNONE, FaultResult
from mmuemu.kernel.keys import KEYS, NO_KEY
from mmuemu.kernel.page_cache import FileMapping, SharedMemory
from mmuemu.kernel.vma import (
    VM_ACCESS,
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_KEY_SHIFT,
    VM_LOCKED,
    VM_MAYACCESS,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_READ,
    VM_SHARED,
    VM_WIPEONFORK,
    VM_WRITE,
    OpenedFile,
    Vma,
)
from mmuemu.loader.layouts import LINUX, Layout
from mmuemu.memory.page_table import PageTable
from mmuemu.x86.paging import ADDRESS_MASK, KEY_MASK, KEY_SHIFT, NX, PAGE_MASK, PAGE_SIZE, RW, A, D, P

if TYPE_CHECKING:
    from mmuemu.kernel.idle_pages import IdlePages
    from mmuemu.memory.frames import FrameAllocator
    from mmuemu.memory.kernel_half import KernelHalf

__all__ = [
    "MAP_ANONYMOUS", "MAP_FIXED", "MAP_GROWSDOWN", "MAP_PRIVATE", "MAP_SHARED", "MAP_STACK", "PROT_WRITE",
    "AddressSpace", "FaultResult",
]  # fmt: skip

_INHERITED: Final = (
    "mmap_base", "start_brk", "brk", "start_stack", "max_map_count", "stack_limit", "_shm_ino",
    "membarrier", "keys",
)  # fmt: skip


class AddressSpace(AreaSpace):
    """One process's user half. ``start_brk``, ``brk``, ``mmap_base`` and ``start_stack`` are set by whoever
    loads.
    """

    def __init__(
        self,
        frames: FrameAllocator,
        kernel_half: KernelHalf | None = None,
        *,
        mmap_base: int = DEFAULT_MMAP_BASE,
        start_brk: int = 0,
        layout: Layout = LINUX,
        page_table: PageTable | None = None,
    ) -> None:
        """An empty address space, with new tables unless ``page_table`` is given. Raises OutOfFrames."""
        super().__init__(frames, page_table or PageTable(frames, levels=layout.levels, kernel=kernel_half), layout)
        self.mmap_base = mmap_base
        self.start_brk = self.brk = start_brk
        self.start_stack = 0
        """An address in the initial stack: /proc/self/maps calls the area around it [stack]."""
        self._shm_ino = 0
        self.membarrier = 0
        """Registrations of membarrier(2)."""
        self.keys = 1
        """Bits of the protection keys that are allocated; key 0 always was."""
        self.users = 1
        """Tasks that live here."""
        self.idle: IdlePages | None = None
        """Where the pages of files go that nobody maps any more."""
        self.on_map: Callable[[Vma], object] | None = None
        """Called with each new area."""
        self.touch: Callable[[int, int, bool], None] | None = None
        """Called with physical address, size and whether it was a write when the kernel copies from or to here."""

    # mmap

    def mmap(
        self,
        addr: int,
        length: int,
        prot: int,
        flags: int,
        file: OpenedFile | None = None,
        offset: int = 0,
        name: str = "",
        *,
        mappable: bool = True,
    ) -> int:
        """Map ``length`` bytes; the address. ``flags`` are MAP_*; without ``file`` the memory is anonymous.

        ``name`` is what /proc/self/maps shows: the file's path, or a name in brackets. ``mappable`` false:
        the file is one that cannot be mapped (ENODEV).
        """
        if not length or offset & PAGE_MASK:
            raise SyscallError(Errno.EINVAL)
        if flags & MAP_FIXED_NOREPLACE:
            flags |= MAP_FIXED
        if not flags & MAP_FIXED:
            addr &= ~PAGE_MASK
            if addr and addr < self.user_start:
                addr = self.user_start
        length = page_align(length)
        if not length:
            raise SyscallError(Errno.ENOMEM)
        if (offset >> 12) + (length >> 12) >= 1 << 64 - 12:
            raise SyscallError(Errno.EOVERFLOW)
        if len(self.vmas) > self.max_map_count:
            raise SyscallError(Errno.ENOMEM)
        addr = self.unmapped_area(addr, length, fixed=bool(flags & MAP_FIXED))
        if flags & MAP_FIXED_NOREPLACE and self.vmas.overlapping(addr, addr + length):
            raise SyscallError(Errno.EEXIST)
        vm_flags = self._vm_flags(prot, flags, length, file)
        if file is not None and not mappable:
            raise SyscallError(Errno.ENODEV)
        self._map(Vma(addr, addr + length, vm_flags, file, addr if file is None else offset, name))
        touch = vm_flags & VM_LOCKED or flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE
        if touch and prot & VM_ACCESS and self.populate(addr, addr + length) is FaultResult.OOM:
            self.munmap(addr, length)
            raise SyscallError(Errno.ENOMEM)
        return addr

    def _vm_flags(self, prot: int, flags: int, length: int, file: OpenedFile | None) -> int:
        """The VM_* flags of a new area, or the errno why there is none."""
        vm_flags = (prot & VM_ACCESS) | VM_MAYACCESS | self.def_flags
        for bit, vm in (
            (MAP_GROWSDOWN, VM_GROWSDOWN),
            (MAP_LOCKED, VM_LOCKED),
            (MAP_STACK, VM_NOHUGEPAGE),
            (MAP_NORESERVE, VM_NORESERVE),
        ):
            vm_flags |= vm if flags & bit else 0
        self.check_locked(vm_flags, length)
        kind = flags & MAP_TYPE
        if file is None:
            if kind not in (MAP_SHARED, MAP_PRIVATE) or (kind == MAP_SHARED and flags & MAP_GROWSDOWN):
                raise SyscallError(Errno.EINVAL)
            return vm_flags | (VM_SHARED | VM_MAYSHARE if kind == MAP_SHARED else 0)
        if kind == MAP_SHARED_VALIDATE and flags & ~(LEGACY_MAP_MASK | MAP_SHARED_VALIDATE):
            raise SyscallError(Errno.EOPNOTSUPP)
        if kind in (MAP_SHARED, MAP_SHARED_VALIDATE):
            if prot & PROT_WRITE and not file.writable:
                raise SyscallError(Errno.EACCES)
            vm_flags |= VM_SHARED | VM_MAYSHARE
            if not file.writable:
                vm_flags &= ~(VM_MAYWRITE | VM_SHARED)
        elif kind != MAP_PRIVATE:
            raise SyscallError(Errno.EINVAL)
        if not file.readable:
            raise SyscallError(Errno.EACCES)
        if flags & MAP_GROWSDOWN:
            raise SyscallError(Errno.EINVAL)
        return vm_flags

    def _map(self, vma: Vma) -> None:
        """Put a new area in place of whatever is there (``mmap_region``)."""
        length = vma.end - vma.start
        nameless = bool(vma.flags & VM_MAYSHARE) and vma.file is None
        vma.set_flags(vma.flags | self.charge(vma.flags, length, shared_memory=nameless))
        self.unmap_areas(vma.start, vma.end)
        if nameless:
            self._shm_ino += 1
            vma.file = SharedMemory(length, self._shm_ino)
            vma.offset = 0
            vma.name = "/dev/zero (deleted)"
        if vma.file is not None:
            vma.mapping = FileMapping.of(vma.file.inode, self.frames, self.idle)
        self.vmas.insert(vma)
        self.account(vma.flags, length)
        if self.on_map is not None:
            self.on_map(vma)
        self.vmas.join(vma)

    # munmap

    def munmap(self, addr: int, length: int) -> None:
        """Unmap every page of ``[addr, addr + length)``; holes are fine."""
        if addr & PAGE_MASK or addr > self.task_size or length > self.task_size - addr or not length:
            raise SyscallError(Errno.EINVAL)
        self.unmap_areas(addr, addr + page_align(length))

    # mprotect and everything else that changes flags of a range

    def mprotect(self, addr: int, length: int, prot: int, key: int = NO_KEY) -> None:
        """Change the rights of a range, and its protection key if one is given; areas before the first hole or refusal
        stay changed.
        """
        grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP)
        prot &= ~grows
        if grows == PROT_GROWSDOWN | PROT_GROWSUP or addr & PAGE_MASK:
            raise SyscallError(Errno.EINVAL)
        if not length:
            return
        end = addr + page_align(length)
        if not addr < end < 1 << 64:
            raise SyscallError(Errno.ENOMEM)
        if prot & ~(VM_ACCESS | PROT_SEM):
            raise SyscallError(Errno.EINVAL)
        if key != NO_KEY and not self.has_key(key):
            raise SyscallError(Errno.EINVAL)
        vma = self.vmas.at_or_above(addr)
        if vma is None:
            raise SyscallError(Errno.ENOMEM)
        if grows & PROT_GROWSDOWN:
            if vma.start >= end:
                raise SyscallError(Errno.ENOMEM)
            addr = vma.start
            if not vma.flags & VM_GROWSDOWN:
                raise SyscallError(Errno.EINVAL)
        elif vma.start > addr:
            raise SyscallError(Errno.ENOMEM)
        if grows & PROT_GROWSUP:
            raise SyscallError(Errno.EINVAL)
        self._protect(addr, end, prot & VM_ACCESS, key)

    def has_key(self, key: int) -> bool:
        """Whether the protection key ``key`` is allocated."""
        return 0 <= key < KEYS and bool(self.keys >> key & 1)

    def _protect(self, addr: int, end: int, prot: int, key: int) -> None:
        at = addr
        flush = False
        try:
            for vma, start, stop in self.each(addr, end):
                if start > at:
                    break
                if prot & ~(vma.flags >> 4):
                    raise SyscallError(Errno.EACCES)
                flags = vma.flags & ~VM_ACCESS | prot
                if key != NO_KEY:
                    flags = flags & (1 << VM_KEY_SHIFT) - 1 | key << VM_KEY_SHIFT
                flags = self._reaccount(vma, flags)
                if flags != vma.flags:
                    was = vma.flags
                    self.set_flags(vma, start, stop, flags)
                    flush |= self._sync_entries(vma, start, stop, flags, was)
                at = stop
        finally:
            if flush:
                self.on_flush(addr, at)
        if at < end:
            raise SyscallError(Errno.ENOMEM)

    def _reaccount(self, vma: Vma, flags: int) -> int:
        """``flags`` with VM_ACCOUNT as it becomes when ``vma`` changes to them (``mprotect_fixup``)."""
        if flags & VM_WRITE:
            if not vma.flags & (VM_ACCOUNT | VM_WRITE | VM_SHARED | VM_NORESERVE):
                flags |= self.charge(flags, vma.end - vma.start)
        elif vma.flags & VM_ACCOUNT and vma.file is None and not vma.anon:
            flags &= ~VM_ACCOUNT
        return flags

    def _sync_entries(self, vma: Vma, start: int, end: int, flags: int, was: int) -> bool:
        """Bring the entries of a range in line with its area's new rights, from what it ``was``; whether a present one
        changed.

        The right to write is never added here: the next write faults and copies if it must, and forgets code.
        """
        key = flags >> VM_KEY_SHIFT << KEY_SHIFT
        if not flags & VM_ACCESS:
            return self.page_table.protect_range(start, end, PROTNONE | key, P | KEY_MASK)
        clear = PROTNONE | KEY_MASK | (0 if flags & VM_WRITE else RW)
        if flags & VM_EXEC and not (vma.mapping is not None and vma.mapping.aliased):
            for _, entry, _ in self.page_table.iterate(start, end, absent=True):
                self.frames.mark_executed(entry & ADDRESS_MASK)
            return self.page_table.protect_range(start, end, P | key, clear | NX)
        if was & VM_EXEC or not was & VM_ACCESS:
            entries = (entry for _, entry, _ in self.page_table.iterate(start, end, absent=True) if not entry & NX)
            clear |= RW if any(self.frames.is_executed(entry & ADDRESS_MASK) for entry in entries) else 0
        return self.page_table.protect_range(start, end, P | NX | key, clear)

    # brk

    def set_brk(self, addr: int) -> int:
        """brk(2): move the end of the heap to ``addr`` if that can be; the end of the heap then."""
        if not self.start_brk <= addr <= self.task_size:
            return self.brk
        old, new = page_align(self.brk), page_align(addr)
        if new < old:
            heap = self.vmas.overlapping(new, old)
            if not heap or heap[0].start >= old:
                return self.brk
            self.unmap_areas(new, old)
        elif new > old and not self._extend_heap(old, new):
            return self.brk
        self.brk = addr
        return addr

    def _extend_heap(self, old: int, new: int) -> bool:
        flags = VM_READ | VM_WRITE | VM_MAYACCESS | VM_ACCOUNT | self.def_flags
        above = self.vmas.at_or_above(old)
        if new > self.task_size or old < self.user_start or len(self.vmas) > self.max_map_count:
            return False
        if (new - old) >> 12 > self.frames.limit or (above and new + PAGE_SIZE > above.guarded_start):
            return False
        vma = Vma(old, new, flags, offset=old)
        self.vmas.insert(vma)
        self.account(flags, new - old)
        if self.on_map is not None:
            self.on_map(vma)
        if old > page_align(self.start_brk):
            self.vmas.join(vma, left_only=True)
        if flags & VM_LOCKED:
            self.populate(old, new)
        return True

    # mlock, msync, mincore

    def mlock(self, addr: int, length: int, *, lock: bool = True, on_fault: bool = False) -> None:
        """mlock(2), mlock2(2) with MLOCK_ONFAULT, munlock(2): nothing is ever paged out, so pages are only
        touched.
        """
        length = page_align(length + (addr & PAGE_MASK))
        start = addr & ~PAGE_MASK
        end = start + length
        if lock and self.locked_vm + length > MLOCK_LIMIT:
            locked = sum(high - low for vma, low, high in self.each(start, end) if vma.flags & VM_LOCKED)
            if self.locked_vm + length - locked > MLOCK_LIMIT:
                raise SyscallError(Errno.ENOMEM)
        if end >= 1 << 64:
            raise SyscallError(Errno.EINVAL)
        for vma, low, high in self.each(start, end):
            self.set_flags(vma, low, high, vma.flags | VM_LOCKED if lock else vma.flags & ~VM_LOCKED)
        self.covered(start, end)
        if lock and not on_fault and self.populate(start, end):
            raise SyscallError(Errno.ENOMEM)

    def mlock_all(self, *, current: bool, future: int) -> None:
        """mlockall(2): what is mapped now, and with ``future`` = VM_LOCKED what is mapped from now on."""
        if current and self.total_vm > MLOCK_LIMIT:
            raise SyscallError(Errno.ENOMEM)
        self.def_flags = future
        if current:
            for vma, start, stop in self.each(0, self.task_size):
                self.set_flags(vma, start, stop, vma.flags | VM_LOCKED)
                self.populate(start, stop)

    def munlock_all(self) -> None:
        """munlockall(2)."""
        self.def_flags = 0
        for vma, start, stop in self.each(0, self.task_size):
            self.set_flags(vma, start, stop, vma.flags & ~VM_LOCKED)

    def msync(self, addr: int, length: int, flags: int) -> None:
        """Write stores to shared file mappings back to their files."""
        if flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) or addr & PAGE_MASK:
            raise SyscallError(Errno.EINVAL)
        if flags & MS_ASYNC and flags & MS_SYNC:
            raise SyscallError(Errno.EINVAL)
        end = addr + page_align(length)
        if not addr <= end < 1 << 64:
            raise SyscallError(Errno.ENOMEM)
        for vma in self.vmas.overlapping(addr, end):
            if flags & MS_INVALIDATE and vma.flags & VM_LOCKED:
                raise SyscallError(Errno.EBUSY)
            if vma.flags & VM_SHARED and vma.mapping is not None:
                self.write_back(vma, max(addr, vma.start), min(end, vma.end))
        self.covered(addr, end)

    def write_back(self, vma: Vma, start: int, end: int) -> None:
        """Pass the stores made through a shared area on to its file."""
        mapping = vma.mapping
        assert mapping is not None
        found = [(la, entry) for la, entry, _ in self.page_table.iterate(start, end, absent=True) if entry & D]
        for la, _ in found:
            mapping.dirty.add(vma.page_index(la))
            self.frames.ram.qwords[self.page_table.entry_address(la) >> 3] &= ~D
        if found:
            self.on_flush(found[0][0], found[-1][0] + PAGE_SIZE)
        mapping.sync()

    def write_back_all(self, *, nameless: bool = True) -> None:
        """Pass every store through a shared area on to its file: nobody may come to unmap it.

        A file that takes no more is passed over, as when an area is unmapped: nobody is left to be told. Without
        ``nameless`` shared memory that has no file stays as it is, dirty pages too.
        """
        for vma in self.vmas:
            if vma.flags & VM_SHARED and vma.mapping is not None:
                if not nameless and isinstance(vma.mapping.inode, SharedMemory):
                    continue
                with contextlib.suppress(SyscallError):
                    self.write_back(vma, vma.start, vma.end)

    def mincore(self, start: int, end: int) -> bytes:
        """One byte a page of ``[start, end)``, 1 for a page in memory. ENOMEM when a part is unmapped."""
        vector = bytearray((end - start) >> 12)
        for vma in self.covered(start, end):
            low, high = max(start, vma.start), min(end, vma.end)
            for la, _, _ in self.page_table.iterate(low, high, absent=True):
                vector[(la - start) >> 12] = 1
            if vma.mapping is not None:
                first = vma.page_index(low)
                for index in vma.mapping.pages:
                    if first <= index < first + ((high - low) >> 12):
                        vector[index - first + ((low - start) >> 12)] = 1
        return bytes(vector)

    def mremap(self, addr: int, old_length: int, new_length: int, flags: int, new_addr: int = 0) -> int:
        """mremap(2): resize or move a mapping; its address then."""
        return remap.mremap(self, addr, old_length, new_length, flags, new_addr)

    def madvise(self, addr: int, length: int, behavior: int) -> None:
        """madvise(2)."""
        advice.madvise(self, addr, length, behavior)

    # Birth and death

    def fork(self) -> AddressSpace:
        """A child's address space: the same areas and pages, private ones copied at the first write on either
        side. Raises OutOfFrames with nothing changed but that some pages will be copied needlessly.
        """
        self.huge.relieve()
        zero = self._zero
        shared: list[int] = []
        cached = 0
        last = self._last

        def leaf(la: int, entry: int, size: int) -> tuple[int, int]:
            nonlocal last, cached
            if not last.start <= la < last.end:
                last = self.vmas.find(la) or last
            flags = last.flags
            if flags & (VM_DONTCOPY | VM_WIPEONFORK) or size != PAGE_SIZE or not last.start <= la < last.end:
                return entry, 0
            if not last.anon:
                return entry, 0  # nothing but the file's pages, which a fault finds (vma_needs_copy)
            frame = entry & ADDRESS_MASK
            shared.append(frame)
            mapping = last.mapping
            if mapping is not None:
                if mapping.pages.get(last.page_index(la)) == frame:
                    cached += 1
                if flags & VM_MAYSHARE:
                    return entry, entry & ~(A | D)
            entry &= ~RW
            return entry, entry & ~A

        table = self.page_table.clone(leaf)
        self.frames.share_all(shared)
        self.on_flush(0, self.task_size)
        child = AddressSpace(self.frames, page_table=table, layout=self.layout)
        for name in _INHERITED:
            setattr(child, name, getattr(self, name))
        child.huge.inherit(self.huge)
        child.anon_pages, child.file_pages = len(shared) - cached - shared.count(zero), cached
        for vma in self.vmas:
            if not vma.flags & VM_DONTCOPY:
                twin = vma.copy(vma.start, vma.end)
                twin.set_flags(vma.flags & ~VM_LOCKED)
                child.vmas.insert(twin)
                child.account(twin.flags, twin.end - twin.start)
        return child

    def destroy(self) -> None:
        """Give everything back: pages, tables, dirty pages of shared files. Nothing may use this object
        then.
        """
        for vma in self.vmas:
            if vma.flags & VM_MAYSHARE:
                self.zap(vma, vma.start, vma.end)  # it notes which pages of the file are dirty
        self._peak_pages = self.peak
        self.huge.take(0, self.task_size)
        found: list[int] = []
        self.page_table.free(lambda entry, _la, _size: found.append(entry & ADDRESS_MASK))
        self.frames.release_all(found)
        self.forget_last()
        for vma in self.vmas.carve(0, self.task_size):
            if vma.mapping is not None:
                vma.mapping.detach(self, bool(vma.flags & VM_SHARED))
        self.anon_pages = self.file_pages = self.total_vm = self.locked_vm = 0
        self.on_flush(0, self.task_size)

"""Demand paging: what happens when the processor reports a page fault in a process's address space.

After arch/x86/mm/fault.c (``access_error``, ``do_user_addr_fault``) and mm/memory.c (``do_anonymous_page``,
``do_wp_page``, ``do_read_fault``, ``do_cow_fault``, ``do_shared_fault``).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.errors import OutOfFrames
from mmuemu.kernel.abi.errno import SyscallError
from mmuemu.kernel.huge import NEVER, HugePages
from mmuemu.kernel.vma import (
    STACK_GUARD_GAP,
    VM_ACCESS,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_KEY_SHIFT,
    VM_MAYSHARE,
    VM_WRITE,
    Vma,
    VmaList,
)
from mmuemu.x86.paging import ADDRESS_MASK, KEY_MASK, KEY_SHIFT, NX, PAGE_MASK, PAGE_SIZE, RW, SIZE_2M, US, A, D, G, P

if TYPE_CHECKING:
    from mmuemu.kernel.page_cache import FileMapping
    from mmuemu.memory.frames import FrameAllocator
    from mmuemu.memory.page_table import PageTable

PROTNONE: Final = G
"""Marks an entry that lost P to PROT_NONE and keeps its frame (Linux uses the same bit, _PAGE_PROTNONE)."""
MMAP_MIN_ADDR: Final = 0x1_0000
DEFAULT_STACK_LIMIT: Final = 8 << 20

_WRITE: Final = 1 << 1
_USER: Final = 1 << 2
_RESERVED: Final = 1 << 3
_FETCH: Final = 1 << 4
_KEY: Final = 1 << 5
_NEW: Final = RW | A | D
_NO_KEY: Final = (1 << VM_KEY_SHIFT) - 1


class FaultResult(IntEnum):
    """What came of a page fault; everything but RESOLVED is a signal for the task (``signal`` and
    ``si_code``).
    """

    RESOLVED = 0
    """The access can be made again."""
    SEGV_MAPERR = 1
    SEGV_ACCERR = 2
    BUS_ADRERR = 3
    """The page lies beyond the end of the mapped file."""
    OOM = 4
    """Guest memory is exhausted: Linux's OOM killer would end the task with SIGKILL."""
    SEGV_PKUERR = 5
    """PKRU refuses the access by the page's protection key."""

    @property
    def signal(self) -> int:
        """The signal number, 0 for RESOLVED."""
        return (0, 11, 11, 7, 9, 11)[self]

    @property
    def si_code(self) -> int:
        """The ``si_code`` of the signal's siginfo."""
        return (0, 1, 2, 2, 0, 4)[self]


class FaultRecord(NamedTuple):
    """A fault for who watches: what was asked, and the page's entry before and after."""

    address: int
    error: int
    """The processor's error code."""
    result: FaultResult
    outside: bool
    """The address lay in no area: a stack has grown, or the access is refused."""
    old: int
    new: int
    major: bool
    """The page came from a file that was not in the page cache."""


RESOLVED: Final = FaultResult.RESOLVED
_NOWHERE: Final = Vma(0, 0, 0)


def _no_flush(_start: int, _end: int) -> None:
    return None


def _no_count(_pages: int) -> None:
    return None


class PagedSpace:
    """Page tables filled on demand from a list of areas.

    Memory is counted in pages: ``anon_pages`` (private ones of its own), ``file_pages`` (page-cache pages
    mapped).
    """

    def __init__(self, frames: FrameAllocator, page_table: PageTable) -> None:
        """Fill ``page_table``, which becomes this object's. Raises OutOfFrames."""
        self.frames = frames
        self._zero = frames.zero_frame
        self.page_table = page_table
        self.vmas = VmaList(self)
        self.on_flush: Callable[[int, int], None] = _no_flush
        """Called with (start, end) when translations of that range may have become wrong; set by the CPU."""
        self.on_pages: Callable[[int], None] = _no_count
        """Called with the number of pages when one fault maps several; set by the CPU."""
        self.pkru: Callable[[], int] | None = None
        """The running task's rights to protection keys; None on a CPU without them."""
        self.stack_limit = DEFAULT_STACK_LIMIT
        """How large an area that grows down may get, in bytes (RLIMIT_STACK)."""
        self.user_start = MMAP_MIN_ADDR
        """Nothing is mapped below this address."""
        self.installed = 0
        """The last entry that :meth:`fault` wrote and that lets the access through; its reader sets it to 0."""
        self.serving = -1
        """The page whose miss the CPU is about to fill: what it had cached of it is replaced without a flush."""
        self.anon_pages = 0
        self.file_pages = 0
        self.minor_faults = 0
        self.major_faults = 0
        self._peak_pages = 0
        self._q = frames.ram.qwords
        self._last = _NOWHERE
        self._taken = 0
        self.huge = HugePages(self, NEVER)

    @property
    def resident(self) -> int:
        """Pages mapped now (VmRSS in pages); the shared zero frame does not count, as on Linux."""
        return self.anon_pages + self.file_pages

    @property
    def peak(self) -> int:
        """The most pages that were ever mapped at once (VmHWM in pages)."""
        return max(self._peak_pages, self.anon_pages + self.file_pages)

    # The fault itself

    def fault(self, la: int, error: int) -> FaultResult:
        """Resolve a page fault at linear address ``la`` with the processor's error code ``error``."""
        vma = self._last
        if not vma.start <= la < vma.end:
            found = self.vmas.find(la) or self._grow_stack(la)
            if found is None:
                return FaultResult.SEGV_MAPERR
            self._last = vma = found
        write = error & 2
        if (vma.flags > _NO_KEY or error & _KEY) and self.key_refuses(vma.key, write, error & _FETCH):
            return FaultResult.SEGV_PKUERR
        if write:
            if not vma.flags & 2:
                return FaultResult.SEGV_ACCERR
        elif (error & 0x18 and (error & _RESERVED or not vma.flags & VM_EXEC)) or not vma.flags & 7:
            return FaultResult.SEGV_ACCERR
        address = self.page_table.entry_address(la)
        try:
            if address >= 0:
                old = self._q[address >> 3]
                if old:
                    return self._present(vma, la, error, address, old)
            elif self.page_table.lookup(la) is not None:
                return self._recheck(la, error)
            self.minor_faults += 1
            if vma.mapping is not None:
                return self._file_fault(vma, la, write)
            if write and not vma.anon:
                self.vmas.own_pages(vma)
            base = la & -SIZE_2M
            if vma.start <= base and base + SIZE_2M <= vma.end:
                self.installed = self.huge.first_touch(vma, la, write, address & -PAGE_SIZE)
                if self.installed:
                    return RESOLVED
            if write:
                entry = self._own_frame(vma) | vma.entry_flags | _NEW
                self.anon_pages += 1
            else:
                entry = self._zero | vma.entry_flags | A
                self.frames.share(self._zero)
            if address >= 0:
                self._q[address >> 3] = self.installed = entry
            else:
                self._map_new(la, entry)
        except OutOfFrames:
            return FaultResult.OOM
        return RESOLVED

    def watch(self, told: Callable[[PagedSpace, FaultRecord], object]) -> None:
        """Call ``told`` after each fault from now on, by replacing this object's own :meth:`fault`."""
        plain = self.fault

        def fault(la: int, error: int) -> FaultResult:
            vma, slot, major = self.vmas.find(la), self.page_table.entry_address(la) >> 3, self.major_faults
            old = self._q[slot] if slot >= 0 else 0
            result = plain(la, error)
            slot = self.page_table.entry_address(la) >> 3
            new = self._q[slot] if slot >= 0 else 0
            told(self, FaultRecord(la, error, result, vma is None, old, new, self.major_faults > major))
            return result

        self.fault = fault  # type: ignore[method-assign]

    def key_refuses(self, key: int, write: int, fetch: int = 0) -> bool:
        """Whether PKRU keeps the running task from data with ``key`` (``arch_vma_access_permitted``)."""
        if self.pkru is None or fetch:
            return False
        return bool(self.pkru() >> 2 * key & (3 if write else 1))

    def _map_new(self, la: int, entry: int) -> None:
        """Put ``entry`` into tables yet to be made; without room for them its frame is let go."""
        try:
            self.page_table.map_page(la, entry)
            self.installed = entry
        except OutOfFrames:
            self._count(entry & ADDRESS_MASK, self.vmas.find(la), la, -1)
            self.frames.release(entry & ADDRESS_MASK)
            raise

    def _present(self, vma: Vma, la: int, error: int, address: int, old: int) -> FaultResult:
        """There is an entry: copy on write, a right that came later, or a translation gone stale."""
        if not old & P:
            old = self.page_table.kept(old)
        if not error & _WRITE:
            new = (old | P | A) & ~PROTNONE if not old & P else old | A
            if error & _FETCH:
                new &= ~NX
                self.frames.mark_executed(new & ADDRESS_MASK)
        elif old & RW or vma.flags & VM_MAYSHARE:
            new = self._storing(old)
        else:
            return self._copy_on_write(vma, la, address, old, error)
        if vma.mapping is not None:
            new = self._exclusive(vma, la, new, error & _WRITE)
        if new == old:
            return self._recheck(la, error)
        self._q[address >> 3] = new
        if not error & _KEY:
            self.installed = new
        self.minor_faults += 1
        return RESOLVED

    def _copy_on_write(self, vma: Vma, la: int, address: int, old: int, error: int) -> FaultResult:
        """A write to a private page: the only user gets the right, every other one a copy."""
        self.minor_faults += 1
        if not vma.anon:
            self.vmas.own_pages(vma)
        frames = self.frames
        frame = old & ADDRESS_MASK
        if frames.refcount(frame) == 1:
            entry = self._storing(old)
        else:
            if frame == self._zero:
                base = la & -SIZE_2M
                if base in self.huge.blocks and vma.start <= base and base + SIZE_2M <= vma.end:
                    self.installed = self.huge.first_store(vma, la, address & -PAGE_SIZE)
                    if self.installed:
                        return RESOLVED
                new = frames.allocate()
                self.anon_pages += 1
            else:
                new = frames.copy(frame)
                if vma.mapping is not None:
                    self._count(frame, vma, la, -1)
                    self.anon_pages += 1
            if vma.flags & VM_EXEC:
                frames.mark_executed(new)
            frames.release(frame)
            entry = new | vma.entry_flags | _NEW
            la &= ~PAGE_MASK
            if self.serving != la or vma.flags & VM_EXEC:
                self.on_flush(la, la + PAGE_SIZE)
        self._q[address >> 3] = entry
        if not error & _KEY:
            self.installed = entry
        return RESOLVED

    def _storing(self, entry: int) -> int:
        """``entry`` with the right to store; to code that it keeps from running the engine notices one store only."""
        if entry & NX and self.frames.is_executed(entry & ADDRESS_MASK):
            self.frames.forget_code(entry & ADDRESS_MASK)
        return entry | P | RW | A | D

    def _recheck(self, la: int, error: int) -> FaultResult:
        """A fault on an entry that allows the access already: fine, unless a level above it forbids it.

        Only someone who edits the tables by hand can bring that about; trying again would never end.
        """
        found = self.page_table.lookup(la)
        if found is None:
            return FaultResult.SEGV_ACCERR
        need = (RW if error & _WRITE else 0) | (US if error & _USER else 0)
        if found.flags & need != need or (error & _FETCH and found.flags & NX):
            return FaultResult.SEGV_ACCERR
        return RESOLVED

    def _file_fault(self, vma: Vma, la: int, write: int) -> FaultResult:
        """First touch of a page of a mapped file, or of shared anonymous memory."""
        mapping = vma.mapping
        assert mapping is not None
        index = vma.page_index(la)
        frames = self.frames
        cached = len(mapping.pages)
        try:
            frame = mapping.frame(index)
        except SyscallError:
            return FaultResult.BUS_ADRERR
        if frame < 0:
            return FaultResult.BUS_ADRERR
        if len(mapping.pages) != cached:
            self.major_faults += 1
            self.minor_faults -= 1
        if write and not vma.flags & VM_MAYSHARE:
            if not vma.anon:
                self.vmas.own_pages(vma)
            new = self._own_frame(vma)
            memory = frames.ram.bytes
            memory[new : new + PAGE_SIZE] = memory[frame : frame + PAGE_SIZE]
            self.anon_pages += 1
            self._map_new(la, new | vma.entry_flags | _NEW)
            return RESOLVED
        rights = A | (D if write else 0)
        if vma.flags & (VM_MAYSHARE | VM_WRITE) == VM_MAYSHARE | VM_WRITE:
            rights |= RW
        frames.share(frame)
        self.file_pages += 1
        if vma.flags & VM_EXEC:
            frames.mark_executed(frame)
        self._map_new(la, self._exclusive(vma, la, frame | vma.entry_flags | rights, write))
        return RESOLVED

    def _own_frame(self, vma: Vma) -> int:
        """A new frame for a private page of ``vma``, marked as code when it may be executed."""
        frame = self.frames.allocate()
        if vma.flags & VM_EXEC:
            self.frames.mark_executed(frame)
        return frame

    def _exclusive(self, vma: Vma, la: int, entry: int, write: int) -> int:
        """``entry`` for a page of a file, which only one side may have when some store to it and others execute it.

        Translated code notices stores through its own linear addresses only. So a store takes execution from
        everybody, execution takes the right to store from everybody, and each comes back by a fault.
        """
        mapping = vma.mapping
        assert mapping is not None
        frame = entry & ADDRESS_MASK
        index = vma.page_index(la)
        if not mapping.aliased or mapping.pages.get(index) != frame:
            return entry
        if write:
            if self.frames.is_executed(frame):
                self.frames.forget_code(frame)
            taken, entry = NX, entry | NX
        else:
            entry &= ~RW
            if entry & NX:
                return entry
            taken = RW
        for space in mapping.spaces():
            space.take_right(mapping, index, frame, taken)
        return entry

    def take_right(self, mapping: FileMapping, index: int, frame: int, right: int) -> None:
        """Take storing (RW) or execution (NX) of a file's page, cached in ``frame``, from every area here."""
        for vma in self.vmas:
            la = vma.start + (index << 12) - vma.offset
            if vma.mapping is not mapping or not vma.start <= la < vma.end:
                continue
            address = self.page_table.entry_address(la)
            entry = self.page_table.kept(self._q[address >> 3]) if address >= 0 else 0
            new = entry & ~RW if right == RW else entry | NX
            if entry & ADDRESS_MASK == frame and new != entry:
                self._q[address >> 3] = self.page_table.kept(new)
                self.on_flush(la, la + PAGE_SIZE)

    def growing(self, la: int) -> Vma | None:
        """The area above ``la``, where there is none, if it is a stack that a fault there would extend down to it
        (``expand_downwards``).
        """
        vma = self.vmas.at_or_above(la)
        if vma is None or not vma.flags & VM_GROWSDOWN:
            return None
        start = la & ~PAGE_MASK
        if start < self.user_start or vma.end - start > self.stack_limit:
            return None
        below = self.vmas.before(vma.start)
        if below is not None:
            guarded = not below.flags & VM_GROWSDOWN and below.flags & VM_ACCESS
            if start < below.end + (STACK_GUARD_GAP if guarded else 0):
                return None
        return vma

    def _grow_stack(self, la: int) -> Vma | None:
        vma = self.growing(la)
        if vma is not None:
            if not vma.anon:
                self.vmas.own_pages(vma)
            self.vmas.move_start(vma, la & ~PAGE_MASK)
        return vma

    def force(self, la: int, write: bool) -> int:
        """The frame at ``la`` for a debugger: faulted in, and made private for a write, whatever the area's
        rights.

        The entry keeps the rights the area gives. -1 where nothing is mapped, where a store would reach
        others, or without memory.
        """
        vma = self.vmas.find(la)
        if vma is None or (write and vma.flags & VM_MAYSHARE and not vma.flags & VM_WRITE):
            return -1
        flags = vma.flags
        vma.set_flags((flags | VM_ACCESS) & _NO_KEY)
        try:
            result = self.fault(la, _USER | (_WRITE if write else 0))
        finally:
            vma.set_flags(flags)
        address = self.page_table.entry_address(la)
        if result or address < 0:
            return -1
        entry = self._q[address >> 3] & ~KEY_MASK | vma.key << KEY_SHIFT
        if not flags & VM_WRITE:
            entry &= ~RW
        if not flags & VM_EXEC:
            entry |= NX
        if not flags & VM_ACCESS:
            entry = entry & ~P | PROTNONE
        self._q[address >> 3] = self.page_table.kept(entry)
        la &= ~PAGE_MASK
        self.on_flush(la, la + PAGE_SIZE)
        return entry & ADDRESS_MASK

    # Taking pages away

    def forget_last(self) -> None:
        """Areas have changed: the one of the last fault is looked up anew."""
        self._last = _NOWHERE

    def _count(self, frame: int, vma: Vma | None, la: int, change: int) -> None:
        """Account for a page-table entry of ``vma`` that came or went."""
        if frame == self._zero:
            return
        if vma is not None and vma.mapping is not None and vma.mapping.pages.get(vma.page_index(la)) == frame:
            self.file_pages += change
        else:
            self.anon_pages += change

    def zap(self, vma: Vma, start: int, end: int) -> bool:
        """Take the pages of ``vma`` in ``[start, end)`` out of the tables; whether there were any.

        Stores to shared file pages are noted in the file's mapping. The caller flushes.
        """
        self._peak_pages = self.peak
        self._taken = 0
        if vma.mapping is None:
            self._taken = self.huge.take(start, end)
            self.page_table.unmap_range(start, end, self._release_anonymous)
        else:
            mapping = vma.mapping
            dirty = mapping.dirty if vma.flags & VM_MAYSHARE else set()

            def release(entry: int, la: int, _size: int) -> None:
                frame = entry & ADDRESS_MASK
                if entry & D:
                    dirty.add(vma.page_index(la))
                self._count(frame, vma, la, -1)
                self._taken += 1
                self.frames.release(frame)

            self.page_table.unmap_range(start, end, release)
        return self._taken > 0

    def _release_anonymous(self, entry: int, _la: int, _size: int) -> None:
        frame = entry & ADDRESS_MASK
        if frame != self._zero:
            self.anon_pages -= 1
        self._taken += 1
        self.frames.release(frame)

    def drop_file_pages(self, mapping: FileMapping, first: int) -> None:
        """Unmap every page of ``mapping``'s file from page index ``first`` on: the file was truncated."""
        for vma in self.vmas:
            if vma.mapping is mapping:
                start = max(vma.start + (first << 12) - vma.offset, vma.start)
                if start < vma.end and self.zap(vma, start, vma.end):
                    self.on_flush(start, vma.end)

    def populate(self, start: int, end: int, *, write: bool | None = None) -> FaultResult:
        """Touch every page of ``[start, end)`` as user code would; the first fault that fails, or RESOLVED.

        ``write`` None: a write where the area is private and writable, a read elsewhere (MAP_POPULATE).
        """
        la = start
        while la < end:
            if (vma := self.vmas.find(la)) is None:
                return FaultResult.SEGV_MAPERR
            store = vma.flags & (VM_WRITE | VM_MAYSHARE) == VM_WRITE if write is None else write
            error = _USER | (_WRITE if store else 0)
            for page in range(la, min(end, vma.end), PAGE_SIZE):
                if not self._allows(page, store):
                    result = self.fault(page, error)
                    if result:
                        return result
            la = vma.end
        return RESOLVED

    def _allows(self, la: int, store: bool) -> bool:
        address = self.page_table.entry_address(la)
        need = P | US | (RW if store else 0)
        return address >= 0 and self._q[address >> 3] & need == need

"""The two translation engines over the same page tables, behind one contract.

``python`` (UC_TLB_VIRTUAL): every TLB miss calls :func:`mmuemu.mmu.walk.page_walker`, so a miss can be watched
and its rules changed. ``native`` (UC_TLB_CPU): the engine's own C walker reads the tables; Python is called only
for page faults. Each is the other's oracle.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Protocol

from unicorn import unicorn_const

from mmuemu.cpu import library
from mmuemu.cpu.ahead import FillAhead
from mmuemu.cpu.structures import UNKNOWN, StructureCache, permitted
from mmuemu.cpu.tlbsize import WINDOW, TlbSize
from mmuemu.cpu.traps import Trap
from mmuemu.cpu.window import D_HFLAGS, Q_CR0, Q_CR2, Q_CR3, Q_CR4, Q_EFER, Q_PKRU, Q_RFLAGS, Q_RIP
from mmuemu.mmu.state import Access, PagingState
from mmuemu.mmu.walk import EXECUTABLE, NON_CANONICAL, READABLE, WRITABLE, PageWalker, page_walker
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE
from mmuemu.x86.registers import RFLAGS_AC

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu
    from mmuemu.memory.ram import GuestRam

PROBE: Final = 0x1000_0000_0000_0000
"""A non-canonical window onto physical memory, through which translated code is forgotten by frame."""
_MOST_WALKERS: Final = 1024
"""Walks kept by an engine; a guest can make as many as PKRU has values."""
_FIRST_TLB_SIZE: Final = 256
_LARGEST_TLB_SIZE: Final = 1 << 20
_MOST_RESULTS: Final = 64
MEM_READ: Final = unicorn_const.UC_MEM_READ
WRITE: Final = int(Access.WRITE)
FETCH: Final = int(Access.FETCH)
_SEVERAL: Final = -1
"""In place of the one linear address a frame is executed or stored to through."""


class TlbWatcher(Protocol):
    """Is told what the engine's TLB does."""

    def filled(self, page: int, access: int, frame: int, permissions: int, ring: int) -> None:
        """A translation is cached: ``permissions`` are bits 1 (read), 2 (write), 4 (execute)."""

    def flushed(self, cause: str) -> None:
        """All translations are dropped."""

    def grown(self, entries: int) -> None:
        """The TLB is about to have so many entries; the flush that this takes follows."""


class Engine(Protocol):
    """How linear addresses become physical ones."""

    name: str
    looked: bool
    fills: int
    flushes: int
    growths: int
    probing: bool
    """Every look-up is answered, and none means anything: no guest code runs."""
    size: TlbSize

    def install(self) -> None:
        """Register hooks and choose the engine's TLB type."""

    watcher: TlbWatcher | None
    """Who is told of fills and flushes; to be set by :meth:`watch`."""

    def watch(self, watcher: TlbWatcher) -> None:
        """Tell ``watcher`` of every fill and flush from now on."""

    def flush(self, cause: str = "request") -> None:
        """Drop every cached translation; ``cause`` is for who watches."""

    def forget_code(self, frame: int) -> None:
        """Drop the translations of code in the 4 KiB at physical ``frame``."""

    counted: bool

    def count(self, counted: bool, rip: int) -> None:
        """Instructions are counted from now on, or not any more; the next start is at ``rip``."""

    def count_fault(self) -> None:
        """A page fault was resolved: one miss the engine served by asking."""

    def count_pages(self, pages: int) -> None:
        """One page fault maps ``pages``: their misses are to come."""

    def take_fault(self) -> Trap | None:
        """The trap of an access that was refused without an exception, once the run has ended."""

    def forget_fault(self) -> None:
        """That trap has been delivered already."""

    permitted: tuple[int, int] | None
    """(page, access) that an instruction in ring 3 makes with supervisor rights next."""

    def executed_frames(self) -> set[int]:
        """Frames whose code may be translated, as far as the engine itself knows."""

    def forget_rules(self) -> None:
        """The CPU model has changed."""

    def cache_structures(self, ram: GuestRam) -> None:
        """Remember where tables of the last level lie, if it walks itself."""

    def walk_now(self, q: memoryview) -> PageWalker:
        """The walk by the paging state in ``q``, the 64-bit words of a saved state or of the engine's own."""


class _Engine:
    """What both engines share: flushing, and answering the probe window."""

    name = ""
    looked = False
    """It asked for a page that no instruction wanted, and gave up on the refusal."""
    tlb_type = 0

    def __init__(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self.fills = 0
        self.flushes = 0
        self.growths = 0
        self.watcher: TlbWatcher | None = None
        self._tlb_size = _FIRST_TLB_SIZE
        self._grow_at = _FIRST_TLB_SIZE
        state = cpu.window
        self._q, self._d = state.q, state.d
        self._live_q, self._live_d = state.live_q, state.live_d
        self._handle = cpu.handle
        self.size = TlbSize(cpu.handle)
        self.size.hold()
        self._results: dict[int, ctypes.Array[ctypes.c_uint64]] = {}
        self.walkers: dict[tuple[int, ...], PageWalker] = {}
        self.probing = False
        self.counted = False
        self.permitted: tuple[int, int] | None = None
        self._flush_code = ctypes.c_int(library.CTL_TLB_FLUSH - (1 << 32 if library.CTL_TLB_FLUSH >> 31 else 0))

    def walker(self, key: tuple[int, int, int, int, int]) -> PageWalker:
        """The walk for (CR0, CR4, EFER, PKRU, IA32_PKRS), made on first use and kept."""
        cr0, cr4, efer, pkru, pkrs = key
        if len(self.walkers) >= _MOST_WALKERS:
            self.walkers.clear()
        state = PagingState(0, cr0, cr4, efer, pkru=pkru, pkrs=pkrs, page_1g=self.cpu.page_1g)
        found = page_walker(self.cpu.ram.qwords, state)
        self.walkers[key] = found
        return found

    def walk_now(self, q: memoryview) -> PageWalker:
        """The walk by the paging state in ``q``, the 64-bit words of a saved state or of the engine's own."""
        key = (q[Q_CR0], q[Q_CR4], q[Q_EFER], q[Q_PKRU] & 0xFFFF_FFFF, self.cpu.pkrs)
        return self.walkers.get(key) or self.walker(key)

    def flush(self, cause: str = "request") -> None:
        """Drop every cached translation (about 1 us, and the misses that follow)."""
        self.flushes += 1
        if self.watcher is not None:
            self.watcher.flushed(cause)
        self.cpu.fast_calls.places.clear()
        size = self.size
        if self.flushes % WINDOW:
            size.hold()
            library.ctl(self.cpu.handle, self._flush_code)
        else:
            size.expire()
            library.ctl(self.cpu.handle, self._flush_code)
            self._tlb_size = max(size.entries)
        size.hold()
        self._grow_at = self.fills + self._tlb_size

    def _grow(self) -> None:
        """Flush, so that the engine doubles a TLB that misses show to be too small (it grows only then)."""
        if self._tlb_size < _LARGEST_TLB_SIZE:
            self._tlb_size *= 2
            self.growths += 1
            if self.watcher is not None:
                self.watcher.grown(self._tlb_size)
            self.flush("growth")

    def count_fill(self) -> None:
        """A miss was served: flush when there were too many."""
        self.fills += 1
        if self.fills > self._grow_at:
            self._grow()

    def _result(self, result: int) -> ctypes.Array[ctypes.c_uint64]:
        """The ``uc_tlb_entry`` at host address ``result``, a place on the stack that hardly ever changes."""
        if len(self._results) > _MOST_RESULTS:
            self._results.clear()
        entry = self._results[result] = (ctypes.c_uint64 * 2).from_address(result)
        return entry

    def answer(self, result: int, page: int, permissions: int) -> None:
        """Write a ``uc_tlb_entry`` at host address ``result``."""
        entry = self._results.get(result) or self._result(result)
        entry[0] = page
        entry[1] = permissions

    def answered(self, result: int) -> tuple[int, int]:
        """The physical page and the permissions that the ``uc_tlb_entry`` at ``result`` was given."""
        entry = self._results.get(result) or self._result(result)
        return entry[0], entry[1]

    def answer_probe(self, result: int, page: int) -> None:
        """Answer a look-up of the probe window, or, while counting ends, of any page."""
        self.answer(result, page - PROBE if page >= PROBE and page - PROBE < self.cpu.ram.size else 0, 5)

    def count(self, counted: bool, rip: int) -> None:
        """Instructions are counted from now on, or not any more.

        Code that was translated without the hook that counts would go on uncounted, a loop for ever: all of it is
        forgotten. At its first start without a limit the engine looks up every page that it counted in, by the
        tables of today; a look-up that fails would count as a fault of that run. So that start is made here, with
        an exit at ``rip`` and every look-up answered, and all translated code is forgotten, too.
        """
        self.counted = counted
        if counted:
            self.cpu.uc.ctl_flush_tb()
            return
        uc, state = self.cpu.uc, self.cpu.window
        exits = uc.ctl_get_exits()
        uc.ctl_flush_tb()
        uc.ctl_set_exits([rip])
        with self._probing():
            library.emu_start(self._handle, rip, 0, 0, 0)
        uc.ctl_set_exits(exits)
        uc.ctl_flush_tb()
        state.restore()
        self.flush("counting")

    @contextlib.contextmanager
    def _probing(self) -> Iterator[None]:
        """Let :meth:`answer_probe` answer every look-up."""
        uc = self.cpu.uc
        self.probing = True
        if self.tlb_type != unicorn_const.UC_TLB_VIRTUAL:
            uc.ctl_set_tlb_mode(unicorn_const.UC_TLB_VIRTUAL)
        try:
            yield
        finally:
            if self.tlb_type != unicorn_const.UC_TLB_VIRTUAL:
                uc.ctl_set_tlb_mode(self.tlb_type)
            self.probing = False

    def forget_code(self, frame: int) -> None:
        """Drop the translations of code in the 4 KiB at physical ``frame`` (its content is changing)."""
        with self._probing():
            self.cpu.uc.ctl_remove_cache(PROBE + frame, PROBE + frame + PAGE_SIZE)
        self.flush("code")

    def executed_frames(self) -> set[int]:
        """None that the kernel does not know of."""
        return set()

    def forget_rules(self) -> None:
        """The CPU model has changed."""
        self.walkers.clear()

    def permits(self, page: int, access: int) -> bool:
        """Whether :attr:`permitted` covers this; to write a descriptor is to have read it."""
        if self.permitted is None or self.permitted[0] != page or access > self.permitted[1]:
            return False
        if access == self.permitted[1]:
            self.permitted = None
        return True


class PythonEngine(_Engine):
    """Every TLB miss is a walk in Python."""

    name = "python"
    tlb_type = unicorn_const.UC_TLB_VIRTUAL

    def __init__(self, cpu: Cpu) -> None:
        super().__init__(cpu)
        self._fill_hook: library.Hook | None = None
        self._serving: Callable[[int, int, int, int], bool] = self._fill
        self._executed: dict[int, int] = {}
        self._stored: dict[int, int] = {}
        self.structures: StructureCache | None = None
        self.ahead: FillAhead | None = None
        self._alone = True
        self.refused: tuple[int, int, int] | None = None

    def install(self) -> None:
        self.cpu.uc.ctl_set_tlb_mode(self.tlb_type)
        self._hook(self._fill)

    def serve(self, fill: Callable[[int, int, int, int], bool]) -> None:
        """Let ``fill`` serve every miss, from the first one on: ``(_, page, kind of access, result) -> served``."""
        self._alone = False
        self._hook(fill)

    def _hook(self, fill: Callable[[int, int, int, int], bool]) -> None:
        hooks = self.cpu.hooks
        if self._fill_hook is not None:
            hooks.remove(self._fill_hook)
        self._serving = fill
        self._fill_hook = hooks.add(unicorn_const.UC_HOOK_TLB_FILL, library.FILL, fill)

    def watch(self, watcher: TlbWatcher) -> None:
        """Tell ``watcher`` of every fill and flush: what serves the misses is put into something that tells."""
        self.watcher = watcher
        plain, live = self._serving, self._live_d

        def fill(uc: int, page: int, kind: int, result: int) -> bool:
            served = plain(uc, page, kind, result)
            if served and not self.probing:
                try:
                    entry = self._results.get(result) or self._result(result)
                    watcher.filled(page, kind - MEM_READ, entry[0], entry[1], live[D_HFLAGS] & 3)
                except BaseException as error:
                    self.cpu.fail(error)
                    return False
            return served

        self._hook(fill)

    def _fill(self, _uc: int, page: int, kind: int, result: int) -> bool:
        """Serve one miss. Every name here is on the hottest path there is."""
        try:
            if self.probing:
                self.answer_probe(result, page)
                return True
            access = kind - MEM_READ
            q = self._live_q
            user = self._live_d[D_HFLAGS] & 3 == 3
            structures = self.structures
            if structures is not None and self.permitted is None:
                found = structures.look_up(q[Q_CR3], page, access, user, q[Q_PKRU] & 3)
                if found <= 0:
                    found = self._walk(page, access, user, found)
            else:
                found = self._walk(page, access, user, UNKNOWN)
            if found < 0:
                return False
            self.fills = fills = self.fills + 1
            if fills > self._grow_at:
                self._grow()
            if access == FETCH or found & WRITABLE:
                found = self.exclusive(page, found, access)
                ahead = self.ahead
                if ahead is not None and user and found & WRITABLE and access != FETCH and ahead.follows(page):
                    self._fill_ahead(ahead, page, access)
            entry = self._results.get(result) or self._result(result)
            entry[0] = found & ~PAGE_MASK
            entry[1] = found & 7
            return True
        except BaseException as error:
            self.cpu.fail(error)
            return False

    def _fill_ahead(self, ahead: FillAhead, page: int, access: int) -> None:
        """Pages behind ``page`` come in with it, if they are like it."""
        slot = self.structures.slot(self._live_q[Q_CR3], page) if self.structures is not None else -1
        if slot >= 0:
            came = ahead.load(page, slot)
            self.fills += len(came)
            if self.watcher is not None:
                for place, frame in enumerate(came, 1):
                    self.watcher.filled(page + place * PAGE_SIZE, access, frame, READABLE | WRITABLE, 3)

    def _walk(self, page: int, access: int, user: bool, found: int) -> int:
        """Translate by a walk, unless ``found`` refuses already, or -1: the handler is asked to map what is refused."""
        q, cpu, structures = self._live_q, self.cpu, self.structures
        root = q[Q_CR3]
        updates: list[tuple[int, int]] = []
        while True:
            if found == UNKNOWN:
                ac = not user and q[Q_RFLAGS] & RFLAGS_AC != 0
                key = (q[Q_CR0], q[Q_CR4], q[Q_EFER], q[Q_PKRU] & 0xFFFF_FFFF, cpu.pkrs)
                walk = self.walkers.get(key) or self.walker(key)
                found = walk(root, page, access, user, ac, updates, None)
                if found < 0 and self.permitted is not None and self.permits(page, access):
                    found = walk(root, page, access, False, False, updates, None)
                if updates:
                    self.commit(updates)
            if found >= 0:
                # Supervisor rights to a page of the lower half, or the other way round, are never common.
                if structures is not None and user is not bool(page >> 63) and not structures.knows(root, page, user):
                    structures.learn(page, user, PagingState(root, q[Q_CR0], q[Q_CR4], q[Q_EFER]))
                return found
            entry = 0 if found == NON_CANONICAL else cpu.handler.page_fault(page, -1 - found)
            if entry == 0:
                if self.refused is None:
                    self.refused = (page, found, access)
                    if cpu.inline is not None and access != FETCH and found != NON_CANONICAL:
                        cpu.inline.refuse(page, -1 - found)
                return -1
            found = UNKNOWN
            if entry > 1 and user and structures is not None and structures.knows(root, page, True):
                found = max(permitted(entry, access), UNKNOWN)

    def cache_structures(self, ram: GuestRam) -> None:
        """Remember where tables of the last level lie from now on: nobody but PageTable edits those in ``ram``."""
        self.structures = StructureCache(ram)
        self.ahead = FillAhead(ram, self.size) if self._alone else None

    def exclusive(self, page: int, found: int, access: int) -> int:
        """Keep stores from changing code that the engine does not look for.

        It notices stores into translated code at the code's own address only, and while that may not be executed, the
        first one only. So a page of RAM is either executed through one address or stored to through another or without
        the right to execute it, never both in one TLB.
        """
        frame = found & ~PAGE_MASK
        if access == FETCH:
            if self._stored.get(frame, page) != page:
                self.flush("alias")
            self._executed[frame] = page if self._executed.get(frame, page) == page else _SEVERAL
            return found if self._stored.get(frame) == page else found & ~WRITABLE
        if frame in self._executed and (self._executed[frame] != page or not found & EXECUTABLE):
            if access != WRITE:
                return found & ~WRITABLE
            del self._executed[frame]
            self.forget_code(frame)
        self._stored[frame] = page if self._stored.get(frame, page) == page else _SEVERAL
        return found

    def executed_frames(self) -> set[int]:
        """Those that code was fetched from."""
        return set(self._executed)

    def flush(self, cause: str = "request") -> None:
        super().flush(cause)
        self._stored.clear()
        if self.structures is not None and cause == "request":
            self.structures.forget()

    def commit(self, updates: list[tuple[int, int]]) -> None:
        """Set the accessed and dirty bits that a walk owes."""
        memory = self.cpu.ram.qwords
        for index, bits in updates:
            memory[index] |= bits
        updates.clear()

    def count_fault(self) -> None:
        """Misses are counted as they are served."""

    def count_pages(self, _pages: int) -> None:
        """Each of their misses will be served."""

    def forget_fault(self) -> None:
        """The access that was refused last has been dealt with."""
        self.refused = None

    def take_fault(self) -> Trap | None:
        """The trap of the access that was refused last, once the run has ended."""
        if self.refused is None:
            return None
        page, found, access = self.refused
        self.refused = None
        cpu = self.cpu
        state = cpu.window
        state.save()
        cpl = state.d[D_HFLAGS] & 3
        rip = state.q[Q_RIP]
        if access == Access.FETCH and not rip & ~PAGE_MASK <= page <= rip + 15:
            # The `until` of an emu_start that was not ours, or code whose translation goes as counting ends.
            self.looked = True
            return None
        if found == NON_CANONICAL:
            return Trap(Vector.GP, 0, rip, 0, cpl)
        exact = cpu.internals.fault_address(page)
        address = page if exact is None else exact
        state.q[Q_CR2] = address
        state.restore()
        return Trap(Vector.PF, -1 - found, rip, address, cpl)


class NativeEngine(_Engine):
    """The engine's own walker; Python sees page faults only."""

    name = "native"
    tlb_type = unicorn_const.UC_TLB_CPU

    def install(self) -> None:
        self.cpu.uc.ctl_set_tlb_mode(self.tlb_type)
        self.cpu.hooks.add(unicorn_const.UC_HOOK_TLB_FILL, library.FILL, self._fill)

    def _fill(self, _uc: int, page: int, _kind: int, result: int) -> bool:
        if self.probing:
            self.answer_probe(result, page)
        return self.probing

    def watch(self, watcher: TlbWatcher) -> None:
        """Tell ``watcher`` of every flush; of fills, the engine's own walk tells nobody."""
        self.watcher = watcher

    def cache_structures(self, ram: GuestRam) -> None:
        """The engine's own walk remembers nothing."""

    def count_fault(self) -> None:
        self.fills += 1
        if self.fills > self._grow_at:
            self._grow()

    def count_pages(self, pages: int) -> None:
        """The engine serves all their misses but the first itself, and grows when its TLB is used to 70 %."""
        self._grow_at -= pages * 7 // 5 - 1

    def forget_fault(self) -> None:
        """No access is refused without an exception."""

    def take_fault(self) -> Trap | None:
        """Page faults arrive as exceptions here."""
        return None


ENGINES: Final[dict[str, type[PythonEngine] | type[NativeEngine]]] = {"python": PythonEngine, "native": NativeEngine}

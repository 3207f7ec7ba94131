"""The two translation engines over the same page tables, behind one contract.

``python`` (UC_TLB_VIRTUAL): every TLB miss calls :func:`mmuemu.mmu.walk.page_walker`, so a miss can be watched
and its rules changed. ``native`` (UC_TLB_CPU): the engine's own C walker reads the tables; Python is called only
for page faults. Each is the other's oracle.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final, Protocol

from unicorn import unicorn_const

from mmuemu.cpu import library, window
from mmuemu.cpu.traps import Trap
from mmuemu.mmu.state import Access, PagingState
from mmuemu.mmu.walk import NON_CANONICAL, PageWalker, page_walker
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE
from mmuemu.x86.registers import RFLAGS_AC

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

PROBE: Final = 0x1000_0000_0000_0000
"""A non-canonical window onto physical memory, through which translated code is forgotten by frame."""
_MOST_WALKERS: Final = 1024
"""Walks kept by an engine; a guest can make as many as PKRU has values."""
_FIRST_TLB_SIZE: Final = 256
_LARGEST_TLB_SIZE: Final = 1 << 20


class Engine(Protocol):
    """How linear addresses become physical ones."""

    name: str
    fills: int
    flushes: int
    growths: int

    def install(self) -> None:
        """Register hooks and choose the engine's TLB type."""

    def flush(self) -> None:
        """Drop every cached translation."""

    def forget_code(self, frame: int) -> None:
        """Drop the translations of code in the 4 KiB at physical ``frame``."""

    def count_fault(self) -> None:
        """A page fault was resolved: one miss the engine served by asking."""

    def take_fault(self) -> Trap | None:
        """The trap of an access that was refused without an exception, once the run has ended."""


class _Engine:
    """What both engines share: flushing, and answering the probe window."""

    name = ""
    tlb_type = 0

    def __init__(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self.fills = 0
        self.flushes = 0
        self.growths = 0
        self._tlb_size = _FIRST_TLB_SIZE
        self._fills_at_flush = 0
        self._results: dict[int, ctypes.Array[ctypes.c_uint64]] = {}
        self._probing = False
        self._flush_code = ctypes.c_int(library.CTL_TLB_FLUSH - (1 << 32 if library.CTL_TLB_FLUSH >> 31 else 0))

    def flush(self) -> None:
        """Drop every cached translation (about 1 us, and the misses that follow)."""
        self.flushes += 1
        self._fills_at_flush = self.fills
        library.ctl(self.cpu.handle, self._flush_code)

    def _grow(self) -> None:
        """Flush, so that the engine doubles a TLB that misses show to be too small (it grows only then)."""
        if self._tlb_size < _LARGEST_TLB_SIZE:
            self._tlb_size *= 2
            self.growths += 1
            self.flush()

    def _answer(self, result: int, page: int, permissions: int) -> None:
        """Write a ``uc_tlb_entry`` at host address ``result``."""
        entry = self._results.get(result)
        if entry is None:
            entry = self._results[result] = (ctypes.c_uint64 * 2).from_address(result)
        entry[0] = page
        entry[1] = permissions

    def forget_code(self, frame: int) -> None:
        """Drop the translations of code in the 4 KiB at physical ``frame`` (its content is changing)."""
        uc = self.cpu.uc
        self._probing = True
        if self.tlb_type != unicorn_const.UC_TLB_VIRTUAL:
            uc.ctl_set_tlb_mode(unicorn_const.UC_TLB_VIRTUAL)
        try:
            uc.ctl_remove_cache(PROBE + frame, PROBE + frame + PAGE_SIZE)
        finally:
            if self.tlb_type != unicorn_const.UC_TLB_VIRTUAL:
                uc.ctl_set_tlb_mode(self.tlb_type)
            self._probing = False
        self.flush()


class PythonEngine(_Engine):
    """Every TLB miss is a walk in Python."""

    name = "python"
    tlb_type = unicorn_const.UC_TLB_VIRTUAL

    def __init__(self, cpu: Cpu) -> None:
        super().__init__(cpu)
        self.walkers: dict[tuple[int, ...], PageWalker] = {}
        self.refused: tuple[int, int, int] | None = None

    def walker(self, key: tuple[int, int, int, int, int]) -> PageWalker:
        """The walk for (CR0, CR4, EFER, PKRU, IA32_PKRS), made on first use and kept."""
        cr0, cr4, efer, pkru, pkrs = key
        if len(self.walkers) >= _MOST_WALKERS:
            self.walkers.clear()
        found = page_walker(self.cpu.ram.qwords, PagingState(0, cr0, cr4, efer, pkru=pkru, pkrs=pkrs))
        self.walkers[key] = found
        return found

    def install(self) -> None:
        self.cpu.uc.ctl_set_tlb_mode(self.tlb_type)
        self.cpu.hooks.add(unicorn_const.UC_HOOK_TLB_FILL, library.FILL, self._fill)

    def _fill(self, _uc: int, page: int, kind: int, result: int) -> bool:
        try:
            return self._translate(page, kind - unicorn_const.UC_MEM_READ, result)
        except BaseException as error:
            self.cpu.fail(error)
            return False

    def _translate(self, page: int, access: int, result: int) -> bool:
        cpu = self.cpu
        state = cpu.window
        state.save()
        q = state.q
        user = state.d[window.D_HFLAGS] & 3 == 3
        ac = not user and q[window.Q_RFLAGS] & RFLAGS_AC != 0
        if self._probing:
            self._answer(result, page - PROBE, 5)
            return True
        key = (q[53], q[57], q[74], q[663] & 0xFFFF_FFFF, cpu.pkrs)
        walk = self.walkers.get(key) or self.walker(key)
        root = q[window.Q_CR3]
        updates: list[tuple[int, int]] = []
        found = walk(root, page, access, user, ac, updates, None)
        while found < 0:
            if updates:
                self._commit(updates)
            if found != NON_CANONICAL and cpu.handler.page_fault(page, -1 - found):
                found = walk(root, page, access, user, ac, updates, None)
            else:
                if self.refused is None:
                    self.refused = (page, found, access)
                return False
        if updates:
            self._commit(updates)
        self._answer(result, found & ~PAGE_MASK, found & 7)
        self.fills += 1
        if self.fills - self._fills_at_flush > self._tlb_size:
            self._grow()
        return True

    def _commit(self, updates: list[tuple[int, int]]) -> None:
        """Set the accessed and dirty bits that a walk owes."""
        memory = self.cpu.ram.qwords
        for index, bits in updates:
            memory[index] |= bits
        updates.clear()

    def count_fault(self) -> None:
        """Misses are counted as they are served."""

    def take_fault(self) -> Trap | None:
        """The trap of the access that was refused last, once the run has ended."""
        if self.refused is None:
            return None
        page, found, access = self.refused
        self.refused = None
        cpu = self.cpu
        state = cpu.window
        state.save()
        cpl = state.d[window.D_HFLAGS] & 3
        rip = state.q[window.Q_RIP]
        if access == Access.FETCH and not rip & ~PAGE_MASK <= page <= rip + 15:
            return None  # the engine looked at the `until` of an emu_start that was not ours
        if found == NON_CANONICAL:
            return Trap(Vector.GP, 0, rip, 0, cpl)
        exact = cpu.internals.fault_address(page)
        address = page if exact is None else exact
        state.q[window.Q_CR2] = address
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
        if self._probing:
            self._answer(result, page - PROBE, 5)
        return self._probing

    def count_fault(self) -> None:
        self.fills += 1
        if self.fills - self._fills_at_flush > self._tlb_size:
            self._grow()

    def take_fault(self) -> Trap | None:
        """Page faults arrive as exceptions here."""
        return None


ENGINES: Final[dict[str, type[PythonEngine] | type[NativeEngine]]] = {"python": PythonEngine, "native": NativeEngine}

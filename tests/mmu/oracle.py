"""The oracle: Unicorn's own page walker, in C and not ours, asked through real accesses by real code.

A bare ``Uc`` is put into the paging mode of a case by patching its state: control registers, segment caches and the
``hflags`` (PE, CPL, LMA, CS64, SMAP) that its walker goes by. Nothing is hooked; an access ends in an exception that
nobody takes, and the state then tells which.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from unicorn import Uc, unicorn_const
from unicorn import x86_const as x86

from mmuemu.cpu import library, window
from mmuemu.x86.registers import CR4_SMAP, RFLAGS_AC
from tests.mmu.cases import Case
from tests.mmu.layout import CODE, OFFSETS, VARIANTS, Memory, Variant

HFLAG_PE = 1 << 7
HFLAG_OSFXSR = 1 << 22
HFLAG_SMAP = 1 << 23
CR2_UNTOUCHED = 0x0123_4567_89AB_C000


class Outcome(NamedTuple):
    """What an access did: ``vector`` is 0 when it went through, and ``value`` what it then read."""

    vector: int
    error_code: int
    cr2: int
    rip: int
    value: int


def enter(state: window.StateWindow, variant: Variant, ring: int) -> None:
    """Put a saved state into the paging mode and ring of a variant, with flat segments (see the module's text)."""
    d, q = state.d, state.q
    kind = (0x00AF_9B00 if variant.code64 else 0x00CF_9B00) | ring << 13
    for segment, selector, flags in (
        (window.CS, 0x10, kind),
        (window.SS, 0x18, 0x00CF_9300 | ring << 13),
        (window.DS, 0x18, 0x00CF_9300 | ring << 13),
        (window.ES, 0x18, 0x00CF_9300 | ring << 13),
    ):
        d[segment.selector] = selector | ring
        q[segment.base] = 0
        d[segment.limit] = 0xFFFF_FFFF
        d[segment.flags] = flags
    hflags = HFLAG_PE | HFLAG_OSFXSR | window.HFLAG_CS32 | window.HFLAG_SS32 | ring
    hflags |= window.HFLAG_LMA if variant.long else 0
    hflags |= window.HFLAG_CS64 if variant.code64 else 0
    d[window.D_HFLAGS] = hflags
    d[window.GDT.limit] = 0xFFFF
    d[window.D_OLD_EXCEPTION] = window.NO_EXCEPTION
    d[window.D_ERROR_CODE] = 0
    q[window.Q_CR2] = CR2_UNTOUCHED
    q[window.Q_CR3] = variant.root | 0x18


def load(state: window.StateWindow, case: Case, value: int) -> None:
    """Put a case's registers into an entered state; ``value`` is what a write stores."""
    q, d = state.q, state.d
    q[window.Q_CR0] = case.cr0
    q[window.Q_CR4] = case.cr4
    q[window.Q_EFER] = case.efer
    d[2 * window.Q_PKRU] = case.pkru
    if case.cr4 & CR4_SMAP:
        d[window.D_HFLAGS] |= HFLAG_SMAP
    q[window.Q_RFLAGS] = 2 | (RFLAGS_AC if case.ac else 0)
    q[window.Q_RDI] = case.linear
    q[window.Q_RBX] = value
    if case.access == "load segment":
        q[window.Q_RAX] = 8 | 3
        q[window.GDT.base] = case.linear - 8 & 0xFFFF_FFFF_FFFF_FFFF


def start(case: Case) -> int:
    """The linear address where the code of a case begins."""
    page = VARIANTS[case.variant].code
    if case.ring and page != CODE:
        page += 0x1000
    return page + OFFSETS[case.access]


class Oracle:
    """One engine over one :class:`Memory`."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        uc = Uc(unicorn_const.UC_ARCH_X86, unicorn_const.UC_MODE_64)
        uc.ctl_set_cpu_model(x86.UC_CPU_X86_ICELAKE_SERVER)
        uc.ctl_exits_enabled(True)
        uc.ctl_set_exits([])
        for base, ram in memory.regions():
            uc.mem_map_ptr(base, ram.size, unicorn_const.UC_PROT_ALL, ram.address)
        uc.ctl_set_tlb_mode(unicorn_const.UC_TLB_CPU)
        self.uc = uc
        self._handle = library.handle(uc)
        self._flush = ctypes.c_int(library.CTL_TLB_FLUSH - (1 << 32 if library.CTL_TLB_FLUSH >> 31 else 0))
        self._window = window.StateWindow(uc)
        self._templates = {
            (variant.name, ring): self._template(variant, ring) for variant in VARIANTS.values() for ring in (0, 3)
        }

    def _template(self, variant: Variant, ring: int) -> bytes:
        """The engine's state as it stands before every access of a variant and ring."""
        self._window.save()
        enter(self._window, variant, ring)
        return self._window.snapshot()

    def run(self, case: Case, value: int) -> Outcome:
        """Perform the access by tables that stand in memory; ``value`` is what a write stores."""
        state = self._window
        state.load(self._templates[case.variant, case.ring])
        load(state, case, value)
        state.restore()
        library.ctl(self._handle, self._flush)
        library.emu_start(self._handle, start(case), 0, 0, 0)
        state.save()
        q, d = state.q, state.d
        vector = d[window.D_OLD_EXCEPTION]
        if vector == window.NO_EXCEPTION and d[window.D_ERROR_CODE + 1]:
            vector = 0
        return Outcome(vector, d[window.D_ERROR_CODE], q[window.Q_CR2], q[window.Q_RIP], self._value(case.access))

    def _value(self, access: str) -> int:
        q = self._window.q
        if access.endswith("fetch"):
            return q[window.Q_RCX]
        if access == "load segment":
            return q[window.ES.base]
        return q[window.Q_RAX] & 0xFFFF_FFFF

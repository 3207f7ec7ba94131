"""Which values the control registers take (Intel SDM volume 3, section 2.5; volume 2, MOV to control registers).

Each function says whether a MOV raises #GP(0). ``State`` is what the checks look at.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mmuemu.x86.registers import (
    CR0_CD,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR4_FSGSBASE,
    CR4_LA57,
    CR4_OSFXSR,
    CR4_OSXMMEXCPT,
    CR4_OSXSAVE,
    CR4_PAE,
    CR4_PCIDE,
    CR4_PGE,
    CR4_PKE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    CR4_UMIP,
    EFER_LMA,
    EFER_LME,
)

CR4_VME: Final = 1 << 0
CR4_PVI: Final = 1 << 1
CR4_TSD: Final = 1 << 2
CR4_DE: Final = 1 << 3
CR4_MCE: Final = 1 << 6
CR4_PCE: Final = 1 << 8
CR4_PKS: Final = 1 << 24

CR4_ALL: Final = (
    CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR
    | CR4_OSXMMEXCPT | CR4_UMIP | CR4_LA57 | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP
    | CR4_PKE | CR4_PKS
)  # fmt: skip
"""Bits that exist on the models here; a model without a feature has fewer."""
CR3_NO_FLUSH: Final = 1 << 63


class State(NamedTuple):
    """The registers that decide whether another may change, and the model's physical-address width."""

    cr0: int
    cr3: int
    cr4: int
    efer: int
    code_is_64: bool
    maxphyaddr: int = 40
    cr4_allowed: int = CR4_ALL


def refuses_cr0(value: int, state: State) -> bool:
    """MOV to CR0."""
    if value >> 32:
        return True
    paging, was_paging = value & CR0_PG, state.cr0 & CR0_PG
    if (paging and not value & CR0_PE) or (value & CR0_NW and not value & CR0_CD):
        return True
    if was_paging and not paging:
        return state.code_is_64 or bool(state.cr4 & CR4_PCIDE)
    if paging and not was_paging and state.efer & EFER_LME:
        return not state.cr4 & CR4_PAE or state.code_is_64
    return False


def refuses_cr3(value: int, state: State) -> bool:
    """MOV to CR3: bits above the physical-address width are reserved, bit 63 but for CR4.PCIDE."""
    if state.cr4 & CR4_PCIDE:
        value &= ~CR3_NO_FLUSH
    return bool(state.efer & EFER_LMA) and value >> state.maxphyaddr != 0


def refuses_cr4(value: int, state: State) -> bool:
    """MOV to CR4."""
    if value & ~state.cr4_allowed:
        return True
    changed = value ^ state.cr4
    long = state.efer & EFER_LMA
    if long and (changed & CR4_LA57 or not value & CR4_PAE):
        return True
    if changed & value & CR4_PCIDE:
        return not long or bool(state.cr3 & 0xFFF)
    return False


def refuses_cr8(value: int) -> bool:
    """MOV to CR8: bits 63:4 are reserved."""
    return value >> 4 != 0


def refuses_debug(number: int, value: int) -> bool:
    """MOV to DR6 or DR7 with a bit above 31 set."""
    return number >= 6 and value >> 32 != 0

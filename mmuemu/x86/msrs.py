"""Model-specific registers: which exist, and which values they take (Intel SDM volume 4, chapter 2; volume 3, 2.2.1).

A write that hardware would refuse with #GP is told by :func:`refuses`; registers that are not here do not exist.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mmuemu.x86.paging import is_canonical
from mmuemu.x86.registers import (
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    EFER_SCE,
    MSR_CSTAR,
    MSR_EFER,
    MSR_FS_BASE,
    MSR_GS_BASE,
    MSR_KERNEL_GS_BASE,
    MSR_LSTAR,
    MSR_SFMASK,
    MSR_STAR,
    MSR_TSC_AUX,
)

MSR_TSC: Final = 0x10
MSR_APIC_BASE: Final = 0x1B
MSR_FEATURE_CONTROL: Final = 0x3A
MSR_TSC_ADJUST: Final = 0x3B
MSR_SPEC_CTRL: Final = 0x48
MSR_PRED_CMD: Final = 0x49
MSR_BIOS_SIGN_ID: Final = 0x8B
MSR_MTRRCAP: Final = 0xFE
MSR_ARCH_CAPABILITIES: Final = 0x10A
MSR_FLUSH_CMD: Final = 0x10B
MSR_SYSENTER_CS: Final = 0x174
MSR_SYSENTER_ESP: Final = 0x175
MSR_SYSENTER_EIP: Final = 0x176
MSR_MCG_CAP: Final = 0x179
MSR_MCG_STATUS: Final = 0x17A
MSR_MISC_ENABLE: Final = 0x1A0
MSR_MTRR_PHYSBASE0: Final = 0x200
MSR_MTRR_PHYSMASK7: Final = 0x20F
MSR_PAT: Final = 0x277
MSR_MTRR_DEF_TYPE: Final = 0x2FF
MSR_PKRS: Final = 0x6E1
MSR_TSC_DEADLINE: Final = 0x6E0
MSR_X2APIC_FIRST: Final = 0x800
MSR_X2APIC_LAST: Final = 0x83F

SPEC_CTRL_IBRS: Final = 1 << 0
SPEC_CTRL_STIBP: Final = 1 << 1
SPEC_CTRL_SSBD: Final = 1 << 2
PRED_CMD_IBPB: Final = 1 << 0
FLUSH_CMD_L1D: Final = 1 << 0
ARCH_CAPABILITIES: Final[dict[str, int]] = {
    "rdcl_no": 0, "ibrs_all": 1, "rsba": 2, "skip_l1dfl_vmentry": 3, "ssb_no": 4, "mds_no": 5, "if_pschange_mc_no": 6,
    "tsx_ctrl": 7, "taa_no": 8, "sbdr_ssdp_no": 13, "fbsdp_no": 14, "psdp_no": 15, "fb_clear": 17, "rrsba": 19,
    "bhi_no": 20, "pbrsb_no": 24, "gds_no": 26, "rfds_no": 27,
}  # fmt: skip
"""Bits of IA32_ARCH_CAPABILITIES by name, in lower case (SDM volume 4, table 2-2)."""


def arch_capabilities(names: Iterable[str]) -> int:
    """The value of IA32_ARCH_CAPABILITIES that says ``names``. KeyError for a name there is not."""
    return sum(1 << ARCH_CAPABILITIES[name] for name in set(names))


READ_ONLY: Final = frozenset({MSR_MTRRCAP, MSR_MCG_CAP, MSR_ARCH_CAPABILITIES})
CANONICAL: Final = frozenset(
    {
        MSR_LSTAR,
        MSR_CSTAR,
        MSR_FS_BASE,
        MSR_GS_BASE,
        MSR_KERNEL_GS_BASE,
        MSR_SYSENTER_ESP,
        MSR_SYSENTER_EIP,
    }
)
"""Registers that hold linear addresses: a non-canonical value is #GP."""

_FIXED_MTRRS: Final = frozenset({0x250, 0x258, 0x259, *range(0x268, 0x270)})
KNOWN: Final = frozenset(
    {
        MSR_TSC,
        MSR_APIC_BASE,
        MSR_FEATURE_CONTROL,
        MSR_TSC_ADJUST,
        MSR_BIOS_SIGN_ID,
        MSR_MTRRCAP,
        MSR_ARCH_CAPABILITIES,
        MSR_SYSENTER_CS,
        MSR_SYSENTER_ESP,
        MSR_SYSENTER_EIP,
        MSR_MCG_CAP,
        MSR_MCG_STATUS,
        MSR_MISC_ENABLE,
        MSR_PAT,
        MSR_MTRR_DEF_TYPE,
        MSR_EFER,
        MSR_STAR,
        MSR_LSTAR,
        MSR_CSTAR,
        MSR_SFMASK,
        MSR_FS_BASE,
        MSR_GS_BASE,
        MSR_KERNEL_GS_BASE,
        MSR_TSC_AUX,
        *range(MSR_MTRR_PHYSBASE0, MSR_MTRR_PHYSMASK7 + 1),
        *_FIXED_MTRRS,
    }
)
"""Registers there are without a board; TSC_AUX, TSC_ADJUST, PKRS and ARCH_CAPABILITIES depend on the model.

SPEC_CTRL, PRED_CMD and FLUSH_CMD belong to whoever models what they rule."""

EFER_WRITABLE: Final = EFER_SCE | EFER_LME | EFER_NXE
_PAT_TYPES: Final = frozenset({0, 1, 4, 5, 6, 7})


def refuses(msr: int, value: int, *, efer: int, paging: bool, linear_bits: int = 48) -> bool:
    """Whether WRMSR of ``value`` (64 bits) to a known register raises #GP(0).

    ``efer`` is IA32_EFER as it stands and ``paging`` CR0.PG: LME cannot change while paging is on.
    """
    if msr in READ_ONLY:
        return True
    if msr in CANONICAL:
        return not is_canonical(value, linear_bits)
    if msr == MSR_EFER:
        if value & ~(EFER_WRITABLE | EFER_LMA):
            return True
        return paging and (value ^ efer) & EFER_LME != 0
    if msr == MSR_PAT:
        return any(value >> shift & 0xFF not in _PAT_TYPES for shift in range(0, 64, 8))
    if msr in (MSR_SFMASK, MSR_TSC_AUX, MSR_PKRS):
        return value >> 32 != 0
    return False

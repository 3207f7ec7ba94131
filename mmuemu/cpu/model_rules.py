"""What a CPU model lets control registers and MSRs hold (Intel SDM volume 3, sections 2.2.1 and 2.5)."""

from __future__ import annotations

from typing import Final

from mmuemu.cpu.cpuid import CpuModel
from mmuemu.x86 import controls, msrs, registers

_CR4: Final = {
    "vme": controls.CR4_VME | controls.CR4_PVI, "tsc": controls.CR4_TSD, "de": controls.CR4_DE,
    "pse": registers.CR4_PSE, "pae": registers.CR4_PAE, "mce": controls.CR4_MCE, "pge": registers.CR4_PGE,
    "fxsr": registers.CR4_OSFXSR, "sse": registers.CR4_OSXMMEXCPT, "umip": registers.CR4_UMIP,
    "la57": registers.CR4_LA57, "fsgsbase": registers.CR4_FSGSBASE, "pcid": registers.CR4_PCIDE,
    "xsave": registers.CR4_OSXSAVE, "smep": registers.CR4_SMEP, "smap": registers.CR4_SMAP,
    "pku": registers.CR4_PKE, "pks": registers.CR4_PKS,
}  # fmt: skip
_EFER: Final = {"syscall": registers.EFER_SCE, "nx": registers.EFER_NXE, "lm": registers.EFER_LME}


class ModelRules:
    """The rules of one model.

    ``cr4`` and ``efer`` are the bits that can be set; ``missing_msrs`` the registers of :data:`mmuemu.x86.msrs.KNOWN`
    that it does not have; ``fixed_msrs`` read-only ones with their values: there is no machine-check bank.
    """

    def __init__(self, model: CpuModel) -> None:
        features = model.features
        self.cr4 = controls.CR4_PCE | sum(bits for name, bits in _CR4.items() if name in features)
        self.efer = registers.EFER_LMA | sum(bit for name, bit in _EFER.items() if name in features)
        self.missing_msrs = self._missing(features)
        self.fixed_msrs = {msrs.MSR_MCG_CAP: 0, msrs.MSR_ARCH_CAPABILITIES: model.arch_capabilities}

    def _missing(self, features: frozenset[str]) -> frozenset[int]:
        missing = set()
        if not features & {"rdtscp", "rdpid"}:
            missing.add(registers.MSR_TSC_AUX)
        if "tsc_adjust" not in features:
            missing.add(msrs.MSR_TSC_ADJUST)
        if "pks" not in features:
            missing.add(msrs.MSR_PKRS)
        if "arch_capabilities" not in features:
            missing.add(msrs.MSR_ARCH_CAPABILITIES)
        return frozenset(missing)

"""What a processor says of itself to its guest: CPUID, IA32_ARCH_CAPABILITIES, and Linux's files about its flaws.

The texts are Linux 6.1's (arch/x86/kernel/cpu/bugs.c, ``cpu_show_common``), of a machine of one logical processor whose
kernel has no KVM. Flaws that are not modelled here do not exist.
"""

from __future__ import annotations

from typing import Final

from mmuemu.cpu.cpuid import AMD, Cache, CpuModel
from mmuemu.speculation.catalogue import shown_features
from mmuemu.speculation.mitigations import Mitigations, returns_ask_the_btb
from mmuemu.speculation.models import CpuSpec
from mmuemu.x86 import msrs

MDS: Final = frozenset({"mfbds", "msbds", "mlpds"})
TARGETS: Final = frozenset({"v2", "rsb"})
"""What Linux's spectre_v2 is about."""

_DENIALS: Final[dict[str, frozenset[str]]] = {
    "rdcl_no": frozenset({"meltdown", "l1tf"}),
    "skip_l1dfl_vmentry": frozenset({"l1tf"}),
    "ssb_no": frozenset({"v4"}),
    "mds_no": MDS,
}
"""Bits of IA32_ARCH_CAPABILITIES that deny flaws (SDM volume 4, table 2-2; Linux: RDCL_NO denies L1TF too)."""
_INTEL_FEATURES: Final = {
    "ibrs": ("spec_ctrl",), "ibpb": ("spec_ctrl",), "stibp": ("intel_stibp",), "ssbd": ("spec_ctrl_ssbd",),
    "md_clear": ("md_clear",), "l1d_flush": ("flush_l1d",),
}  # fmt: skip
_AMD_FEATURES: Final = {
    "ibrs": ("amd_ibrs",), "ibpb": ("amd_ibpb",), "stibp": ("amd_stibp",), "ssbd": ("amd_ssbd",),
}  # fmt: skip
"""What microcode offers -> the CPUID features that tell of it (one bit is both IBRS and IBPB on Intel's)."""


def capabilities(spec: CpuSpec, flaws: frozenset[str]) -> tuple[str, ...]:
    """What IA32_ARCH_CAPABILITIES says of ``spec`` with ``flaws`` in place of its own; empty: it has no such register.

    A bit that denies a flaw follows the flaws; as long as those are the model's own, the model says it all.
    """
    if spec.vendor == AMD:
        return ()
    changed = spec.flaws ^ flaws
    found = set(spec.capabilities)
    for bit, denied in _DENIALS.items():
        if denied & flaws:
            found.discard(bit)
        elif denied & changed:
            found.add(bit)
    return tuple(name for name in msrs.ARCH_CAPABILITIES if name in found)


def cpu_model(spec: CpuSpec, flaws: frozenset[str]) -> CpuModel:
    """The CPUID model of ``spec`` with ``flaws`` in place of its own."""
    told = capabilities(spec, flaws)
    names = _AMD_FEATURES if spec.vendor == AMD else _INTEL_FEATURES
    features = set(shown_features(spec))
    for offer in spec.microcode:
        features.update(names.get(offer, ()))
    if told:
        features.add("arch_capabilities")
    if spec.vendor == AMD and "v4" in spec.flaws - flaws:
        features.add("amd_ssb_no")
    caches = ((1, 1, spec.l1d), (1, 2, spec.l1i), (2, 3, spec.l2), (3, 3, spec.l3))
    return CpuModel(
        spec.name, frozenset(features), spec.family, spec.model, spec.stepping, spec.vendor,
        brand=(spec.brand or spec.title).encode("ascii", "replace")[:47].decode(),
        tsc_hz=spec.tsc_hz, crystal_hz=spec.crystal_hz, base_mhz=spec.base_mhz,
        caches=tuple(Cache(level, kind, cache.size >> 10, cache.ways) for level, kind, cache in caches),
        arch_capabilities=msrs.arch_capabilities(told),
    )  # fmt: skip


def bugs(spec: CpuSpec, flaws: frozenset[str]) -> tuple[str, ...]:
    """The ``bugs`` of /proc/cpuinfo, in the order of Linux's X86_BUG_* (cpufeatures.h)."""
    affected = {
        "cpu_meltdown": "meltdown" in flaws,
        "spectre_v1": "v1" in flaws,
        "spectre_v2": bool(flaws & TARGETS),
        "spec_store_bypass": "v4" in flaws,
        "l1tf": "l1tf" in flaws,
        "mds": bool(flaws & MDS),
        "msbds_only": flaws & MDS == {"msbds"},
        "retbleed": returns_ask_the_btb(spec, flaws),
    }
    return tuple(name for name, there in affected.items() if there)


def kernel_flags(spec: CpuSpec, mitigations: Mitigations) -> tuple[str, ...]:
    """Flags of /proc/cpuinfo that no CPUID bit stands for: what the kernel does, and enhanced IBRS."""
    found = []
    if "kpti" in mitigations:
        found.append("pti")
    if "ibrs_all" in spec.capabilities:
        found.append("ibrs_enhanced")
    return tuple(found)


def vulnerabilities(spec: CpuSpec, flaws: frozenset[str], mitigations: Mitigations) -> dict[str, str]:
    """The texts of /sys/devices/system/cpu/vulnerabilities, without newlines; a file that is left out: not affected."""
    has = bugs(spec, flaws)
    texts: dict[str, str] = {}
    if "cpu_meltdown" in has:
        texts["meltdown"] = "Mitigation: PTI" if "kpti" in mitigations else "Vulnerable"
    if "spectre_v1" in has:
        texts["spectre_v1"] = _spectre_v1(mitigations)
    if "spectre_v2" in has:
        texts["spectre_v2"] = _spectre_v2(spec, mitigations)
    if "spec_store_bypass" in has:
        texts["spec_store_bypass"] = _STORE_BYPASS[mitigations.level("ssbd")]
    if "l1tf" in has:
        texts["l1tf"] = "Mitigation: PTE Inversion" if "pte-inversion" in mitigations else "Vulnerable"
    if "mds" in has:
        texts["mds"] = _mds("verw" in mitigations, "msbds_only" in has)
    if "retbleed" in has:
        texts["retbleed"] = next((text for name, text in _RETBLEED.items() if name in mitigations), "Vulnerable")
    return texts


_STORE_BYPASS: Final = {
    "": "Vulnerable",
    "always": "Mitigation: Speculative Store Bypass disabled",
    "prctl": "Mitigation: Speculative Store Bypass disabled via prctl",
}
_RETBLEED: Final = {"eibrs": "Mitigation: Enhanced IBRS", "ibrs": "Mitigation: IBRS"}
_BRANCH_MODES: Final = (
    (frozenset({"eibrs", "retpoline"}), "Mitigation: Enhanced IBRS + Retpolines"),
    (frozenset({"eibrs"}), "Mitigation: Enhanced IBRS"),
    (frozenset({"ibrs"}), "Mitigation: IBRS"),
    (frozenset({"retpoline"}), "Mitigation: Retpolines"),
    (frozenset[str](), "Vulnerable"),
)
"""``spectre_v2_strings``: the first whose mitigations are all in force."""
_IBPB: Final = {"": "disabled", "always": "always-on", "prctl": "conditional"}


def _spectre_v1(mitigations: Mitigations) -> str:
    if "nospec" in mitigations or "lfence" in mitigations:
        return "Mitigation: usercopy/swapgs barriers and __user pointer sanitization"
    return "Vulnerable: __user pointer sanitization and usercopy barriers only; no swapgs barriers"


def _spectre_v2(spec: CpuSpec, mitigations: Mitigations) -> str:
    """``spectre_v2_show_state``."""
    names = mitigations.names
    parts = [next(text for needed, text in _BRANCH_MODES if needed <= names)]
    if "ibpb" in spec.microcode:
        parts.append("IBPB: " + _IBPB[mitigations.level("ibpb")])
    if "retpoline" in names and "ibrs" in spec.microcode and not names & {"ibrs", "eibrs"}:
        parts.append("IBRS_FW")
    if "eibrs" not in names:
        parts.append("STIBP: " + ("forced" if "stibp" in names else "disabled"))
    if "rsb-fill" in names:
        parts.append("RSB filling")
    parts.append("PBRSB-eIBRS: Not affected")
    return ", ".join(parts)


def _mds(cleared: bool, store_buffer_only: bool) -> str:
    """``mds_show_state`` without SMT."""
    state = "Mitigation: Clear CPU buffers" if cleared else "Vulnerable"
    return f"{state}; SMT {'vulnerable' if store_buffer_only and not cleared else 'disabled'}"

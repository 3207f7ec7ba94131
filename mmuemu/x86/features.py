"""Feature bits of CPUID by name (Intel SDM volume 2, CPUID; ``wbnoinvd``, ``lahf`` and the like: AMD APM volume 3).

Names are the SDM's in lower case; :func:`linux_names` gives those /proc/cpuinfo shows (Linux
``arch/x86/include/asm/cpufeatures.h``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

EAX, EBX, ECX, EDX = range(4)


class Place(NamedTuple):
    """Where CPUID shows a feature."""

    leaf: int
    subleaf: int
    register: int
    bit: int


_WORDS: Final[dict[tuple[int, int, int], dict[str, int]]] = {
    (1, 0, EDX): {
        "fpu": 0, "vme": 1, "de": 2, "pse": 3, "tsc": 4, "msr": 5, "pae": 6, "mce": 7, "cx8": 8, "apic": 9,
        "sep": 11, "mtrr": 12, "pge": 13, "mca": 14, "cmov": 15, "pat": 16, "pse36": 17, "clfsh": 19,
        "mmx": 23, "fxsr": 24, "sse": 25, "sse2": 26,
    },
    (0x8000_0001, 0, EDX): {"syscall": 11, "nx": 20, "pdpe1gb": 26, "rdtscp": 27, "lm": 29},
    (0x8000_0007, 0, EDX): {"invariant_tsc": 8},
    (1, 0, ECX): {
        "sse3": 0, "pclmulqdq": 1, "monitor": 3, "ssse3": 9, "fma": 12, "cx16": 13, "pcid": 17, "sse4_1": 19,
        "sse4_2": 20, "x2apic": 21, "movbe": 22, "popcnt": 23, "tsc_deadline": 24, "aes": 25, "xsave": 26,
        "osxsave": 27, "avx": 28, "f16c": 29, "rdrand": 30, "hypervisor": 31,
    },
    (0x8000_0001, 0, ECX): {"lahf": 0, "lzcnt": 5, "prefetchw": 8},
    (7, 0, EBX): {
        "fsgsbase": 0, "tsc_adjust": 1, "bmi1": 3, "hle": 4, "avx2": 5, "smep": 7, "bmi2": 8, "erms": 9, "invpcid": 10,
        "rtm": 11, "mpx": 14, "avx512f": 16, "rdseed": 18, "adx": 19, "smap": 20, "clflushopt": 23, "clwb": 24,
        "sha": 29,
    },
    (0xD, 1, EAX): {"xsaveopt": 0, "xsavec": 1, "xgetbv1": 2, "xsaves": 3},
    (0x8000_0008, 0, EBX): {
        "wbnoinvd": 9, "amd_ibpb": 12, "amd_ibrs": 14, "amd_stibp": 15, "amd_ssbd": 24, "amd_ssb_no": 26,
    },
    (6, 0, EAX): {"arat": 2},
    (7, 0, ECX): {
        "umip": 2, "pku": 3, "ospke": 4, "waitpkg": 5, "gfni": 8, "vaes": 9, "la57": 16, "rdpid": 22, "cldemote": 25,
        "movdiri": 27, "movdir64b": 28, "pks": 31,
    },
    (7, 0, EDX): {
        "md_clear": 10, "serialize": 14, "ibt": 20, "spec_ctrl": 26, "intel_stibp": 27, "flush_l1d": 28,
        "arch_capabilities": 29, "spec_ctrl_ssbd": 31,
    },
}  # fmt: skip

FEATURES: Final[dict[str, Place]] = {
    name: Place(*word, bit) for word, names in _WORDS.items() for name, bit in names.items()
}
"""Every feature known by name, in the order of Linux's list; many are on no model."""

_LINUX: Final = {
    "sse3": "pni", "clfsh": "clflush", "lzcnt": "abm", "prefetchw": "3dnowprefetch", "lahf": "lahf_lm",
    "tsc_deadline": "tsc_deadline_timer", "sha": "sha_ni",
    "invariant_tsc": "nonstop_tsc",
}  # fmt: skip
SPECULATION_CONTROL: Final = frozenset(
    {
        "md_clear", "spec_ctrl", "intel_stibp", "flush_l1d", "arch_capabilities", "spec_ctrl_ssbd", "amd_ibpb",
        "amd_ibrs", "amd_stibp", "amd_ssbd", "amd_ssb_no",
    }
)  # fmt: skip
"""Features that tell of transient execution and rule it; a model has them when that is modelled."""
_UNNAMED: Final = frozenset({"osxsave", "pks"}) | SPECULATION_CONTROL - {"md_clear", "flush_l1d", "arch_capabilities"}
"""Bits that Linux shows under no name, or under one of the names below."""
_KERNELS: Final[dict[str, frozenset[str]]] = {
    "pti": frozenset(),
    "ssbd": frozenset({"spec_ctrl_ssbd", "amd_ssbd"}),
    "ibrs": frozenset({"spec_ctrl", "amd_ibrs"}),
    "ibpb": frozenset({"spec_ctrl", "amd_ibpb"}),
    "stibp": frozenset({"intel_stibp", "amd_stibp"}),
    "ibrs_enhanced": frozenset(),
}
"""Flags that Linux sets itself (word 7 of its list) -> the features that make it do so, one of which is enough."""
_ORDER: Final = {name: number for number, name in enumerate(FEATURES)}


def linux_names(features: Iterable[str], chosen: Iterable[str] = ()) -> tuple[str, ...]:
    """The flags of /proc/cpuinfo for a set of features, in Linux's order.

    ``chosen`` are flags of the kernel's own choice (``pti``, ``ibrs_enhanced``), which no feature stands for.
    """
    present, wanted = set(features), set(chosen)
    own = [name for name, reasons in _KERNELS.items() if name in wanted or reasons & present]
    named = [name for name in FEATURES if name in present and name not in _UNNAMED]
    first = [name for name in named if _ORDER[name] < _ORDER["fsgsbase"]]
    return (*(_LINUX.get(name, name) for name in first), *own, *(_LINUX.get(n, n) for n in named[len(first) :]))


def words(features: Iterable[str]) -> dict[tuple[int, int, int], int]:
    """(leaf, subleaf, register) -> bits, for a set of features."""
    bits: dict[tuple[int, int, int], int] = {}
    for name in features:
        leaf, subleaf, register, bit = FEATURES[name]
        key = (leaf, subleaf, register)
        bits[key] = bits.get(key, 0) | 1 << bit
    return bits

"""CPU models: what CPUID shows, and what goes with it (Intel SDM volume 2, CPUID).

A model shows the features that work here and no others. The engine (QEMU 5.0's translator under its Ice Lake
model) decides what user code can execute; MMU and system features are enforced by the model: a CR4 or EFER bit of a
feature that is not shown is refused, RDPID and INVPCID are #UD. Hidden although the engine executes them:

- RDRAND, RDSEED: their values would come from the host, and no run could be repeated.
- VEX encodings of SSE (``vaddps``): the engine takes them for the SSE instruction and leaves the upper half alone.
- MPX, CET, SSE4A, TPAUSE and UMONITOR encodings: taken for NOPs, or for other instructions.
- VME: no virtual-8086 extensions. MONITOR, RDPMC, SHA, AVX, XSAVEC, XSAVES are #UD, as hidden features are.
- user instructions that only a smaller model than ``default`` hides (BMI, AES...): the engine has no switch for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.cpu import window
from mmuemu.errors import UsageError
from mmuemu.x86.features import EAX, EBX, ECX, EDX, FEATURES, SPECULATION_CONTROL, linux_names, words
from mmuemu.x86.registers import CR4_OSXSAVE, CR4_PKE

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

Leaf = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""

XCR0_LEGACY: Final = 3
XCR0_PKRU: Final = 1 << 9
_LEGACY_AREA: Final = 576
_PKRU_OFFSET: Final = 0xA80
"""Where the engine's XSAVE puts PKRU (it is Intel's place too)."""
LINE: Final = 64
"""Bytes of a cache line, and of what CLFLUSH flushes."""


class Cache(NamedTuple):
    """A cache as leaf 4 shows it; ``kind`` is 1 for data, 2 for code, 3 for both."""

    level: int
    kind: int
    kib: int
    ways: int

    @property
    def sets(self) -> int:
        """How many sets of ``ways`` lines it has."""
        return (self.kib << 10) // (self.ways * LINE)


DEFAULT_CACHES: Final = (Cache(1, 1, 32, 8), Cache(1, 2, 32, 8), Cache(2, 3, 1280, 20), Cache(3, 3, 16384, 16))
AMD: Final = "AuthenticAMD"
_AMD_WAYS: Final = {1: 1, 2: 2, 4: 4, 8: 6, 16: 8, 32: 10, 48: 11, 64: 12, 96: 13, 128: 14}
"""Ways as leaf 0x80000006 writes them (AMD APM volume 3, E.4.5)."""
LAST_EXTENDED: Final = 0x8000_0008
_HYPERVISOR: Final = 0x4000_0000

_X86_64: Final = frozenset(
    {
        "fpu", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "sep", "mtrr", "pge", "mca", "cmov", "pat", "pse36",
        "clfsh", "mmx", "fxsr", "sse", "sse2", "syscall", "nx", "lm",
    }
)  # fmt: skip
_NEHALEM: Final = _X86_64 | frozenset(
    {
        "sse3", "ssse3", "sse4_1", "sse4_2", "cx16", "popcnt", "lahf", "rdtscp", "hypervisor",
    }
)  # fmt: skip
_HASWELL: Final = _NEHALEM | frozenset(
    {
        "pclmulqdq", "aes", "pcid", "invpcid", "movbe", "xsave", "xsaveopt", "fsgsbase", "bmi1", "bmi2", "lzcnt",
        "erms", "smep", "pdpe1gb",
    }
)  # fmt: skip
_SKYLAKE: Final = _HASWELL | frozenset(
    {
        "adx", "smap", "clflushopt", "clwb", "pku", "xgetbv1", "prefetchw",
    }
)  # fmt: skip
_ICE_LAKE: Final = _SKYLAKE | frozenset(
    {
        "umip", "la57", "rdpid", "wbnoinvd",
    }
)  # fmt: skip
BOARD_FEATURES: Final = frozenset({"apic", "x2apic", "tsc_deadline", "arat", "invariant_tsc", "tsc_adjust"})
"""Features of the machine around the CPU, which :meth:`CpuModel.on_board` adds."""
HIDDEN: Final = frozenset(FEATURES) - _ICE_LAKE - BOARD_FEATURES - SPECULATION_CONTROL - {"osxsave", "ospke", "pks"}
"""Features no model has."""

_NEEDS: Final = {
    "xsaveopt": "xsave", "xgetbv1": "xsave", "pku": "xsave", "x2apic": "apic", "tsc_deadline": "apic",
    "arat": "apic", "pks": "pku", "sse2": "sse", "sse3": "sse2", "ssse3": "sse3",
    "sse4_1": "ssse3", "sse4_2": "sse4_1",
}  # fmt: skip
"""A feature goes when the one it stands on goes."""
_INDISPENSABLE: Final = frozenset(
    {"fpu", "tsc", "msr", "pae", "cx8", "pge", "cmov", "pse36", "mmx", "fxsr", "sse", "sse2", "lm"}
)
"""What 64-bit code and the walk take for granted (SDM volume 1, section 3.1), and PSE-36, which the walk always has."""


class CpuModel(NamedTuple):
    """One kind of processor.

    ``features`` are names of :data:`mmuemu.x86.features.FEATURES`; ``tsc_hz`` and ``crystal_hz`` (the clock of the
    APIC timer) are shown in leaf 0x15, 0 when not known. ``caches`` are the data cache first, then outwards.
    """

    name: str
    features: frozenset[str]
    family: int = 6
    model: int = 106
    stepping: int = 6
    vendor: str = "GenuineIntel"
    brand: str = "mmuemu virtual CPU"
    maxphyaddr: int = 40
    tsc_hz: int = 0
    crystal_hz: int = 0
    apic_id: int = 0
    caches: tuple[Cache, ...] = DEFAULT_CACHES
    base_mhz: int = 0
    """Leaf 0x16's frequency, 0: there is no such leaf."""
    arch_capabilities: int = 0
    """IA32_ARCH_CAPABILITIES, for a model with that feature."""

    def without(self, features: Iterable[str]) -> CpuModel:
        """The model less some features and what stands on them.

        Raises UsageError for a name that is no feature, or one that nothing here can do without.
        """
        gone = set(features)
        for name in gone:
            if name not in FEATURES or name in _INDISPENSABLE:
                can = ", ".join(sorted(self.features - _INDISPENSABLE))
                why = "cannot be taken away" if name in FEATURES else "is no CPU feature"
                raise UsageError(f"{name} {why}: model {self.name} can do without {can}")
        while more := {name for name, base in _NEEDS.items() if base in gone and name not in gone}:
            gone |= more
        return self._replace(features=self.features - gone)

    def on_board(
        self, *, tsc_hz: int = 0, crystal_hz: int = 0, x2apic: bool = True, tsc_deadline: bool = True
    ) -> CpuModel:
        """The model with a local APIC beside it, whose timer never stops, and a TSC of constant rate."""
        more = {"apic", "arat", "invariant_tsc"} | ({"x2apic"} if x2apic else set())
        more |= {"tsc_deadline"} if tsc_deadline else set()
        return self._replace(features=self.features | more, tsc_hz=tsc_hz, crystal_hz=crystal_hz)

    # -- what follows from the features ----------------------------------------------------------------

    @property
    def page_1g(self) -> bool:
        """Whether there are 1 GiB pages."""
        return "pdpe1gb" in self.features

    @property
    def linear_bits(self) -> int:
        """Width of linear addresses."""
        return 57 if "la57" in self.features else 48

    @property
    def xcr0(self) -> int:
        """XCR0 bits that can be set."""
        if "xsave" not in self.features:
            return 1
        return XCR0_LEGACY | (XCR0_PKRU if "pku" in self.features else 0)

    @property
    def signature(self) -> int:
        """EAX of leaf 1."""
        family, extended = min(self.family, 15), max(self.family - 15, 0)
        return self.stepping | (self.model & 15) << 4 | family << 8 | self.model >> 4 << 16 | extended << 20

    @property
    def hwcap(self) -> int:
        """EDX of leaf 1, as Linux passes it on in AT_HWCAP."""
        return words(self.features).get((1, 0, EDX), 0)

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of /proc/cpuinfo."""
        return linux_names(self.features)

    @property
    def last_leaf(self) -> int:
        """The highest basic leaf."""
        if not self.tsc_hz or not self.crystal_hz:
            return 0xD
        return 0x16 if self.base_mhz else 0x15

    # -- leaves ----------------------------------------------------------------------------------------

    def leaf(self, leaf: int, subleaf: int = 0) -> Leaf:
        """One leaf; bits that follow control registers (OSXSAVE, OSPKE, the size of leaf 0xD) as if none was set."""
        special = {
            0: self._vendor_leaf, 1: self._version_leaf, 4: self._cache_leaf, 0xB: self._topology_leaf,
            0xD: self._state_leaf,
        }.get(leaf)  # fmt: skip
        if special is not None:
            return special(subleaf)
        if 0x8000_0000 <= leaf <= LAST_EXTENDED:
            return self._extended(leaf)
        if leaf == _HYPERVISOR and "hypervisor" in self.features:
            return (_HYPERVISOR, *_text("mmuemummuemu"))
        if leaf > self.last_leaf:
            # Beyond the end Intel answers as for the highest basic leaf (SDM volume 2, CPUID, "Inputs").
            if _HYPERVISOR <= leaf < _HYPERVISOR + 0x100 or self.vendor == AMD:
                return 0, 0, 0, 0
            return self.leaf(self.last_leaf, subleaf)
        if leaf == 2 and self.vendor != AMD:
            return 0x00FF01, 0, 0, 0  # one round; 0xff: the caches are in leaf 4
        if leaf == 0x15:
            return _ratio(self.tsc_hz, self.crystal_hz)
        if leaf == 0x16:
            return self.base_mhz, self.base_mhz, 100, 0
        return self._bits(leaf, subleaf) if leaf in (6, 7) else (0, 0, 0, 0)

    def _bits(self, leaf: int, subleaf: int) -> Leaf:
        found = words(self.features)
        return (
            found.get((leaf, subleaf, EAX), 0),
            found.get((leaf, subleaf, EBX), 0),
            found.get((leaf, subleaf, ECX), 0),
            found.get((leaf, subleaf, EDX), 0),
        )

    def _vendor_leaf(self, _subleaf: int) -> Leaf:
        first, third, second = _text(self.vendor)
        return self.last_leaf, first, second, third

    def _version_leaf(self, _subleaf: int) -> Leaf:
        bits = self._bits(1, 0)
        # CLFLUSH size in 8 bytes, one logical processor, initial APIC id.
        return self.signature, LINE // 8 << 8 | 1 << 16 | self.apic_id << 24, bits[ECX], bits[EDX]

    def _cache_leaf(self, subleaf: int) -> Leaf:
        if subleaf >= len(self.caches) or self.vendor == AMD:
            return 0, 0, 0, 0
        cache = self.caches[subleaf]
        return cache.kind | cache.level << 5 | 1 << 8, (cache.ways - 1) << 22 | LINE - 1, cache.sets - 1, 0

    def _older_cache_leaf(self, leaf: int) -> Leaf:
        """Leaves 0x80000005 and 0x80000006 (AMD APM volume 3, E.4.4 and E.4.5); Intel's tell of the L2 only."""
        found = {(cache.level, cache.kind): cache for cache in self.caches}
        if leaf == 0x8000_0005:
            data, code = found[1, 1], found[1, 2]
            pair = [cache.kib << 24 | cache.ways << 16 | 1 << 8 | LINE for cache in (data, code)]
            return 0, 0, pair[0], pair[1]
        second, third = found[2, 3], found.get((3, 3))
        amd = self.vendor == AMD
        ecx = second.kib << 16 | (_AMD_WAYS.get(second.ways, 7) if amd else 7) << 12 | amd << 8 | LINE
        if third is None or not amd:
            return 0, 0, ecx, 0
        return 0, 0, ecx, third.kib // 512 << 18 | _AMD_WAYS.get(third.ways, 9) << 12 | 1 << 8 | LINE

    def _topology_leaf(self, subleaf: int) -> Leaf:
        if subleaf > 1:
            return 0, 0, subleaf & 0xFF, self.apic_id
        return 0, 1, subleaf | (subleaf + 1) << 8, self.apic_id

    def _state_leaf(self, subleaf: int) -> Leaf:
        if "xsave" not in self.features:
            return 0, 0, 0, 0
        if subleaf == 0:
            return self.xcr0, _LEGACY_AREA, self.area(self.xcr0), 0
        if subleaf == 1:
            return self._bits(0xD, 1)[EAX], 0, 0, 0
        if subleaf == 9 and self.xcr0 & XCR0_PKRU:
            return 8, _PKRU_OFFSET, 0, 0
        return 0, 0, 0, 0

    @staticmethod
    def area(xcr0: int) -> int:
        """Bytes that XSAVE writes under ``xcr0``."""
        return _PKRU_OFFSET + 8 if xcr0 & XCR0_PKRU else _LEGACY_AREA

    def _extended(self, leaf: int) -> Leaf:
        if leaf == 0x8000_0000:
            return LAST_EXTENDED, 0, 0, 0
        if 0x8000_0002 <= leaf <= 0x8000_0004:
            at = (leaf - 0x8000_0002) * 16
            return _quad(self.brand.encode().ljust(48, b"\0")[at : at + 16])
        if leaf == 0x8000_0006 or (leaf == 0x8000_0005 and self.vendor == AMD):
            return self._older_cache_leaf(leaf)
        bits = self._bits(leaf, 0)
        if leaf == 0x8000_0008:
            return self.maxphyaddr | self.linear_bits << 8, bits[EBX], 0, 0
        return bits


def _quad(data: bytes) -> Leaf:
    a, b, c, d = (int.from_bytes(data[n : n + 4], "little") for n in (0, 4, 8, 12))
    return a, b, c, d


def _text(text: str) -> tuple[int, int, int]:
    a, b, c, _ = _quad(text.encode().ljust(16, b"\0"))
    return a, b, c


def _ratio(tsc_hz: int, crystal_hz: int) -> Leaf:
    from math import gcd

    common = gcd(tsc_hz, crystal_hz)
    return crystal_hz // common, tsc_hz // common, crystal_hz, 0


MODELS: Final[dict[str, CpuModel]] = {
    model.name: model
    for model in (
        CpuModel("default", _ICE_LAKE),
        CpuModel("max", _ICE_LAKE | {"pks"}, model=143, stepping=8, brand="mmuemu virtual CPU (max)"),
        CpuModel("skylake", _SKYLAKE, model=85, stepping=4, brand="mmuemu virtual CPU (skylake)"),
        CpuModel("haswell", _HASWELL, model=63, stepping=2, brand="mmuemu virtual CPU (haswell)"),
        CpuModel("nehalem", _NEHALEM, model=26, stepping=5, brand="mmuemu virtual CPU (nehalem)"),
        CpuModel("x86-64", _X86_64, model=15, stepping=11, brand="mmuemu virtual CPU (x86-64)"),
    )
}
"""``default`` is an Ice Lake server; ``max`` adds PKS, which the ``python`` engine alone obeys."""
DEFAULT: Final = MODELS["default"]


def cpu_model(name: str = "default", without: Iterable[str] = ()) -> CpuModel:
    """A model by name, less some features. Raises UsageError for names that do not exist."""
    if name not in MODELS:
        raise UsageError(f"no CPU model {name!r}: choose {', '.join(MODELS)}")
    return MODELS[name].without(without)


class CpuidUnit:
    """Answers the CPUID instructions of one CPU."""

    def __init__(self, cpu: Cpu, model: CpuModel) -> None:
        self.cpu = cpu
        self.model = model
        self.apic_enabled: Callable[[], bool] = lambda: True
        """Whether IA32_APIC_BASE has the local APIC on: leaf 1 shows it only then."""
        self._leaves: dict[tuple[int, int], Leaf] = {}

    def execute(self) -> None:
        """One CPUID: the answer to EAX and ECX goes into the registers."""
        state = self.cpu.window
        state.save()
        q = state.q
        leaf, subleaf = q[window.Q_RAX] & 0xFFFF_FFFF, q[window.Q_RCX] & 0xFFFF_FFFF
        key = (leaf, subleaf)
        answer = self._leaves.get(key)
        if answer is None:
            if len(self._leaves) > 1024:
                self._leaves.clear()
            answer = self._leaves[key] = self.model.leaf(leaf, subleaf)
        if leaf in (1, 7, 0xD) or leaf > self.model.last_leaf:
            answer = self._current(leaf, subleaf, answer, q)
        q[window.Q_RAX], q[window.Q_RBX], q[window.Q_RCX], q[window.Q_RDX] = answer
        state.restore()

    def _current(self, leaf: int, subleaf: int, answer: Leaf, q: memoryview) -> Leaf:
        """``answer`` with the bits that follow control registers."""
        a, b, c, d = answer
        cr4, features = q[window.Q_CR4], self.model.features
        if leaf == 1:
            c |= bool(cr4 & CR4_OSXSAVE and "xsave" in features) << FEATURES["osxsave"].bit
            if not self.apic_enabled():
                d &= ~(1 << FEATURES["apic"].bit)
        elif leaf == 7 and subleaf == 0:
            c |= bool(cr4 & CR4_PKE and "pku" in features) << FEATURES["ospke"].bit
        elif b and subleaf == 0 and self.model.leaf(leaf, 0) == self.model.leaf(0xD, 0):
            b = self.model.area(q[window.Q_XCR0])
        return a, b, c, d

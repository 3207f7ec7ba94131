"""CPU models as data: what there is of caches, predictors and buffers, how fast, and which flaws it has.

A model is a JSON file in ``data/`` (or one of the user's own; :mod:`mmuemu.speculation.catalogue` reads both): the
fields of :class:`CpuSpec`, and ``sources``, which says where each number is from.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """One level: ``size`` in bytes, ``ways``, and ``latency``, the cycles of a load that hits it."""

    size: int
    ways: int
    latency: int


@dataclass(frozen=True, slots=True)
class CpuSpec:
    """One kind of processor, as far as its transient execution goes. Times are in cycles."""

    name: str
    title: str
    vendor: str = "GenuineIntel"
    family: int = 6
    model: int = 94
    stepping: int = 3
    brand: str = ""
    """What CPUID's brand leaves and /proc/cpuinfo show; empty: the title."""
    features: str = "skylake"
    """Name of the CPUID model (:mod:`mmuemu.cpu.cpuid`) whose features it has."""
    without: tuple[str, ...] = ()
    """Features of those that it does not have."""
    flaws: frozenset[str] = frozenset()
    capabilities: tuple[str, ...] = ()
    """What IA32_ARCH_CAPABILITIES says (:data:`mmuemu.x86.msrs.ARCH_CAPABILITIES`) as the processor left the factory;
    see :func:`mmuemu.speculation.identity.capabilities` for what it says with other flaws."""
    microcode: tuple[str, ...] = ()
    """What its microcode offers the kernel: ``ibrs``, ``ibpb``, ``stibp``, ``ssbd``, ``md_clear``, ``l1d_flush``."""
    speculates: bool = True
    """False: in-order; nothing runs transiently."""
    issue_width: int = 4
    reorder_buffer: int = 224
    l1d: CacheSpec = field(default_factory=lambda: CacheSpec(32 << 10, 8, 4))
    l1i: CacheSpec = field(default_factory=lambda: CacheSpec(32 << 10, 8, 4))
    l2: CacheSpec = field(default_factory=lambda: CacheSpec(256 << 10, 4, 12))
    l3: CacheSpec = field(default_factory=lambda: CacheSpec(8 << 20, 16, 42))
    memory_latency: int = 210
    tlb_entries: int = 64
    stlb_entries: int = 1536
    stlb_latency: int = 7
    squash_latency: int = 6
    """From the moment a branch is known to be wrong until its younger instructions are gone."""
    mispredict_penalty: int = 16
    fault_window: int = 60
    """From the moment a faulting instruction is the oldest and done until its younger instructions are gone."""
    pattern_entries: int = 16384
    """Two-bit counters, by the low bits of the branch's address."""
    btb_entries: int = 4096
    btb_address_bits: int = 30
    """Low bits of a branch's address that its entry is found by."""
    btb_target_bits: int = 32
    """Low bits of a target that an entry keeps; the others are the branch's own."""
    rsb_entries: int = 16
    rsb_underflow: str = "stale"
    """What a return does when more were taken than pushed: ``stale`` (the ring goes round), ``btb`` (it asks the BTB)
    or ``none`` (no prediction)."""
    disambiguation_threshold: int = 15
    """Executions of a load without a conflict after which it may pass a store of unknown address; 0: it never may."""
    store_queue: int = 56
    forward_latency: int = 5
    fill_buffers: int = 12
    load_ports: int = 2
    tsc_hz: int = 3_000_000_000
    crystal_hz: int = 0
    """The clock that leaf 0x15 derives the TSC from; 0: the processor has no such leaf."""
    base_mhz: int = 0
    """Leaf 0x16; 0: no such leaf."""
    sources: dict[str, str] = field(default_factory=dict)

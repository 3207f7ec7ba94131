"""What ``mmuemu cpus`` prints."""

from __future__ import annotations

import sys

from mmuemu.speculation.catalogue import NAMES, as_json, find_cpu
from mmuemu.speculation.flaws import FLAWS
from mmuemu.speculation.mitigations import automatic
from mmuemu.speculation.models import CacheSpec, CpuSpec


def show_cpus(names: list[str], as_file: bool) -> None:
    """Print the models called (or in the files) ``names``, all there are when none is given. Raises UsageError."""
    specs = [find_cpu(name, "cpus") for name in names or NAMES]
    if as_file:
        import json

        described = [as_json(spec) for spec in specs]
        sys.stdout.write(json.dumps(described[0] if len(names) == 1 else described, indent=2) + "\n")
    else:
        sys.stdout.write(table(specs))


def table(specs: list[CpuSpec]) -> str:
    """What people read: a paragraph of lines for each model."""
    lines = []
    for spec in specs:
        lines.append(f"{spec.name}: {spec.title}")
        lines += [f"    {title:<13}{text}" for title, text in _lines(spec).items()]
    return "\n".join(lines) + "\n"


def _lines(spec: CpuSpec) -> dict[str, str]:
    flaws = [name for name in FLAWS if name in spec.flaws]
    caches = {"L1D": spec.l1d, "L2": spec.l2, "L3": spec.l3}
    return {
        "flaws": ", ".join(flaws) or "none",
        "auto": ", ".join(str(automatic(spec, spec.flaws)).split(",")),
        "microcode": ", ".join(spec.microcode) or "offers nothing",
        "says": ", ".join(spec.capabilities) or "nothing (no IA32_ARCH_CAPABILITIES)",
        "caches": ", ".join(f"{name} {_cache(cache)}" for name, cache in caches.items())
        + f", memory {spec.memory_latency} cycles",
        "window": f"{spec.reorder_buffer} instructions, {spec.issue_width} a cycle"
        if spec.speculates
        else "nothing runs transiently",
        "predictors": f"PHT {spec.pattern_entries}, BTB {spec.btb_entries}, RSB {spec.rsb_entries}",
    }


def _cache(cache: CacheSpec) -> str:
    size = f"{cache.size >> 20}M" if not cache.size & (1 << 20) - 1 else f"{cache.size >> 10}K"
    return f"{size} {cache.ways}-way {cache.latency}"

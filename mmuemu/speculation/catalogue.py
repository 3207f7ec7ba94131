"""CPU models by name or from a JSON file: reading, checking, and writing them.

A file is an object with the fields of :class:`~mmuemu.speculation.models.CpuSpec` (``mmuemu cpus NAME --json`` prints
one). ``"like"`` names the model that fills in what is left out, ``skylake`` unless it is given. Sizes are bytes, or
text like ``"32K"``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from mmuemu.cpu.cpuid import AMD, LINE, MODELS
from mmuemu.errors import UsageError
from mmuemu.jsonfile import Reader, find_or_read
from mmuemu.memory.ram import parse_size
from mmuemu.speculation.flaws import FLAWS, GROUPS, parse_flaws
from mmuemu.speculation.models import CacheSpec, CpuSpec
from mmuemu.x86.features import FEATURES
from mmuemu.x86.msrs import ARCH_CAPABILITIES

NAMES: Final = ("skylake", "haswell", "zen2", "icelake", "cascadelake", "in-order")
"""The models that come with the package, the default of ``like`` first."""
MICROCODE: Final[dict[str, str]] = {
    "ibrs": "indirect branch restricted speculation (SPEC_CTRL bit 0)",
    "ibpb": "indirect branch prediction barrier (PRED_CMD bit 0)",
    "stibp": "single thread indirect branch predictors (SPEC_CTRL bit 1)",
    "ssbd": "speculative store bypass disable (SPEC_CTRL bit 2)",
    "md_clear": "VERW overwrites the buffers",
    "l1d_flush": "writing FLUSH_CMD empties the L1D",
}
"""What microcode can offer a kernel."""
UNDERFLOWS: Final = ("stale", "btb", "none")
_DATA: Final = Path(__file__).with_name("data")
_LARGEST_CACHE: Final = 1 << 30

_RANGES: Final[dict[str, tuple[int, int]]] = {
    "family": (5, 270), "model": (0, 255), "stepping": (0, 15), "issue_width": (1, 16), "reorder_buffer": (1, 4096),
    "memory_latency": (1, 10_000), "tlb_entries": (1, 1 << 16), "stlb_entries": (0, 1 << 20), "stlb_latency": (0, 1000),
    "squash_latency": (0, 1000), "mispredict_penalty": (0, 1000), "fault_window": (0, 1000),
    "pattern_entries": (0, 1 << 24), "btb_entries": (0, 1 << 24), "btb_address_bits": (0, 57),
    "btb_target_bits": (1, 64), "rsb_entries": (0, 1024),
    "disambiguation_threshold": (0, 1 << 20), "store_queue": (1, 1024), "forward_latency": (0, 1000),
    "fill_buffers": (1, 1024), "load_ports": (1, 16), "tsc_hz": (1_000_000, 100_000_000_000),
    "crystal_hz": (0, 1_000_000_000), "base_mhz": (0, 0xFFFF),
}  # fmt: skip
"""The least and the greatest value of each number."""
_NAMES_OF: Final[dict[str, Callable[[], list[str]]]] = {
    "features": lambda: list(MODELS),
    "vendor": lambda: ["GenuineIntel", AMD],
    "rsb_underflow": lambda: list(UNDERFLOWS),
    "capabilities": lambda: list(ARCH_CAPABILITIES),
    "microcode": lambda: list(MICROCODE),
    "without": lambda: list(FEATURES),
    "flaws": lambda: [*FLAWS, *GROUPS],
}
"""Fields whose text (or each of whose texts) is one of a few."""
_FIELDS: Final = tuple(field.name for field in fields(CpuSpec))


class _Reader(Reader):
    """Reads one model."""

    def __init__(self, name: str) -> None:
        super().__init__(f"CPU {name}")
        self.name = name

    def text(self, key: str, value: object) -> str:
        """A short line, and one of the names if the key has such."""
        if len(super().text(key, value)) > 1000:
            self.bad(key, value, "write at most 1,000 letters")
        assert isinstance(value, str)
        known = _NAMES_OF[key]() if key in _NAMES_OF else None
        if known is not None and value not in known:
            self.bad(key, value, "choose from " + ", ".join(known))
        return value

    def texts(self, key: str, value: object) -> tuple[str, ...]:
        items = self.items(key, value, ", ".join(_NAMES_OF[key]()))
        return tuple(self.text(key, item) for item in items)

    def cache(self, key: str, given: object, before: CacheSpec) -> CacheSpec:
        value = self.members(key, given, [field.name for field in fields(CacheSpec)])
        size = value.get("size", before.size)
        if isinstance(size, str):
            try:
                size = parse_size(size)
            except UsageError:
                self.bad(f"{key}.size", size, 'write bytes, or a size like "32K"')
        size = self.range(f"{key}.size", size, LINE, _LARGEST_CACHE)
        ways = self.range(f"{key}.ways", value.get("ways", before.ways), 1, 1024)
        latency = self.range(f"{key}.latency", value.get("latency", before.latency), 1, 10_000)
        sets, rest = divmod(size, ways * LINE)
        if rest or sets < 1 or sets & sets - 1 or size % 1024:
            self.bad(f"{key}.size", size, f"{ways} ways of {LINE}-byte lines need a power of two of sets, in whole KiB")
        return CacheSpec(size, ways, latency)

    def sources(self, key: str, value: object) -> dict[str, str]:
        if not isinstance(value, dict):
            self.bad(key, value, "write an object: what it is about, and where it is from")
        return {name: self.text(f"{key}.{name}", source) for name, source in value.items()}

    def member(self, key: str, value: object, before: object) -> object:
        if key == "flaws":
            return parse_flaws(self.texts(key, value), f"CPU {self.name}: flaws")
        if isinstance(before, CacheSpec):
            return self.cache(key, value, before)
        if isinstance(before, tuple):
            return self.texts(key, value)
        if isinstance(before, dict):
            return self.sources(key, value)
        if isinstance(before, bool):
            return self.flag(key, value)
        if isinstance(before, int):
            return self.range(key, value, *_RANGES[key])
        return self.text(key, value)

    def spec(self, given: dict[str, Any], base: CpuSpec) -> CpuSpec:
        for key in given:
            if key not in _FIELDS:
                self.unknown(key, ["like", *_FIELDS])
        changes: dict[str, Any] = {key: self.member(key, value, getattr(base, key)) for key, value in given.items()}
        return replace(base, **changes)


def parse(text: str, name: str) -> CpuSpec:
    """The model that the JSON ``text`` describes, checked. Raises UsageError, with ``name`` in its message."""
    reader = _Reader(name)
    given = reader.document(text, "write an object, as mmuemu cpus skylake --json does")
    like = reader.like(given, NAMES, None if name == NAMES[0] else NAMES[0])
    base = CpuSpec(name, name) if like is None else named(like)
    return check(reader.spec({"name": name, **given}, base))


def check(spec: CpuSpec) -> CpuSpec:
    """The model itself. Raises UsageError for one whose parts contradict each other."""
    reader = _Reader(spec.name)
    if not all(character.isalnum() or character in "-_." for character in spec.name) or len(spec.name) > 64:
        reader.bad("name", spec.name, "write letters, digits, - _ .")
    if len((spec.brand or spec.title).encode()) > 47 and spec.brand:
        reader.bad("brand", spec.brand, "CPUID has room for 47 bytes")
    for flaw in sorted(spec.flaws):
        why = lacks(spec, flaw)
        if why:
            reader.bad("flaws", flaw, why)
    if spec.vendor == AMD and spec.capabilities:
        reader.bad("capabilities", list(spec.capabilities), "IA32_ARCH_CAPABILITIES is Intel's")
    if spec.l3.size < spec.l2.size or spec.l2.size < spec.l1d.size:
        reader.bad("l3.size", spec.l3.size, "a cache is at least as large as the one before it")
    return spec


_PARTS: Final[dict[str, tuple[Callable[[CpuSpec], bool], str]]] = {
    "v1": (lambda spec: spec.pattern_entries > 0, "predicts no conditional branches (pattern_entries 0)"),
    "v2": (lambda spec: spec.btb_entries > 0, "has no branch target buffer (btb_entries 0)"),
    "rsb": (lambda spec: spec.rsb_entries > 0, "has no return stack buffer (rsb_entries 0)"),
    "v4": (lambda spec: spec.disambiguation_threshold > 0, "lets no load pass (disambiguation_threshold 0)"),
    "meltdown-pk": (lambda spec: "pku" in shown_features(spec), "has no protection keys (pku)"),
}
"""What a flaw needs of the model, and how to say that it is missing."""


def lacks(spec: CpuSpec, flaw: str) -> str:
    """Why ``spec`` cannot have ``flaw``; empty when it can."""
    if not spec.speculates:
        return f"{spec.name} runs nothing transiently (speculates is false)"
    there, why = _PARTS.get(flaw, (None, ""))
    return f"{spec.name} {why}" if there is not None and not there(spec) else ""


def shown_features(spec: CpuSpec) -> frozenset[str]:
    """The CPUID features of the model, without those of its microcode."""
    return MODELS[spec.features].without(spec.without).features - {"hypervisor"}


@cache
def named(name: str) -> CpuSpec:
    """One of the models that come with the package. KeyError for any other name."""
    if name not in NAMES:
        raise KeyError(name)
    return parse((_DATA / f"{name}.json").read_text("utf-8"), name)


def find_cpu(name: str, option: str = "--cpu") -> CpuSpec:
    """The model called ``name``, or described by the file ``name``. Raises UsageError, naming ``option``."""
    if name in NAMES:
        return named(name)
    return parse(*find_or_read(name, dict.fromkeys(NAMES), option, "CPU", "mmuemu cpus"))


def as_json(spec: CpuSpec) -> dict[str, Any]:
    """The description of ``spec`` for a file; :func:`parse` reads the same model from it."""
    found = asdict(spec)
    found["flaws"] = [name for name in FLAWS if name in spec.flaws]
    if not spec.brand:
        del found["brand"]
    return found

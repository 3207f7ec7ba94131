"""What a report shows of memory, page tables, caches and predictors, as JSON can hold it.

Addresses are sixteen hexadecimal digits, so that their order is that of their texts; ranges end with their last byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from mmuemu.errors import printable
from mmuemu.mmu.modes import FIVE_LEVEL, FOUR_LEVEL, PagingMode
from mmuemu.view.entries import bit_names
from mmuemu.view.regions import Region, memory_map
from mmuemu.view.report.svg import height
from mmuemu.view.sheet import human
from mmuemu.view.tables import Run, Table, bits_text, frames_text, read_tables

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task
    from mmuemu.memory.page_table import PageTable
    from mmuemu.speculation.caches import Cache
    from mmuemu.speculation.core import Speculation

MOST_REGIONS: Final = 2000
"""Regions of one process that are shown."""
MOST_ENTRIES: Final = 20_000
"""Tables and runs of pages of all processes together."""
MOST_TARGETS: Final = 512
"""Entries of the branch target buffer that are shown."""
_LINE_SHIFT: Final = 6
_COUNTERS: Final = 4


class Budget:
    """How many entries of page tables may still be shown."""

    def __init__(self, entries: int = MOST_ENTRIES) -> None:
        self.entries = entries

    def take(self) -> bool:
        """Whether there is room for one more."""
        self.entries -= 1
        return self.entries >= 0


def _digits(address: int) -> str:
    return f"{address:016x}"


def region_facts(region: Region) -> dict[str, Any]:
    """A region; ``height`` is how tall it is drawn, in px, sizes are bytes."""
    return {
        "start": _digits(region.start),
        "last": _digits(region.end - 1),
        "size": human(region.size),
        "perm": region.permissions,
        "kind": region.kind,
        "what": printable(region.what),
        "resident": region.resident,
        "dirty": region.dirty,
        "shared": region.shared,
        "mover": region.mover,
        "offset": None if region.offset is None else f"{region.offset:+#x}" if region.offset else "0",
        "height": round(height(region)),
    }


def map_facts(regions: Sequence[Region]) -> dict[str, Any]:
    """The regions of a memory map, and how many in the middle are left out."""
    shown = list(regions)
    if len(regions) > MOST_REGIONS:
        shown = [*regions[: MOST_REGIONS // 2], *regions[-MOST_REGIONS // 2 :]]
    return {"regions": [region_facts(region) for region in shown], "cut": len(regions) - len(shown)}


def level_facts(mode: PagingMode) -> list[tuple[str, int, int]]:
    """Where in an address the index into each table stands: the entry's name, the lowest bit, how many bits."""
    return [(level.name, level.shift, level.index_bits) for level in mode.levels]


def tables_facts(table: Table, budget: Budget) -> dict[str, Any]:
    """A tree of tables and runs; ``cut`` counts what was left out of a table."""
    parts: list[dict[str, Any]] = []
    cut = 0
    for part in table.parts:
        if not budget.take():
            cut += 1
        elif isinstance(part, Table):
            parts.append(tables_facts(part, budget))
        else:
            parts.append(_run_facts(part))
    found: dict[str, Any] = {
        "level": table.level,
        "index": table.index,
        "bits": " ".join([*bit_names(table.flags, page=False), *([f"({table.note})"] if table.note else [])]),
        "table": f"{table.physical:#x}",
        "start": _digits(table.start),
        "last": _digits(table.end - 1),
        "parts": parts,
    }
    return {**found, "cut": cut} if cut else found


def _run_facts(run: Run) -> dict[str, Any]:
    return {
        "level": run.level,
        "index": run.first,
        "count": run.count,
        "start": _digits(run.start),
        "last": _digits(run.end - 1),
        "size": human(run.count * run.page_size),
        "page": human(run.page_size),
        "rights": f"{run.rights} {'user' if run.user else 'kernel'}",
        "frames": frames_text(run),
        "bits": bits_text(run),
    }


def kernel_tables(kernel: Kernel, table: PageTable, budget: Budget) -> dict[str, Any]:
    """The kernel half's tables, which all processes share."""
    return tables_facts(read_tables(table, kernel.layout.kernel_start), budget)


def process_facts(kernel: Kernel, process: Process, task: Task, budget: Budget) -> tuple[dict[str, Any], list[Region]]:
    """What a process's memory looks like now, and its memory map. Its memory must be there."""
    regions = memory_map(kernel, process, task.mm)
    table = task.mm.page_table
    facts: dict[str, Any] = {
        "pid": process.pid,
        "program": printable(process.exe),
        **map_facts(regions),
        "tables": tables_facts(read_tables(table, 0, kernel.layout.user_top), budget),
        "levels": level_facts(FIVE_LEVEL if table.levels == 5 else FOUR_LEVEL),
        "cr3": f"{table.root:#x}",
    }
    if table.user_root != table.root:
        facts["user_cr3"] = f"{table.user_root:#x}"
    return facts, regions


def _cache(name: str, cache: Cache, *, lines: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        "sets": len(cache.members),
        "ways": cache.ways,
        "lines": len(cache.lines),
    }
    if lines:
        found["members"] = [[f"{line << _LINE_SHIFT:#x}" for line in members] for members in cache.members]
    return found


def speculation_facts(core: Speculation, windows: Counter[tuple[str, str]]) -> dict[str, Any]:
    """Caches, predictors, and ``windows``: how many by (flaw, reason)."""
    caches, rsb, targets = core.caches, core.rsb, core.targets
    newest = [rsb.entries[(rsb.top - back) % rsb.size] for back in range(rsb.size)]
    return {
        "cpu": core.spec.name,
        "cycles": core.cycles,
        "instructions": core.instructions,
        "windows": [[flaw, reason or "?", count] for (flaw, reason), count in windows.most_common()],
        "caches": [_cache("L1D", caches.l1, lines=True), _cache("L2", caches.l2), _cache("L3", caches.l3)],
        "rsb": {"size": rsb.size, "depth": rsb.depth, "entries": [f"{address:#x}" for address in newest]},
        "btb": {
            "limit": targets.limit,
            "used": len(targets.entries),
            "entries": [
                [f"{key & targets.mask:#x}", f"{target:#x}", key >> 64]
                for key, target in list(targets.entries.items())[-MOST_TARGETS:]
            ],
        },
        "pht": [core.pattern.counters.count(value) for value in range(_COUNTERS)],
    }

"""The memory map of a process for people and as JSON, and the same program's under several seeds side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log2
from typing import TYPE_CHECKING, Any, Final

from mmuemu.errors import printable
from mmuemu.kernel.half import kernel_places
from mmuemu.loader.entropy import possible_bits
from mmuemu.view.regions import Region, memory_map, program_image
from mmuemu.view.sheet import Sheet, human

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.process import Process

_STYLES: Final = {
    "text": "red", "rodata": "magenta", "data": "yellow", "bss": "yellow", "heap": "green", "stack": "cyan",
    "linker": "blue", "library": "blue", "vdso": "blue", "file": "", "shared": "bold magenta", "anonymous": "",
    "guard": "dim", "kernel": "bold red", "gap": "dim",
}  # fmt: skip


DIGITS: Final = 16
"""Hexadecimal digits of an address."""


def bits_of(kernel: Kernel, process: Process, mm: AddressSpace) -> dict[str, float]:
    """The entropy that the layout gives each mover (:attr:`Region.mover`); zeros without ASLR."""
    image = program_image(kernel, process, mm)
    user = {} if image is None else possible_bits(kernel.layout, image)
    places = kernel_places(kernel.layout, kernel.options.memory)
    found = user | {mover: log2(count) for mover, count in places.items()}
    return found if kernel.aslr is not None else dict.fromkeys(found, 0.0)


def _offset(offset: int | None) -> str:
    if offset is None:
        return ""
    return f"{'-' if offset < 0 else '+'}{abs(offset):#x}" if offset else "0"


def _size(count: int) -> str:
    return human(count) if count else "-"


def map_sheet(kernel: Kernel, regions: Sequence[Region]) -> Sheet:
    """The table for people."""
    sheet = Sheet(("start", "end", ">size", "perm", ">resident", ">dirty", ">shared", ">offset", "what"))
    for region in regions:
        start = f"{region.start:0{DIGITS}x}"
        end = f"{region.end - 1:0{DIGITS}x}"
        numbers = ("", "", "", "")
        if region.kind != "gap":
            kernel_half = region.kind == "kernel"
            shared = "all" if kernel_half else _size(region.shared)
            numbers = (_size(region.resident), _size(region.dirty), shared, _offset(region.offset))
        what = f"({region.what})" if region.kind == "gap" else region.what
        sheet.add(start, end, human(region.size), region.permissions, *numbers, what, style=_STYLES[region.kind])
    return sheet


def heading(kernel: Kernel, process: Process) -> str:
    """A line on what is shown."""
    aslr = "on" if kernel.aslr is not None else "off"
    kpti = ", KPTI" if kernel.options.kpti else ""
    name = printable(process.exe)
    return f"process {process.pid} {name}: layout {kernel.layout.name}, ASLR {aslr}, seed {kernel.seed}{kpti}\n"


def region_facts(region: Region, bits: dict[str, float]) -> dict[str, Any]:
    """A region for JSON: addresses are text in hexadecimal, sizes bytes."""
    return {
        "start": f"{region.start:#x}",
        "end": f"{region.end:#x}",
        "size": region.size,
        "permissions": region.permissions,
        "kind": region.kind,
        "what": region.what,
        "file": region.owner or None,
        "resident": region.resident,
        "dirty": region.dirty,
        "shared": region.shared,
        "moved_by": region.mover or None,
        "offset": region.offset,
        "entropy_bits": round(bits.get(region.mover, 0.0), 2) if region.mover else None,
    }


def map_facts(kernel: Kernel, process: Process, mm: AddressSpace, regions: Sequence[Region]) -> dict[str, Any]:
    """One process's map for JSON."""
    bits = bits_of(kernel, process, mm)
    return {
        "pid": process.pid,
        "program": process.exe,
        "regions": [region_facts(region, bits) for region in regions],
    }


# -- several seeds ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """Where things were under one seed: the first region of each ``what``."""

    seed: int
    regions: dict[str, Region]
    bits: dict[str, float]


def one_run(kernel: Kernel, process: Process, mm: AddressSpace) -> Run:
    """What :func:`spreads` compares, of a process whose memory is there."""
    regions: dict[str, Region] = {}
    for region in memory_map(kernel, process, mm, gaps=False):
        # Of a file only its first area: the others lie at fixed distances from it.
        program = region.kind in ("text", "rodata", "data", "bss")
        whole = "program" if program else region.owner or region.what
        if region.offset is not None and region.kind not in ("anonymous", "guard", "file", "shared"):
            regions.setdefault(whole, region)
    return Run(kernel.seed, regions, bits_of(kernel, process, mm))


@dataclass(frozen=True, slots=True)
class Spread:
    """One thing under several seeds: its addresses, and the entropy there is and was seen."""

    what: str
    addresses: tuple[int | None, ...]
    possible: float
    """Bits, by the layout."""
    different: int
    """How many different addresses were seen."""
    varied: int
    """How many bits of the distance from the fixed place were seen to vary."""


def place_of(what: str, region: Region) -> int:
    """The address that is drawn of a region: its start, of a stack its end."""
    return region.end if what == "stack" else region.start


def varied_bits(distances: Iterable[int]) -> int:
    """How many bits of distances from the fixed place are not the same in all of them."""
    found = [abs(distance) for distance in distances]
    varied = 0
    for distance in found:
        varied |= distance ^ found[0]
    return varied.bit_count()


def spreads(runs: Sequence[Run]) -> list[Spread]:
    """The things that every first run has, with what the others say of them, from low addresses to high."""
    out = []
    for what, first in sorted(runs[0].regions.items(), key=lambda pair: pair[1].start):
        found = [run.regions.get(what) for run in runs]
        places = [None if region is None else place_of(what, region) for region in found]
        offsets = [region.offset for region in found if region is not None and region.offset is not None]
        out.append(
            Spread(
                what,
                tuple(places),
                runs[0].bits.get(first.mover, 0.0),
                len({place for place in places if place is not None}),
                varied_bits(offsets),
            )
        )
    return out


def spread_sheets(runs: Sequence[Run], width: int | None = None) -> list[Sheet]:
    """The addresses of every run side by side, then the entropy; with ``width`` as several tables of that many columns
    at most, where several runs are too wide for one.
    """
    rows = spreads(runs)
    each = len(runs)
    if width is not None:
        first = max(len(spread.what) for spread in rows)
        each = min(each, max(1, (width - first) // (DIGITS + 2)))
    sheets = []
    for start in range(0, len(runs), each):
        sheet = Sheet(("what", *(f">seed {run.seed}" for run in runs[start : start + each])))
        for spread in rows:
            cells = [
                "-" if place is None else f"{place:0{DIGITS}x}" for place in spread.addresses[start : start + each]
            ]
            sheet.add(spread.what, *cells)
        sheets.append(sheet)
    entropy = Sheet(("what", ">possible bits", ">bits that varied", ">different"))
    for spread in rows:
        entropy.add(spread.what, f"{spread.possible:.1f}", str(spread.varied), f"{spread.different} of {len(runs)}")
    return [*sheets, entropy]


def spread_facts(runs: Sequence[Run]) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "seeds": [run.seed for run in runs],
        "regions": [
            {
                "what": spread.what,
                "addresses": [None if place is None else f"{place:#x}" for place in spread.addresses],
                "possible_bits": round(spread.possible, 2),
                "varied_bits": spread.varied,
                "different": spread.different,
            }
            for spread in spreads(runs)
        ],
    }


__all__ = [
    "DIGITS", "Run", "Spread", "bits_of", "heading", "map_facts", "map_sheet", "one_run", "place_of", "region_facts",
    "spread_facts", "spread_sheets", "spreads", "varied_bits",
]  # fmt: skip

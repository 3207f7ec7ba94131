"""The figure of a process's memory map: boxes from high addresses down to low ones, as SVG for papers and slides.

Heights grow with the logarithm of a region's size, and what is mapped nowhere is drawn short, whatever its size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from html import escape
from math import log2
from typing import Final

from mmuemu.errors import printable
from mmuemu.view.regions import Region
from mmuemu.view.sheet import human
from mmuemu.x86.paging import PAGE_SIZE

PALETTE: Final[dict[str, tuple[str, str, str]]] = {
    "text": ("#f2b8a8", "#8a3b2a", "text (code)"),
    "rodata": ("#e9c6e0", "#6d4166", "read-only data"),
    "data": ("#f7d98b", "#7a5a12", "data"),
    "bss": ("#fbeebc", "#5f5320", "BSS"),
    "heap": ("#b7e0b1", "#2f6b35", "heap"),
    "anonymous": ("#d5ead0", "#3d5640", "anonymous"),
    "file": ("#d9dde6", "#48505f", "mapped file"),
    "shared": ("#f4b3d0", "#86325b", "shared"),
    "library": ("#b5cdf0", "#2f4f85", "library"),
    "linker": ("#c9c3f0", "#4b4391", "dynamic linker"),
    "vdso": ("#cfe3f4", "#3a5a70", "vdso"),
    "stack": ("#a6dfe0", "#1f6a70", "stack"),
    "guard": ("#e8e8e8", "#3a3d44", "guard"),
    "kernel": ("#f0a3a3", "#7d2a33", "kernel half"),
    "kernel-code": ("#f0a3a3", "#7d2a33", "supervisor code"),
    "kernel-data": ("#f7d98b", "#7a5a12", "supervisor data"),
    "kernel-rodata": ("#e9c6e0", "#6d4166", "supervisor read-only data"),
    "user-code": ("#b5cdf0", "#2f4f85", "user code"),
    "user-data": ("#b7e0b1", "#2f6b35", "user data"),
    "user-rodata": ("#cfe3f4", "#3a5a70", "user read-only data"),
    "image": ("#f2b8a8", "#8a3b2a", "the kernel's file"),
    "module": ("#f4b3d0", "#86325b", "boot modules"),
    "tables": ("#c9c3f0", "#4b4391", "page tables"),
    "memory": ("#d5ead0", "#3d5640", "memory"),
    "device": ("#d9dde6", "#48505f", "devices"),
    "gap": ("none", "none", "not mapped"),
}
"""By :attr:`Region.kind`: colour on light ground, on dark ground, words. Each box is labelled, too."""
GROWTH: Final = {"heap": "↑", "stack": "↓"}
_LEAST: Final = 22.0
_MOST: Final = 76.0
_PER_BIT: Final = 3.4
_SHORT: Final = 24.0
_BOX: Final = 300
_LEFT: Final = 168
_WIDTH: Final = 880
_COLUMNS: Final = (478, 522, 574, 690)
"""Where permissions, size, what is in memory and what ASLR did begin."""
_TOP: Final = 64
_STYLE: Final = """\
text { font: 13px ui-sans-serif, system-ui, "DejaVu Sans", sans-serif; fill: #1f2328; }
.address { font: 12px ui-monospace, Menlo, "DejaVu Sans Mono", monospace; }
.title { font-size: 17px; font-weight: 600; }
.dim { fill: #5c6570; } .ground { fill: #ffffff; } rect { stroke: #4b535e; } .ground { stroke: none; }
.gap { stroke: #9aa3ae; stroke-dasharray: 3 4; fill: none; }
"""
_DARK: Final = """\
text { fill: #e6e9ee; } .dim { fill: #a1abb8; } .ground { fill: #14171c; } rect { stroke: #97a1af; }
.gap { stroke: #5d6774; }
"""


def height(region: Region) -> float:
    """How tall a region is drawn, in px."""
    if region.kind == "gap":
        return _SHORT
    return min(_LEAST + _PER_BIT * log2(max(region.size, PAGE_SIZE) / PAGE_SIZE), _MOST)


def condensed(regions: Iterable[Region]) -> list[Region]:
    """Regions of one library, which lie side by side, as one."""
    out: list[Region] = []
    for region in regions:
        last = out[-1] if out else None
        if (
            last is not None
            and region.kind in ("library", "linker")
            and (last.kind, last.owner, last.end) == (region.kind, region.owner, region.start)
        ):
            out[-1] = replace(
                last,
                end=region.end,
                what=region.owner,
                permissions="",
                resident=last.resident + region.resident,
                dirty=last.dirty + region.dirty,
                shared=last.shared + region.shared,
            )
        else:
            out.append(region)
    return out


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escape(printable(text))}</text>\n'


def _box(region: Region, y: float, tall: float) -> str:
    middle = y + tall / 2 + 4.5
    if region.kind == "gap":
        lines = "".join(f'<path class="gap" d="M{x} {y:.1f}v{tall:.1f}"/>' for x in (_LEFT, _LEFT + _BOX))
        return lines + _text(_LEFT + _BOX / 2, middle, f"⋮ {human(region.size)} {region.what}", "dim", "middle")
    arrow = GROWTH.get(region.kind, "")
    label = f"{region.what} {arrow}" if arrow else region.what
    facts = (
        region.permissions,
        human(region.size),
        f"{human(region.resident)} in memory" if region.resident else "",
        f"moved {region.offset:+#x}" if region.offset else "",
    )
    columns = "".join(_text(x, middle, fact, "dim") for x, fact in zip(_COLUMNS, facts, strict=True) if fact)
    return (
        f'<rect class="{region.kind}" x="{_LEFT}" y="{y:.1f}" width="{_BOX}" height="{tall:.1f}"/>'
        f"{_text(_LEFT + _BOX / 2, middle, label, 'label', 'middle')}"
        f"{_text(_LEFT - 8, y + tall - 3, f'{region.start:#018x}', 'address dim', 'end')}"
        f"{columns}"
    )


def draw(regions: Sequence[Region], title: str, note: str) -> str:
    """The figure of ``regions`` (in address order, gaps included) under a ``title`` and a ``note``."""
    y = float(_TOP)
    parts: list[str] = []
    for region in reversed(condensed(regions)):
        tall = height(region)
        parts.append(_box(region, y, tall))
        y += tall
    light = "".join(f".{kind} {{ fill: {colours[0]}; }}\n" for kind, colours in PALETTE.items())
    dark = "".join(f".{kind} {{ fill: {colours[1]}; }}\n" for kind, colours in PALETTE.items())
    tall = y + 48
    foot = "High addresses at the top; an address is a box's lowest. Heights grow with the logarithm of the size."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {tall:.0f}" width="{_WIDTH}" '
        f'height="{tall:.0f}" role="img" aria-label="{escape(printable(title))}">\n<style>\n{_STYLE}{light}'
        f"@media (prefers-color-scheme: dark) {{\n{_DARK}{dark}}}\n</style>\n"
        f'<rect class="ground" width="{_WIDTH}" height="{tall:.0f}"/>\n'
        f"{_text(16, 26, title, 'title')}{_text(16, 48, note, 'dim')}{''.join(parts)}"
        f"{_text(16, y + 28, foot, 'dim')}</svg>\n"
    )

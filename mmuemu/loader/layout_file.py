"""Layouts by name or from a JSON file: reading, checking, and writing them.

A file is an object with the fields of :class:`~mmuemu.loader.layouts.Layout` (``mmuemu layouts NAME --json`` prints
one). ``"like"`` names the layout that fills in what is left out, ``linux`` unless it is given. Numbers are JSON
integers or strings such as ``"0x7ffffffff000"``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

from mmuemu.jsonfile import Reader, find_or_read
from mmuemu.loader.layouts import LAYOUTS, LINUX, KernelArea, Layout, Place
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE, SIZE_2M, is_canonical

_TOP: Final = 1 << 64
_STACK_ROOM: Final = 16 << 20
"""What must lie below the lowest stack: its 8 MiB limit, its guard gap, a mapping or two."""
_EXECUTABLES_AT: Final = 0x40_0000
_LEAST_MEMORY: Final = 1 << 20
_MOST_BITS: Final = 47
_COUNTS: Final = ("levels", "bits", "slides")
"""Keys whose numbers people read in decimal."""
_LEAST_AREA: Final = {"direct_map": _LEAST_MEMORY, "vmalloc": 1 << 20, "text": 2 * SIZE_2M}


class _Reader(Reader):
    """Reads one layout."""

    def __init__(self, name: str) -> None:
        super().__init__(f"layout {name}")

    def shown(self, key: str, value: object) -> str:
        """An address in hexadecimal."""
        address = isinstance(value, int) and not isinstance(value, bool) and key.split(".")[-1] not in _COUNTS
        return f"{value:#x}" if address else super().shown(key, value)

    def number(self, key: str, value: object) -> int:
        if isinstance(value, str):
            try:
                value = int(value.replace("`", "").replace("'", ""), 0)
            except ValueError:
                self.bad(key, value, 'write a number, like 4096 or "0x1000"')
        if isinstance(value, bool) or not isinstance(value, int):
            self.bad(key, value, 'write a number, like 4096 or "0x1000"')
        if not 0 <= value <= _TOP:
            self.bad(key, value, "write a number from 0 to 2 to the 64th")
        return value

    def fill(self, key: str, value: object, base: Any) -> Any:
        """A copy of the named tuple ``base`` with what the object ``value`` says otherwise."""
        given = self.members(key, value, list(base._fields))
        prefix = f"{key}." if key else ""
        return base._replace(**{n: self.member(prefix + n, v, getattr(base, n)) for n, v in given.items()})

    def member(self, key: str, value: object, before: object) -> object:
        if isinstance(before, (Place, KernelArea)):
            return self.fill(key, value, before)
        if isinstance(before, bool):
            return self.flag(key, value)
        return self.text(key, value) if isinstance(before, str) else self.number(key, value)


def parse(text: str, name: str) -> Layout:
    """The layout that the JSON ``text`` describes, checked. Raises UsageError, with ``name`` in its message."""
    reader = _Reader(name)
    given = reader.document(text, "write an object, as mmuemu layouts linux --json does")
    like = reader.like(given, LAYOUTS, LINUX.name)
    layout: Layout = reader.fill("", {"name": name, **given}, LAYOUTS[like or LINUX.name])
    return check(layout)


def find_layout(name: str) -> Layout:
    """The layout called ``name``, or described by the file ``name``. Raises UsageError."""
    if name in LAYOUTS:
        return LAYOUTS[name]
    return parse(*find_or_read(name, LAYOUTS, "--layout", "layout", "mmuemu layouts"))


def as_json(layout: Layout) -> dict[str, Any]:
    """The description of ``layout`` for a file, addresses in hexadecimal."""

    def shown(key: str, value: Any) -> Any:
        if isinstance(value, (Place, KernelArea)):
            return {name: shown(name, member) for name, member in value._asdict().items()}
        plain = isinstance(value, (bool, str)) or key in _COUNTS
        return value if plain else f"{value:#x}"

    return {name: shown(name, value) for name, value in layout._asdict().items()}


def check(layout: Layout) -> Layout:
    """The layout itself. Raises UsageError for one in which no program could run; the first thing wrong is named."""
    reader = _Reader(layout.name)
    if layout.levels not in (4, 5):
        reader.bad("levels", layout.levels, "page tables have 4 or 5 levels")
    _check_user(reader, layout)
    _check_places(reader, layout)
    _check_kernel(reader, layout)
    return layout


def _check_user(reader: _Reader, layout: Layout) -> None:
    for key in ("user_start", "user_top", "map_window", "kernel_start", "initial_stack", "stack_guard_gap"):
        if getattr(layout, key) & PAGE_MASK:
            reader.bad(key, getattr(layout, key), "make it a multiple of 0x1000")
    half = 1 << layout.linear_bits - 1
    if not PAGE_SIZE <= layout.user_start <= _EXECUTABLES_AT:
        reader.bad(
            "user_start", layout.user_start, f"{PAGE_SIZE:#x} to {_EXECUTABLES_AT:#x}, where programs are linked"
        )
    if not 4 * _EXECUTABLES_AT < layout.user_top <= half:
        reader.bad("user_top", layout.user_top, f"{layout.levels}-level paging gives the user up to {half:#x}")
    if not 4 * _EXECUTABLES_AT < layout.map_window <= layout.user_top:
        reader.bad("map_window", layout.map_window, f"it lies at or below user_top, {layout.user_top:#x}")
    if not 16 <= layout.stack_shuffle <= 1 << 20:
        reader.bad("stack_shuffle", layout.stack_shuffle, "0x10 to 0x100000")
    if not PAGE_SIZE <= layout.initial_stack <= _STACK_ROOM or layout.stack_guard_gap > 1 << 30:
        reader.bad("initial_stack", layout.initial_stack, f"{PAGE_SIZE:#x} to {_STACK_ROOM:#x}, with a gap below 1 GiB")


def _check_places(reader: _Reader, layout: Layout) -> None:
    for key in ("image", "heap", "stack", "mmap"):
        place: Place = getattr(layout, key)
        _check_step(reader, key, place.step)
        if place.bits > _MOST_BITS:
            reader.bad(f"{key}.bits", place.bits, f"0 to {_MOST_BITS}")
        if not layout.user_start <= place.base <= layout.map_window:
            reader.bad(f"{key}.base", place.base, f"it lies from user_start to map_window, {layout.map_window:#x}")
    for key in ("image", "heap"):
        place = getattr(layout, key)
        _check_span(reader, key, place, place.base + place.span + _STACK_ROOM <= layout.map_window)
    stack = layout.stack
    if stack.base & PAGE_MASK:
        reader.bad("stack.base", stack.base, "make it a multiple of 0x1000")
    lowest = stack.base - stack.span - layout.stack_shuffle - _STACK_ROOM
    _check_span(reader, "stack", stack, lowest >= 2 * _EXECUTABLES_AT)
    mmap, pad = layout.mmap, max(layout.mmap_gap_min, _STACK_ROOM + layout.stack_guard_gap + stack.span)
    if layout.mmap_top_down:
        _check_span(reader, "mmap", mmap, mmap.base - mmap.span - pad >= layout.user_start + _STACK_ROOM)
    else:
        if mmap.base & PAGE_MASK:
            reader.bad("mmap.base", mmap.base, "make it a multiple of 0x1000")
        _check_span(reader, "mmap", mmap, mmap.base + mmap.span + _STACK_ROOM <= lowest)


def _check_span(reader: _Reader, key: str, place: Place, fits: bool) -> None:
    if not fits:
        reader.bad(
            f"{key}.bits", place.bits, f"moved by up to {place.span:#x} from {place.base:#x} it has no room left"
        )


def _check_step(reader: _Reader, key: str, step: int) -> None:
    if step < PAGE_SIZE or step & step - 1 or step > 1 << 40:
        reader.bad(f"{key}.step", step, "a power of two from 0x1000 on")


def _check_kernel(reader: _Reader, layout: Layout) -> None:
    half = _TOP - (1 << layout.linear_bits - 1)
    if layout.kernel_start < 1 << 63:
        reader.bad("kernel_start", layout.kernel_start, f"the kernel lies in the upper half, from {1 << 63:#x} on")
    areas: dict[str, KernelArea] = {key: getattr(layout, key) for key in _LEAST_AREA}
    for key, area in areas.items():
        _check_step(reader, key, area.step)
        if area.base & PAGE_MASK or area.size & PAGE_MASK:
            reader.bad(f"{key}.base", area.base, "make it and its size multiples of 0x1000")
        if area.base < layout.kernel_start:
            reader.bad(f"{key}.base", area.base, f"it lies below kernel_start, {layout.kernel_start:#x}")
        if not is_canonical(area.base, layout.linear_bits):
            reader.bad(f"{key}.base", area.base, f"not canonical with {layout.levels} levels: {half:#x} is the lowest")
        if not 1 <= area.slides <= 1 << _MOST_BITS:
            reader.bad(f"{key}.slides", area.slides, "1 (it never moves) or more")
        room = area.size - _LEAST_AREA[key] - (area.slides - 1) * area.step
        if room < 0 or area.end > _TOP:
            reader.bad(f"{key}.size", area.size, f"too small for {area.slides} slides, or beyond the last address")
    for (low, below), (high, above) in pairwise(sorted(areas.items(), key=lambda item: item[1].base)):
        if below.end > above.base:
            reader.bad(f"{high}.base", above.base, f"it lies in {low}, which ends at {below.end:#x}")


_COLUMNS: Final[tuple[tuple[str, Callable[[Layout], str]], ...]] = (
    ("levels", lambda layout: str(layout.levels)),
    ("user", lambda layout: f"{layout.user_start:x}-{layout.user_top - 1:x}"),
    ("image", lambda layout: _moves(layout.image)),
    ("heap", lambda layout: f"after the image, {_moves(layout.heap)}"),
    ("mmap", lambda layout: f"{'top-down' if layout.mmap_top_down else 'bottom-up'}, {_moves(layout.mmap)}"),
    ("stack", lambda layout: _moves(layout.stack)),
    ("kernel", lambda layout: f"{layout.kernel_start:x}-{_TOP - 1:x}"),
    ("direct map", lambda layout: _slides(layout.direct_map)),
    ("vmalloc", lambda layout: _slides(layout.vmalloc)),
    ("text", lambda layout: _slides(layout.text)),
)


def _moves(place: Place) -> str:
    return f"{place.base:x} {place.bits} bits of {place.step >> 10}K"


def _slides(area: KernelArea) -> str:
    step = f"{area.step >> 20}M" if area.step >> 20 else f"{area.step >> 10}K"
    return f"{area.base:x}-{area.end - 1:x}, {area.slides} places of {step}"


def table(layouts: list[Layout]) -> str:
    """What people read: a paragraph of lines for each layout."""
    lines = []
    for layout in layouts:
        lines.append(f"{layout.name}: {layout.about}")
        lines += [f"    {title:<11}{show(layout)}" for title, show in _COLUMNS]
    return "\n".join(lines) + "\n"


def show(names: list[str], as_file: bool) -> None:
    """Print the layouts called (or in the files) ``names``, all there are when none is given."""
    layouts = [find_layout(name) for name in names] or list(LAYOUTS.values())
    if as_file:
        import json

        described = [as_json(layout) for layout in layouts]
        sys.stdout.write(json.dumps(described[0] if len(names) == 1 else described, indent=2) + "\n")
    else:
        sys.stdout.write(table(layouts))

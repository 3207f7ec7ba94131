"""Where a program, its interpreter, stack, break and mappings go: a layout's fixed and randomized bases.

The layout is data (:mod:`mmuemu.loader.layouts`).

The rules are Linux's for 64-bit x86 with 4-level paging, as of 6.9 and later: arch/x86/mm/mmap.c
(``mmap_base``, ``stack_maxrandom_size``), fs/binfmt_elf.c (``load_elf_binary``, ``randomize_stack_top``),
fs/exec.c (``setup_arg_pages``), arch/x86/kernel/process.c (``arch_align_stack``, ``arch_randomize_brk``) and
mm/util.c (``randomize_page``). Older kernels differ in two places: the break moved by at most 32 MiB before
6.9, and the vDSO lay above the stack before 6.13.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.errors import BadImage
from mmuemu.loader.elf import ElfImage, ElfType
from mmuemu.loader.layouts import Layout
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE, USER_TOP

if TYPE_CHECKING:
    from random import Random

_STACK_LIMIT: Final = 8 << 20


def page_down(address: int) -> int:
    """``address`` rounded down to a page."""
    return address & ~PAGE_MASK


def page_up(address: int) -> int:
    """``address`` rounded up to a page."""
    return (address + PAGE_MASK) & ~PAGE_MASK


def mmap_base(layout: Layout, stack_limit: int, draw: int | None) -> int:
    """Where the search for room begins (downwards or upwards, as the layout says); ``draw`` None without ASLR."""
    if not layout.mmap_top_down:
        return layout.mmap.base + (draw or 0) * layout.mmap.step
    pad = layout.stack_guard_gap
    if draw is not None:
        pad += layout.stack.span
    gap = min(max(stack_limit + pad, layout.mmap_gap_min), layout.map_window // 6 * 5)
    return page_up(layout.mmap.base - gap - (draw or 0) * layout.mmap.step)


class Bases(NamedTuple):
    """The bases of one start. A bias is what is added to an image's own addresses."""

    load_bias: int
    interp_bias: int | None
    mmap_base: int
    stack_top: int
    """The end of the stack's mapping, page-aligned."""
    brk_start: int
    vdso_base: int | None
    randomized: bool
    user_top: int = USER_TOP
    """The first address the user may not map."""


class _Dice(NamedTuple):
    """Every random number of a start, always drawn in one order: a seed means the same for every image."""

    stack: int
    stack_shuffle: int
    mmap: int
    image: int
    heap: float

    @classmethod
    def roll(cls, layout: Layout, rng: Random | None) -> _Dice | None:
        if rng is None:
            return None
        return cls(
            rng.getrandbits(layout.stack.bits) if layout.stack.bits else 0,
            rng.randrange(layout.stack_shuffle),
            rng.getrandbits(layout.mmap.bits) if layout.mmap.bits else 0,
            rng.getrandbits(layout.image.bits) if layout.image.bits else 0,
            rng.random(),
        )


class _Placer:
    """Hands out the area from ``mmap_base`` on, around one range that is already taken."""

    def __init__(self, layout: Layout, start: int, taken: tuple[int, int]) -> None:
        self.layout = layout
        self.at = start
        self.taken = taken

    def place(self, image_name: str, size: int, align: int = PAGE_SIZE) -> int:
        low, high = self.taken
        size = page_up(size)
        if self.layout.mmap_top_down:
            base = (self.at - size) & -align
            if base < high and low < base + size:
                base = (low - size) & -align
            self.at = base
        else:
            base = (self.at + align - 1) & -align
            if base < high and low < base + size:
                base = (high + align - 1) & -align
            self.at = base + size
        if base < self.layout.user_start or base + size > self.layout.map_window:
            raise BadImage(
                image_name,
                f"spans {size:#x} bytes aligned to {align:#x}; no room for it is left in layout {self.layout.name}",
            )
        return base


def _stack_top(layout: Layout, dice: _Dice | None) -> int:
    if dice is None:
        return layout.stack.base
    top = layout.stack.base - dice.stack * layout.stack.step
    return page_up((top - dice.stack_shuffle) & ~0xF)


def _pie_bias(layout: Layout, image: ElfImage, dice: _Dice | None) -> int:
    base = layout.image.base + (dice.image * layout.image.step if dice else 0)
    return page_down((base & -image.alignment) - image.segments[0].vaddr)


def _brk_start(layout: Layout, image: ElfImage, bias: int, dice: _Dice | None) -> int:
    moved = image.type == ElfType.DYN and image.interp is None
    start = page_up(layout.heap.base if moved else image.end + bias)
    if dice is None:
        return start
    if not moved:
        start += PAGE_SIZE
    return start + int(dice.heap * (1 << layout.heap.bits)) * layout.heap.step


def _check_range(layout: Layout, image: ElfImage, bias: int, stack_top: int) -> tuple[int, int]:
    """The pages an image takes. Raises :class:`BadImage` when they are not the user's, or the stack's."""
    low, high = image.start + bias, page_up(image.end + bias)
    floor, ceiling = layout.user_start, stack_top - layout.initial_stack - layout.stack_guard_gap
    if low < floor:
        raise BadImage(
            image.name,
            f"would start at {low:#x}, below the lowest mappable address {floor:#x} of layout {layout.name}",
        )
    if high > layout.user_top:
        raise BadImage(
            image.name,
            f"would end at {high:#x}, beyond the user's part of layout {layout.name} ({layout.user_top:#x}): "
            "choose another --layout or link it lower",
        )
    if high > ceiling and low < layout.map_window:
        raise BadImage(
            image.name,
            f"would end at {high:#x}, inside the stack or beyond ({ceiling:#x}, layout {layout.name})",
        )
    return low, high


def choose_bases(
    layout: Layout,
    image: ElfImage,
    rng: Random | None,
    stack_limit: int = _STACK_LIMIT,
    *,
    interpreter: ElfImage | None = None,
    vdso_pages: int = 0,
) -> Bases:
    """Choose where everything of one start goes.

    ``rng`` None is Linux's ADDR_NO_RANDOMIZE. ``stack_limit`` is RLIMIT_STACK in bytes. ``interpreter`` is
    the image PT_INTERP names; ``vdso_pages`` reserves that many pages for vvar and vDSO below it. Raises
    :class:`BadImage` when an image does not fit.
    """
    dice = _Dice.roll(layout, rng)
    stack_top = _stack_top(layout, dice)
    base = mmap_base(layout, stack_limit, dice.mmap if dice else None)
    if image.type == ElfType.EXEC:
        bias = 0
    elif image.interp is not None:
        bias = _pie_bias(layout, image, dice)
    else:
        placer = _Placer(layout, base, (0, 0))
        bias = placer.place(image.name, image.end - image.start, image.alignment)
        bias = page_down(bias - image.segments[0].vaddr)
    placer = _Placer(layout, base, _check_range(layout, image, bias, stack_top))
    interp_bias = None
    if interpreter is not None and interpreter.type == ElfType.EXEC:
        interp_bias = 0
        _check_range(layout, interpreter, 0, stack_top)
    elif interpreter is not None:
        interp_bias = placer.place(interpreter.name, interpreter.end - interpreter.start) - interpreter.start
    vdso_base = placer.place(image.name, vdso_pages * PAGE_SIZE) if vdso_pages else None
    return Bases(
        load_bias=bias,
        interp_bias=interp_bias,
        mmap_base=base,
        stack_top=stack_top,
        brk_start=_brk_start(layout, image, bias, dice),
        vdso_base=vdso_base,
        randomized=dice is not None,
        user_top=layout.user_top,
    )

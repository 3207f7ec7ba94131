"""Where a program, its interpreter, stack, break and mappings go: Linux's fixed and randomized bases.

The rules are Linux's for 64-bit x86 with 4-level paging, as of 6.9 and later: arch/x86/mm/mmap.c
(``mmap_base``, ``stack_maxrandom_size``), fs/binfmt_elf.c (``load_elf_binary``, ``randomize_stack_top``),
fs/exec.c (``setup_arg_pages``), arch/x86/kernel/process.c (``arch_align_stack``, ``arch_randomize_brk``) and
mm/util.c (``randomize_page``). Older kernels differ in two places: the break moved by at most 32 MiB before
6.9, and the vDSO lay above the stack before 6.13.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.errors import BadImage
from mmuemu.loader.elf import ElfImage, ElfType
from mmuemu.x86.paging import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, USER_TOP

if TYPE_CHECKING:
    from random import Random

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30


def page_down(address: int) -> int:
    """``address`` rounded down to a page."""
    return address & ~PAGE_MASK


def page_up(address: int) -> int:
    """``address`` rounded up to a page."""
    return (address + PAGE_MASK) & ~PAGE_MASK


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape of a user address space; sizes in bytes, random ranges in bits of pages where named so."""

    user_top: int = USER_TOP
    stack_top: int = USER_TOP
    pie_base: int = USER_TOP // 3 * 2
    """ELF_ET_DYN_BASE, 0x555555554aaa: rounded down for a PIE, up for the break of a static PIE."""
    mmap_gap_min: int = 128 * _MIB
    stack_guard_gap: int = _MIB
    initial_stack: int = 33 * PAGE_SIZE
    """What ``setup_arg_pages`` makes the stack's mapping hold at once (128 KiB below its first page)."""
    mmap_random_bits: int = 28
    stack_random_bits: int = 22
    stack_shuffle: int = 8192
    """``arch_align_stack`` lowers the stack pointer by less than this many bytes."""
    brk_random_range: int = _GIB
    mmap_min_addr: int = 0x10000
    """Nothing is mapped below this address (vm.mmap_min_addr)."""

    def mmap_base(self, stack_limit: int, random_pages: int | None) -> int:
        """The address below which mappings are placed, top down; ``random_pages`` None without ASLR."""
        pad = self.stack_guard_gap
        if random_pages is not None:
            pad += ((1 << self.stack_random_bits) - 1) << PAGE_SHIFT
        gap = min(max(stack_limit + pad, self.mmap_gap_min), self.user_top // 6 * 5)
        return page_up(self.user_top - gap - ((random_pages or 0) << PAGE_SHIFT))


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


class _Dice(NamedTuple):
    """Every random number of a start, always drawn in one order: a seed means the same for every image."""

    stack_pages: int
    stack_shuffle: int
    mmap_pages: int
    pie_pages: int
    brk: float

    @classmethod
    def roll(cls, layout: Layout, rng: Random | None) -> _Dice | None:
        if rng is None:
            return None
        return cls(
            rng.getrandbits(layout.stack_random_bits),
            rng.randrange(layout.stack_shuffle),
            rng.getrandbits(layout.mmap_random_bits),
            rng.getrandbits(layout.mmap_random_bits),
            rng.random(),
        )


class _Placer:
    """Hands out the area below ``mmap_base`` top down, around one range that is already taken."""

    def __init__(self, layout: Layout, mmap_base: int, taken: tuple[int, int]) -> None:
        self.layout = layout
        self.top = mmap_base
        self.taken = taken

    def place(self, image_name: str, size: int, align: int = PAGE_SIZE) -> int:
        low, high = self.taken
        base = (self.top - page_up(size)) & ~(align - 1)
        if base < high and low < base + page_up(size):
            base = (low - page_up(size)) & ~(align - 1)
        if base < self.layout.mmap_min_addr:
            raise BadImage(image_name, f"spans {size:#x} bytes aligned to {align:#x}; no room for it is left")
        self.top = base
        return base


def _stack_top(layout: Layout, dice: _Dice | None) -> int:
    if dice is None:
        return layout.stack_top
    top = layout.stack_top - (dice.stack_pages << PAGE_SHIFT)
    return page_up((top - dice.stack_shuffle) & ~0xF)


def _pie_bias(layout: Layout, image: ElfImage, dice: _Dice | None) -> int:
    base = layout.pie_base + ((dice.pie_pages << PAGE_SHIFT) if dice else 0)
    return page_down((base & ~(image.alignment - 1)) - image.segments[0].vaddr)


def _brk_start(layout: Layout, image: ElfImage, bias: int, dice: _Dice | None) -> int:
    moved = image.type == ElfType.DYN and image.interp is None
    start = page_up(layout.pie_base if moved else image.end + bias)
    if dice is None:
        return start
    if not moved:
        start += PAGE_SIZE
    return start + (int(dice.brk * (layout.brk_random_range >> PAGE_SHIFT)) << PAGE_SHIFT)


def _check_range(layout: Layout, image: ElfImage, bias: int, stack_top: int) -> tuple[int, int]:
    low, high = image.start + bias, page_up(image.end + bias)
    floor, ceiling = layout.mmap_min_addr, stack_top - layout.initial_stack - layout.stack_guard_gap
    if low < floor:
        raise BadImage(image.name, f"would start at {low:#x}, below the lowest mappable address {floor:#x}")
    if high > ceiling:
        raise BadImage(image.name, f"would end at {high:#x}, inside the stack or beyond ({ceiling:#x})")
    return low, high


def choose_bases(
    layout: Layout,
    image: ElfImage,
    rng: Random | None,
    stack_limit: int = 8 * _MIB,
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
    mmap_base = layout.mmap_base(stack_limit, dice.mmap_pages if dice else None)
    if image.type == ElfType.EXEC:
        bias = 0
    elif image.interp is not None:
        bias = _pie_bias(layout, image, dice)
    else:
        placer = _Placer(layout, mmap_base, (0, 0))
        bias = placer.place(image.name, image.end - image.start, image.alignment)
        bias = page_down(bias - image.segments[0].vaddr)
    placer = _Placer(layout, mmap_base, _check_range(layout, image, bias, stack_top))
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
        mmap_base=mmap_base,
        stack_top=stack_top,
        brk_start=_brk_start(layout, image, bias, dice),
        vdso_base=vdso_base,
        randomized=dice is not None,
    )

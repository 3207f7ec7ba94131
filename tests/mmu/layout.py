"""Where a differential case lives: physical memory, page tables and the linear addresses of the probing code.

Each variant is a paging mode with a kind of code segment. Its root has one slot that leads to the code; a case fills
the entries of all other levels. The tables of the code are fully permissive and already accessed, so that fetching the
code changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmuemu.memory.ram import GuestRam
from mmuemu.mmu.modes import FIVE_LEVEL, FOUR_LEVEL, NO_PAGING, PAE, THIRTY_TWO_BIT, PagingMode
from mmuemu.x86.paging import RW, US, A, D, P

MEGABYTE, GIGABYTE = 1 << 20, 1 << 30
RAM_SIZE = 8 * GIGABYTE
CODE = 0xF000
CASE_TABLES = 0x10_0000
WINDOW_SIZE = 4 * MEGABYTE
WINDOWS = tuple((1 << bit) + WINDOW_SIZE for bit in range(33, 40))
"""Stretches of physical memory far up, so that every address bit up to MAXPHYADDR leads somewhere."""

FRAMES_32 = tuple(2 * MEGABYTE + 0x1000 * number for number in range(6))
FRAMES_64 = (*FRAMES_32[:3], 5 * GIGABYTE + 0x5000, *(WINDOWS[bit] + 0x3000 for bit in (0, 2, 4, 6)))
PAGES_2M = (4 * MEGABYTE, 6 * MEGABYTE, 5 * GIGABYTE + 2 * MEGABYTE, *(WINDOWS[bit] for bit in (1, 3, 5, 6)))
PAGES_4M = (4 * MEGABYTE, 8 * MEGABYTE)
PAGES_1G = tuple(GIGABYTE * number for number in (1, 2, 4, 7))

SOURCES = {
    "read": b"\x8b\x07\xcc",
    "write": b"\x89\x1f\xcc",
    "fetch": b"\xff\xe7",
    "read, write": b"\x8b\x07\x89\x1f\xcc",
    "read, fetch": b"\x8b\x07\xff\xe7",
    "load segment": b"\x8e\xc0\xcc",
}
"""mov eax,[rdi]; mov [rdi],ebx; jmp rdi; mov es,eax; int3: the same bytes in 32-bit and in 64-bit code."""
OFFSETS = {name: 32 * number for number, name in enumerate(SOURCES)}


@dataclass(frozen=True)
class Variant:
    """A paging mode under test.

    ``tables`` are the physical addresses of the tables a case fills, one for each of its ``levels`` (the last levels of
    the mode; above them stand fixed entries). ``code`` is the linear address of the code for ring 0, that for ring 3 is
    one page further; ``taken`` the index of the code in the first of the tables.
    """

    name: str
    mode: PagingMode
    long: bool
    code64: bool
    root: int
    tables: tuple[int, ...]
    code: int
    taken: int

    @property
    def levels(self):
        return self.mode.levels[len(self.mode.levels) - len(self.tables) :]


def _tables(first: int, count: int) -> tuple[int, ...]:
    return (first, *(CASE_TABLES + 0x1000 * number for number in range(count - 1)))


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("none", NO_PAGING, False, False, 0, (), CODE, -1),
        Variant("32-bit", THIRTY_TWO_BIT, False, False, 0x1000, _tables(0x1000, 2), 0xC000_0000, 768),
        Variant("PAE", PAE, False, False, 0x2FE0, _tables(0x2FE0, 3), 0xC000_0000, 3),
        Variant("4-level", FOUR_LEVEL, True, True, 0x3000, _tables(0x3000, 4), 0x6000_0000_0000, 192),
        Variant("4-level, compatibility", FOUR_LEVEL, True, False, 0x4000, _tables(0x11_0000, 3), 0xC000_0000, 3),
        Variant("5-level", FIVE_LEVEL, True, True, 0x5000, _tables(0x5000, 5), 0x60_0000_0000_0000, 96),
        Variant("5-level, compatibility", FIVE_LEVEL, True, False, 0x6000, _tables(0x12_0000, 3), 0xC000_0000, 3),
    )
}
_OPEN = P | RW | US | A | D


class Memory:
    """RAM at 0, the windows, the code and the tables that lead to it."""

    def __init__(self) -> None:
        self.ram = GuestRam(RAM_SIZE)
        self.windows = {base: GuestRam(WINDOW_SIZE) for base in WINDOWS}
        self.qwords = self.ram.qwords
        self.dwords = self.qwords.cast("B").cast("I")
        self._next = 0x20_000
        for name, source in SOURCES.items():
            self.ram.write(CODE + OFFSETS[name], source)
        for variant in VARIANTS.values():
            for page in (variant.code, variant.code + 0x1000):
                self._map_code(variant, page)

    def regions(self) -> list[tuple[int, GuestRam]]:
        return [(0, self.ram), *self.windows.items()]

    def cell(self, physical: int) -> tuple[memoryview, int]:
        """The qwords that hold ``physical``, and its index there; raises KeyError where there is no memory."""
        if physical < RAM_SIZE:
            return self.qwords, physical >> 3
        base = physical & ~(WINDOW_SIZE - 1)
        return self.windows[base].qwords, physical - base >> 3

    def words(self, variant: Variant) -> tuple[memoryview, int]:
        """Memory in words of an entry's size, and log2 of that size."""
        return (self.dwords, 2) if variant.mode.entry_bytes == 4 else (self.qwords, 3)

    def _map_code(self, variant: Variant, linear: int) -> None:
        if not variant.tables:
            return
        words, shift = self.words(variant)
        table = variant.root
        fixed = len(variant.mode.levels) - len(variant.tables)
        for depth, level in enumerate(variant.mode.levels):
            index = (table >> shift) + (linear >> level.shift & (1 << level.index_bits) - 1)
            if level.shift == 12:
                words[index] = CODE | (_OPEN if linear & 0x1000 else _OPEN & ~US)
            elif not words[index]:
                if depth + 1 == fixed:
                    below = variant.tables[0]
                else:
                    below, self._next = self._next, self._next + 0x1000
                words[index] = below | (_OPEN & ~D if level.has_rights else P)
            table = words[index] & ~0xFFF

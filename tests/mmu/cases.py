"""Random cases: a paging state, the entries of one walk, and an access.

:func:`make_case` takes any ``random.Random``: a seeded one for the generator, hypothesis's own for the property test.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from random import Random

from mmuemu.x86.paging import PS, RW, US, A, D, P
from mmuemu.x86.registers import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_LA57,
    CR4_PAE,
    CR4_PGE,
    CR4_PKE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    EFER_SCE,
)
from tests.mmu.layout import FRAMES_32, FRAMES_64, PAGES_1G, PAGES_2M, PAGES_4M, SOURCES, VARIANTS, Variant

MAXPHYADDR = 40
"""Unicorn's, whatever the CPU model."""
_OPEN = P | RW | US | A | D
_KINDS = tuple(SOURCES)
_NAMES = ("32-bit", "PAE", "4-level", "4-level", "5-level", "4-level, compatibility", "5-level, compatibility", "PAE")
_PKRU = (0, 0, 0x5555_5554, 0xAAAA_AAAA, 0xE4E4_E4E4, 0x1B1B_1B1B, 0x0000_FFFF, 0xC639_93C6)
_LOW_INDICES = (0, 1, 5, 63, 200, 511, 256, 77)


@dataclass(slots=True)
class Case:
    """One access: ``entries`` are those of the variant's levels, the rest is the state it happens in."""

    variant: str
    linear: int
    entries: list[int]
    access: str
    ring: int
    ac: bool
    cr0: int
    cr4: int
    efer: int
    pkru: int

    def describe(self) -> str:
        """As JSON, which ``python -m tests.mmu.differential --case`` takes."""
        return json.dumps(asdict(self))

    @staticmethod
    def parse(text: str) -> Case:
        return Case(**json.loads(text))


def _controls(variant: Variant, bits: int) -> tuple[int, int, int]:
    """CR0, CR4 and EFER of the variant, with the bits that choose rules taken from ``bits``."""
    cr0 = CR0_PE | 0x10 | (CR0_PG if variant.mode.levels else 0) | (CR0_WP if bits & 3 else 0)
    cr4 = (CR4_PSE if bits & 0xC else 0) | (CR4_SMEP if bits & 0x10 else 0) | (CR4_SMAP if bits & 0x20 else 0)
    cr4 |= (CR4_PGE if bits & 0x40 else 0) | (CR4_PKE if bits & 0x600 else 0)
    efer = EFER_SCE | (EFER_NXE if bits & 0x180 else 0)
    if variant.mode.entry_bytes == 8 and variant.mode.levels:
        cr4 |= CR4_PAE
    if variant.long:
        efer |= EFER_LME | EFER_LMA
        cr4 |= CR4_LA57 if len(variant.mode.levels) == 5 else 0
    else:
        cr4 |= CR4_LA57 if bits & 0x80 else 0
    return cr0, cr4, efer


def _offset(random: Random, access: str) -> int:
    """Code lies in the upper half of a page, at few places, for each has to be translated once; data in the lower."""
    return 0x800 | 8 * random.randrange(8) if "fetch" in access else 8 * random.randrange(256)


def _linear(random: Random, variant: Variant, access: str) -> int:
    """An address whose first index avoids the code and whose last ones come from a few, so that memory stays small."""
    if not variant.tables:
        return random.choice(FRAMES_32) | _offset(random, access)
    first, *_ = variant.levels
    slots = 1 << first.index_bits
    index = random.randrange(slots)
    # A flipped sign bit, below, must not lead to the code either.
    taken = (variant.taken, variant.taken ^ slots >> 1) if variant.code64 else (variant.taken,)
    if index in taken or (variant.long and not variant.code64 and index > 2):
        index = (index + 1) % 3
    linear = index << first.shift
    for level in variant.levels[1:]:
        chosen = random.randrange(1 << level.index_bits) if level.shift > 21 else random.choice(_LOW_INDICES)
        linear |= (chosen & (1 << level.index_bits) - 1) << level.shift
    linear |= _offset(random, access)
    if variant.code64:
        width = variant.mode.linear_bits
        if linear >> width - 1:
            linear |= (1 << 64) - (1 << width)
        if random.randrange(48) == 0:
            linear ^= 1 << random.choice((width - 1, width, 62, 63))
    return linear


def _flags(random: Random, entry_bytes: int, strict_high: bool) -> int:
    """The bits of an entry besides its address and PS: mostly permissive, now and then with one thing wrong."""
    bits = random.getrandbits(48)
    if bits & 3 == 0:
        return _OPEN
    flags = P if bits >> 2 & 31 else 0
    flags |= RW if bits >> 7 & 3 else 0
    flags |= US if bits >> 9 & 3 else 0
    flags |= (bits >> 11 & 3) << 5
    if bits >> 13 & 3 == 0:
        flags |= bits >> 15 & 0xF18
    if entry_bytes == 8:
        if bits >> 27 & 7 == 0:
            flags |= 1 << 63
        if bits >> 30 & 31 == 0:
            flags |= 1 << 40 + (bits >> 35 & 15) % 12
        if bits >> 39 & (31 if strict_high else 1) == 0:
            flags |= (bits >> 15 & 0x7FF) << 52
    return flags


def _large(random: Random, variant: Variant, shift: int) -> int:
    """Address, PS and odd bits of an entry that maps a page of ``1 << shift`` bytes."""
    odd = random.getrandbits(8)
    entry = PS | (1 << 12 if odd & 1 else 0)
    if shift == 22:
        entry |= PAGES_4M[0] | 1 << random.randrange(13, 21) if odd & 2 else random.choice(PAGES_4M)
        return entry | (1 << 21 if odd & 0x3C == 0 else 0)
    entry |= random.choice(PAGES_1G if shift == 30 else PAGES_2M)
    if odd & 0x1C == 0:
        entry |= 1 << random.randrange(13, shift)
    return entry


def _entries(random: Random, variant: Variant, cr4: int) -> list[int]:
    entries = []
    size = variant.mode.entry_bytes
    for depth, level in enumerate(variant.levels):
        if not level.has_rights:
            # Bits 2:1 and 8:5 are reserved in a PDPTE of PAE paging; the engine does not look at them.
            flags = _flags(random, size, True) & ~0x1E6
            entries.append(flags | variant.tables[depth + 1])
            continue
        flags = _flags(random, size, variant.name == "PAE")
        if level.shift == 12:
            address = random.choice(FRAMES_32 if size == 4 else FRAMES_64)
            flags |= random.getrandbits(1) << 7
        elif level.may_be_large and random.getrandbits(2) == 0 and (size == 8 or cr4 & CR4_PSE):
            address = _large(random, variant, level.shift)
        else:
            address = variant.tables[depth + 1]
            odd = random.getrandbits(6)
            if odd == 0 and size == 8:
                address |= 1 << 38
            elif odd == 1 and (not level.may_be_large or (not cr4 & CR4_PSE and size == 4)):
                flags |= PS
        entries.append(address | flags)
    return entries


def make_case(random: Random, variant: str | None = None) -> Case:
    """A random case of ``variant``, or of any."""
    bits = random.getrandbits(32)
    name = variant or (_NAMES[bits & 7] if bits & 0x3F8 else "none")
    chosen = VARIANTS[name]
    cr0, cr4, efer = _controls(chosen, bits >> 10)
    access = _KINDS[(bits >> 24 & 7) % 6]
    if access == "load segment" and not chosen.tables:
        access = "read"
    ring = 3 if bits >> 27 & 1 else 0
    # In ring 0 the engine wrongly lets EFLAGS.AC open SMAP for an implicit access.
    ac = bool(bits >> 31) and (ring == 3 or access != "load segment")
    pkru = _PKRU[bits >> 28 & 7] if bits >> 21 & 7 else random.getrandbits(5) * 0x0421_0843
    linear = _linear(random, chosen, access)
    return Case(name, linear, _entries(random, chosen, cr4), access, ring, ac, cr0, cr4, efer, pkru)

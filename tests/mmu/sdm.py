"""The rules of the SDM, volume 3, chapter 4, written down a second time, as sentences and bit lists.

They stand where the engine cannot: protection keys for supervisor pages, LASS, other widths of physical addresses,
CPUs without 1 GiB pages or PSE-36, and PDPTEs of PAE paging. Each function checks a walk (``walk``: a module with
``page_walker``, ``state``: its module with ``PagingState``) and yields what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from mmuemu.memory.ram import GuestRam
from mmuemu.mmu.modes import FIVE_LEVEL, FOUR_LEVEL, PAE, THIRTY_TWO_BIT, PagingMode
from mmuemu.x86.paging import NX, PS, RW, US, A, D, P
from mmuemu.x86.registers import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_LA57,
    CR4_LASS,
    CR4_PAE,
    CR4_PKE,
    CR4_PKS,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
)

READ, WRITE, FETCH = range(3)
FIRST_TABLE, FRAME, LARGE_FRAME = 0x1_0000, 0x2_0000, 0
OPEN = P | RW | US | A | D
BASE = {
    THIRTY_TWO_BIT.name: (CR0_PE | CR0_PG, CR4_PSE, 0),
    PAE.name: (CR0_PE | CR0_PG, CR4_PAE, 0),
    FOUR_LEVEL.name: (CR0_PE | CR0_PG, CR4_PAE, EFER_LME | EFER_LMA),
    FIVE_LEVEL.name: (CR0_PE | CR0_PG, CR4_PAE | CR4_LA57, EFER_LME | EFER_LMA),
}
"""CR0, CR4 and EFER of each mode, with every optional rule off."""


class Space:
    """Tables for one walk: ``entries`` are flags, or flags and address where a level maps a large page."""

    def __init__(self) -> None:
        self.ram = GuestRam(1 << 20)
        self.qwords = self.ram.qwords

    def fill(self, mode: PagingMode, entries: list[int], linear: int) -> list[int]:
        """Write them; physical addresses of the entries. A level that maps no page points to the next table."""
        addresses = []
        size = mode.entry_bytes
        for depth, (level, flags) in enumerate(zip(mode.levels, entries, strict=False)):
            index = linear >> level.shift & (1 << level.index_bits) - 1
            address = FIRST_TABLE + 0x1000 * depth + index * size
            if level.shift == 12:
                target = FRAME
            elif level.may_be_large and flags & PS:
                target = LARGE_FRAME
            else:
                target = FIRST_TABLE + 0x1000 * (depth + 1)
            self.ram.write(address, (target | flags).to_bytes(size, "little"))
            addresses.append(address)
        return addresses

    def clear(self, addresses: list[int]) -> None:
        for address in addresses:
            self.qwords[address >> 3] = 0


def controls(mode: PagingMode, *, cr0: int = 0, cr4: int = 0, efer: int = 0) -> tuple[int, int, int]:
    """The mode's registers with bits added."""
    base = BASE[mode.name]
    return base[0] | cr0, base[1] | cr4, base[2] | efer


# -- access rights (4.6.1, 4.6.2) and the error code (4.7) -------------------------------------------------------------


def key_permits(access: int, disable: tuple[bool, bool], *, user: bool, wp: bool) -> bool:
    """4.6.2: ADi forbids data accesses; WDi forbids user writes, and supervisor writes if CR0.WP = 1."""
    access_disable, write_disable = disable
    if access == FETCH:
        return True
    if access_disable:
        return False
    return not (access == WRITE and write_disable and (user or wp))


def permitted(
    access: int, *, user: bool, ac: bool, page: tuple[bool, bool, bool], wp: bool, smep: bool, smap: bool, key: bool
) -> bool:
    """4.6.1, in its own order; ``page`` is (user-mode address, R/W everywhere, XD nowhere); ``key``: it permits."""
    user_page, writable, executable = page
    if user:
        if not user_page:
            return False
        if access == FETCH:
            return executable
        return key and (access == READ or writable)
    if access == FETCH:
        return executable and not (user_page and smep)
    if user_page and smap and not ac:
        return False
    return key and (access == READ or writable or not wp)


def rights(walk: Any, state: Any) -> Iterator[str]:
    """Every combination of rule bits, page rights, key rights and accesses, in 4-level paging."""
    space, mode = Space(), FOUR_LEVEL
    truth = (False, True)
    for wp, nxe, smep, smap, pke, pks, ad, wd in product(truth, repeat=8):
        cr4 = smep * CR4_SMEP | smap * CR4_SMAP | pke * CR4_PKE | pks * CR4_PKS
        cr0, cr4, efer = controls(mode, cr0=wp * CR0_WP, cr4=cr4, efer=nxe * EFER_NXE)
        # Key 5 is under test; 4 and 6 have the opposite rights, so that a wrong position shows.
        # PKRS grants what PKRU denies.
        register = (ad | wd << 1) << 10 | (3 ^ (ad | wd << 1)) * (1 << 8 | 1 << 12)
        paging = state.PagingState(0, cr0, cr4, efer, pkru=register, pkrs=register ^ 0xFFFF_FFFF)
        walker = walk.page_walker(space.qwords, paging)
        for user_page, writable, executable in product(truth, repeat=3):
            leaf = P | A | D | user_page * US | writable * RW | (not executable) * NX | 5 << 59
            addresses = space.fill(mode, [OPEN, OPEN, OPEN, leaf], 0x5000)
            for user, ac, access in product(truth, truth, (READ, WRITE, FETCH)):
                found = walker(FIRST_TABLE, 0x5000, access, user, ac and not user, [], None)
                keyed = pke if user_page else pks and not user
                disable = (ad, wd) if user_page else (not ad, not wd)
                key = not keyed or key_permits(access, disable, user=user, wp=wp)
                if not executable and not nxe:
                    code = 9
                elif permitted(
                    access,
                    user=user,
                    ac=ac,
                    page=(user_page, writable, executable),
                    wp=wp,
                    smep=smep,
                    smap=smap,
                    key=key,
                ):
                    code = 0
                else:
                    code = 1 | (not key) << 5
                if code:
                    code |= (access == WRITE) << 1 | user << 2 | (access == FETCH and (nxe or smep)) << 4
                if (found & ~0xFFF == FRAME) if not code else found == -1 - code:
                    continue
                yield (
                    f"{wp=} {nxe=} {smep=} {smap=} {pke=} {pks=} {ad=} {wd=} {user_page=} {writable=} {executable=} "
                    f"{user=} {ac=} {access=}: expected code {code:#x}, got {found:#x}"
                )
            space.clear(addresses)


# -- reserved bits (tables 4-3 to 4-20) --------------------------------------------------------------------------------


def reserved_bits(
    mode: PagingMode, level: str, *, large: bool, width: int, nxe: bool, cpu: tuple[bool, bool]
) -> set[int]:
    """The reserved bits of a present entry; ``cpu`` is (1 GiB pages, PSE-36)."""
    page_1g, pse36 = cpu
    if mode is THIRTY_TWO_BIT:
        if not large:
            return set()
        return set(range(min(width, 40) - 19 if pse36 else 13, 22))
    if mode is PAE and level == "PDPTE":
        return {1, 2, 5, 6, 7, 8} | set(range(width, 64))
    bits = set(range(width, 63 if mode is PAE else 52)) | (set() if nxe else {63})
    if level in ("PML5E", "PML4E"):
        return bits | {7}
    if level == "PDPTE":
        return bits | (set(range(13, 30)) if large else set() if page_1g else {7})
    return bits | (set(range(13, 21)) if large else set())


def reserved(walk: Any, state: Any) -> Iterator[str]:
    """Every bit of every kind of entry, for several physical-address widths, alone in an otherwise good entry."""
    space = Space()
    modes = (THIRTY_TWO_BIT, PAE, FOUR_LEVEL, FIVE_LEVEL)
    for mode, width, nxe, page_1g, pse36 in product(
        modes, (36, 40, 46, 52), (False, True), (False, True), (False, True)
    ):
        if pse36 and mode is not THIRTY_TWO_BIT:
            continue
        cr0, cr4, efer = controls(mode, efer=nxe * EFER_NXE)
        paging = state.PagingState(0, cr0, cr4, efer, width, page_1g, pse36=pse36)
        walker = walk.page_walker(space.qwords, paging)
        for depth, level in enumerate(mode.levels):
            for large in (False, True):
                if large and (not level.may_be_large or (level.shift == 30 and not page_1g)):
                    continue
                wanted = reserved_bits(mode, level.name, large=large, width=width, nxe=nxe, cpu=(page_1g, pse36))
                yield from _reserved_in(
                    space, mode, walker, depth, large, wanted, f"{width=} {nxe=} {page_1g=} {pse36=}"
                )


def _reserved_in(
    space: Space, mode: PagingMode, walker: Any, depth: int, large: bool, wanted: set[int], state: str
) -> Iterator[str]:
    level = mode.levels[depth]
    flags = [OPEN if one.has_rights else P for one in mode.levels]
    good = flags[depth] | (PS if large else 0)
    for bit in range(1, 8 * mode.entry_bytes):
        if 1 << bit & good and bit not in wanted:
            continue
        if bit == 7 and level.may_be_large and bit not in wanted:
            continue
        flags[depth] = good | 1 << bit
        addresses = space.fill(mode, flags, 0)
        trace: list[tuple[int, int, int]] = []
        found = walker(FIRST_TABLE, 0, READ, False, True, [], trace)
        refused = found == -1 - 9 and len(trace) == depth + 1
        if refused != (bit in wanted):
            yield f"{mode.name} {level.name} {large=} {state}: bit {bit} is {'not ' * (bit not in wanted)}reserved"
        flags[depth] = good & ~P | 1 << bit
        space.clear(addresses)
        addresses = space.fill(mode, flags, 0)
        if walker(FIRST_TABLE, 0, READ, False, True, [], None) != -1:
            yield f"{mode.name} {level.name} {large=} {state}: bit {bit} counts although the entry is not present"
        space.clear(addresses)


# -- LASS --------------------------------------------------------------------------------------------------------------


def separation(walk: Any, state: Any) -> Iterator[str]:
    """LASS: bit 63 against the privilege of an access, before any walk; only in 64-bit modes."""
    space = Space()
    truth = (False, True)
    for mode, smap, user, ac, access, upper in product(
        (FOUR_LEVEL, FIVE_LEVEL, PAE), truth, truth, truth, (READ, WRITE, FETCH), truth
    ):
        cr0, cr4, efer = controls(mode, cr4=CR4_LASS | smap * CR4_SMAP)
        linear = 0xFFFF_FFFF_FFFF_F000 if upper and mode is not PAE else 0x5000
        walker = walk.page_walker(space.qwords, state.PagingState(0, cr0, cr4, efer))
        found = walker(FIRST_TABLE, linear, access, user, ac and not user, [], None)
        if user:
            violation = linear >> 63 == 1
        else:
            violation = linear >> 63 == 0 and (access == FETCH or (smap and not ac))
        violation = violation and mode is not PAE
        if (found == walk.NON_CANONICAL) != violation:
            yield f"LASS in {mode.name}: {smap=} {user=} {ac=} {access=} {linear=:#x}: {violation=}"


# -- accessed and dirty flags (4.8), for what the engine does differently ----------------------------------------------


def accessed(walk: Any, state: Any) -> Iterator[str]:
    """A and D of every level after a permitted and after a refused access, in every mode and page size."""
    space = Space()
    for mode in (THIRTY_TWO_BIT, PAE, FOUR_LEVEL, FIVE_LEVEL):
        cr0, cr4, efer = controls(mode, cr0=CR0_WP)
        walker = walk.page_walker(space.qwords, state.PagingState(0, cr0, cr4, efer))
        # An odd index, so that a 4-byte entry is the upper half of a qword.
        linear = sum(1 << level.shift for level in mode.levels) | 0x123
        for last, level in enumerate(mode.levels):
            if level.shift != 12 and not level.may_be_large:
                continue
            for access, writable in product((READ, WRITE), (False, True)):
                flags = [(P | RW | US) if one.has_rights else P for one in mode.levels[: last + 1]]
                flags[last] = P | US | (RW if writable else 0) | (PS if level.shift != 12 else 0)
                addresses = space.fill(mode, flags, linear)
                updates: list[tuple[int, int]] = []
                found = walker(FIRST_TABLE, linear, access, True, False, updates, None)
                for index, bits in updates:
                    space.qwords[index] |= bits
                allowed = access == READ or writable
                for depth, address in enumerate(addresses):
                    entry = int.from_bytes(space.ram.read(address, mode.entry_bytes), "little")
                    used = mode.levels[depth].has_rights and (depth < last or allowed)
                    dirty = depth == last and allowed and access == WRITE
                    if (bool(entry & A), bool(entry & D)) != (used, dirty):
                        yield f"{mode.name}, page by {level.name}, {access=} {writable=}: depth {depth} is {entry:#x}"
                if (found >= 0) != allowed:
                    yield f"{mode.name}, page by {level.name}, {access=} {writable=}: {found:#x}"
                space.clear(addresses)


CHECKS = {"rights": rights, "reserved": reserved, "separation": separation, "accessed": accessed}

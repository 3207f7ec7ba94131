"""The rules of translation, turned from a paging state into the numbers a walk tests.

Rules: Intel SDM volume 3, sections 4.3 to 4.5 (formats and reserved bits), 4.6.1 (access rights), 4.6.2
(protection keys). They are stated here once, in terms of the state; :mod:`mmuemu.mmu.walk` only looks them up.
"""

from __future__ import annotations

from typing import Final

from mmuemu.mmu.modes import Level, PagingMode
from mmuemu.mmu.state import PagingState
from mmuemu.x86.paging import ADDRESS_MASK, NX, PS, RW, SIZE_1G, US

READABLE: Final = 1
WRITABLE: Final = 2
EXECUTABLE: Final = 4

_ALL_HIGH: Final = (1 << 64) - (1 << 52)

LevelRule = tuple[int, int, int, int]
"""(shift, PS if the entry may map a page, reserved bits of a table entry, reserved bits of a page entry)."""


def pse36_bits(state: PagingState) -> int:
    """Bits of a 4 MiB entry that are bits 32 and up of its address (SDM volume 3, table 4-4)."""
    width = min(40, state.maxphyaddr) if state.pse36 else 32
    return (1 << width - 32) - 1 << 13


def _maps_large(level: Level, mode: PagingMode, state: PagingState) -> bool:
    if not level.may_be_large:
        return False
    if mode.entry_bytes == 4:
        return state.page_size_extensions
    return state.page_1g or level.size != SIZE_1G


def reserved_high(mode: PagingMode, state: PagingState) -> int:
    """Reserved bits of every entry: above MAXPHYADDR, XD while NXE = 0, and what the mode reserves itself."""
    if mode.entry_bytes == 4:
        return 0
    above = ADDRESS_MASK & ~((1 << state.maxphyaddr) - 1)
    return above | mode.entry_reserved | (0 if state.no_execute else NX)


def level_rule(level: Level, mode: PagingMode, state: PagingState) -> LevelRule:
    """What a walk needs to know of one level in one paging state."""
    high = reserved_high(mode, state)
    large = _maps_large(level, mode, state)
    table_reserved = high | level.reserved
    if level.may_be_large and not large and mode.entry_bytes == 8:
        table_reserved |= PS
    if not level.has_rights:
        table_reserved |= _ALL_HIGH
    below = level.size - 1 & ~0x1FFF
    if mode.entry_bytes == 4:
        below &= ~pse36_bits(state)
    return level.shift, PS if large else 0, table_reserved, high | below


def page_rights(state: PagingState, *, user: bool, ac: bool, user_page: bool, writable: bool, executable: bool) -> int:
    """What one page allows (SDM volume 3, section 4.6.1): READABLE, WRITABLE and EXECUTABLE, or 0.

    ``user`` and ``ac`` describe the access (``ac``: an explicit supervisor access with EFLAGS.AC = 1); the others say
    what all entries together give: U/S and R/W in every one, XD in none.
    """
    if user and not user_page:
        return 0
    rights = READABLE
    if writable or (not user and not state.write_protect):
        rights |= WRITABLE
    if not user and user_page and state.smap and not ac:
        rights = 0
    if executable and not (not user and user_page and state.smep):
        rights |= EXECUTABLE
    return rights


def rights_table(state: PagingState, *, user: bool, ac: bool) -> tuple[int, ...]:
    """:func:`page_rights` for all pages, by ``(R/W and U/S of all entries) | XD of any``."""
    return tuple(
        page_rights(
            state,
            user=user,
            ac=ac,
            user_page=bool(index & US),
            writable=bool(index & RW),
            executable=not index & 1,
        )
        for index in range(8)
    )


def key_table(state: PagingState, *, user: bool, user_page: bool) -> tuple[int, ...]:
    """Rights that each of the 16 protection keys takes away (SDM volume 3, section 4.6.2); fetches are never hit."""
    enabled = state.user_keys if user_page else state.supervisor_keys and not user
    register = state.pkru if user_page else state.pkrs
    denied = []
    for key in range(16):
        access_disable = register >> 2 * key & 1
        write_disable = register >> 2 * key & 2
        if not enabled:
            denied.append(0)
        elif access_disable:
            denied.append(READABLE | WRITABLE)
        elif write_disable and (user or state.write_protect):
            denied.append(WRITABLE)
        else:
            denied.append(0)
    return tuple(denied)


def key_tables(state: PagingState) -> tuple[tuple[int, ...], ...] | None:
    """:func:`key_table` by ``2 * user + user_page``; None while no protection keys are in force."""
    if not (state.user_keys or state.supervisor_keys):
        return None
    return tuple(
        key_table(state, user=user, user_page=user_page) for user in (False, True) for user_page in (False, True)
    )


def separation_violated(state: PagingState, linear: int, *, fetch: bool, user: bool, ac: bool) -> bool:
    """Whether LASS refuses an address: user code the upper half, the supervisor the lower one.

    SDM volume 3, "Linear-Address-Space Separation". The supervisor's data accesses are checked only where SMAP would be
    in force.
    """
    if not state.address_space_separation:
        return False
    upper_half = bool(linear >> 63)
    if user:
        return upper_half
    return not upper_half and (fetch or (state.smap and not ac))

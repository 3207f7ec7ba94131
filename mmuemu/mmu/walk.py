"""The page walk: one linear address, one access and one paging state in; a translation or a fault out.

Rules: Intel SDM volume 3, sections 4.3 to 4.5 (the modes), 4.6 (access rights), 4.7 (page-fault exceptions) and
4.8 (accessed and dirty flags). There is one walk for all modes, :func:`page_walker`; it is specialised once for a
paging state so that the hot path tests no register bits, and :func:`walk` wraps it for people.

PAE paging: a processor keeps the four PDPTEs in registers, loaded with CR3 (SDM volume 3, section 4.4.1). This walk
reads them from memory each time, as Unicorn's own walker does, so that a reserved bit in one is a #PF at the access
and not a #GP at ``mov cr3``.
"""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from typing import Final, Protocol

from mmuemu.mmu.modes import Level
from mmuemu.mmu.reasons import reason, refusal_reason
from mmuemu.mmu.rules import (
    EXECUTABLE,
    READABLE,
    WRITABLE,
    key_tables,
    level_rule,
    pse36_bits,
    reserved_high,
    rights_table,
    separation_violated,
)
from mmuemu.mmu.state import Access, PageFault, PagingState, Step, Translation
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import ADDRESS_MASK, KEY_SHIFT, PAGE_MASK, RW, US, FaultBits, is_canonical
from mmuemu.x86.paging import A as ACCESSED
from mmuemu.x86.paging import D as DIRTY

NON_CANONICAL: Final = -(1 << 32)
"""What a page walker returns for an address refused before any walk, with #GP(0) or #SS(0): it is not canonical, or
LASS forbids it."""

Updates = MutableSequence[tuple[int, int]]
Trace = MutableSequence[tuple[int, int, int]]
PageWalker = Callable[[int, int, int, bool, bool, Updates, "Trace | None"], int]
"""``(root, linear, access, user, ac, updates, trace) -> page | permissions``, or ``-1 - error_code``.

``root`` is CR3 or a root's physical address (bits that hold no address are ignored); ``user`` is whether the access is
a user-mode one; ``ac`` is EFLAGS.AC for an explicit supervisor access (False for an implicit one). The page is the
physical address of the 4 KiB that hold ``linear``; the permissions are READABLE, WRITABLE and EXECUTABLE. The A and D
bits owed are appended to ``updates`` as (index of the qword, bits to set in it); entries read go to ``trace``, an
empty list, as (level, index of the entry in its own size, entry).
"""


class PhysicalMemory(Protocol):
    """Guest RAM as the walk sees it: ``qwords[physical >> 3]``."""

    @property
    def qwords(self) -> memoryview: ...


class _Recorder:
    """Entries that note in ``trace`` what is read of them; a walk reads one entry a level."""

    __slots__ = ("entries", "trace")

    def __init__(self, entries: memoryview, trace: Trace) -> None:
        self.entries = entries
        self.trace = trace

    def __getitem__(self, index: int) -> int:
        entry: int = self.entries[index]
        self.trace.append((len(self.trace), index, entry))
        return entry


def page_walker(qwords: memoryview, state: PagingState) -> PageWalker:
    """The walk for one paging state (its CR3 is not used: the root is an argument).

    It is pure: it reads ``qwords`` and writes nothing there. Reads beyond physical memory give zero. Raises UsageError
    for a state that no processor can be in.
    """
    mode = state.mode
    if not mode.levels:
        return _no_paging
    if mode.entry_bytes == 4:
        return _with_dword_updates(_walker(qwords.cast("B").cast("I"), state, mode.levels, mode.root_mask))
    if not mode.levels[0].has_rights:
        return _with_pdptes(_walker(qwords, state, mode.levels[1:], ADDRESS_MASK), qwords, state)
    walker = _walker(qwords, state, mode.levels, mode.root_mask)
    return _with_separation(walker, state) if state.address_space_separation else walker


def fault_result(state: PagingState) -> Callable[[int, bool, int], int]:
    """``(access, user, base) -> -1 - error_code`` for a #PF; ``base`` is P, RSVD and PK (SDM volume 3, figure 4-12)."""
    reports_fetch = state.smep or state.no_execute

    def result(access: int, user: bool, base: int) -> int:
        if user:
            base |= 4
        if access == 1:
            base |= 2
        elif access == 2 and reports_fetch:
            base |= 16
        return -1 - base

    return result


def _walker(words_of_ram: memoryview, state: PagingState, levels: tuple[Level, ...], root_mask: int) -> PageWalker:
    """The walk through ``levels``; memory, and the indices in ``updates``, are in words of an entry's size."""
    mode = state.mode
    upper = tuple(level_rule(level, mode, state) for level in levels[:-1])
    index_mask = (1 << levels[-1].index_bits) - 1
    leaf_reserved = reserved_high(mode, state)
    entry_shift = mode.entry_bytes.bit_length() - 1
    canonical = mode.canonical
    sign_shift, sign_top = (mode.linear_bits - 1, (1 << 65 - mode.linear_bits) - 1) if canonical else (32, -1)
    user_rights = rights_table(state, user=True, ac=False)
    supervisor_rights = rights_table(state, user=False, ac=False)
    supervisor_rights_ac = rights_table(state, user=False, ac=True)
    keys = key_tables(state)
    high_part = pse36_bits(state) if mode.entry_bytes == 4 else 0
    fault = fault_result(state)

    def walk_page(
        root: int, linear: int, access: int, user: bool, ac: bool, updates: Updates, trace: Trace | None
    ) -> int:
        sign = linear >> sign_shift
        if sign and sign != sign_top:
            if canonical:
                return NON_CANONICAL
            linear &= 0xFFFF_FFFF
        words = words_of_ram if trace is None else _Recorder(words_of_ram, trace)
        table = (root & root_mask) >> entry_shift
        allowed = RW | US
        no_execute = 0
        try:
            for shift, may_be_large, table_reserved, page_reserved in upper:
                index = table + (linear >> shift & index_mask)
                entry = words[index]
                if not entry & 1:
                    return fault(access, user, 0)
                allowed &= entry
                no_execute |= entry
                if entry & may_be_large:
                    if entry & page_reserved:
                        return fault(access, user, 9)
                    break
                if entry & table_reserved:
                    return fault(access, user, 9)
                if not entry & ACCESSED:
                    updates.append((index, ACCESSED))
                table = (entry & ADDRESS_MASK) >> entry_shift
            else:
                shift = 12
                index = table + (linear >> 12 & index_mask)
                entry = words[index]
                if not entry & 1:
                    return fault(access, user, 0)
                if entry & leaf_reserved:
                    return fault(access, user, 9)
                allowed &= entry
                no_execute |= entry
        except IndexError:
            return fault(access, user, 0)

        rights = user_rights if user else supervisor_rights_ac if ac else supervisor_rights
        permissions = rights[allowed | no_execute >> 63]
        if keys is not None:
            denied = keys[user << 1 | allowed >> 2][entry >> KEY_SHIFT & 15]
            if denied >> access & 1:
                return fault(access, user, 33)
            permissions &= ~denied
        if not permissions >> access & 1:
            return fault(access, user, 1)
        if access == 1:
            if entry & 0x60 != 0x60:
                updates.append((index, ACCESSED | DIRTY))
        else:
            if not entry & ACCESSED:
                updates.append((index, ACCESSED))
            if not entry & DIRTY:
                permissions &= 5
        if shift == 12:
            return entry & ADDRESS_MASK | permissions
        inside = (1 << shift) - 1
        return entry & ADDRESS_MASK & ~inside | (entry & high_part) << 19 | linear & inside & ~PAGE_MASK | permissions

    return walk_page


def _no_paging(root: int, linear: int, access: int, user: bool, ac: bool, updates: Updates, trace: Trace | None) -> int:
    """CR0.PG = 0: the 32-bit linear address is the physical one, and nothing is refused."""
    return linear & 0xFFFF_F000 | READABLE | WRITABLE | EXECUTABLE


def _with_dword_updates(walker: PageWalker) -> PageWalker:
    """A walk over 4-byte entries whose ``updates`` name qwords."""

    def walk_page(
        root: int, linear: int, access: int, user: bool, ac: bool, updates: Updates, trace: Trace | None
    ) -> int:
        owed: list[tuple[int, int]] = []
        found = walker(root, linear, access, user, ac, owed, trace)
        for index, bits in owed:
            updates.append((index >> 1, bits << 32 * (index & 1)))
        return found

    return walk_page


def _with_pdptes(walker: PageWalker, qwords: memoryview, state: PagingState) -> PageWalker:
    """A walk whose root is chosen by one of four PDPTEs, which have no rights and no accessed bit (PAE paging)."""
    root_mask = state.mode.root_mask
    shift, _, reserved, _ = level_rule(state.mode.levels[0], state.mode, state)
    fault = fault_result(state)

    def walk_page(
        root: int, linear: int, access: int, user: bool, ac: bool, updates: Updates, trace: Trace | None
    ) -> int:
        index = ((root & root_mask) >> 3) + (linear >> shift & 3)
        try:
            entry = qwords[index]
        except IndexError:
            return fault(access, user, 0)
        if trace is not None:
            trace.append((0, index, entry))
        if not entry & 1:
            return fault(access, user, 0)
        if entry & reserved:
            return fault(access, user, 9)
        return walker(entry, linear, access, user, ac, updates, trace)

    return walk_page


def _with_separation(walker: PageWalker, state: PagingState) -> PageWalker:
    """A walk behind the checks of LASS."""

    def walk_page(
        root: int, linear: int, access: int, user: bool, ac: bool, updates: Updates, trace: Trace | None
    ) -> int:
        if separation_violated(state, linear, fetch=access == Access.FETCH, user=user, ac=ac):
            return NON_CANONICAL
        return walker(root, linear, access, user, ac, updates, trace)

    return walk_page


def walk(
    memory: PhysicalMemory,
    state: PagingState,
    linear: int,
    access: Access = Access.READ,
    *,
    user: bool = True,
    ac: bool = False,
    stack: bool = False,
) -> Translation | PageFault:
    """Translate ``linear`` for one access, changing nothing.

    ``user`` says whether it is a user-mode access (CPL 3 and not implicitly supervisor), ``ac`` is EFLAGS.AC of an
    explicit supervisor access (leave it False for an implicit one, such as a descriptor-table read: SMAP then applies),
    ``stack`` whether the access uses the stack segment (an address refused before the walk is then #SS, not #GP; SDM
    volume 1, section 3.3.7.1). :func:`commit` writes the accessed and dirty bits that the result names.
    """
    mode = state.mode
    updates: list[tuple[int, int]] = []
    trace: list[tuple[int, int, int]] = []
    found = page_walker(memory.qwords, state)(state.root, linear, int(access), user, ac, updates, trace)
    steps = tuple(
        Step(mode.levels[level].name, index * mode.entry_bytes, entry, mode.levels[level].size)
        for level, index, entry in trace
    )
    owed = tuple((index << 3, bits) for index, bits in updates)
    if found == NON_CANONICAL:
        vector = Vector.SS if stack else Vector.GP
        return PageFault(linear, vector, 0, steps, owed, refusal_reason(linear, state, user))
    if found < 0:
        why = reason(FaultBits(-1 - found), steps, state, user, ac)
        return PageFault(linear, Vector.PF, -1 - found, steps, owed, why)
    return Translation(
        linear=linear,
        physical=found & ~PAGE_MASK | linear & PAGE_MASK,
        size=steps[-1].size if steps else PAGE_MASK + 1,
        readable=bool(found & READABLE),
        writable=bool(found & WRITABLE),
        executable=bool(found & EXECUTABLE),
        steps=steps,
        updates=owed,
    )


def commit(memory: PhysicalMemory, result: Translation | PageFault) -> None:
    """Set the accessed and dirty bits that a walk owes."""
    for address, bits in result.updates:
        memory.qwords[address >> 3] |= bits


__all__ = [
    "EXECUTABLE",
    "NON_CANONICAL",
    "READABLE",
    "WRITABLE",
    "PageWalker",
    "PhysicalMemory",
    "commit",
    "fault_result",
    "is_canonical",
    "page_walker",
    "walk",
]

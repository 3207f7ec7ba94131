"""The page walk: one linear address, one access and one paging state in; a translation or a fault out.

Rules: Intel SDM volume 3, sections 4.5 (4-level paging), 4.6 (access rights), 4.7 (page-fault exceptions) and
4.8 (accessed and dirty flags). There is one walk, :func:`page_walker`; it is specialised once for a paging
state so that the hot path tests no register bits, and :func:`walk` wraps it for people.
"""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from functools import lru_cache
from typing import Final, Protocol

from mmuemu.mmu.modes import PagingMode
from mmuemu.mmu.state import Access, PageFault, PagingState, Step, Translation
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import ADDRESS_MASK, NX, PAGE_MASK, PS, RW, US, FaultBits, is_canonical
from mmuemu.x86.paging import A as ACCESSED
from mmuemu.x86.paging import D as DIRTY

READABLE: Final = 1
WRITABLE: Final = 2
EXECUTABLE: Final = 4
NON_CANONICAL: Final = -(1 << 32)
"""What a page walker returns for an address that is not canonical."""

Updates = MutableSequence[tuple[int, int]]
Trace = MutableSequence[tuple[int, int, int]]
PageWalker = Callable[[int, int, int, bool, bool, Updates, "Trace | None"], int]
"""``(root, linear, access, user, ac, updates, trace) -> page | permissions``, or ``-1 - error_code``.

``root`` is a physical address; ``user`` is whether the access is a user-mode one; ``ac`` is EFLAGS.AC for an
explicit supervisor access (False for an implicit one). The page is the physical address of the 4 KiB that hold
``linear``; the permissions are READABLE, WRITABLE and EXECUTABLE. The A and D bits owed are appended to
``updates`` as (index of the entry among the qwords, bits); entries read go to ``trace`` as (level, index, entry).
"""


class Qwords(Protocol):
    """Physical memory as 64-bit words."""

    def __getitem__(self, index: int, /) -> int: ...

    def __len__(self) -> int: ...


class PhysicalMemory(Protocol):
    """Guest RAM as the walk sees it: ``qwords[physical >> 3]``."""

    @property
    def qwords(self) -> memoryview: ...


def _upper_levels(mode: PagingMode, state: PagingState) -> tuple[tuple[int, int, int, int], ...]:
    """(shift, PS if it may map a page, reserved bits of a table entry, reserved bits of a page entry)."""
    high = ADDRESS_MASK & ~((1 << state.maxphyaddr) - 1)
    if not state.no_execute:
        high |= NX
    levels = []
    for level in mode.levels[:-1]:
        large = level.may_be_large and (level.size != 1 << 30 or state.page_1g)
        below = (level.size - 1) & ~0x1FFF
        levels.append((level.shift, PS if large else 0, high if large else high | PS, high | below))
    return tuple(levels)


@lru_cache(maxsize=64)
def _rules(state: PagingState) -> tuple[tuple[tuple[int, int, int, int], ...], int, int]:
    mode = state.mode
    high = ADDRESS_MASK & ~((1 << state.maxphyaddr) - 1)
    return _upper_levels(mode, state), high if state.no_execute else high | NX, mode.linear_bits


def page_walker(qwords: Qwords, state: PagingState) -> PageWalker:
    """The walk for one paging state (its CR3 is not used: the root is an argument).

    It is pure: it reads ``qwords`` and writes nothing there. Reads beyond physical memory give zero.
    """
    upper, leaf_reserved, linear_bits = _rules(PagingState(0, state.cr0, state.cr4, state.efer, state.maxphyaddr, state.page_1g))
    write_protect, smep, smap = state.write_protect, state.smep, state.smap
    nx_enabled = state.no_execute
    reports_fetch = smep or nx_enabled
    sign_shift = linear_bits - 1
    sign_top = (1 << (65 - linear_bits)) - 1
    leaf_shift = 12

    def code(access: int, user: bool, base: int) -> int:
        """The negative result for a #PF: ``base`` is P and RSVD (SDM volume 3, figure 4-12)."""
        if user:
            base |= 4
        if access == 1:
            base |= 2
        elif access == 2 and reports_fetch:
            base |= 16
        return -1 - base

    def walk_page(
        root: int, linear: int, access: int, user: bool, ac: bool, updates: Updates, trace: Trace | None
    ) -> int:
        sign = linear >> sign_shift
        if sign and sign != sign_top:
            return NON_CANONICAL
        table = root >> 3
        allowed = RW | US
        no_execute = 0
        level = 0
        try:
            for shift, may_be_large, table_reserved, page_reserved in upper:
                index = table + (linear >> shift & 511)
                entry = qwords[index]
                if trace is not None:
                    trace.append((level, index, entry))
                if not entry & 1:
                    return code(access, user, 0)
                allowed &= entry
                no_execute |= entry
                if entry & may_be_large:
                    if entry & page_reserved:
                        return code(access, user, 9)
                    break
                if entry & table_reserved:
                    return code(access, user, 9)
                if not entry & ACCESSED:
                    updates.append((index, ACCESSED))
                table = (entry & ADDRESS_MASK) >> 3
                level += 1
            else:
                shift = leaf_shift
                index = table + (linear >> 12 & 511)
                entry = qwords[index]
                if trace is not None:
                    trace.append((level, index, entry))
                if not entry & 1:
                    return code(access, user, 0)
                if entry & leaf_reserved:
                    return code(access, user, 9)
                allowed &= entry
                no_execute |= entry
        except IndexError:
            return code(access, user, 0)

        if allowed & US:
            if user:
                permissions = 5 | (allowed & RW)
            else:
                permissions = 0 if smap and not ac else 1 | (allowed & RW if write_protect else RW)
                if not smep:
                    permissions |= 4
        elif user:
            return code(access, user, 1)
        else:
            permissions = 5 | (allowed & RW if write_protect else RW)
        if no_execute & NX and nx_enabled:
            permissions &= 3
        if not permissions & (1 << access):
            return code(access, user, 1)
        if access == 1:
            if entry & 0x60 != 0x60:
                updates.append((index, ACCESSED | DIRTY))
        else:
            if not entry & ACCESSED:
                updates.append((index, ACCESSED))
            if not entry & DIRTY:
                permissions &= 5
        offset_mask = (1 << shift) - 1
        return (entry & ADDRESS_MASK & ~offset_mask) | (linear & offset_mask & ~PAGE_MASK) | permissions

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

    ``user`` says whether it is a user-mode access (CPL 3 and not implicitly supervisor), ``ac`` is EFLAGS.AC,
    ``stack`` whether the access uses the stack segment (a non-canonical address is then #SS, not #GP; SDM
    volume 1, section 3.3.7.1). :func:`commit` writes the accessed and dirty bits that the result names.
    """
    mode = state.mode
    updates: list[tuple[int, int]] = []
    trace: list[tuple[int, int, int]] = []
    result = page_walker(memory.qwords, state)(state.root, linear, int(access), user, ac, updates, trace)
    steps = tuple(
        Step(mode.levels[level].name, index << 3, entry, mode.levels[level].size) for level, index, entry in trace
    )
    owed = tuple((index << 3, bits) for index, bits in updates)
    if result == NON_CANONICAL:
        vector = Vector.SS if stack else Vector.GP
        return PageFault(linear, vector, 0, steps, owed, f"{linear:#x} is not canonical")
    if result < 0:
        return PageFault(linear, Vector.PF, -1 - result, steps, owed, _reason(-1 - result, steps, state, user, ac))
    return Translation(
        linear=linear,
        physical=(result & ~PAGE_MASK) | (linear & PAGE_MASK),
        size=steps[-1].size,
        readable=bool(result & READABLE),
        writable=bool(result & WRITABLE),
        executable=bool(result & EXECUTABLE),
        steps=steps,
        updates=owed,
    )


def commit(memory: PhysicalMemory, result: Translation | PageFault) -> None:
    """Set the accessed and dirty bits that a walk owes."""
    for address, bits in result.updates:
        memory.qwords[address >> 3] |= bits


def _reason(error_code: int, steps: tuple[Step, ...], state: PagingState, user: bool, ac: bool) -> str:
    """The rule that refused the access, for a person."""
    last = steps[-1].level if steps else "root"
    if not error_code & FaultBits.P:
        return f"{last} is not present"
    if error_code & FaultBits.RSVD:
        return f"{last} has a reserved bit set"
    if user:
        for step in steps:
            if not step.entry & US:
                return f"{step.level} is supervisor-only (U/S = 0)"
    elif all(step.entry & US for step in steps):
        if error_code & FaultBits.I and state.smep:
            return "SMEP forbids the supervisor to execute a user page"
        if state.smap and not ac and not error_code & FaultBits.I:
            return "SMAP forbids the supervisor to access a user page while EFLAGS.AC = 0"
    if error_code & FaultBits.W:
        for step in steps:
            if not step.entry & RW:
                return f"{step.level} is read-only (R/W = 0)"
    for step in steps:
        if step.entry & NX:
            return f"{step.level} is not executable (NX = 1)"
    return "the access is not permitted"


__all__ = [
    "EXECUTABLE",
    "NON_CANONICAL",
    "READABLE",
    "WRITABLE",
    "PageWalker",
    "PhysicalMemory",
    "commit",
    "is_canonical",
    "page_walker",
    "walk",
]

"""The paging-structure cache answers as the walk does, whatever was done to the tables since it learnt of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmuemu.cpu.structures import UNKNOWN, StructureCache
from mmuemu.errors import OutOfFrames
from mmuemu.kernel.registers import SP
from mmuemu.machine import Machine
from mmuemu.memory.frames import FrameAllocator
from mmuemu.memory.page_table import PageTable
from mmuemu.memory.ram import GuestRam
from mmuemu.mmu.state import PagingState
from mmuemu.mmu.walk import page_walker
from mmuemu.sources import assemble
from mmuemu.x86.paging import KEY_SHIFT, NX, PAGE_SIZE, RW, SIZE_2M, US, A, D, P
from mmuemu.x86.registers import CR4_LA57, CR4_PAE, CR4_PKE, CR4_SMAP, CR4_SMEP

LOW = 0x7F00_0000_0000
HIGH = 0xFFFF_FF80_0000_0000
PAGES = [base + region * SIZE_2M + page * PAGE_SIZE for base in (LOW, HIGH) for region in (0, 1) for page in (0, 1)]

STORES = """
.globl _start
_start: mov r12d, 2
again: mov eax, 39
    syscall
    push rax
    dec r12d
    jnz again
    mov eax, 231
    xor edi, edi
    syscall
"""

page = st.sampled_from(PAGES)
bits = st.sets(st.sampled_from([RW, US, A, D, NX, 3 << KEY_SHIFT, 1 << 45, 1 << 52])).map(sum)
operation = st.one_of(
    st.tuples(st.just("map"), page, bits),
    st.tuples(st.just("unmap"), page, st.sampled_from([PAGE_SIZE, 2 * PAGE_SIZE, SIZE_2M])),
    st.tuples(st.just("large"), page, bits),
    st.tuples(st.just("protect"), page, bits),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    levels=st.sampled_from([4, 5]), pkru=st.sampled_from([0, 1, 2, 3 << 6, 0x5555_5554]),
    operations=st.lists(operation, max_size=12),
)  # fmt: skip
def test_it_answers_as_the_walk_does(levels: int, pkru: int, operations: list[tuple[str, int, int]]) -> None:
    ram = GuestRam(1 << 20)
    table = PageTable(FrameAllocator(ram, 0x1000), levels=levels)
    cache = StructureCache(ram)
    cr4 = CR4_PAE | CR4_SMEP | CR4_SMAP | CR4_PKE | (CR4_LA57 if levels == 5 else 0)
    state = PagingState(table.root, cr4=cr4, pkru=pkru)
    walk = page_walker(ram.qwords, state)
    for what, la, value in operations:
        if what == "map":
            if table.lookup(la) is None or table.entry_address(la) >= 0:
                table.map_page(la, 0x8000 | value | P)
        elif what == "unmap":
            table.unmap_range(la, la + value)
        elif what == "protect":
            table.protect_range(la, la + PAGE_SIZE, set=value & ~(1 << 45))
        else:
            table.unmap_range(la & -SIZE_2M, (la & -SIZE_2M) + SIZE_2M)
            table.map(la & -SIZE_2M, 0, value & (RW | US | NX) | P, SIZE_2M)
        for la in PAGES:
            for user in (True, False):
                for access in (0, 1, 2):
                    owed: list[tuple[int, int]] = []
                    found = walk(table.root, la, access, user, False, owed, None)
                    before = {index: ram.qwords[index] for index, _ in owed}
                    known = cache.look_up(table.root, la, access, user, pkru & 3)
                    if known != UNKNOWN:
                        assert known == found
                        assert all(ram.qwords[index] == before[index] | owes for index, owes in owed)
                    else:
                        assert all(ram.qwords[index] == entry for index, entry in before.items())
                    for index, owes in owed:
                        ram.qwords[index] |= owes
                    if found >= 0 and user is not bool(la >> 63):
                        cache.learn(la, user, state)


@pytest.mark.parametrize("access", [0, 1])
def test_it_sets_the_accessed_bit(access: int) -> None:
    ram = GuestRam(1 << 20)
    table = PageTable(FrameAllocator(ram, 0x1000))
    cache = StructureCache(ram)
    table.map_page(LOW, 0x8000 | P | RW | US | D)
    cache.learn(LOW, True, PagingState(table.root, cr4=CR4_PAE | CR4_SMEP))
    assert cache.look_up(table.root, LOW, access, True, 0) == 0x8007
    assert ram.qwords[table.entry_address(LOW) >> 3] == 0x8000 | P | RW | US | D | A


@pytest.mark.parametrize("user", [True, False])
def test_what_is_common_is_answered_for(user: bool) -> None:
    """Else the test above proves nothing."""
    ram = GuestRam(1 << 20)
    table = PageTable(FrameAllocator(ram, 0x1000))
    cache = StructureCache(ram)
    la = LOW if user else HIGH
    table.map_page(la, 0x8000 | P | RW | A | D | (US if user else 0))
    state = PagingState(table.root, cr4=CR4_PAE | CR4_SMEP)
    assert cache.look_up(table.root, la, 1, user, 0) == UNKNOWN
    cache.learn(la, user, state)
    assert cache.knows(table.root, la, user)
    assert cache.look_up(table.root, la, 1, user, 0) == 0x8007
    assert cache.look_up(table.root, la + PAGE_SIZE, 2, user, 0) == (-1 - 20 if user else UNKNOWN)
    table.unmap(la)
    assert not cache.knows(table.root, la, user)


@pytest.mark.parametrize(("bits", "key_0_rights"), [(0, 1), (0, 2), (3 << KEY_SHIFT, 0), (1 << 45, 0)])
def test_what_more_than_the_entry_decides_about_is_left_to_the_walk(bits: int, key_0_rights: int) -> None:
    """Protection keys and reserved bits."""
    ram = GuestRam(1 << 20)
    table = PageTable(FrameAllocator(ram, 0x1000))
    cache = StructureCache(ram)
    entry = 0x8000 | P | RW | US | A | D
    table.map_page(LOW, entry)
    cache.learn(LOW, True, PagingState(table.root, cr4=CR4_PAE | CR4_SMEP))
    assert cache.look_up(table.root, LOW, 0, True, 0) == 0x8007
    table.map_page(LOW, entry | bits)
    assert cache.look_up(table.root, LOW, 0, True, key_0_rights) == UNKNOWN


@pytest.mark.parametrize("restricted", [lambda entry: entry & ~RW, lambda entry: entry & ~US, lambda entry: entry | NX])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_tables_that_restrict_are_not_learnt(level: int, restricted: Callable[[int], int]) -> None:
    ram = GuestRam(1 << 20)
    table = PageTable(FrameAllocator(ram, 0x1000))
    cache = StructureCache(ram)
    table.map_page(LOW, 0x8000 | P | RW | US | A | D)
    at = table.root
    for depth in range(1, level + 1):
        slot = (at >> 3) + (LOW >> (48 - 9 * depth) & 511)
        at = ram.qwords[slot] & 0xF_FFFF_F000
    ram.qwords[slot] = restricted(ram.qwords[slot])
    cache.learn(LOW, True, PagingState(table.root, cr4=CR4_PAE | CR4_SMEP))
    assert not cache.knows(table.root, LOW, True)


def test_an_edit_by_hand_is_seen_after_a_flush() -> None:
    """As on a processor: a PDE loses R/W, the TLB and this cache are flushed, the next store faults."""
    machine = Machine(mmu="python", seed=1)
    machine.load(assemble(STORES, "stores.s"), ["stores"], {})
    calls = []

    def edit(event) -> None:
        calls.append(event)
        if len(calls) == 2:
            at, stack = event.task.mm.page_table.root, event.task.registers[SP]
            for shift in (39, 30, 21):
                slot = (at >> 3) + (stack >> shift & 511)
                at = machine.kernel.ram.qwords[slot] & 0xF_FFFF_F000
            machine.kernel.ram.qwords[slot] &= ~RW
            machine.kernel.cpu.flush_tlb()

    machine.kernel.watch_syscall(39, edit)
    outcome = machine.run(timeout=20)
    assert (len(calls), outcome.signal) == (2, 11)


def test_without_frames_nothing_is_learnt_of_what_was_taken_back() -> None:
    ram = GuestRam(8 << 12)
    table = PageTable(FrameAllocator(ram, 0x1000))
    gone = ram.tables_gone
    table.map_page(LOW, 0x1000 | P)
    assert ram.tables_gone == gone
    for region in range(1, 3):
        with contextlib.suppress(OutOfFrames):
            table.map_page(LOW + (region << 30), 0x1000 | P)
    assert ram.tables_gone > gone

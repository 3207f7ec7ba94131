"""Implicit accesses: kept translations say what a walk says, whatever the guest does to its tables meanwhile."""

from __future__ import annotations

import pytest

from mmuemu.cpu.linear import AccessFault, LinearMemory
from mmuemu.cpu.window import Q_CR3, Q_CR4, Q_PKRU
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import RW, A, D, P
from mmuemu.x86.registers import CR4_PKE, CR4_SMAP

HERE, OTHER, USER = 0xFFFF_8000_0000_0000, 0xFFFF_8000_0040_0000, 0x40_0000


@pytest.fixture
def memory(mmu):
    mmu.map(HERE, bytes(range(256)), "rw-", user=False)
    mmu.map(HERE + 0x1000, b"\xee" * 16, "rw-", user=False)
    mmu.map(OTHER, b"\x55" * 256, "rw-", user=False)
    mmu.cpu.window.save()
    return LinearMemory(mmu.cpu).sync()


def entry(mmu, linear):
    return mmu.page_table.entry_address(linear) >> 3


def warm(memory):
    """Access twice: the first sets A and D bits, the second is kept."""
    for _ in range(2):
        memory.write(HERE + 0x80, b"12345678")
        assert memory.read_int(HERE + 8, 8) == memory.qword(HERE + 8) == 0x0F0E_0D0C_0B0A_0908


@pytest.mark.parametrize("level", ["PTE", "PDE", "PDPTE", "PML4E"])
def test_an_entry_that_goes_away_is_noticed_without_a_flush(mmu, memory, level):
    warm(memory)
    words = mmu.ram.qwords
    table = mmu.page_table.root
    for name, shift in (("PML4E", 39), ("PDPTE", 30), ("PDE", 21), ("PTE", 12)):
        index = (table >> 3) + (HERE >> shift & 511)
        if name == level:
            break
        table = words[index] & 0x000F_FFFF_FFFF_F000
    words[index] &= ~P
    for access in (lambda: memory.qword(HERE), lambda: memory.read(HERE, 4), lambda: memory.write(HERE, b"x")):
        with pytest.raises(AccessFault) as caught:
            access()
        assert (caught.value.vector, caught.value.address) == (Vector.PF, HERE)
    assert caught.value.error_code == 2


def test_another_frame_is_noticed(mmu, memory):
    warm(memory)
    words = mmu.ram.qwords
    words[entry(mmu, HERE)] = words[entry(mmu, OTHER)] | A | D
    assert memory.qword(HERE) == 0x5555_5555_5555_5555
    memory.write(HERE, b"written!")
    assert memory.read(OTHER, 8) == b"written!"


def test_cleared_accessed_and_dirty_bits_are_set_again(mmu, memory):
    warm(memory)
    words = mmu.ram.qwords
    place = entry(mmu, HERE)
    words[place] &= ~(A | D)
    memory.qword(HERE)
    assert words[place] & (A | D) == A
    memory.write(HERE, b"x")
    assert words[place] & (A | D) == A | D


def test_a_peek_sets_nothing(mmu, memory):
    words = mmu.ram.qwords
    assert mmu.cpu.read_linear(OTHER, 4) == b"\x55" * 4
    assert not words[entry(mmu, OTHER)] & A


def test_a_new_paging_state_is_noticed(mmu, memory):
    mmu.map(USER, b"\x77" * 8, "rw-")
    q = mmu.cpu.window.q
    for _ in range(2):
        assert memory.qword(USER) == 0x7777_7777_7777_7777
    q[Q_CR4] |= CR4_SMAP
    with pytest.raises(AccessFault) as caught:
        memory.sync().qword(USER)
    assert caught.value.error_code == 1
    q[Q_CR4] ^= CR4_SMAP | CR4_PKE
    assert memory.sync().qword(USER) == 0x7777_7777_7777_7777
    q[Q_PKRU] = 1
    with pytest.raises(AccessFault) as caught:
        memory.sync().qword(USER)
    assert caught.value.error_code == 0x21, "PKRU holds for the supervisor's accesses to user pages"
    q[Q_CR3] = mmu.frames.allocate()
    with pytest.raises(AccessFault) as caught:
        memory.sync().qword(HERE)
    assert caught.value.error_code == 0


def test_an_access_across_pages(mmu, memory):
    assert memory.read_int(HERE + 0xFFC, 8) == 0xEEEE_EEEE_0000_0000
    memory.write(HERE + 0xFFE, b"abcd")
    assert memory.read(HERE + 0xFFE, 4) == b"abcd"
    mmu.ram.qwords[entry(mmu, HERE + 0x1000)] &= ~P
    with pytest.raises(AccessFault):
        memory.write(HERE + 0xFFE, b"ABCD")
    assert memory.read(HERE + 0xFFE, 2) == b"ab", "nothing is stored when a part is refused"
    assert mmu.cpu.read_linear(HERE + 0xFFE, 4) == b"ab"


def test_memory_that_is_not_there_reads_as_ones(mmu, memory):
    mmu.page_table.map(OTHER + 0x1000, 0x8000_0000, P | RW)
    for _ in range(2):
        assert memory.qword(OTHER + 0x1000) == 0xFFFF_FFFF_FFFF_FFFF
        memory.write(OTHER + 0x1000, b"lost")
    assert mmu.cpu.read_linear(OTHER + 0x1000, 4) == b""
    with pytest.raises(AccessFault) as caught:
        memory.read(1 << 60, 8, bad=Vector.SS)
    assert caught.value.vector == Vector.SS

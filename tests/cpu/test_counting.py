"""Runs with and without a limit of instructions, one after the other, in several address spaces."""

from __future__ import annotations

import pytest
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc

from mmuemu.cpu.attach import attach
from mmuemu.cpu.stop import Stop

PAGES = 8


def test_faults_arrive_after_counting_in_pages_that_are_gone(mmu, asm):
    """The engine looks up the pages it counted in when counting ends; that they are gone is no fault of the run."""
    for page in range(PAGES):
        start = 0x40_0000 + page * 0x1000
        mmu.map(start, asm(f"inc rax\njmp {start + 0x1000 if page < PAGES - 1 else 0x400000:#x}", start), "r-x")
    mmu.map(0x80_0000, asm("mov byte ptr [0x900000], 1", 0x80_0000), "r-x")
    mmu.set_ring(3)
    mmu.cpu.set_registers(rip=0x40_0000)
    mmu.cpu.run(max_instructions=100)
    assert mmu.cpu.instructions == 100
    for page in range(PAGES):
        mmu.unmap(0x40_0000 + page * 0x1000)
    mmu.cpu.set_registers(rip=0x80_0000)
    fault = mmu.run()
    assert fault is not None
    assert (fault.vector, fault.address, fault.error_code) == (14, 0x90_0000, 6)
    assert mmu.cpu.registers()["rip"] == 0x80_0000


@pytest.mark.parametrize("engine", ["python", "native"])
def test_a_stop_that_comes_as_the_limit_is_reached_changes_no_count(engine):
    """The engine has begun one instruction more by then, and the other thread may come before this one looks."""
    machine = attach(Uc(UC_ARCH_X86, UC_MODE_64), memory="4M", mmu=engine)
    machine.map(0x400000, b"\x90" * 16 + b"\xeb\xee", "r-x")
    machine.set_ring(3)
    machine.cpu.set_registers(rip=0x400000)
    assert machine.cpu.run(max_instructions=5) is Stop.LIMIT
    assert machine.cpu.internals.counter > 5
    machine.cpu.internals.cut_short()
    assert machine.cpu.internals.executed(5) == 5

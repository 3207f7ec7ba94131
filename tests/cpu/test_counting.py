"""Runs with and without a limit of instructions, one after the other, in several address spaces."""

from __future__ import annotations

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

"""Exceptions reach us with the vector, error code, CR2 and RIP that hardware reports; any number in a row."""

from __future__ import annotations

import contextlib

import pytest

from mmuemu.cpu.cpu import Stop
from mmuemu.cpu.traps import Trap
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.registers import MSR_LSTAR, MSR_STAR

CODE, DATA, READ_ONLY, STACK, KERNEL = 0x40_0000, 0x60_0000, 0x61_0000, 0x70_0000, 0xFFFF_FFFF_8000_0000


def prepare(mmu, code: bytes, ring: int = 3, **registers: int) -> None:
    mmu.map(CODE, code, "r-x")
    mmu.map(DATA, 4096, "rw-")
    mmu.map(READ_ONLY, 4096, "r--")
    mmu.map(STACK, 4096, "rw-")
    mmu.map(KERNEL, b"\xf4", "rwx", user=False)
    mmu.set_ring(ring)
    mmu.cpu.set_registers(rip=CODE, rsp=STACK + 4096, **registers)


# (name, code, expected trap fields: vector, error code, rip offset, cr2)
USER_FAULTS = [
    ("read unmapped", "mov rdi, 0x500123; mov rax, [rdi]", Vector.PF, 4, 7, 0x50_0123),
    ("write unmapped", "mov rdi, 0x500123; mov [rdi], rax", Vector.PF, 6, 7, 0x50_0123),
    ("write read-only", "mov rdi, 0x610008; mov byte ptr [rdi], 1", Vector.PF, 7, 7, 0x61_0008),
    ("fetch no-execute", "mov rdi, 0x600010; jmp rdi", Vector.PF, 0x15, 0x60_0010 - CODE, 0x60_0010),
    ("fetch unmapped", "mov rdi, 0x500000; jmp rdi", Vector.PF, 0x14, 0x50_0000 - CODE, 0x50_0000),
    ("read supervisor", "mov rdi, 0xffffffff80000010; mov rax, [rdi]", Vector.PF, 5, 7, KERNEL + 16),
    ("write supervisor", "mov rdi, 0xffffffff80000010; mov [rdi], al", Vector.PF, 7, 7, KERNEL + 16),
    ("second page of a read", "mov rdi, 0x600ffc; mov rax, [rdi]", Vector.PF, 4, 7, 0x60_1000),
    ("second page of a write", "mov rdi, 0x600ffe; mov [rdi], eax", Vector.PF, 6, 7, 0x60_1000),
    ("non-canonical read", "mov rdi, 0x800000000000; mov rax, [rdi]", Vector.GP, 0, 10, 0),
    ("canonical push at the edge", "mov rsp, 0x800000000000; push rax", Vector.PF, 6, 10, 0x7FFF_FFFF_FFF8),
    ("non-canonical push", "mov rsp, 0xffff800000000000; push rax", Vector.SS, 0, 10, 0),
    ("non-canonical rbp", "mov rbp, 0x8000000000000000; mov rax, [rbp + 8]", Vector.SS, 0, 10, 0),
    ("non-canonical call", "mov rsp, 0x8000000000000000; call 0x400000", Vector.SS, 0, 10, 0),
    ("divide", "xor ecx, ecx; div ecx", Vector.DE, 0, 2, 0),
    ("undefined", "nop; .byte 0x0f, 0x0b", Vector.UD, 0, 1, 0),
    ("hlt", "nop; hlt", Vector.GP, 0, 1, 0),
    ("cli", "nop; cli", Vector.GP, 0, 1, 0),
    ("mov cr3", "nop; mov rax, cr3", Vector.GP, 0, 1, 0),
    ("wrmsr", "nop; wrmsr", Vector.GP, 0, 1, 0),
    ("in", "nop; in al, 0x60", Vector.GP, 0, 1, 0),
    ("out", "nop; out 0x51, al", Vector.GP, 0, 1, 0),
    ("out dx", "nop; out dx, eax", Vector.GP, 0, 1, 0),
]


@pytest.mark.parametrize(
    ("source", "vector", "error", "offset", "cr2"), [f[1:] for f in USER_FAULTS], ids=[f[0] for f in USER_FAULTS]
)
def test_a_ring_3_fault_is_described_as_hardware_describes_it(mmu, asm, source, vector, error, offset, cr2):
    prepare(mmu, asm(source) + b"\xf4")
    assert mmu.run() == Trap(vector, error, CODE + offset, cr2, 3)


def test_cr2_register_holds_the_address(mmu, asm):
    from unicorn.x86_const import UC_X86_REG_CR2

    prepare(mmu, asm("mov rdi, 0x500123; mov rax, [rdi]"))
    mmu.run()
    assert mmu.cpu.uc.reg_read(UC_X86_REG_CR2) == 0x50_0123


@pytest.mark.parametrize(("code", "vector"), [(b"\xcc", 3), (b"\xcd\x03", 3), (b"\xcd\x80", 0x80), (b"\xcd\x0e", 14)])
def test_software_interrupts_report_the_next_instruction(mmu, code, vector):
    prepare(mmu, b"\x90" + code)
    trap = mmu.run()
    assert (trap.vector, trap.rip, trap.cpl, trap.error_code) == (vector, CODE + 1 + len(code), 3, 0)
    assert trap.software or vector == 3


def test_int_14_is_no_page_fault(mmu):
    asked = []
    mmu.on_fault = lambda page, error: asked.append(page) or False
    prepare(mmu, b"\xcd\x0e")
    trap = mmu.run()
    assert trap.vector == 14
    assert trap.software
    assert asked == [] or CODE not in asked


def test_a_thousand_faults_in_a_row_stay_what_they_are(mmu, asm):
    prepare(mmu, asm("mov rax, [rdi]; .byte 0x0f, 0x0b"), rdi=0x50_0000)
    for number in range(1000):
        mmu.cpu.set_registers(rip=CODE + (0 if number % 2 else 3))
        trap = mmu.run()
        assert trap.vector == (Vector.PF if number % 2 else Vector.UD)


def test_registers_are_unchanged_by_a_refused_in(mmu, asm):
    prepare(mmu, asm("in eax, dx"), rax=0x1122_3344_5566_7788, rdx=0x60)
    assert mmu.run() == Trap(Vector.GP, 0, CODE, 0, 3)
    assert mmu.cpu.registers()["rax"] == 0x1122_3344_5566_7788


def test_iopl_3_allows_port_io_in_ring_3(mmu, asm):
    prepare(mmu, asm("in al, 0x60; .byte 0x0f, 0x0b"), rax=0, rflags=0x3002)
    assert mmu.run() == Trap(Vector.UD, 0, CODE + 2, 0, 3)
    assert mmu.cpu.registers()["rax"] & 0xFF == 0xFF


def test_a_resolved_fault_leaves_no_trace(mmu, asm):
    pages = []

    def resolve(page, error_code):
        pages.append((page, error_code))
        mmu.map(page, 4096, "rw-")
        return True

    mmu.on_fault = resolve
    prepare(mmu, asm("mov rdi, 0x500008; mov qword ptr [rdi], 77; mov rax, [rdi]; .byte 0x0f, 0x0b"))
    assert mmu.run().vector == Vector.UD
    assert mmu.cpu.registers()["rax"] == 77
    assert pages == [(0x50_0000, 6)]


def test_ring_0_may_do_what_ring_3_may_not(mmu, asm):
    prepare(mmu, asm("mov rdi, 0xffffffff80000008; mov [rdi], rax; mov rax, cr3; hlt"), ring=0)
    assert mmu.run() is Stop.HALTED
    assert mmu.cpu.registers()["rax"] == mmu.page_table.root


def test_write_protect_binds_ring_0(mmu, asm):
    prepare(mmu, asm("mov rdi, 0x610000; mov [rdi], al"), ring=0)
    assert mmu.run() == Trap(Vector.PF, 3, CODE + 7, 0x61_0000, 0)


def test_syscall_and_sysret_change_the_ring_for_real(mmu, asm):
    kernel = asm("mov rbx, cr3; .byte 0x48, 0x0f, 0x07", KERNEL)
    prepare(mmu, asm("stc; syscall; mov rax, cr3"))
    mmu.ram.write(mmu.page_table.lookup(KERNEL).physical, kernel)
    mmu.cpu.uc.msr_write(MSR_STAR, 0x23 << 48 | 0x10 << 32)
    mmu.cpu.uc.msr_write(MSR_LSTAR, KERNEL)
    mmu.cpu.handler.syscall = mmu.cpu.enter_kernel
    assert mmu.run() == Trap(Vector.GP, 0, CODE + 3, 0, 3)
    registers = mmu.cpu.registers()
    assert registers["rbx"] == mmu.page_table.root
    assert registers["rcx"] == CODE + 3
    assert registers["r11"] & 1 == registers["rflags"] & 1 == 1


def test_an_exception_in_a_hook_comes_out_of_run(mmu, asm):
    def broken(page, error_code):
        raise RuntimeError("from the callback")

    prepare(mmu, asm("mov rdi, 0x500000; mov rax, [rdi]"))
    mmu.on_fault = broken
    with pytest.raises(RuntimeError, match="from the callback"):
        mmu.run()


def test_the_owner_of_a_uc_can_use_emu_start(mmu, asm):
    from unicorn import UcError

    prepare(mmu, asm("mov rdi, 0x500123; mov rax, [rdi]"))
    with contextlib.suppress(UcError):
        mmu.cpu.uc.emu_start(CODE, 0)
    assert mmu.trap == Trap(Vector.PF, 4, CODE + 7, 0x50_0123, 3)


STATUS = 0x8D5
"""CF, PF, AF, ZF, SF, OF."""
DF = 0x400


@pytest.mark.parametrize("value", [0x2, STATUS | 0x2, STATUS & ~0x40 | DF | 0x2])
def test_flags_that_are_set_are_those_the_code_has(mmu, asm, value):
    prepare(mmu, asm("pushfq; pop rax; .byte 0x0f, 0x0b"), rflags=value)
    assert mmu.cpu.registers()["rflags"] & (STATUS | DF) == value & (STATUS | DF)
    assert mmu.run().vector == Vector.UD
    assert mmu.cpu.registers()["rax"] & (STATUS | DF) == value & (STATUS | DF)


@pytest.mark.parametrize("source", ["cmp al, 1", "mov cl, 7; shl ecx, cl; stc; std", "dec rcx; add al, al"])
def test_flags_outlive_a_refused_instruction(mmu, asm, source):
    """The state before it is one from the middle of a hook."""
    code = asm(f"{source}; pushfq; pop rbx; {source}")
    prepare(mmu, code + asm("in al, 0x60; pushfq; pop rdx; .byte 0x0f, 0x0b"), rax=0, rcx=3)
    assert mmu.run() == Trap(Vector.GP, 0, CODE + len(code), 0, 3)
    before = mmu.cpu.registers()["rflags"]
    mmu.cpu.rip += 2
    assert mmu.run().vector == Vector.UD
    assert mmu.cpu.registers()["rdx"] & (STATUS | DF) == before & (STATUS | DF) != 0

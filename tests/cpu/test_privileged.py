"""Privileged instructions with bad values raise #GP(0) and change nothing; with good ones they work."""

from __future__ import annotations

import pytest

from mmuemu.cpu.cpu import Stop
from mmuemu.cpu.privileged import Privileged
from mmuemu.cpu.traps import Trap
from mmuemu.x86.exceptions import Vector

CODE, DATA = 0x40_0000, 0x60_0000


@pytest.fixture
def run(mmu, asm):
    """Run ring-0 code (with RAX loaded) to its HLT, checks on; the trap or the stop."""
    mmu.cpu.privileged = Privileged(mmu.cpu)

    def go(source: str, ring: int = 0, **registers: int):
        code = asm(source) if isinstance(source, str) else source
        mmu.map(CODE, code + b"\xf4", "rwx", user=ring == 3)
        if mmu.page_table.lookup(DATA) is None:
            mmu.map(DATA, 4096, "rw-", user=ring == 3)
        mmu.set_ring(ring)
        mmu.cpu.set_registers(rip=CODE, rsp=DATA + 4096, **registers)
        return mmu.run()

    return go


GP = Trap(Vector.GP, 0, CODE, 0, 0)
BAD = [
    ("mov cr0, rax", {"rax": 1 << 32}),
    ("mov cr0, rax", {"rax": 0x8000_0000}),
    ("mov cr0, rax", {"rax": 0xA000_0001}),
    ("mov cr0, rax", {"rax": 0x0000_0001}),
    ("mov cr3, rax", {"rax": 1 << 40}),
    ("mov cr3, rax", {"rax": 1 << 63}),
    ("mov cr4, rax", {"rax": 0x506A0 | 1 << 30}),
    ("mov cr4, rax", {"rax": 0x506A0 | 1 << 12}),
    ("mov cr4, rax", {"rax": 0x506A0 & ~0x20}),
    ("mov cr8, rax", {"rax": 0x10}),
    ("mov dr7, rax", {"rax": 1 << 32}),
    ("wrmsr", {"rcx": 0xC000_0080, "rax": 0x1501, "rdx": 0}),
    ("wrmsr", {"rcx": 0xC000_0080, "rax": 0xC01, "rdx": 0}),
    ("wrmsr", {"rcx": 0xC000_0082, "rax": 0, "rdx": 0x8000}),
    ("wrmsr", {"rcx": 0xC000_0100, "rax": 0, "rdx": 0x8000_0000}),
    ("wrmsr", {"rcx": 0x277, "rax": 2, "rdx": 0}),
    ("wrmsr", {"rcx": 0x1234_5678, "rax": 0, "rdx": 0}),
    ("rdmsr", {"rcx": 0x1234_5678}),
]


@pytest.mark.parametrize(("source", "registers"), BAD, ids=[f"{s} {r}" for s, r in BAD])
def test_a_bad_value_is_refused_and_nothing_changes(mmu, run, source, registers):
    before = mmu.cpu.paging
    assert run(source, **registers) == GP
    assert mmu.cpu.paging == before
    after = mmu.cpu.registers()
    assert all(after[name] == value for name, value in registers.items())


def test_good_values_take_effect(mmu, run):
    from mmuemu.x86.registers import CR4_SMEP

    assert run("mov rax, cr4; bts rax, 20; mov cr4, rax; mov rbx, cr4") is Stop.HALTED
    assert mmu.cpu.registers()["rbx"] & CR4_SMEP
    assert mmu.cpu.paging.cr4 & CR4_SMEP


@pytest.mark.parametrize("register", ["r8", "r15", "rsp", "rbx"])
def test_every_register_can_be_the_operand(mmu, run, register):
    mmu.cpu.privileged.observers.append(lambda what, old, new: seen.append((what, new)))
    seen = []
    assert run(f"mov {register}, cr3; mov cr3, {register}") is Stop.HALTED
    assert seen == [("cr3", mmu.page_table.root)]


def test_a_privileged_instruction_reached_later_is_checked_too(mmu, run):
    trap = run("jmp a; nop; a: inc rbx; jmp b; nop; nop; b: mov rax, 1; shl rax, 45; mov cr3, rax; inc rbx", rbx=0)
    assert trap.vector == Vector.GP
    assert mmu.cpu.registers()["rbx"] == 1


def test_pcid_and_the_no_flush_bit(mmu, run):
    root = mmu.page_table.root
    source = """
        mov rax, cr4; bts rax, 17; mov cr4, rax
        mov rax, cr3; or rax, 5; bts rax, 63; mov cr3, rax; mov rbx, cr3
    """
    assert run(source) is Stop.HALTED
    assert mmu.cpu.registers()["rbx"] == root | 5


def test_pcide_needs_a_zero_pcid(mmu, run):
    trap = run("mov rax, cr3; or rax, 5; mov cr3, rax; mov rax, cr4; bts rax, 17; mov cr4, rax; inc rbx", rbx=0)
    assert trap.vector == Vector.GP
    assert mmu.cpu.registers()["rbx"] == 0


@pytest.mark.parametrize("source", ["lgdt [rdi]", "lidt [rdi]"])
def test_a_table_base_must_be_canonical(mmu, run, source):
    mmu.map(DATA, b"\x00\x00" + (0x8000_0000_0000).to_bytes(8, "little"), "rw-", user=False)
    assert run(source, rdi=DATA) == GP


def test_umip(mmu, run):
    for source in ("sgdt [rdi]", "sidt [rdi]", "sldt eax", "str eax", "smsw eax"):
        mmu.cpu.uc.reg_write(__import__("unicorn").x86_const.UC_X86_REG_CR4, mmu.cpu.paging.cr4 | 1 << 11)
        assert run(source, ring=3, rdi=DATA) == Trap(Vector.GP, 0, CODE, 0, 3), source
        mmu.unmap(CODE)


@pytest.mark.parametrize(
    ("code", "looked_at"),
    [
        ("0f01cb", False),  # stac
        ("0f01ca", False),  # clac
        ("0f01f8", False),  # swapgs
        ("0f01ef", False),  # wrpkru
        ("0f01d1", True),  # xsetbv
        ("0f01e0", True),  # smsw eax
        ("0f013f", True),  # invlpg [rdi]
        ("0f011f", True),  # lidt [rdi]
        ("0f20d0", False),  # mov rax, cr2
        ("440f20c0", True),  # mov rax, cr8
        ("0f22d8", True),  # mov cr3, rax
        ("0f30", True),  # wrmsr
        ("90", False),
    ],
)
def test_what_is_looked_at(mmu, code, looked_at):
    """Every look costs a stop of the engine; what nobody judges is left to it."""
    mmu.map(0x40_0000, bytes.fromhex(code).ljust(64, b"\x90"))
    assert Privileged(mmu.cpu).look(0x40_0000, 32) is looked_at


@pytest.mark.parametrize(("source", "kind"), [("ltr ax", 0x89), ("lldt ax", 0x82), ("ltr word ptr [rdi]", 0x89)])
def test_a_system_segments_base_must_be_canonical(mmu, run, source, kind):
    """The descriptor at selector 8 with its base's high half bad, then good."""
    low = 0x67 | kind << 40
    for high, outcome in ((0x8000, GP), (0, Stop.HALTED)):
        gdt = bytes(8) + low.to_bytes(8, "little") + high.to_bytes(8, "little") + (8).to_bytes(8, "little")
        mmu.map(DATA, gdt, "rw-", user=False)
        mmu.cpu.set_gdt(DATA, 23)
        assert run(source, rax=8, rdi=DATA + 24) == outcome
        mmu.unmap(DATA)
        mmu.unmap(CODE)

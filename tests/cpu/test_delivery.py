"""Exceptions and interrupts through the guest's own IDT: frames, rings, stacks, checks, double and triple faults."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mmuemu.cpu.bare import BareMetal
from mmuemu.cpu.cpu import Stop
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.registers import MSR_LSTAR, MSR_STAR
from mmuemu.x86.segments import KERNEL_CS, KERNEL_GDT, STAR, USER_CS, USER_SS

TABLES, HANDLERS, KSTACK, IST, KCODE = (0xFFFF_8000_0000_0000 + n * 0x10_0000 for n in range(5))
CODE, DATA, USTACK = 0x40_0000, 0x60_0000, 0x70_0000
TSS_SELECTOR = 0x40
INTERRUPT, TRAP = 0xE, 0xF


@dataclass
class Rig:
    """A bare machine: GDT with a TSS, an IDT whose handlers do HLT, user and kernel stacks."""

    mmu: object
    bare: BareMetal

    @property
    def cpu(self):
        return self.mmu.cpu

    def gate(self, vector, *, dpl=0, kind=INTERRUPT, ist=0, present=True, selector=KERNEL_CS, offset=None):
        offset = HANDLERS + vector * 16 if offset is None else offset
        low = offset & 0xFFFF | selector << 16 | ist << 32 | kind << 40 | dpl << 45 | present << 47
        raw = low | (offset >> 16 & 0xFFFF) << 48 | offset >> 32 << 64
        self.poke(TABLES + 0x1000 + vector * 16, raw.to_bytes(16, "little"))

    def poke(self, linear, data):
        page = self.mmu.page_table.lookup(linear)
        self.mmu.ram.write(page.physical + (linear & 0xFFF), data)

    def words(self, linear, count):
        data = self.mmu.cpu.read_linear(linear, 8 * count)
        return [int.from_bytes(data[8 * n : 8 * n + 8], "little") for n in range(count)]

    def run(self, code, ring=3, **registers):
        self.poke(CODE if ring else KCODE, code)
        self.mmu.set_ring(ring)
        start = {"rip": CODE if ring else KCODE, "rsp": (USTACK if ring else KSTACK) + 0xFF8}
        self.cpu.set_registers(**{**start, "rflags": 0x202, **registers})
        stop = self.cpu.run(max_instructions=100_000)
        return stop, self.cpu.registers()

    def frame(self, registers, error=True):
        """The frame at RSP: (error code,) RIP, CS, RFLAGS, RSP, SS."""
        return self.words(registers["rsp"], 6 if error else 5)


@pytest.fixture
def rig(mmu):
    tss = 0x8900_0000_0067 | (TABLES + 0x2000 & 0xFF_FFFF) << 16 | (TABLES + 0x2000 >> 24 & 0xFF) << 56
    gdt = [*KERNEL_GDT, 0, tss, TABLES + 0x2000 >> 32]
    mmu.map(TABLES, b"".join(entry.to_bytes(8, "little") for entry in gdt), "rw-", user=False)
    mmu.map(TABLES + 0x1000, 4096, "rw-", user=False)
    state = bytearray(104)
    state[4:12] = (KSTACK + 0x1000).to_bytes(8, "little")
    state[36:44] = (IST + 0x1000).to_bytes(8, "little")
    mmu.map(TABLES + 0x2000, bytes(state), "rw-", user=False)
    mmu.map(HANDLERS, b"\xf4" * 4096, "r-x", user=False)
    for address, user in ((KSTACK, False), (IST, False), (USTACK, True), (DATA, True)):
        mmu.map(address, 4096, "rw-", user=user)
    mmu.map(CODE, 4096, "rwx")
    mmu.map(KCODE, 4096, "rwx", user=False)
    made = Rig(mmu, BareMetal(mmu.cpu))
    for vector in range(256):
        made.gate(vector, dpl=3 if vector in (3, 4, 0x80) else 0)
    mmu.cpu.set_gdt(TABLES, len(gdt) * 8 - 1)
    mmu.cpu.set_idt(TABLES + 0x1000, 0xFFF)
    mmu.cpu.set_tr(TSS_SELECTOR, TABLES + 0x2000, 103)
    return made


def test_a_user_page_fault_switches_stacks_and_pushes_the_frame(rig, asm):
    stop, registers = rig.run(asm("mov rdi, 0x500123; mov [rdi], rax"))
    assert stop is Stop.HALTED
    assert registers["rip"] == HANDLERS + 14 * 16 + 1
    assert registers["rsp"] == KSTACK + 0x1000 - 48
    error, rip, cs, flags, rsp, ss = rig.frame(registers)
    assert (error, rip, cs, rsp, ss) == (6, CODE + 7, USER_CS, USTACK + 0xFF8, USER_SS)
    assert flags & 0x10202 == 0x10202, "IF as it was, RF set for a fault"
    assert registers["rflags"] & 0x300 == 0, "an interrupt gate clears IF"
    assert rig.cpu.cpl == 0
    from unicorn.x86_const import UC_X86_REG_CR2, UC_X86_REG_SS

    assert rig.cpu.uc.reg_read(UC_X86_REG_CR2) == 0x50_0123
    assert rig.cpu.uc.reg_read(UC_X86_REG_SS) == 0, "SS becomes NULL on a ring change"


def test_a_trap_gate_keeps_if(rig):
    rig.gate(Vector.UD, kind=TRAP)
    _, registers = rig.run(b"\x0f\x0b")
    assert registers["rflags"] & 0x200


def test_a_same_ring_exception_needs_no_tss_and_aligns_the_stack(rig):
    rig.cpu.set_tr(0, 0, 0)
    _, registers = rig.run(b"\x0f\x0b", ring=0, rsp=KSTACK + 0xFF3)
    assert registers["rsp"] == KSTACK + 0xFF0 - 40
    rip, cs, _, rsp, ss = rig.frame(registers, error=False)
    assert (rip, cs, rsp, ss) == (KCODE, 0x10, KSTACK + 0xFF3, 0x18)


def test_an_interrupt_stack(rig):
    rig.gate(Vector.UD, ist=1)
    _, registers = rig.run(b"\x0f\x0b", ring=0)
    assert registers["rsp"] == IST + 0x1000 - 40


@pytest.mark.parametrize(("code", "vector", "length"), [(b"\xcc", 3, 1), (b"\xcd\x80", 0x80, 2), (b"\xcd\x03", 3, 2)])
def test_a_software_interrupt_returns_behind_itself(rig, code, vector, length):
    _, registers = rig.run(code)
    assert registers["rip"] == HANDLERS + vector * 16 + 1
    rip, _, flags, *_ = rig.frame(registers, error=False)
    assert rip == CODE + length
    assert not flags & 0x10000, "no RF for traps"


@pytest.mark.parametrize("vector", [0, 14, 0x21])
def test_a_software_interrupt_checks_the_gates_dpl(rig, vector):
    _, registers = rig.run(b"\x90\xcd" + bytes([vector]))
    error, rip, *_ = rig.frame(registers)
    assert registers["rip"] == HANDLERS + 13 * 16 + 1
    assert (error, rip) == (vector * 8 + 2, CODE + 1)


def test_an_exception_does_not_check_the_gates_dpl(rig):
    _, registers = rig.run(b"\xf4")
    assert registers["rip"] == HANDLERS + 13 * 16 + 1


# (what is broken, how, the exception in the end, its error code)
BROKEN = [
    ("not present", {"present": False}, Vector.NP, 6 * 8 + 2 + 1),
    ("call gate", {"kind": 0xC}, Vector.GP, 6 * 8 + 2 + 1),
    ("null selector", {"selector": 0}, Vector.GP, 1),
    ("data selector", {"selector": 0x18}, Vector.GP, 0x18 + 1),
    ("32-bit code", {"selector": 0x20}, Vector.GP, 0x20 + 1),
    ("selector beyond the table", {"selector": 0x1000}, Vector.GP, 0x1000 + 1),
    ("non-canonical offset", {"offset": 1 << 60}, Vector.GP, 1),
]


@pytest.mark.parametrize(("how", "vector", "error"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_bad_gate(rig, how, vector, error):
    rig.gate(Vector.UD, **how)
    _, registers = rig.run(b"\x0f\x0b")
    assert registers["rip"] == HANDLERS + vector * 16 + 1
    assert rig.frame(registers)[0] == error
    assert rig.frame(registers)[1] == CODE


def test_a_vector_beyond_the_idt(rig):
    rig.cpu.set_idt(TABLES + 0x1000, 0x20 * 16 - 1)
    _, registers = rig.run(b"\xcd\x80")
    assert registers["rip"] == HANDLERS + 13 * 16 + 1
    assert rig.frame(registers)[0] == 0x80 * 8 + 2


def test_contributory_faults_become_a_double_fault(rig):
    rig.gate(Vector.GP, present=False)
    _, registers = rig.run(b"\xf4")
    assert registers["rip"] == HANDLERS + 8 * 16 + 1
    assert rig.frame(registers)[:2] == [0, CODE]


def test_a_page_fault_while_delivering_a_page_fault_is_a_double_fault(rig, asm):
    rig.gate(Vector.DF, ist=1)
    _, registers = rig.run(asm("mov rsp, 0x500000; mov rax, [rsp]"), ring=0)
    assert registers["rip"] == HANDLERS + 8 * 16 + 1
    assert registers["rsp"] == IST + 0x1000 - 48


def test_a_benign_exception_that_faults_is_delivered_as_the_fault(rig):
    rig.gate(Vector.PF, ist=1)
    _, registers = rig.run(b"\x0f\x0b", ring=0, rsp=0x50_0000)
    assert registers["rip"] == HANDLERS + 14 * 16 + 1
    assert rig.frame(registers)[:2] == [2, KCODE]


def test_a_triple_fault_ends_the_run_and_tells_the_chain(rig):
    rig.gate(Vector.GP, present=False)
    rig.gate(Vector.DF, present=False)
    stop, registers = rig.run(b"\x90\xf4")
    assert stop is Stop.REQUESTED
    assert registers["rip"] == CODE + 1, "nothing has changed"
    assert [event.vector for event in rig.bare.shutdown.chain] == [13, 8, 11]
    assert str(rig.bare.shutdown).startswith("#GP(0x0) -> #DF(0x0)")


def test_iretq_goes_back(rig, asm):
    rig.poke(HANDLERS, b"\xf4" * 0x60 + b"\x48\x83\x04\x24\x02\x48\xcf")  # add qword ptr [rsp], 2; iretq
    _, registers = rig.run(b"\x0f\x0b" * 3 + b"\xcd\x80")
    assert registers["rip"] == HANDLERS + 0x80 * 16 + 1
    assert rig.frame(registers, error=False)[:2] == [CODE + 8, USER_CS]
    assert rig.frame(registers, error=False)[3:] == [USTACK + 0xFF8, USER_SS]


def test_a_nested_exception_in_the_handler_stays_on_its_stack(rig, asm):
    rig.poke(HANDLERS, b"\xf4" * 0x60 + b"\xcc")
    _, registers = rig.run(b"\x0f\x0b")
    assert registers["rip"] == HANDLERS + 3 * 16 + 1
    assert registers["rsp"] == KSTACK + 0x1000 - 40 - 8 - 40


def test_an_external_interrupt_has_no_error_code(rig, asm):
    rig.run(asm("l: jmp l"), rflags=0x202)
    assert rig.bare.interruptible
    rig.bare.interrupt(0x30)
    assert rig.cpu.run() is Stop.HALTED
    registers = rig.cpu.registers()
    assert registers["rip"] == HANDLERS + 0x30 * 16 + 1
    assert rig.frame(registers, error=False)[:2] == [CODE, USER_CS]
    assert not rig.bare.interruptible


def test_sti_has_a_shadow(rig, asm):
    rig.poke(KCODE, asm("sti; nop; l: jmp l"))
    rig.mmu.set_ring(0)
    rig.cpu.set_registers(rip=KCODE, rflags=0x2)
    states = []
    for _ in range(3):
        rig.cpu.run(max_instructions=1)
        states.append(rig.bare.interruptible)
    assert states == [False, True, True]


def test_syscall_needs_efer_sce(rig, asm):
    rig.cpu.uc.msr_write(0xC000_0080, 0xD00)
    _, registers = rig.run(asm("nop; syscall"))
    assert registers["rip"] == HANDLERS + 6 * 16 + 1
    assert rig.frame(registers, error=False)[0] == CODE + 1


def test_syscall_enters_the_guests_kernel(rig, asm):
    rig.cpu.uc.msr_write(MSR_STAR, STAR)
    rig.cpu.uc.msr_write(MSR_LSTAR, HANDLERS)
    _, registers = rig.run(asm("syscall"))
    assert (registers["rip"], registers["rcx"]) == (HANDLERS + 1, CODE + 2)


def test_rdpid_is_emulated(rig):
    rig.cpu.uc.msr_write(0xC000_0103, 0x1234)
    _, registers = rig.run(b"\xf3\x41\x0f\xc7\xf9\x0f\x0b")
    assert registers["r9"] == 0x1234
    assert rig.frame(registers, error=False)[0] == CODE + 5


@pytest.mark.parametrize(
    ("kind", "pcid", "linear", "outcome"),
    [
        (2, 0, 0, None),
        (3, 0, 0, None),
        (0, 0, 0x1000, None),
        (4, 0, 0, 13),
        (1, 1 << 12, 0, 13),
        (0, 0, 1 << 60, 13),
        (1, 1, 0, 13),
    ],
)
def test_invpcid(rig, kind, pcid, linear, outcome):
    rig.poke(KSTACK, pcid.to_bytes(8, "little") + linear.to_bytes(8, "little"))
    seen = []
    rig.cpu.privileged.observers.append(lambda *event: seen.append(event))
    _, registers = rig.run(b"\x66\x0f\x38\x82\x0f\xf4", ring=0, rdi=KSTACK, rcx=kind)
    if outcome is None:
        assert registers["rip"] == KCODE + 6
        assert seen == [("invpcid", kind << 12 | pcid, linear)]
    else:
        assert registers["rip"] == HANDLERS + outcome * 16 + 1
        assert rig.frame(registers)[:2] == [0, KCODE]


def test_invpcid_in_ring_3_is_gp(rig):
    _, registers = rig.run(b"\x66\x0f\x38\x82\x0f", rdi=DATA)
    assert registers["rip"] == HANDLERS + 13 * 16 + 1


def test_single_step_is_a_trap_after_each_instruction(rig):
    _, registers = rig.run(b"\x90\x90", rflags=0x302)
    assert registers["rip"] == HANDLERS + 16 + 1
    rip, _, flags, *_ = rig.frame(registers, error=False)
    assert (rip, flags & 0x10100) == (CODE + 1, 0x100), "behind the instruction, TF as it was, no RF"
    assert not registers["rflags"] & 0x100


def test_an_instruction_breakpoint_is_a_fault_that_iretq_steps_over(rig, asm):
    from unicorn.x86_const import UC_X86_REG_DR6

    rig.poke(HANDLERS, b"\xf4" * 16 + b"\x48\xff\xc3\x48\xcf")  # vector 1: inc rbx; iretq
    setup = asm(f"mov rax, {KCODE + 0x40}; mov dr0, rax; mov eax, 0x402; mov dr7, rax; jmp {KCODE + 0x40}", KCODE)
    code = setup.ljust(0x40, b"\x90") + b"\x48\xff\xc1" + b"\xf4"
    stop, registers = rig.run(code, ring=0, rbx=0, rcx=0)
    assert stop is Stop.HALTED
    assert (registers["rbx"], registers["rcx"], registers["rip"]) == (1, 1, KCODE + 0x44)
    assert rig.cpu.uc.reg_read(UC_X86_REG_DR6) & 1
    rig.run(asm("xor eax, eax; mov dr7, rax"), ring=0)


def test_int1_is_a_debug_exception(rig):
    _, registers = rig.run(b"\xf1")
    assert registers["rip"] == HANDLERS + 16 + 1
    assert rig.frame(registers, error=False)[0] == CODE + 1


def test_sysenter(rig, asm):
    assert rig.run(b"\x90\x0f\x34")[1]["rip"] == HANDLERS + 13 * 16 + 1
    for msr, value in ((0x174, KERNEL_CS), (0x175, KSTACK + 0x800), (0x176, HANDLERS + 0x700)):
        rig.cpu.uc.msr_write(msr, value)
    _, registers = rig.run(b"\x0f\x34")
    assert (registers["rip"], registers["rsp"]) == (HANDLERS + 0x701, KSTACK + 0x800)
    assert rig.cpu.cpl == 0
    assert not registers["rflags"] & 0x200


def test_an_nmi_blocks_the_next_until_an_iret(rig, asm):
    rig.poke(HANDLERS, b"\xf4" * 32 + b"\x90\x90\x48\xcf")  # vector 2: nop; nop; iretq
    rig.poke(KCODE, asm("l: jmp l"))
    rig.mmu.set_ring(0)
    rig.cpu.set_registers(rip=KCODE, rsp=KSTACK + 0xFF8, rflags=2)
    for _ in range(3):
        rig.cpu.run(max_instructions=10)
        assert not rig.bare.nmi_blocked
        rig.bare.interrupt(2, nmi=True)
        rig.cpu.run(max_instructions=2)
        assert rig.bare.nmi_blocked
        assert rig.cpu.rip == HANDLERS + 34
        assert rig.cpu.run(max_instructions=1000) is Stop.REQUESTED
        assert not rig.bare.nmi_blocked
        assert rig.cpu.rip == KCODE, "the run ends right behind the IRET"


def test_iretq_to_compatibility_mode_and_back(rig, asm):
    """Ring 0 enters 32-bit code in ring 3; its INT 0x80 comes back to the 64-bit handler."""
    rig.poke(CODE, b"\x48\x40\x40\x67\x8d\x00\xcd\x80")  # in 32-bit code: dec eax; inc eax; inc eax; lea; int 0x80
    enter = asm(f"push 0x2b; push {USTACK + 0x800}; push 0x202; push 0x23; push {CODE}; xor eax, eax; iretq", KCODE)
    rig.poke(KCODE, enter)
    rig.mmu.set_ring(0)
    rig.cpu.set_registers(rip=KCODE, rsp=KSTACK + 0x800, rflags=2)
    assert rig.cpu.run(max_instructions=1000) is Stop.HALTED
    registers = rig.cpu.registers()
    assert registers["rip"] == HANDLERS + 0x80 * 16 + 1
    rip, cs, _, rsp, ss = rig.frame(registers, error=False)
    assert (rip, cs, rsp, ss) == (CODE + 8, 0x23, USTACK + 0x800, USER_SS)
    assert registers["rsp"] == KSTACK + 0x1000 - 40, "the 64-bit frame, on the stack of the TSS"


def test_a_call_gate_leads_into_ring_0(rig, asm):
    entry = HANDLERS + 0x900
    gate = entry & 0xFFFF | KERNEL_CS << 16 | 0xEC << 40 | (entry >> 16 & 0xFFFF) << 48 | entry >> 32 << 64
    rig.poke(TABLES + 0x60, gate.to_bytes(16, "little"))
    rig.cpu.set_gdt(TABLES, 0x6F)
    rig.poke(DATA, (0).to_bytes(8, "little") + (0x63).to_bytes(2, "little"))
    _, registers = rig.run(b"\x48\xff\x1f", rdi=DATA)
    assert registers["rip"] == entry + 1
    assert rig.cpu.cpl == 0
    rip, cs, rsp, ss = rig.words(registers["rsp"], 4)
    assert (rip, cs, rsp, ss) == (CODE + 3, USER_CS, USTACK + 0xFF8, USER_SS)


@pytest.mark.parametrize("kind", [1, 3], ids=["writes", "accesses"])
def test_a_data_breakpoint_is_a_trap_behind_the_access(rig, asm, kind):
    """Four bytes at DATA + 0x10 are watched; a write beside them is not reported."""
    from unicorn.x86_const import UC_X86_REG_DR6

    rig.poke(HANDLERS, b"\xf4" * 16 + b"\x48\xff\xc3\x48\xcf")  # vector 1: inc rbx; iretq
    seen = []
    rig.bare.on_event = lambda chain: seen.append((chain[0].vector, chain[0].rip))
    source = f"""
        mov rdi, {DATA + 0x10}; mov dr1, rdi; mov eax, {4 | kind << 20 | 3 << 22}; mov dr7, rax
        mov eax, [rdi]; mov [rdi + 4], eax; mov byte ptr [rdi + 2], 7; mov [rdi - 8], rax
        xor eax, eax; mov dr7, rax; mov [rdi], eax
    """
    code = asm(source, KCODE)
    stop, registers = rig.run(code + b"\xf4", ring=0, rbx=0)
    assert stop is Stop.HALTED
    read_end = len(asm(source.split("mov eax, [rdi];")[0] + "mov eax, [rdi]", KCODE))
    write_end = len(asm(source.split("mov [rdi - 8]")[0], KCODE))
    expected = [(1, KCODE + write_end)] if kind == 1 else [(1, KCODE + read_end), (1, KCODE + write_end)]
    assert seen == expected
    assert registers["rbx"] == len(expected)
    assert rig.cpu.uc.reg_read(UC_X86_REG_DR6) & 0xF == 2

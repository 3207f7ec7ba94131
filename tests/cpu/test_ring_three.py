"""SYSCALL of any length, SYSRET's checks, and ring 3 reading descriptors and far-returning, as hardware does it."""

from __future__ import annotations

import pytest
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc
from unicorn import x86_const as ux

from mmuemu.cpu.attach import attach
from mmuemu.cpu.bare import BareMetal
from mmuemu.cpu.cpu import Stop
from mmuemu.cpu.modelled import model_tlb
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.registers import CR4_SMAP, CR4_SMEP, MSR_LSTAR, MSR_STAR
from mmuemu.x86.segments import KERNEL_GDT, STAR, USER32_CS, USER_CS, USER_SS, code64, data

TABLES, HANDLERS, KSTACK, KCODE = (0xFFFF_8000_0000_0000 + n * 0x10_0000 for n in range(4))
CODE, DATA, USTACK = 0x40_0000, 0x60_0000, 0x70_0000
TSS = TABLES + 0x2000
CALL_GATE = 0x50
NOT_PRESENT, UNACCESSED, CONFORMING_0 = 0x63, 0x6B, 0x70


class Rig:
    """Supervisor tables, ring 3 with a stack of its own, handlers that halt; SMEP and SMAP on."""

    def __init__(self, mmu) -> None:
        self.mmu, self.cpu = mmu, mmu.cpu
        tss = 0x8900_0000_0067 | (TSS & 0xFF_FFFF) << 16 | (TSS >> 24 & 0xFF) << 56
        gate = 0xEC00 << 32 | 0x10 << 16 | HANDLERS & 0xFFFF | (HANDLERS >> 16 & 0xFFFF) << 48
        present, accessed = 1 << 47, 1 << 40
        gdt = [*KERNEL_GDT, 0, tss, TSS >> 32, gate, HANDLERS >> 32, data(3) & ~present, data(3) & ~accessed]
        assert len(gdt) * 8 == 0x70
        gdt.append(code64(0))
        self.map(TABLES, b"".join(entry.to_bytes(8, "little") for entry in gdt), user=False)
        self.map(TABLES + 0x1000, 4096, user=False)
        self.map(TSS, bytes(4) + (KSTACK + 0x1000).to_bytes(8, "little") + bytes(92), user=False)
        self.map(HANDLERS, b"\xf4" * 4096, user=False, permissions="r-x")
        self.map(KSTACK, 4096, user=False)
        self.map(KCODE, 4096, user=False, permissions="rwx")
        for page in (DATA, USTACK):
            self.map(page, 4096, user=True)
        self.map(CODE, 4096, user=True, permissions="rwx")
        self.bare = BareMetal(mmu.cpu)
        for vector in range(32):
            offset = HANDLERS + 16 * vector
            raw = offset & 0xFFFF | 0x10 << 16 | 0x8E00 << 32 | (offset >> 16 & 0xFFFF) << 48 | offset >> 32 << 64
            self.poke(TABLES + 0x1000 + vector * 16, raw.to_bytes(16, "little"))
        cpu = self.cpu
        cpu.set_gdt(TABLES, len(gdt) * 8 - 1)
        cpu.set_idt(TABLES + 0x1000, 0x1FF)
        cpu.set_tr(0x40, TSS, 103)
        cpu.uc.msr_write(MSR_STAR, STAR)
        cpu.uc.msr_write(MSR_LSTAR, HANDLERS + 0x800)
        paging = cpu.paging
        cpu.uc.reg_write(ux.UC_X86_REG_CR4, paging.cr4 | CR4_SMEP | CR4_SMAP)
        cpu.flush_tlb()

    def map(self, linear, content, *, user, permissions="rw-"):
        self.mmu.map(linear, content, permissions, user=user)

    def poke(self, linear, data):
        page = self.mmu.page_table.lookup(linear)
        self.mmu.ram.write((page.physical & ~0xFFF) + (linear & 0xFFF), data)

    def words(self, linear, count):
        raw = self.cpu.read_linear(linear, 8 * count)
        return [int.from_bytes(raw[8 * n : 8 * n + 8], "little") for n in range(count)]

    def start(self, code, ring=3, **registers):
        at = CODE if ring else KCODE
        self.poke(at, code)
        self.cpu.engine.forget_code(self.mmu.page_table.lookup(at).physical & ~0xFFF)
        self.mmu.set_ring(ring)
        top = (USTACK if ring else KSTACK) + 0xF00
        self.cpu.set_registers(**{"rip": at, "rsp": top, "rflags": 0x202, **registers})
        assert self.cpu.run(max_instructions=100_000) is Stop.HALTED
        return self.cpu.registers()

    def fault(self, registers):
        """(vector, error code, RIP) of the fault whose handler halted; the stack holds its frame."""
        vector = (registers["rip"] - 1 - HANDLERS) // 16
        assert 0 <= vector < 32, hex(registers["rip"])
        error, rip = self.words(registers["rsp"], 2)
        return vector, error, rip


@pytest.fixture(params=["python", "native", "modelled"])
def rig(request):
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.ctl_set_cpu_model(ux.UC_CPU_X86_ICELAKE_SERVER)
    mmu = attach(uc, memory="32M", mmu="native" if request.param == "native" else "python")
    made = Rig(mmu)
    if request.param == "modelled":
        model_tlb(mmu.cpu)
    yield made
    mmu.detach()


# -- SYSCALL, SYSRET, SYSENTER -----------------------------------------------------------------------------


@pytest.mark.parametrize("prefixes", ["", "48", "66", "6648", "f3", "2e2e2e48", "66" * 10])
def test_rcx_is_after_the_whole_syscall(rig, prefixes):
    code = bytes.fromhex(prefixes) + b"\x0f\x05"
    for _ in range(2):
        registers = rig.start(code)
        assert registers["rcx"] == CODE + len(code)
        assert registers["rip"] == HANDLERS + 0x801


def test_another_syscall_at_the_same_address(rig):
    for code in (b"\x0f\x05", b"\x48\x0f\x05", b"\x0f\x05", b"\x66\x48\x0f\x05"):
        assert rig.start(code)["rcx"] == CODE + len(code)
    rig.start(b"\x0f\x05")
    rig.mmu.unmap(CODE)
    rig.mmu.map(CODE + 4096, 4096, "rwx")  # takes the frame that was given back
    rig.mmu.map(CODE, b"\x66\x66\x0f\x05", "rwx")
    rig.mmu.set_ring(3)
    rig.cpu.set_registers(rip=CODE)
    rig.cpu.run(max_instructions=10)
    assert rig.cpu.registers()["rcx"] == CODE + 4


@pytest.mark.parametrize("prefixes", ["", "48", "6666"])
def test_sysenter_of_any_length(rig, prefixes):
    for msr, value in ((0x174, 0x10), (0x175, KSTACK + 0x800), (0x176, HANDLERS + 0x900)):
        rig.cpu.uc.msr_write(msr, value)
    registers = rig.start(bytes.fromhex(prefixes) + b"\x0f\x34")
    assert (registers["rip"], registers["rsp"]) == (HANDLERS + 0x901, KSTACK + 0x800)


def test_syscall_in_compatibility_mode_is_undefined(rig):
    # lretq to 32-bit code at CODE + 64, which does syscall
    rig.poke(CODE + 64, b"\x0f\x05")
    top = USTACK + 0xE00
    rig.poke(top, (CODE + 64).to_bytes(8, "little") + USER32_CS.to_bytes(8, "little"))
    registers = rig.start(b"\x48\xcb", rsp=top)
    assert registers["rip"] == HANDLERS + 6 * 16 + 1
    assert rig.words(registers["rsp"], 2) == [CODE + 64, USER32_CS]


@pytest.mark.parametrize("target", [1 << 47, 1 << 63, 0xFFFF_7FFF_FFFF_FFFF])
def test_sysretq_to_a_non_canonical_address(rig, target):
    registers = rig.start(b"\x48\x0f\x07", ring=0, rcx=target, r11=0x202)
    assert rig.fault(registers) == (Vector.GP, 0, KCODE)
    assert rig.words(registers["rsp"], 3)[2] == 0x10  # from ring 0, on its stack


@pytest.mark.parametrize("junk", [0, 1 << 47])
def test_sysretq_works(rig, junk):
    rig.poke(CODE, b"\x0f\x05")
    registers = rig.start(b"\x48\x0f\x07", ring=0, rcx=CODE, r11=0x202, rdx=junk)
    assert registers["rip"] == HANDLERS + 0x801
    assert (registers["rcx"], registers["rdx"]) == (CODE + 2, junk)


def test_sysexit_to_a_non_canonical_address(rig):
    rig.cpu.uc.msr_write(0x174, 0x10)
    registers = rig.start(b"\x48\x0f\x35", ring=0, rcx=USTACK, rdx=1 << 50)
    assert rig.fault(registers) == (Vector.GP, 0, KCODE)


# -- descriptors read in ring 3 ----------------------------------------------------------------------------

LOADS = {
    "ds": "8ed8", "es": "8ec0", "fs": "8ee0", "gs": "8ee8", "ss": "8ed0", "pop fs": "500fa1", "pop gs": "500fa9",
    "lss": "0fb207", "lfs": "0fb427", "lgs": "0fb52f",
}  # fmt: skip
DONE = b"\x31\xc9\xff\xc1\x0f\x05"  # xor ecx, ecx; inc ecx; syscall


@pytest.mark.parametrize("name", LOADS)
def test_a_legal_segment_load(rig, name):
    code = bytes.fromhex(LOADS[name]) + DONE
    rig.poke(DATA, (0).to_bytes(4, "little") + USER_SS.to_bytes(2, "little"))
    for _ in range(2):  # the second time by the cached translation
        registers = rig.start(code, rax=USER_SS, rdi=DATA)
        assert registers["rip"] == HANDLERS + 0x801, rig.fault(registers)
        assert registers["rcx"] == CODE + len(code)


def test_a_load_sets_the_accessed_bit(rig):
    registers = rig.start(b"\x8e\xd8" + DONE, rax=UNACCESSED)
    assert registers["rip"] == HANDLERS + 0x801
    assert rig.words(TABLES + (UNACCESSED & ~7), 1)[0] >> 40 & 1


@pytest.mark.parametrize(
    ("code", "selector", "vector"),
    [
        ("8ed8", 0x18, Vector.GP),  # mov ds: DPL 0
        ("8ed8", 0x7B, Vector.GP),  # beyond the limit
        ("8ed8", 0x42, Vector.GP),  # the TSS
        ("8ed8", NOT_PRESENT, Vector.NP),
        ("8ed0", NOT_PRESENT, Vector.SS),
        ("8ed0", USER_CS, Vector.GP),  # a code segment
        ("8ed0", 0x28, Vector.GP),  # RPL 0
        ("8ed8", 0x2F, Vector.GP),  # LDT, which there is none of
        ("500fa1", 0x18, Vector.GP),
    ],
)
def test_a_bad_selector(rig, code, selector, vector):
    registers = rig.start(bytes.fromhex(code) + DONE, rax=selector)
    assert rig.fault(registers) == (vector, selector & 0xFFFC, CODE + (len(code) // 2 - 2))


@pytest.mark.parametrize(("selector", "readable"), [(USER_SS, 1), (0x18, 0), (0x7B, 0)])
def test_verr_lar_lsl(rig, selector, readable):
    for code in ("0f00e0", "0f02d8", "0f03d8"):  # verr ax; lar ebx, eax; lsl ebx, eax
        registers = rig.start(bytes.fromhex(code) + b"\x0f\x05", rax=selector)
        assert registers["rip"] == HANDLERS + 0x801
        assert registers["r11"] >> 6 & 1 == readable, code


def test_the_user_still_cannot_read_the_table(rig):
    load = b"\x48\x8b\x1f"  # mov rbx, [rdi]
    assert rig.start(b"\x8e\xd8" + load, rax=USER_SS, rdi=TABLES)["rip"] == HANDLERS + 14 * 16 + 1
    registers = rig.start(b"\x8e\xd8" + load, rax=USER_SS, rdi=TABLES + 8)
    assert rig.fault(registers) == (Vector.PF, 5, CODE + 2)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("source", ["8e1f", "0fb207", "0f0027"])
def test_an_operand_in_the_table_is_the_users_own_access(rig, source, warm):
    """mov ds, [rdi]; lss eax, [rdi]; verr [rdi]: the selector's address is refused, whatever the descriptor's is."""
    if warm:
        rig.start(b"\x8e\xd8" + DONE, rax=USER_SS)
    registers = rig.start(bytes.fromhex(source), rdi=TABLES + USER_SS - 3)
    assert rig.fault(registers) == (Vector.PF, 5, CODE)
    assert rig.start(bytes.fromhex("0fa1"), rsp=TABLES + 8)["rip"] == HANDLERS + 14 * 16 + 1


def test_a_table_that_is_not_mapped_is_a_supervisors_fault(rig):
    rig.cpu.set_gdt(TABLES + 0x4000, 0x7F)
    rig.mmu.set_ring(3)
    rig.poke(CODE, b"\x8e\xd8")
    rig.cpu.set_registers(rip=CODE, rsp=USTACK + 0x800, rax=USER_SS, rflags=0x202)
    seen = []
    rig.bare.on_event = seen.extend
    rig.cpu.run(max_instructions=100)
    assert (seen[0].vector, seen[0].error_code, seen[0].address) == (Vector.PF, 0, TABLES + 0x4000 + USER_SS - 3)


def test_a_call_gate_reads_the_task_state_and_pushes_on_the_inner_stack(rig):
    rig.poke(DATA, bytes(4) + (CALL_GATE | 3).to_bytes(2, "little"))
    registers = rig.start(b"\xff\x1f", rdi=DATA)  # call far [rdi]
    assert registers["rip"] == HANDLERS + 1
    assert registers["rsp"] == KSTACK + 0x1000 - 32
    frame = rig.words(registers["rsp"], 4)
    assert frame == [CODE + 2, USER_CS, USTACK + 0xF00, USER_SS]


# -- far returns in ring 3 ---------------------------------------------------------------------------------


def iret_frame(rip=CODE + 64, cs=USER_CS, flags=0x202, rsp=USTACK + 0x700, ss=USER_SS):
    return b"".join(word.to_bytes(8, "little") for word in (rip, cs, flags, rsp, ss))


@pytest.mark.parametrize("top", [USTACK + 0x800, USTACK + 0x801])
def test_iretq_within_ring_3(rig, top):
    rig.poke(CODE + 64, b"\x0f\x05")
    rig.poke(top, iret_frame(flags=0x246))
    for _ in range(2):
        registers = rig.start(b"\x48\xcf", rsp=top)
        assert registers["rip"] == HANDLERS + 0x801, rig.fault(registers)
        assert (registers["rcx"], registers["rsp"], registers["r11"]) == (CODE + 66, USTACK + 0x700, 0x246)
        assert rig.cpu.paging.cr4 & CR4_SMAP


def test_smap_holds_after_an_iretq(rig):
    rig.poke(CODE + 64, b"\x0f\x05")
    rig.poke(USTACK + 0x800, iret_frame())
    rig.poke(HANDLERS + 0x800, b"\x48\x89\xec\x48\x8b\x07\xf4")  # mov rsp, rbp; mov rax, [rdi]
    registers = rig.start(b"\x48\xcf", rsp=USTACK + 0x800, rdi=USTACK, rbp=KSTACK + 0x800)
    assert rig.fault(registers) == (Vector.PF, 1, HANDLERS + 0x803)


@pytest.mark.parametrize(
    ("frame", "vector", "code"),
    [
        ({"cs": 0x10}, Vector.GP, 0x10),
        ({"cs": 0x13}, Vector.GP, 0x10),
        ({"cs": USER_SS}, Vector.GP, USER_SS & ~3),
        ({"cs": 0}, Vector.GP, 0),
        ({"cs": 0x7B}, Vector.GP, 0x78),
        ({"ss": 0x18}, Vector.GP, 0x18),
        ({"ss": NOT_PRESENT}, Vector.SS, NOT_PRESENT & ~3),
        ({"ss": 0}, Vector.GP, 0),
    ],
)
def test_iretq_with_a_bad_frame(rig, frame, vector, code):
    rig.poke(CODE + 64, b"\x0f\x05")
    rig.poke(USTACK + 0x800, iret_frame(**frame))
    registers = rig.start(b"\x48\xcf", rsp=USTACK + 0x800)
    assert rig.fault(registers) == (vector, code, CODE)
    assert rig.words(registers["rsp"], 6)[4] == USTACK + 0x800


@pytest.mark.parametrize("top", [KSTACK + 0x100, USTACK + 0xFF0])
def test_iretq_with_a_stack_that_is_not_the_users(rig, top):
    """The kernel's stack, and a frame that runs into a page that is not there."""
    if top > KSTACK:
        rig.poke(top, iret_frame())
    rig.cpu.flush_tlb()
    registers = rig.start(b"\x48\xcf", rsp=top)
    expected = (Vector.PF, 5 if top > KSTACK else 4, CODE)
    assert rig.fault(registers) == expected


def test_lretq_within_ring_3(rig):
    rig.poke(CODE + 64, b"\x0f\x05")
    rig.poke(USTACK + 0x800, (CODE + 64).to_bytes(8, "little") + USER_CS.to_bytes(8, "little"))
    registers = rig.start(b"\x48\xcb", rsp=USTACK + 0x800)
    assert (registers["rip"], registers["rsp"]) == (HANDLERS + 0x801, USTACK + 0x810)

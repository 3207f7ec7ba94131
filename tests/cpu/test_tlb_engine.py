"""The TLB model in the engine: code in ring 0 changes its page tables and sees what hardware would show it."""

from __future__ import annotations

import pytest
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc

from mmuemu.cpu.attach import attach
from mmuemu.cpu.bare import BareMetal
from mmuemu.cpu.cpu import Stop
from mmuemu.cpu.modelled import model_tlb
from mmuemu.errors import UsageError
from mmuemu.mmu.state import PagingState
from mmuemu.mmu.tlb import GLOBAL, Tlb
from mmuemu.x86.paging import NX, PS, RW, SIZE_2M, US, A, D, G, P
from mmuemu.x86.registers import CR4_PCIDE, CR4_PGE
from mmuemu.x86.segments import KERNEL_CS, KERNEL_GDT

CODE, STACK, TABLES, HANDLERS, SELF = (0xFFFF_8000_0000_0000 + n * 0x20_0000 for n in range(5))
DATA = 0x60_0000
"""The page whose entry changes: its PTE is mapped at SELF + PTE_OFFSET."""
PTE = SELF + (DATA >> 12 & 511) * 8
NEXT_PTE = PTE + 8
ONE, TWO = 0x1111, 0x2222


class Machine:
    """Ring 0 on a bare machine. DATA and the page after it map frame ``one``; ``two`` is the other frame."""

    def __init__(self, strict=False, capacity=1536, flags=P | RW):
        self.mmu = attach(Uc(UC_ARCH_X86, UC_MODE_64), memory="32M")
        self.cpu = self.mmu.cpu
        self.seen = []
        self.growth = None
        self.mmu.map(CODE, 4096, "rwx", user=False)
        self.mmu.map(STACK, 4096, "rw-", user=False)
        self.one, self.two = (self.mmu.frames.allocate() for _ in range(2))
        self.mmu.ram.write(self.one, ONE.to_bytes(8, "little"))
        self.mmu.ram.write(self.two, TWO.to_bytes(8, "little"))
        for page in (DATA, DATA + 4096):
            self.mmu.page_table.map(page, self.one, flags)
        self.table = self.mmu.page_table.lookup(DATA).entry_address & ~0xFFF
        self.mmu.page_table.map(SELF, self.table, P | RW)
        self.interrupts()
        self.bare = BareMetal(self.cpu)
        self.model = model_tlb(self.cpu, Tlb(capacity), on_stale=self.seen.append if strict else None)

    def interrupts(self):
        """#PF arrives at HANDLERS, which does HLT."""
        gdt = b"".join(entry.to_bytes(8, "little") for entry in KERNEL_GDT)
        self.mmu.map(TABLES, gdt, "rw-", user=False)
        low = HANDLERS & 0xFFFF | KERNEL_CS << 16 | 0x8E << 40 | (HANDLERS >> 16 & 0xFFFF) << 48
        self.mmu.map(TABLES + 0x1000, (low | HANDLERS >> 32 << 64).to_bytes(16, "little") * 32, "rw-", user=False)
        self.mmu.map(HANDLERS, b"\xf4" * 16, "r-x", user=False)
        self.cpu.set_gdt(TABLES, len(gdt) - 1)
        self.cpu.set_idt(TABLES + 0x1000, 511)

    def handle(self, code):
        """What #PF runs instead of HLT."""
        self.mmu.ram.write(self.mmu.page_table.lookup(HANDLERS).physical, code)

    def run(self, code, limit=10_000, **registers):
        """Run to HLT: the registers afterwards."""
        page = self.mmu.page_table.lookup(CODE)
        self.mmu.ram.write(page.physical, code)
        self.cpu.engine.forget_code(page.physical)
        if self.growth is not None:
            self.cpu.engine._grow_at = self.cpu.engine.fills + self.growth
        self.mmu.set_ring(0)
        start = {"rip": CODE, "rsp": STACK + 0xFF8, "rflags": 2, "rdi": DATA, "rsi": PTE}
        self.cpu.set_registers(**{**start, "r9": self.two | P | RW | A | D, **registers})
        assert self.cpu.run(max_instructions=limit) is Stop.HALTED
        return self.cpu.registers()

    def controls(self, **changes):
        state = self.cpu.paging
        values = {"cr3": state.cr3, "cr0": state.cr0, "cr4": state.cr4, "efer": state.efer} | changes
        self.cpu.set_paging(PagingState(**values))


@pytest.fixture
def machine():
    made = []

    def make(**options):
        made.append(Machine(**options))
        return made[-1]

    yield make
    for one in made:
        one.mmu.detach()


def test_a_changed_entry_counts_after_invlpg(machine, asm):
    rig = machine()
    code = "mov r10, [rdi]; mov [rsi], r9; mov r11, [rdi]; invlpg [rdi]; mov r12, [rdi]; hlt"
    registers = rig.run(asm(code))
    assert [registers[name] for name in ("r10", "r11", "r12")] == [ONE, ONE, TWO]
    assert rig.model.tlb.flushes["invlpg"] == 1


def test_a_stale_translation_outlives_the_engines_own_tlb(machine, asm):
    rig = machine()
    rig.run(asm("mov r10, [rdi]; mov [rsi], r9; hlt"))
    rig.cpu.engine.flush()
    hits = rig.model.tlb.hits
    assert rig.run(asm("mov r10, [rdi]; hlt"))["r10"] == ONE
    assert rig.model.tlb.hits > hits
    rig.cpu.flush_tlb()
    assert rig.run(asm("mov r10, [rdi]; hlt"))["r10"] == TWO
    assert rig.model.statistics()["flush: host"] == 1


def test_invlpg_of_another_page_does_not_help(machine, asm):
    code = "mov r10, [rdi]; mov [rsi], r9; invlpg [rdi + 0x1000]; mov r11, [rdi]; hlt"
    assert machine().run(asm(code))["r11"] == ONE


@pytest.mark.parametrize(
    "drop",
    ["invlpg [rdi + 0x9123]", "mov [rdi + 0x9000], r9"],
    ids=["invlpg", "page fault"],
)
def test_a_large_page_goes_as_a_whole(machine, asm, drop):
    """The engine's TLB holds it in pieces of 4 KiB; one is used, another is invalidated."""
    rig = machine()
    large = 0x4000_0000
    rig.mmu.map(large, 4096, "rw-", user=False)
    directory = rig.mmu.translate(large, user=False).steps[2].entry_address
    rig.mmu.ram.qwords[directory >> 3] = 0x20_0000 | P | A | D | PS
    for frame, value in ((0x20_3000, ONE), (0x40_3000, TWO)):
        rig.mmu.ram.write(frame, value.to_bytes(8, "little"))
    rig.mmu.page_table.map(SELF + 4096, directory & ~0xFFF, P | RW)
    rig.handle(asm("mov r12, [rdi + 0x3000]; hlt"))
    code = f"mov r10, [rdi + 0x3000]; mov [rsi], r9; mov r11, [rdi + 0x3000]; {drop}; mov r12, [rdi + 0x3000]; hlt"
    changed = 0x40_0000 | P | RW | A | D | PS
    registers = rig.run(asm(code), rdi=large, rsi=SELF + 4096 + (directory & 0xFFF), r9=changed)
    assert [registers[name] for name in ("r10", "r11", "r12")] == [ONE, ONE, TWO]
    assert (registers["rip"] > HANDLERS) == (drop[:3] == "mov")
    assert any(cached.size == SIZE_2M for cached in rig.model.tlb.entries())


@pytest.mark.parametrize(("bit63", "second"), [(1, ONE), (0, TWO)])
def test_a_pcid_switch_and_back(machine, asm, bit63, second):
    rig = machine()
    rig.controls(cr4=rig.cpu.paging.cr4 | CR4_PCIDE)
    code = """mov r10, [rdi]; mov [rsi], r9; mov rax, cr3; mov rbx, rax; or rbx, 5
        mov cr3, rbx; mov r11, [rdi]; or rax, r8; mov cr3, rax; mov r12, [rdi]; mov r13, cr3; hlt"""
    registers = rig.run(asm(code), r8=bit63 << 63)
    assert [registers[name] for name in ("r10", "r11", "r12")] == [ONE, TWO, second], "another PCID has its own"
    assert registers["r13"] >> 63 == 0
    flushes = rig.model.tlb.flushes
    assert (flushes["mov cr3"], flushes.get("mov cr3 no-flush", 0)) == (2 - bit63, bit63)


def test_without_pcids_mov_cr3_drops_all_but_global_pages(machine, asm):
    rig = machine()
    code = "mov r10, [rdi]; mov [rsi], r9; mov rax, cr3; mov cr3, rax; mov r11, [rdi]; hlt"
    assert rig.run(asm(code))["r11"] == TWO


def test_global_pages_survive_mov_cr3_and_die_with_pge(machine, asm):
    rig = machine(flags=P | RW | G)
    code = """mov r10, [rdi]; mov [rsi], r9; mov rax, cr3; mov cr3, rax; mov r11, [rdi]
        mov rax, cr4; xor rax, 0x80; mov cr4, rax; mov r12, [rdi]; xor rax, 0x80; mov cr4, rax; hlt"""
    registers = rig.run(asm(code))
    assert [registers[name] for name in ("r10", "r11", "r12")] == [ONE, ONE, TWO]
    assert rig.model.tlb.flushes["cr4.pge"] == 2
    assert rig.cpu.paging.cr4 & CR4_PGE
    assert not any(cached.tag == GLOBAL for cached in rig.model.tlb.entries() if cached.linear == DATA)


@pytest.mark.parametrize(("kind", "flags", "after"), [(0, 0, TWO), (0, G, ONE), (1, 0, TWO), (2, G, TWO), (3, G, ONE)])
def test_invpcid(machine, asm, kind, flags, after):
    rig = machine(flags=P | RW | flags)
    invpcid = b"\x66\x0f\x38\x82\x0c\x24"  # invpcid rcx, [rsp]
    code = asm("mov r10, [rdi]; mov [rsi], r9; push rdi; push 0") + invpcid + asm("mov r11, [rdi]; hlt")
    assert rig.run(code, rcx=kind)["r11"] == after
    assert rig.model.tlb.flushes == {f"invpcid {kind}": 1}


def test_a_page_fault_drops_the_stale_translation(machine, asm):
    rig = machine(flags=P)
    rig.handle(asm("mov r11, [rdi]; hlt"))
    registers = rig.run(asm("mov r10, [rdi]; mov [rsi], r9; mov [rdi + 8], r9; hlt"))
    assert registers["rip"] > HANDLERS, "a spurious fault: the entry is writable by now"
    assert (registers["r10"], registers["r11"]) == (ONE, TWO)
    assert rig.model.tlb.flushes == {"page fault": 1}


@pytest.mark.parametrize("growth", [None, 0, 1, 2, 3, 4])
def test_a_page_fault_clears_what_the_model_had_no_room_for(machine, asm, growth):
    """Also when the engine's TLB was flushed, to grow, by the very fill that the fault has to clear."""
    rig = machine(flags=P, capacity=1)
    rig.growth = growth
    rig.handle(asm("mov [rsi], r9; mov r11, [rdi]; hlt"))
    code = asm("mov r10, [rdi]; mov qword ptr [rsi], 0; mov [rdi], r9; hlt")
    registers = rig.run(code, rdi=DATA + 4096, rsi=NEXT_PTE)
    assert (registers["r10"], registers["r11"]) == (ONE, TWO)


def test_strict_reports_exactly_the_reliance(machine, asm):
    rig = machine(strict=True)
    code = """mov r10, [rdi]; mov r10, [rdi + 0x1000]; mov [rsi], r9; mov r10, [rdi + 0x1000]; mov r11, [rdi]
        invlpg [rdi]; mov r12, [rdi]; hlt"""
    registers = rig.run(asm(code))
    assert [registers[name] for name in ("r11", "r12")] == [ONE, TWO]
    assert [(use.linear, use.user) for use in rig.seen] == [(DATA, False)]
    assert rig.seen[0].cached.physical == rig.one
    assert rig.seen[0].memory.physical == rig.two


@pytest.mark.parametrize("look", ["", "mov rax, [rsi]; mov r10, [rdi];"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_strict_sees_every_store_to_a_table(machine, asm, count, look):
    """The table page stays writable in the engine's TLB for one store only, unless nothing else is used in between."""
    rig = machine(strict=True)
    store = "mov [rsi], r9; mov r11, [rdi];"
    undo = "mov [rsi], r8; mov r12, [rdi];"
    code = asm("mov r10, [rdi];" + (look + store + undo) * count + "hlt")
    rig.run(code, r8=rig.one | P | RW | A | D, rdi=DATA + 4096, rsi=NEXT_PTE)
    assert [use.linear for use in rig.seen] == [DATA + 4096] * count


def test_strict_is_silent_about_a_guest_that_invalidates(machine, asm):
    rig = machine(strict=True)
    code = "mov [rdi], r9; mov r10, [rdi]; mov [rsi], r9; invlpg [rdi]; mov r10, [rdi]; mov [rdi + 16], r9;" * 3
    rig.run(asm(code + "mov qword ptr [rsi], 0; invlpg [rdi]; mov [rsi], r9; mov r10, [rdi]; hlt"))
    assert rig.seen == []


def test_strict_knows_a_table_that_was_an_ordinary_page(machine, asm):
    """The guest fills a page with entries while the engine holds it for writing, then makes it a table."""
    rig = machine(strict=True)
    table = rig.mmu.frames.allocate()
    rig.mmu.page_table.map(SELF + 8192, table, P | RW)
    top = 0x5000_0000
    rig.mmu.map(top, 4096, "rw-", user=False)
    directory = rig.mmu.translate(top, user=False).steps[2].entry_address
    rig.mmu.page_table.map(SELF + 4096, directory & ~0xFFF, P | RW)
    code = """mov [rcx], r8; mov [rdx], rbx; invlpg [rdi]; mov r10, [rdi]; mov [rcx], r9; mov r11, [rdi]; hlt"""
    registers = rig.run(
        asm(code),
        rdi=top,
        rcx=SELF + 8192,
        rdx=SELF + 4096 + (directory & 0xFFF),
        rbx=table | P | RW | US,
        r8=rig.one | P | RW | A | D,
    )
    assert (registers["r10"], registers["r11"]) == (ONE, ONE)
    assert [use.linear for use in rig.seen] == [top]


def test_turning_paging_off_drops_everything(machine, asm):
    """Told by the event alone: the switch itself needs code in compatibility mode."""
    rig = machine()
    rig.run(asm("mov r10, [rdi]; hlt"))
    rig.model.observe("cr0", 0x8001_0033, 0x0001_0033)
    assert len(rig.model.tlb) == 0
    assert rig.model.tlb.flushes == {"cr0.pg": 1}


@pytest.mark.parametrize(("msr", "after"), [(0x200, TWO), (0x2FF, TWO), (0x277, ONE)])
def test_a_write_to_an_mtrr_drops_everything(machine, asm, msr, after):
    code = "mov r10, [rdi]; mov [rsi], r9; rdmsr; wrmsr; mov r11, [rdi]; hlt"
    assert machine(flags=P | RW | G).run(asm(code), rcx=msr)["r11"] == after


def test_the_engines_tlb_grows_under_the_model(machine, asm):
    rig = machine(capacity=None)
    pages = 600
    for page in range(pages):
        rig.mmu.page_table.map(0x1000_0000 + page * 4096, rig.one, P | RW)
    loop = asm("mov rdi, 0x10000000; l: mov rax, [rdi]; add rdi, 4096; dec rcx; jnz l; hlt")
    rig.run(loop, rcx=pages)
    assert rig.cpu.engine.growths > 0
    assert rig.model.tlb.misses >= pages


def test_code_changed_through_another_address_runs_as_changed(machine, asm):
    rig = machine()
    rig.mmu.map(0x70_0000, b"\xb8\x01\x00\x00\x00\xc3", "r-x", user=False)  # mov eax, 1; ret
    rig.mmu.page_table.map(0x70_1000, rig.mmu.page_table.lookup(0x70_0000).physical, P | RW | NX)
    code = "l: mov [rdi + 0x1001], ecx; call rdi; cmp eax, ecx; jne bad; inc ecx; cmp ecx, 300; jl l; bad: hlt"
    assert rig.run(asm(code), None, rdi=0x70_0000, rcx=0)["rcx"] == 300


def test_a_handler_on_the_host_can_still_map_pages(machine, asm):
    rig = machine()
    rig.mmu.on_fault = None

    def page_fault(page, error_code):
        rig.mmu.page_table.map(page, rig.two, P | RW)
        return 1

    rig.bare.page_fault = page_fault
    assert rig.run(asm("mov r10, [rdi]; hlt"), rdi=0x70_0000)["r10"] == TWO


def test_code_that_changes_is_still_noticed(machine, asm):
    rig = machine()
    assert rig.run(asm("mov eax, 1; hlt"))["rax"] == 1
    assert rig.run(asm("mov eax, 2; hlt"))["rax"] == 2
    # mov byte ptr [rip + 2], 7 changes the constant of the next instruction.
    assert rig.run(asm("mov eax, 3; jmp l; l: mov byte ptr [rip + 3], 7; jmp m; m: mov al, 5; hlt"))["rax"] == 7


def test_it_needs_the_python_engine_and_a_bare_machine():
    for engine in ("native", "python"):
        mmu = attach(Uc(UC_ARCH_X86, UC_MODE_64), memory="1M", mmu=engine)
        with pytest.raises(UsageError, match="python MMU engine" if engine == "native" else "BareMetal"):
            model_tlb(mmu.cpu)
        mmu.detach()


def test_one_model_a_cpu(machine):
    with pytest.raises(UsageError, match="already"):
        model_tlb(machine().cpu)


def test_an_exception_is_delivered_through_the_tlb(machine, asm):
    """The stack is moved to another frame behind the TLB: the frame is pushed where the TLB still finds it."""
    rig = machine(strict=True)
    stack = rig.mmu.page_table.lookup(STACK)
    rig.mmu.page_table.map(SELF + 4096, stack.entry_address & ~0xFFF, P | RW)
    rig.handle(asm("pop r10; pop r11; hlt"))
    code = "push rax; pop rax; mov [rsi], r9; mov rax, [0x12345]"
    registers = rig.run(asm(code), rsi=SELF + 4096 + (stack.entry_address & 0xFFF))
    assert registers["r10"] == 0
    assert registers["r11"] >> 12 == CODE >> 12
    assert {use.linear & ~0xFFF for use in rig.seen} == {STACK}
    assert rig.cpu.read_linear(STACK + 0xFE0, 8) == rig.mmu.ram.read(stack.physical + 0xFE0, 8)
    assert len(rig.model.tlb) > 3
    hits = rig.model.tlb.hits
    rig.cpu.read_linear(STACK, 8)
    assert rig.model.tlb.hits == hits

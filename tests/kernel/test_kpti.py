"""Page-table isolation: what ring 3's tables hold, that ring 3 runs on them, and what a leak would need."""

from __future__ import annotations

import random

import pytest

from mmuemu.kernel.entry import Entry
from mmuemu.kernel.half import KernelLayout, KernelMemory
from mmuemu.kernel.kernel import Kernel
from mmuemu.loader.layouts import LAYOUTS, LINUX
from mmuemu.machine import Machine
from mmuemu.memory.frames import FrameAllocator
from mmuemu.memory.page_table import PageTable
from mmuemu.memory.ram import GuestRam
from mmuemu.sources import assemble
from mmuemu.x86.paging import NX, RW, US, A, D, P

MEMORY = 64 << 20
HALF = 1 << 63
USER = P | RW | US
SPIN = "mov ebx, 3\nagain:\nmov eax, 39\nsyscall\ndec ebx\njnz again\n.byte 0x0f, 0x0b\n"


@pytest.fixture
def frames():
    ram = GuestRam(MEMORY)
    yield FrameAllocator(ram)
    ram.close()


def isolated(frames: FrameAllocator, layout=LINUX) -> KernelMemory:
    return KernelMemory(frames, KernelLayout.placed(layout, MEMORY), layout, isolated=True)


def user_view(table: PageTable) -> PageTable:
    """The tables of ring 3, for looking."""
    return PageTable(table.frames, root=table.user_root, levels=table.levels)


@pytest.mark.parametrize("name", LAYOUTS)
def test_ring_3s_tables_hold_the_entry_area_and_nothing_else_of_the_kernel(frames, name):
    kernel = isolated(frames, LAYOUTS[name])
    table = PageTable(frames, levels=LAYOUTS[name].levels, kernel=kernel.half)
    kernel.new_stack()
    seen = {linear: entry for linear, entry, _ in user_view(table).iterate(HALF, 1 << 64)}
    assert set(seen) == {kernel.data, kernel.per_cpu, kernel.entry}
    assert not any(entry & US for entry in seen.values())
    assert [linear for linear, entry in seen.items() if not entry & NX] == [kernel.entry]
    whole = {linear for linear, _, _ in table.iterate(HALF, 1 << 64)}
    assert set(seen) < whole
    assert kernel.layout.text in whole
    assert kernel.layout.direct_map in whole


def test_the_roots_are_a_pair_in_8_kib(frames):
    table = PageTable(frames, kernel=isolated(frames).half)
    assert table.root % 8192 == 0
    assert table.user_root == table.root + 4096
    assert PageTable(frames).user_root % 4096 == 0


def test_without_isolation_there_is_one_root(frames):
    kernel = KernelMemory(frames, KernelLayout())
    table = PageTable(frames, kernel=kernel.half)
    assert table.user_root == table.root
    assert kernel.entry == kernel.layout.text


def top_entries(table: PageTable, root: int) -> list[int]:
    return table.frames.ram.qwords[root >> 3 : (root >> 3) + 256].tolist()


@pytest.mark.parametrize("levels", [4, 5])
def test_both_roots_have_the_same_user_half_whatever_happens(frames, levels):
    """Random edits, clones and frees; the kernel's root has NX on each top entry, ring 3's has not."""
    layout = next(layout for layout in LAYOUTS.values() if layout.levels == levels)
    kernel = isolated(frames, layout)
    used = frames.used
    rng = random.Random(levels)
    tables = [PageTable(frames, levels=levels, kernel=kernel.half)]
    step = 1 << (12 + 9 * (levels - 1))
    for _ in range(400):
        table = rng.choice(tables)
        where = rng.randrange(12) * step // 2 + rng.randrange(3) * 4096
        action = rng.randrange(10)
        if action < 4:
            table.map_page(where, 0x5000 | USER)
        elif action < 7:
            table.unmap(where)
        elif action == 7:
            table.unmap_range(where, where + step)
        elif action == 8 and len(tables) < 4:
            tables.append(table.clone())
        elif action == 9 and len(tables) > 1:
            tables.remove(table)
            table.free()
        for table in tables:
            below, above = top_entries(table, table.root), top_entries(table, table.user_root)
            assert [entry & ~NX for entry in below] == above
            assert all(bool(entry) == bool(entry & NX) for entry in below)
            pages = list(table.iterate(0, HALF))
            assert pages == list(user_view(table).iterate(0, HALF))
    for table in tables:
        table.free()
    assert frames.used == used


def test_the_kernel_cannot_run_what_the_user_wrote(frames):
    table = PageTable(frames, kernel=isolated(frames).half)
    table.map_page(0x400000, 0x5000 | USER)
    assert table.lookup(0x400000).flags & NX
    assert not user_view(table).lookup(0x400000).flags & NX


# On the whole machine


def test_ring_3_runs_on_its_own_root_and_the_kernel_on_the_other(asm_program, monkeypatch):
    roots = []
    take = Entry.trap

    def watched(entry, trap):
        kernel = entry.kernel
        roots.append((trap.cpl, kernel.cpu.paging.cr3 - kernel.current.mm.page_table.root))
        take(entry, trap)

    monkeypatch.setattr(Entry, "trap", watched)
    machine, outcome = asm_program(SPIN, kpti=True)
    assert outcome.exit_code == 128 + 4
    assert set(roots) == {(3, 4096)}
    assert machine.kernel.cpu.paging.cr3 == machine.kernel.memory.half.table.root, "nobody is on the CPU"
    machine.close()


def test_a_system_call_is_served_on_the_kernels_root(asm_program, monkeypatch):
    roots = []
    serve = Entry.port_out

    def watched(entry, port, size, value):
        kernel = entry.kernel
        roots.append(kernel.cpu.paging.cr3 - kernel.current.mm.page_table.root)
        serve(entry, port, size, value)

    monkeypatch.setattr(Entry, "port_out", watched)
    machine, _ = asm_program(SPIN, kpti=True)
    assert roots
    assert set(roots) == {0}
    machine.close()


@pytest.mark.parametrize("kpti", [False, True])
@pytest.mark.parametrize("body", ["mov rax, [rdi]", "mov [rdi], rax", "jmp rdi"])
def test_a_fault_on_kernel_text_says_present_only_without_isolation(asm_program, kpti, body):
    """What Meltdown, and a timing of faults, can see: P in the error code is whether there is an entry at all."""
    machine, outcome = asm_program(f"mov rdi, {{text}}\n{body}\nhlt\n", kpti=kpti)
    assert outcome.exit_code == 128 + 11
    trap = machine.task.death.trap
    assert (trap.vector, trap.cpl, trap.error_code & 5) == (14, 3, 4 if kpti else 5)
    machine.close()


def test_the_trampoline_is_there_but_not_for_ring_3(asm_program):
    machine, _ = asm_program(".byte 0x0f, 0x0b\n", kpti=True)
    entry = machine.kernel.memory.entry
    machine.close()
    machine, outcome = asm_program(f"mov rdi, {entry}\nmov rax, [rdi]\nhlt\n", kpti=True)
    assert outcome.exit_code == 128 + 11
    assert machine.task.death.trap.error_code == 5
    machine.close()


def test_registers_survive_a_system_call_through_the_trampoline(asm_program):
    names = ["rbx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r12", "r13", "r14", "r15"]
    loads = "\n".join(f"mov {name}, {0x1111_0000 + number}" for number, name in enumerate(names))
    source = f"{loads}\nmov eax, 39\nstc\nstd\nsyscall\npushfq\npop rcx\ncld\n.byte 0x0f, 0x0b\n"
    machine, outcome = asm_program(source, kpti=True)
    assert outcome.exit_code == 128 + 4
    registers = machine.kernel.cpu.registers()
    assert [registers[name] for name in names] == [0x1111_0000 + number for number in range(len(names))]
    assert registers["rcx"] & 0x401 == 0x401
    machine.close()


@pytest.mark.parametrize("engine", ["python", "native"])
def test_the_iret_way_out_gives_back_every_register(engine):
    """The stub leaves by ``iretq`` when RCX is not RIP; here pt_regs is edited as a signal's return does."""
    source = "mov eax, 39\nsyscall\n.byte 0x0f, 0x0b\ntarget:\nlea rbx, [rip]\nmov rdx, rsp\npushfq\npop rsi\nud2\n"
    with Machine(mmu=engine, aslr=False, seed=1, memory=MEMORY, kpti=True) as machine:
        machine.load(assemble(source, "test.s"), ["test"], {})
        kernel = machine.kernel
        serve = kernel.entry.port_out

        def edit(port, size, value):
            serve(port, size, value)
            base = kernel.current.registers.base
            q = kernel.ram.qwords
            q[base + 11] = 0xDEAD  # RCX
            q[base + 6] = 0xBEEF  # R11
            q[base + 16] += 2  # RIP, over the ud2

        kernel.cpu.handler.port_out = edit
        outcome = machine.run(timeout=20)
        assert outcome.exit_code == 128 + 4
        words = kernel.ram.qwords[machine.task.registers.base :][:21].tolist()
        assert (words[11], words[6]) == (0xDEAD, 0xBEEF)
        assert words[5] == words[16] - len(b"\x48\x89\xe2\x9c\x5e"), "RBX, and RIP at the last ud2"
        assert words[12] == words[19], "RSP"
        assert machine.task.death.trap.cpl == 3


def test_accessed_and_dirty_bits_are_shared(asm_program):
    """The roots share all tables below them: what ring 3 dirties the kernel sees."""
    machine, _ = asm_program("push rax\n.byte 0x0f, 0x0b\n", kpti=True)
    table = machine.task.mm.page_table
    sp = machine.kernel.ram.qwords[machine.task.registers.base + 19]
    assert table.lookup(sp).entry & (A | D) == A | D
    assert table.lookup(sp).entry_address == user_view(table).lookup(sp).entry_address
    machine.close()


TURNS = """
    mov eax, 57
    syscall
    mov r12, rax
    mov eax, 39
    syscall
    mov r13, rax
    mov ebx, 250
    mov r14, 0x1234567887654321
    mov r15, rsp
again:
    mov eax, 39
    mov rsi, rbx
    syscall
    cmp rax, r13
    jne wrong
    cmp rsi, rbx
    jne wrong
    cmp rsp, r15
    jne wrong
    push rbx
    pop rdx
    cmp rdx, rbx
    jne wrong
    mov rax, 0x1234567887654321
    cmp rax, r14
    jne wrong
    dec ebx
    jnz again
    mov edi, 5
    test r12, r12
    jz leave
    push 0
    mov eax, 61
    mov rdi, -1
    mov rsi, rsp
    xor edx, edx
    xor r10d, r10d
    syscall
    pop rdi
    shr edi, 8
    add edi, 6
leave:
    mov eax, 60
    syscall
wrong:
    mov edi, 99
    mov eax, 60
    syscall
"""


@pytest.mark.parametrize("longest", [70, 90, 140])
@pytest.mark.parametrize("kpti", [False, True])
def test_a_task_may_be_interrupted_at_any_instruction_of_the_entry_code(asm_program, monkeypatch, kpti, longest):
    """Two processes switch every few instructions: in ring 3, in the trampoline on either root, on the way out.

    (A task begins its way out anew when it is interrupted there, so slices must be longer than that, now and then.)
    """
    monkeypatch.setattr("mmuemu.kernel.scheduler.SHORTEST", 1)
    monkeypatch.setattr("mmuemu.kernel.scheduler.LONGEST", longest)
    places = set()
    stop = Kernel._stopped_somewhere

    def watched(kernel):
        places.add((kernel.cpu.rip, kernel.cpu.paging.cr3 >> 12 & 1))
        stop(kernel)

    monkeypatch.setattr(Kernel, "_stopped_somewhere", watched)
    machine, outcome = asm_program(TURNS, kpti=kpti)
    assert outcome.exit_code == 11
    memory = machine.kernel.memory
    assert machine.kernel.scheduler.switches > 50
    assert len([rip for rip, _ in places if memory.layout.text <= rip < memory.layout.text + 4096]) > 8
    if kpti:
        assert {root for rip, root in places if memory.entry <= rip < memory.entry + 4096} == {0, 1}
    machine.close()

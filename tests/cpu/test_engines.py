"""What both translation engines promise: growth, exact flushing, fresh code, exact counting, interruption."""

from __future__ import annotations

import threading

import pytest
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc

from mmuemu.cpu.attach import attach
from mmuemu.cpu.cpu import Stop
from mmuemu.cpu.traps import Trap
from mmuemu.errors import UsageError
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import NX, RW, US, A, D, P

CODE, DATA = 0x40_0000, 0x1000_0000
UD2 = b"\x0f\x0b"


def start(mmu, code: bytes, **registers: int) -> None:
    if mmu.page_table.lookup(CODE) is None:
        mmu.map(CODE, code, "r-x")
    mmu.set_ring(3)
    mmu.cpu.set_registers(rip=CODE, **registers)


def test_the_tlb_grows_until_a_loop_misses_no_more(mmu, asm):
    pages = 2000
    mmu.map(DATA, pages * 4096, "rw-")
    code = asm("l: mov byte ptr [rdi], 1; add rdi, 4096; dec rcx; jnz l; .byte 0x0f, 0x0b")
    start(mmu, code, rdi=DATA, rcx=pages)
    for _ in range(3):
        assert mmu.run().vector == Vector.UD
        before = mmu.cpu.engine.fills
        start(mmu, code, rdi=DATA, rcx=pages)
    assert mmu.run().vector == Vector.UD
    assert mmu.cpu.engine.fills == before
    if mmu.cpu.engine.name == "python":
        assert mmu.cpu.engine.growths >= 3


def test_an_unmapped_page_faults_at_once(mmu, asm):
    mmu.map(DATA, 4096, "rw-")
    code = asm("mov rax, [rdi]; .byte 0x0f, 0x0b")
    start(mmu, code, rdi=DATA)
    assert mmu.run().vector == Vector.UD
    mmu.unmap(DATA)
    start(mmu, code, rdi=DATA)
    assert mmu.run() == Trap(Vector.PF, 4, CODE, DATA, 3)


def test_a_protected_page_faults_once_flushed(mmu, asm):
    mmu.map(DATA, 4096, "rw-")
    code = asm("mov [rdi], rax; .byte 0x0f, 0x0b")
    start(mmu, code, rdi=DATA)
    assert mmu.run().vector == Vector.UD
    assert mmu.page_table.protect_range(DATA, DATA + 4096, clear=RW)
    mmu.flush_tlb()
    start(mmu, code, rdi=DATA)
    assert mmu.run() == Trap(Vector.PF, 7, CODE, DATA, 3)


def test_accessed_and_dirty_bits_are_in_the_tables(mmu, asm):
    mmu.map(DATA, 2 * 4096, "rw-")
    start(mmu, asm("mov rax, [rdi]; mov [rdi + 4096], rax; .byte 0x0f, 0x0b"), rdi=DATA)
    mmu.run()
    bits = [mmu.page_table.lookup(DATA + offset).entry & (A | D) for offset in (0, 4096)]
    assert bits == [A, A | D]


def test_a_first_write_after_a_read_sets_the_dirty_bit(mmu, asm):
    mmu.map(DATA, 4096, "rw-")
    start(mmu, asm("mov rax, [rdi]; mov [rdi], rax; .byte 0x0f, 0x0b"), rdi=DATA)
    mmu.run()
    assert mmu.page_table.lookup(DATA).entry & D


def test_code_rewritten_by_the_host_runs_as_rewritten(mmu):
    start(mmu, b"\xb8\x01\x00\x00\x00" + UD2)
    frame = mmu.page_table.lookup(CODE).physical
    for value in range(2, 50):
        mmu.run()
        assert mmu.cpu.registers()["rax"] == value - 1
        mmu.ram.write(frame, b"\xb8" + value.to_bytes(4, "little"))
        mmu.cpu.engine.forget_code(frame)
        start(mmu, b"")


def test_a_freed_frame_of_code_is_reused_with_fresh_code(mmu):
    seen = []
    for value in range(1, 20):
        mmu.map(CODE, b"\xb8" + value.to_bytes(4, "little") + UD2, "r-x")
        start(mmu, b"")
        mmu.run()
        assert mmu.cpu.registers()["rax"] == value
        seen.append(mmu.page_table.lookup(CODE).physical)
        mmu.unmap(CODE)
    assert len(set(seen)) < len(seen)


def test_the_probe_window_is_closed_to_the_guest(mmu, asm):
    """Forgetting code goes through a non-canonical window; nothing of it may stay in the TLB."""
    from mmuemu.cpu.engines import PROBE

    start(mmu, asm("mov rax, [rdi]"), rdi=PROBE)
    mmu.cpu.engine.forget_code(0x2000)
    assert mmu.run() == Trap(Vector.GP, 0, CODE, 0, 3)


@pytest.mark.parametrize("aliases", [1, 2])
def test_code_changed_through_another_address_runs_as_changed(mmu, asm, aliases):
    """Stores through one address into code that runs at another, in a loop (the engine itself misses these)."""
    if mmu.cpu.engine.name == "native":
        pytest.skip("the native engine leaves this to the page tables (docs/limits.md)")
    mmu.map(DATA, b"\xb8\x01\x00\x00\x00\xc3", "r-x")
    frame = mmu.page_table.lookup(DATA).physical
    for number in range(1, aliases + 1):
        mmu.page_table.map(DATA + number * 4096, frame, P | RW | US | NX)
    mmu.map(0x70_0000, 4096, "rw-")
    stores = "".join(
        f"mov dword ptr [rdx + {number * 4096 + 1}], ecx; call rdx; cmp eax, ecx; jne bad; inc ecx;"
        for number in range(1, aliases + 1)
    )
    code = asm(f"again: {stores} cmp ecx, 500; jl again; .byte 0x0f, 0x0b; bad: hlt")
    start(mmu, code, rdx=DATA, rcx=0, rsp=0x70_1000)
    assert mmu.run().vector == Vector.UD
    assert mmu.cpu.registers()["rcx"] >= 500


def test_code_changed_while_it_may_not_be_executed_runs_as_changed(mmu, asm):
    """Two pieces in one page: the engine itself notices the first store only, which changes the first piece."""
    if mmu.cpu.engine.name == "native":
        pytest.skip("the native engine leaves this to whoever edits the tables (docs/limits.md)")
    piece = b"\xb8\x01\x00\x00\x00\xc3"
    mmu.map(DATA, piece.ljust(2048, b"\x90") + piece, "r-x")
    mmu.map(0x70_0000, 4096, "rw-")
    frame = mmu.page_table.lookup(DATA).physical
    call = asm("call rdx; add rdx, 2048; mov ebx, eax; call rdx; shl eax, 8; or eax, ebx; .byte 0x0f, 0x0b")
    start(mmu, call, rdx=DATA, rsp=0x70_1000)
    assert mmu.run().vector == Vector.UD
    for value in range(2, 5):
        mmu.page_table.protect_range(DATA, DATA + 4096, NX | RW, 0)
        mmu.flush_tlb()
        mmu.unmap(CODE)
        start(mmu, asm("mov [rdx + 1], cl; mov [rdx + 2049], cl; .byte 0x0f, 0x0b"), rdx=DATA, rcx=value)
        assert mmu.run().vector == Vector.UD
        mmu.page_table.protect_range(DATA, DATA + 4096, 0, NX | RW)
        mmu.flush_tlb()
        mmu.unmap(CODE)
        start(mmu, call, rdx=DATA, rsp=0x70_1000)
        assert mmu.run().vector == Vector.UD
        assert mmu.cpu.registers()["rax"] == value << 8 | value
    assert mmu.page_table.lookup(DATA).physical == frame


def test_self_modifying_code_sees_its_own_writes(mmu, asm):
    mmu.map(CODE, asm("mov byte ptr [rip + 1], 7; mov eax, 1; .byte 0x0f, 0x0b"), "rwx")
    start(mmu, b"")
    mmu.run()
    assert mmu.cpu.registers()["rax"] == 7


@pytest.mark.parametrize("limit", [1, 2, 3, 1000, 12345])
def test_an_instruction_limit_is_exact(mmu, asm, limit):
    start(mmu, asm("l: inc rax; jmp l"), rax=0)
    assert mmu.run(max_instructions=limit) is Stop.LIMIT
    assert mmu.cpu.registers()["rax"] == (limit + 1) // 2
    assert mmu.cpu.instructions == limit


def test_an_instruction_limit_is_exact_across_faults(mmu, asm):
    mmu.on_fault = lambda page, error: mmu.map(page, 4096, "rw-") is None
    code = asm("l: inc rax; mov [rdi], rax; add rdi, 4096; jmp l")
    start(mmu, code, rax=0, rdi=DATA)
    assert mmu.run(max_instructions=400) is Stop.LIMIT
    assert mmu.cpu.registers()["rax"] == 100


FAULTS = [
    "ud2",
    "mov rax, [0x10]",
    "hlt",
    "xor ecx, ecx; div ecx",
    "in al, 0x60",
    "mov rdi, 0x10000000; jmp rdi",
    "int3",
]


@pytest.mark.parametrize("source", FAULTS)
def test_a_faulting_instruction_is_not_counted(mmu, asm, source):
    source = source.replace("mov rax, [0x10]", "xor edi, edi; mov rax, [rdi]").replace("ud2", ".byte 0x0f, 0x0b")
    start(mmu, asm(f"inc rax; inc rax; {source}"))
    mmu.run(max_instructions=1000)
    whole = {"xor": 1, "mov": 2, "int3": 1}
    expected = 2 + next((count for start_, count in whole.items() if source.startswith(start_)), 0)
    assert mmu.cpu.instructions == expected


def test_another_thread_can_interrupt(mmu, asm):
    start(mmu, asm("l: jmp l"))
    timer = threading.Timer(0.05, mmu.cpu.interrupt)
    timer.start()
    assert mmu.run() is Stop.INTERRUPTED
    timer.join()


def test_large_pages_translate(mmu, asm):
    mmu.page_table.map(0x4000_0000, 0x0, P | US, 1 << 30)
    mmu.ram.write(0x12_3458, b"\x2a")
    start(mmu, asm("movzx eax, byte ptr [rdi]; .byte 0x0f, 0x0b"), rdi=0x4012_3458)
    assert mmu.run().vector == Vector.UD
    assert mmu.cpu.registers()["rax"] == 0x2A


def test_attach_refuses_a_uc_with_memory_where_ram_goes():
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.mem_map(0x10_0000, 0x1000)
    with pytest.raises(UsageError, match="0x100000"):
        attach(uc, memory="16M")


def test_attach_refuses_an_unknown_engine():
    with pytest.raises(UsageError, match="python or native"):
        attach(Uc(UC_ARCH_X86, UC_MODE_64), mmu="magic")


def test_attach_leaves_the_rest_of_the_uc_alone():
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.mem_map(0x1_0000_0000, 0x1000)
    uc.mem_write(0x1_0000_0000, b"\x2a" * 8)
    mmu = attach(uc, memory="16M")
    mmu.map(CODE, b"\x0f\xb6\x07" + UD2, "r-x")
    mmu.page_table.map(DATA, 0x1_0000_0000, P | US)
    mmu.set_ring(3)
    mmu.cpu.set_registers(rip=CODE, rdi=DATA)
    assert mmu.run().vector == Vector.UD
    assert mmu.cpu.registers()["rax"] == 0x2A
    mmu.detach()
    assert [region[0] for region in uc.mem_regions()] == [0x1_0000_0000]

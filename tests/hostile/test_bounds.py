"""A kernel that is out to leave its memory: addresses, tables and descriptors that lie where no RAM is."""

from __future__ import annotations

import keystone
import pytest
from unicorn.x86_const import UC_X86_REG_RAX, UC_X86_REG_RBX

from mmuemu.board import Board, BoardOptions
from mmuemu.x86.paging import PS, RW, P
from tests.run.harness import ENGINES

SIZE = 4 << 20
CODE = 0x10_0000
TRIES = (
    "mov rax, [rdi]", "mov [rdi - 4], rdi", "lock inc qword ptr [rdi]", "fxsave [rdi]", "fxrstor [rdi]",
    "movdqu [rdi - 8], xmm0", "lea rsi, [rdi - 32]; mov ecx, 64; rep movsb", "cmpxchg16b [rdi]", "lgdt [rdi]",
    "lidt [rdi]; int3", "mov rsp, rdi; push rax; pop rbx", "mov cr3, rdi; mov rax, [rdi]", "jmp rdi",
)  # fmt: skip
TABLES = 0x3000
"""A long-mode start has its tables at the end of RAM; the last gigabyte they map is to be found in 511."""
LAST = 511 << 30
PLACES: dict[str, tuple[int, int | None]] = {
    "the end of RAM": (SIZE, None),
    "a hole below the devices": (0xB000_0000, None),
    "1 TiB, as far as the engine knows": (LAST, 1 << 40),
    "2^51, a reserved bit": (LAST, 1 << 51),
}
"""A linear address, and the physical one of its gigabyte where that is not the same."""


def board_for(engine: str, place: str, code: str) -> Board:
    linear, physical = PLACES[place]
    board = Board(BoardOptions(memory=SIZE, mmu=engine))
    assembler = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
    board.write(CODE, bytes(assembler.asm(f"{code}; hlt", CODE)[0]))
    board.enter_long(CODE, {"rdi": linear})
    if physical is not None:
        board.ram.qwords[(SIZE - TABLES + 0x1000 >> 3) + 511] = physical | P | RW | PS
    return board


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_there(place):
    """The machine goes on, or faults as a processor does; both engines alike but for the first fault's error code."""
    for code in TRIES:
        ends = [board_for(engine, place, code).run(max_instructions=1000) for engine in ENGINES]
        assert {end.kind for end in ends} <= {"halted", "triple fault"}, (code, ends)
        assert ends[0].kind == ends[1].kind, code


def test_what_lies_past_the_end_reads_as_ones():
    for engine in ENGINES:
        board = board_for(engine, "the end of RAM", "mov [rdi], rdi; mov rax, [rdi]; mov rbx, [rdi - 8]")
        board.write(SIZE - 8, b"the last")
        assert board.run(max_instructions=1000).kind == "halted"
        assert board.cpu.uc.reg_read(UC_X86_REG_RAX) == (1 << 64) - 1
        assert board.cpu.uc.reg_read(UC_X86_REG_RBX) == int.from_bytes(b"the last", "little")


def test_tables_past_the_end_map_nothing():
    for engine in ENGINES:
        board = board_for(engine, "the end of RAM", "mov rax, [rdi]")
        board.ram.qwords[SIZE - TABLES >> 3] = SIZE | P | RW
        assert board.run(max_instructions=1000).kind == "triple fault"

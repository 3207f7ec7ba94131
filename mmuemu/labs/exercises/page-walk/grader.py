"""Grader: read a page walk."""

from pathlib import Path

import pytest

from mmuemu.mmu.state import Access

PROGRAM = Path(__file__).parent / "starter" / "program.s"
READ, WRITTEN = 0x402018, 0x401000


@pytest.fixture
def space(guest):
    return guest.run(guest.program(PROGRAM)).space


@pytest.mark.points(1)
def test_indices(lab):
    """The indices and the offset of 0x402018"""
    names = ("PML4 index", "PDPT index", "PD index", "PT index")
    for name, shift in zip(names, (39, 30, 21, 12), strict=True):
        assert lab.number(name) == READ >> shift & 511, f"{name}: bits {shift} to {shift + 8} of the address"
    assert lab.number("offset") == READ & 0xFFF, "offset: bits 0 to 11 of the address"


@pytest.mark.points(2)
def test_the_entry_and_where_it_leads(lab, space):
    """The page-table entry and the physical address"""
    result = space.walk(READ, Access.READ, user=True).result
    assert lab.number("PTE") == result.steps[-1].entry, (
        "PTE: not the entry that translate shows (--seed 1 --clear-env --at exit)"
    )
    assert lab.number("physical address") == result.physical, "physical address: the frame in the PTE, and the offset"


@pytest.mark.points(1)
def test_who_refuses(lab, space):
    """Why 0x401000 cannot be written"""
    refused = space.walk(WRITTEN, Access.WRITE, user=True).result
    assert lab.answer("refusing level").upper() == refused.reason.split()[0], "refusing level: translate marks it"
    bit = lab.answer("refusing bit").upper().replace("/", "")
    assert bit == "RW", "refusing bit: which bit would a writable page have?"


P, PS, ADDRESS = 1, 0x80, 0x000F_FFFF_FFFF_F000
NX = 1 << 63
ABSENT = (1 << 64) - 1
# Physical memory with tables in frames 1 to 5, by (frame, index); CR3 has its two flag bits (PWT, PCD) set.
CR3 = 0x1018
ENTRIES = {
    (1, 0): 0x2000 | P | 6,
    (1, 255): 0x2000 | P | 0x86,
    (1, 3): 0x3000 | 6,
    (2, 0): 0x3000 | P | 6,
    (2, 5): 0x1_4000_0000 | P | PS | NX,
    (2, 511): 0x3000 | P,
    (3, 2): 0x4000 | P | 6,
    (3, 7): 0x60_0000 | P | PS | 0x1000,
    (3, 9): 0x5000 | 2,
    (4, 0): 0x12_3000 | P | NX | 0x67,
    (4, 511): 0xF_FFFF_FFFF_F000 | P | 0x80,
    (4, 1): 0x7000 | 6,
}
MEMORY = {frame * 4096 + 8 * index: entry for (frame, index), entry in ENTRIES.items()}


def expected(linear):
    """The walk once more, in Python."""
    table = CR3
    for shift in (39, 30, 21, 12):
        entry = MEMORY.get((table & ADDRESS) + 8 * (linear >> shift & 511), 0)
        if not entry & P:
            return ABSENT
        if shift == 12 or (shift < 39 and entry & PS):
            low = (1 << shift) - 1
            return entry & ADDRESS & ~low | linear & low
        table = entry
    raise AssertionError


def walks(lab, addresses):
    """What the answer's function says of each address."""
    words = [MEMORY.get(0x1000 + 8 * index, 0) for index in range(512 * 4)]
    tables, zeros = [], 0
    for word in words:
        if not word:
            zeros += 8
            continue
        tables += [f".zero {zeros}"] * bool(zeros) + [f".quad {word:#x}"]
        zeros = 0
    frame = f"""
    .text
    _start:
        lea rbx, [rip + lab_addresses]
        lea rbp, [rip + lab_results]
        mov r12d, {len(addresses)}
    lab_next:
        mov edi, {CR3:#x}
        mov rsi, [rbx]
        lea rdx, [rip + lab_memory - 0x1000]
        push rbx
        push rbp
        push r12
        call walk
        pop r12
        pop rbp
        pop rbx
        mov [rbp], rax
        add rbx, 8
        add rbp, 8
        dec r12d
        jnz lab_next
        mov eax, 1
        mov edi, 1
        lea rsi, [rip + lab_results]
        mov edx, {8 * len(addresses)}
        syscall
        mov eax, 60
        xor edi, edi
        syscall
    .data
    .balign 4096
    lab_memory:
    {chr(10).join(tables)}
    .zero {zeros + 0x1000}
    lab_addresses: .quad {", ".join(map(hex, addresses))}
    lab_results: .zero {8 * len(addresses)}
    """
    result = lab.run(lab.program("walk.s", frame))
    return [found & ABSENT for found in lab.numbers(result, "walk", len(addresses))]


def compare(lab, addresses):
    for linear, found in zip(addresses, walks(lab, addresses), strict=True):
        right = expected(linear)
        assert found == right, f"walk({linear:#x}) returned {found:#x}, not {right:#x}"


@pytest.mark.points(4)
def test_small_pages(lab):
    """walk.s finds 4 KiB pages, and says what is not present"""
    compare(lab, [0x400000, 0x400FFF, 0x5FF123, 0x7F8000400456, 0x401000, 0x402000, 0x600000, 0x18000000000, 0x1201000])


@pytest.mark.points(2)
def test_large_pages(lab):
    """walk.s finds 2 MiB and 1 GiB pages"""
    compare(lab, [0xE00000, 0xFFFFFF, 0x140000000, 0x17654321F, 0x7F8000E12345, 0x7FFFC0E00001])

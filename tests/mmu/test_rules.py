"""The walk by the SDM's rules: access rights, reserved bits, LASS, modes, roots and reasons."""

from __future__ import annotations

import pytest

from mmuemu.errors import UsageError
from mmuemu.mmu import state as state_module
from mmuemu.mmu import walk as walk_module
from mmuemu.mmu.modes import FIVE_LEVEL, FOUR_LEVEL, MODES, NO_PAGING, PAE, THIRTY_TWO_BIT
from mmuemu.mmu.state import Access, PageFault, PagingState, Translation
from mmuemu.mmu.walk import commit, page_walker, walk
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import NX, PAT_4K, PAT_LARGE, PCD, PS, PWT, RW, US, A, D, P, pat_index
from mmuemu.x86.registers import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_LA57,
    CR4_LASS,
    CR4_PAE,
    CR4_PKE,
    CR4_PKS,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
)
from tests.mmu.sdm import CHECKS, FIRST_TABLE, FRAME, OPEN, Space, controls


@pytest.fixture
def space():
    return Space()


def made(mode, *, cr0=CR0_WP, cr4=0, efer=0, **more) -> PagingState:
    return PagingState(FIRST_TABLE, *controls(mode, cr0=cr0, cr4=cr4, efer=efer), **more)


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_every_combination_goes_by_the_manual(name):
    assert list(CHECKS[name](walk_module, state_module)) == []


@pytest.mark.parametrize(
    ("cr0", "cr4", "efer", "mode"),
    [
        (0, 0, 0, NO_PAGING),
        (CR0_PE, CR4_PAE | CR4_LA57, EFER_LME, NO_PAGING),
        (CR0_PE | CR0_PG, 0, 0, THIRTY_TWO_BIT),
        (CR0_PE | CR0_PG, CR4_PSE | CR4_LA57, EFER_NXE, THIRTY_TWO_BIT),
        (CR0_PE | CR0_PG, CR4_PAE, EFER_NXE, PAE),
        (CR0_PE | CR0_PG, CR4_PAE | CR4_LA57, 0, PAE),
        (CR0_PE | CR0_PG, CR4_PAE, EFER_LME | EFER_LMA, FOUR_LEVEL),
        (CR0_PE | CR0_PG, CR4_PAE | CR4_LA57, EFER_LME | EFER_LMA, FIVE_LEVEL),
    ],
)
def test_registers_choose_the_mode(cr0, cr4, efer, mode):
    assert PagingState(0, cr0, cr4, efer).mode is mode


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        (PagingState(0, CR0_PG, CR4_PAE, EFER_LME | EFER_LMA), "needs protected mode"),
        (PagingState(0, CR0_PE | CR0_PG, 0, EFER_LME | EFER_LMA), "needs PAE"),
    ],
)
def test_registers_that_no_processor_can_hold_are_refused(space, state, complaint):
    with pytest.raises(UsageError, match=complaint):
        page_walker(space.qwords, state)


def test_every_level_of_every_mode_covers_the_address():
    for mode in MODES[1:]:
        assert [level.shift for level in mode.levels] == sorted((level.shift for level in mode.levels), reverse=True)
        bits = sum(level.index_bits for level in mode.levels) + 12
        assert bits == mode.linear_bits
        assert all(
            upper.shift == lower.shift + lower.index_bits
            for upper, lower in zip(mode.levels, mode.levels[1:], strict=False)
        )


@pytest.mark.parametrize(
    ("mode", "cr3", "root"),
    [
        (THIRTY_TWO_BIT, 0xABCD_0000_1234_5FFF, 0x1234_5000),
        (PAE, 0xABCD_0000_1234_5FFF, 0x1234_5FE0),
        (FOUR_LEVEL, 0x6000_0012_3456_7FFF, 0x12_3456_7000),
        (FIVE_LEVEL, 0x000F_FF12_3456_7FFF, 0x12_3456_7000),
    ],
)
def test_only_some_bits_of_cr3_locate_the_root(space, mode, cr3, root):
    state = PagingState(cr3, *controls(mode))
    assert state.root == root
    flags = [OPEN if level.has_rights else P for level in mode.levels]
    space.fill(mode, flags, 0)
    # 0x18 are PWT and PCD, 1 << 62 is LAM_U48: a walker takes CR3 as it stands.
    noise = 0x18 | (0xFE7 if mode is not PAE else 0x7) | (1 << 62)
    assert page_walker(space.qwords, state)(FIRST_TABLE | noise, 0, 0, True, False, [], None) & ~0xFFF == FRAME


@pytest.mark.parametrize("mode", [THIRTY_TWO_BIT, PAE], ids=lambda mode: mode.name)
def test_legacy_addresses_are_32_bits_wide_and_never_non_canonical(space, mode):
    state = made(mode)
    linear = 0x0040_0123
    space.fill(mode, [OPEN if level.has_rights else P for level in mode.levels], linear)
    for beyond in (0, 1 << 32, 1 << 47, 1 << 63):
        result = walk(space.ram, state, linear | beyond)
        assert isinstance(result, Translation)
        assert result.physical == FRAME | 0x123


def test_without_paging_the_linear_address_is_the_physical_one(space):
    result = walk(space.ram, PagingState(0, CR0_PE), 0x1_2345_6789, Access.WRITE)
    assert isinstance(result, Translation)
    assert (result.physical, result.size, result.steps, result.pat_index) == (0x2345_6789, 4096, (), 0)
    assert result.readable
    assert result.writable
    assert result.executable


@pytest.mark.parametrize(
    ("mode", "linear", "canonical"),
    [
        (FOUR_LEVEL, (1 << 47) - 8, True),
        (FOUR_LEVEL, 1 << 47, False),
        (FOUR_LEVEL, (1 << 64) - (1 << 47), True),
        (FOUR_LEVEL, (1 << 64) - (1 << 47) - 8, False),
        (FIVE_LEVEL, 1 << 47, True),
        (FIVE_LEVEL, (1 << 56) - 8, True),
        (FIVE_LEVEL, 1 << 56, False),
        (FIVE_LEVEL, (1 << 64) - (1 << 56), True),
        (FIVE_LEVEL, (1 << 64) - (1 << 56) - 8, False),
    ],
)
def test_a_non_canonical_address_is_a_general_protection_fault(space, mode, linear, canonical):
    for stack, vector in ((False, Vector.GP), (True, Vector.SS)):
        result = walk(space.ram, made(mode), linear, stack=stack)
        assert isinstance(result, PageFault)
        assert result.vector == (Vector.PF if canonical else vector)
        assert canonical or (result.error_code, result.reason) == (0, f"{linear:#x} is not canonical")


@pytest.mark.parametrize(
    ("mode", "entries", "linear", "physical", "size"),
    [
        (THIRTY_TWO_BIT, [OPEN | PS], 0x0012_3456, 0x0012_3456, 4 << 20),
        (THIRTY_TWO_BIT, [OPEN | PS | 0x80 << 13 | 1 << 22], 0x0012_3456, 0x80_0052_3456, 4 << 20),
        (PAE, [P, OPEN | PS], 0x0012_3456, 0x0012_3456, 2 << 20),
        (FOUR_LEVEL, [OPEN, OPEN | PS], 0x3FFF_F123, 0x3FFF_F123, 1 << 30),
        (FOUR_LEVEL, [OPEN, OPEN | PS | PAT_LARGE | 1 << 39], 0x3FFF_F123, (1 << 39) | 0x3FFF_F123, 1 << 30),
        (FIVE_LEVEL, [OPEN, OPEN, OPEN, OPEN | PS | PAT_LARGE], 0x0012_3456, 0x0012_3456, 2 << 20),
    ],
)
def test_large_pages(space, mode, entries, linear, physical, size):
    space.fill(mode, entries, linear)
    result = walk(space.ram, made(mode), linear, Access.WRITE)
    assert isinstance(result, Translation)
    assert (result.physical, result.size, len(result.steps)) == (physical, size, len(entries))


def test_bit_7_means_nothing_in_a_pde_while_cr4_pse_is_clear(space):
    cr0, _, efer = controls(THIRTY_TWO_BIT)
    addresses = space.fill(THIRTY_TWO_BIT, [OPEN, OPEN], 0)
    space.qwords[addresses[0] >> 3] |= PS
    small, large = (walk(space.ram, PagingState(FIRST_TABLE, cr0, cr4, efer), 0) for cr4 in (0, CR4_PSE))
    assert isinstance(small, Translation)
    assert (small.size, small.physical) == (4096, FRAME)
    assert isinstance(large, Translation) or large.error_code & 8


def test_commit_sets_bits_in_the_right_half_of_a_qword(space):
    linear = 0x0040_1000
    addresses = space.fill(THIRTY_TWO_BIT, [P | RW | US, P | RW | US], linear)
    assert [address & 7 for address in addresses] == [4, 4]
    result = walk(space.ram, made(THIRTY_TWO_BIT), linear, Access.WRITE)
    assert sorted(result.updates) == [(addresses[0] & ~7, A << 32), (addresses[1] & ~7, (A | D) << 32)]
    commit(space.ram, result)
    assert [int.from_bytes(space.ram.read(address, 4), "little") & 0x60 for address in addresses] == [A, A | D]
    assert [step.entry_address for step in result.steps] == addresses


@pytest.mark.parametrize("mode", MODES[1:], ids=lambda mode: mode.name)
def test_the_steps_are_the_entries_read(space, mode):
    linear = sum(1 << level.shift for level in mode.levels)
    addresses = space.fill(mode, [OPEN if level.has_rights else P for level in mode.levels], linear)
    result = walk(space.ram, made(mode), linear)
    assert [step.entry_address for step in result.steps] == addresses
    assert [step.level for step in result.steps] == [level.name for level in mode.levels]
    assert all(step.entry & P for step in result.steps)
    space.clear(addresses[-1:])
    absent = walk(space.ram, made(mode), linear)
    assert [step.entry_address for step in absent.steps] == addresses
    assert absent.reason == "PTE is not present"


@pytest.mark.parametrize("mode", MODES[1:], ids=lambda mode: mode.name)
def test_tables_beyond_memory_read_as_not_present(space, mode):
    state = made(mode)
    for access, code in ((Access.READ, 4), (Access.WRITE, 6)):
        assert walk(space.ram, PagingState(0x4000_0000, state.cr0, state.cr4, state.efer), 0, access).error_code == code


@pytest.mark.parametrize(
    ("entry", "size", "index"),
    [
        (0, 4096, 0),
        (PWT, 4096, 1),
        (PCD, 4096, 2),
        (PAT_4K, 4096, 4),
        (PAT_4K | PWT | PCD, 4096, 7),
        (PAT_LARGE, 4096, 0),
        (PS | PAT_LARGE, 2 << 20, 4),
        (PS | PWT, 2 << 20, 1),
        (PS | PAT_LARGE | PCD, 1 << 30, 6),
        (PS, 4 << 20, 0),
    ],
)
def test_the_pat_bit_stands_elsewhere_in_a_large_page(entry, size, index):
    assert pat_index(entry, size) == index


def test_a_translation_knows_its_memory_type(space):
    space.fill(FOUR_LEVEL, [OPEN, OPEN, OPEN | PS | PAT_LARGE | PCD], 0)
    assert walk(space.ram, made(FOUR_LEVEL), 0).pat_index == 6


KEY_1 = 1 << 59
REASONS = [
    # mode, entries, state, access, user, error code, reason
    (FOUR_LEVEL, [OPEN, 0], {}, "READ", True, 4, "PDPTE is not present"),
    (FOUR_LEVEL, [OPEN, OPEN & ~US, OPEN, OPEN], {}, "READ", True, 5, "PDPTE is supervisor-only (U/S = 0)"),
    (FIVE_LEVEL, [OPEN & ~US, *[OPEN] * 4], {}, "WRITE", True, 7, "PML5E is supervisor-only (U/S = 0)"),
    (FOUR_LEVEL, [OPEN, OPEN, OPEN & ~RW, OPEN], {}, "WRITE", True, 7, "PDE is read-only (R/W = 0)"),
    (FOUR_LEVEL, [*[OPEN] * 3, OPEN & ~RW], {}, "WRITE", False, 3, "PTE is read-only (R/W = 0)"),
    (PAE, [P, OPEN & ~RW, OPEN], {}, "WRITE", False, 3, "PDE is read-only (R/W = 0)"),
    (PAE, [P, OPEN, OPEN & ~US], {}, "READ", True, 5, "PTE is supervisor-only (U/S = 0)"),
    (PAE, [P | 2], {}, "READ", True, 13, "PDPTE has a reserved bit set (bit 1)"),
    (
        FOUR_LEVEL,
        [OPEN | NX, *[OPEN] * 3],
        {"efer": EFER_NXE},
        "FETCH",
        True,
        21,
        "PML4E is not executable (NX = 1)",
    ),
    (FOUR_LEVEL, [OPEN | NX], {}, "READ", True, 13, "PML4E has a reserved bit set (bit 63)"),
    (FOUR_LEVEL, [OPEN, OPEN, OPEN | PS | 1 << 13], {}, "READ", True, 13, "PDE has a reserved bit set (bit 13)"),
    (FOUR_LEVEL, [*[OPEN] * 3, OPEN | 5 << 44], {}, "READ", True, 13, "PTE has a reserved bit set (bits 44, 46)"),
    (THIRTY_TWO_BIT, [OPEN | PS | 1 << 21], {}, "READ", True, 13, "PDE has a reserved bit set (bit 21)"),
    (
        FOUR_LEVEL,
        [OPEN] * 4,
        {"cr4": CR4_SMEP},
        "FETCH",
        False,
        17,
        "SMEP forbids the supervisor to execute a user page",
    ),
    (
        FOUR_LEVEL,
        [OPEN] * 4,
        {"cr4": CR4_SMAP},
        "READ",
        False,
        1,
        "SMAP forbids the supervisor to access a user page while EFLAGS.AC = 0",
    ),
    (
        FOUR_LEVEL,
        [*[OPEN] * 3, OPEN | KEY_1],
        {"cr4": CR4_PKE, "pkru": 1 << 2},
        "READ",
        True,
        37,
        "PKRU disables access with protection key 1",
    ),
    (
        FOUR_LEVEL,
        [*[OPEN] * 3, OPEN | KEY_1],
        {"cr4": CR4_PKE, "pkru": 2 << 2},
        "WRITE",
        True,
        39,
        "PKRU disables writes with protection key 1",
    ),
    (
        FIVE_LEVEL,
        [*[OPEN] * 4, (OPEN | KEY_1) & ~US],
        {"cr4": CR4_PKS, "pkrs": 2 << 2},
        "WRITE",
        False,
        35,
        "IA32_PKRS disables writes with protection key 1",
    ),
]


@pytest.mark.parametrize(("mode", "entries", "state", "access", "user", "code", "reason"), REASONS)
def test_a_fault_says_why(space, mode, entries, state, access, user, code, reason):
    space.fill(mode, entries, 0)
    result = walk(space.ram, made(mode, **state), 0, Access[access], user=user)
    assert isinstance(result, PageFault)
    assert (result.vector, result.error_code, result.reason) == (Vector.PF, code, reason)


@pytest.mark.parametrize(
    ("linear", "user", "reason"),
    [
        (0x5000, False, "LASS keeps the supervisor out of the lower half of the address space"),
        (0xFFFF_8000_0000_0000, True, "LASS keeps user code out of the upper half of the address space"),
        (0x8000_0000_0000_0000, True, "0x8000000000000000 is not canonical"),
    ],
)
def test_separation_says_so(space, linear, user, reason):
    result = walk(space.ram, made(FOUR_LEVEL, cr4=CR4_LASS | CR4_SMAP), linear, user=user)
    assert (result.vector, result.error_code, result.reason) == (Vector.GP, 0, reason)


def test_implicit_supervisor_accesses_ignore_eflags_ac(space):
    space.fill(FOUR_LEVEL, [OPEN] * 4, 0)
    state = made(FOUR_LEVEL, cr4=CR4_SMAP)
    assert isinstance(walk(space.ram, state, 0, user=False, ac=True), Translation)
    assert walk(space.ram, state, 0, user=False).error_code == 1

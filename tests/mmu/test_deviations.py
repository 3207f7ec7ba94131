"""What Unicorn's walker does otherwise than the SDM: pinned here, and left out of the differential suite.

Each of these fails when a later Unicorn does it right; then the exception made for it can go.
"""

from __future__ import annotations

from random import Random

import pytest

from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import PS, RW, US, A, P
from mmuemu.x86.registers import CR0_WP, CR4_PAE, CR4_PKS, CR4_SMAP
from tests.mmu.cases import Case, make_case
from tests.mmu.differential import Differential
from tests.mmu.layout import FRAMES_64, GIGABYTE, VARIANTS
from tests.mmu.sdm import OPEN


@pytest.fixture(scope="module")
def differential():
    return Differential()


def open_case(name: str, access: str, ring: int) -> Case:
    """An access that nothing forbids."""
    variant = VARIANTS[name]
    case = make_case(Random(1), name)
    case.linear = sum(1 << level.shift for level in variant.levels)
    case.access, case.ring, case.ac, case.cr4, case.pkru = access, ring, False, CR4_PAE, 0
    case.cr0 |= CR0_WP
    opened = [OPEN if level.has_rights else P for level in variant.levels]
    case.entries = [target | flags for target, flags in zip((*variant.tables[1:], FRAMES_64[0]), opened, strict=True)]
    return case


@pytest.mark.parametrize("name", ["4-level", "PAE"])
def test_the_open_case_is_open(differential, name):
    for access in ("read", "write", "load segment"):
        assert differential.check(open_case(name, access, 3)) is None
    assert differential.outcomes[f"{name}: permitted"] >= 3


def test_a_refused_1_gib_entry_is_accessed(differential):
    case = open_case("4-level", "write", 3)
    case.entries[1] = GIGABYTE | P | US | PS
    words, _ = differential.memory.words(VARIANTS["4-level"])
    slot = (VARIANTS["4-level"].tables[1] >> 3) + 1
    words[VARIANTS["4-level"].tables[0] + 8 >> 3] = case.entries[0]
    words[slot] = case.entries[1]
    assert differential.oracle.run(case, 1)[:2] == (Vector.PF, 7)
    assert words[slot] == case.entries[1] | A
    assert differential.check(case) is None


@pytest.mark.parametrize("bit", [1, 2, 5, 6, 7, 8])
def test_low_reserved_bits_of_a_pdpte_are_not_seen(differential, bit):
    case = open_case("PAE", "read", 3)
    case.entries[0] |= 1 << bit
    assert differential.check(case).startswith("the walk says vector 14, error code 0xd")


def test_eflags_ac_opens_smap_for_implicit_accesses_in_ring_0(differential):
    case = open_case("4-level", "load segment", 0)
    case.cr4 |= CR4_SMAP
    assert differential.check(case) is None
    case.ac = True
    assert differential.check(case).startswith("the walk says vector 14, error code 0x1 ")


def test_cr4_pks_means_nothing_to_the_engine(differential):
    case = open_case("4-level", "write", 0)
    case.cr4 |= CR4_PKS
    case.entries[3] = FRAMES_64[0] | P | RW | 1 << 59
    case.pkru = 0xFFFF_FFFF
    before = differential.outcomes["4-level: permitted"]
    assert differential.check(case) is None
    assert differential.outcomes["4-level: permitted"] == before + 1

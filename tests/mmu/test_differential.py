"""The walk against the engine's own, in every paging mode the engine has (see ``differential.py``)."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmuemu.mmu.state import PageFault, PagingState, Translation
from mmuemu.mmu.walk import page_walker, walk
from mmuemu.x86.registers import CR4_PAE
from tests.mmu.cases import Case, make_case
from tests.mmu.differential import Differential, run
from tests.mmu.layout import FRAMES_64, VARIANTS
from tests.mmu.sdm import OPEN


@pytest.fixture(scope="module")
def differential():
    return Differential()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(random=st.randoms(use_true_random=False), variant=st.sampled_from(sorted(VARIANTS)))
def test_the_walk_agrees_with_the_engine(differential, random, variant):
    case = make_case(random, variant)
    assert differential.check(case) is None, case.describe()


def test_twenty_thousand_random_cases():
    wrong, statistics = run(20_000, seed=20_000)
    assert wrong == []
    outcomes = statistics.outcomes
    assert sum(outcomes.values()) == 20_000
    for name, variant in VARIANTS.items():
        assert outcomes[f"{name}: permitted"] > 50
        codes = {0x1, 0x3, 0x5, 0x7, 0x9, 0xD, 0x11, 0x15} if variant.mode.levels else set()
        codes |= {0x21, 0x23, 0x25, 0x27, 0x19, 0x1D} if variant.long else set()
        assert not [code for code in codes if not outcomes[f"{name}: error code {code:#x}"]]
        assert not variant.code64 or outcomes[f"{name}: not canonical"]


def test_a_case_survives_being_printed():
    case = make_case(Random(7), "5-level")
    assert Case.parse(case.describe()) == case


@pytest.mark.parametrize("access", ["read", "write", "fetch"])
def test_a_walk_that_names_the_wrong_frame_is_found_out(differential, access):
    variant = VARIANTS["4-level"]
    case = make_case(Random(3), variant.name)
    case.access, case.linear, case.ring, case.cr4 = access, 0x1234_5000, 3, CR4_PAE
    case.entries = [target | OPEN for target in (*variant.tables[1:], FRAMES_64[0])]
    assert differential.check(case) is None
    key = (case.cr0, case.cr4, case.efer, case.pkru)
    right = differential._walkers[key]
    differential._walkers[key] = lambda *arguments: right(*arguments) ^ 0x1000
    try:
        assert differential.check(case) is not None
    finally:
        differential._walkers[key] = right


def test_people_get_what_the_engines_get(differential):
    """:func:`walk` says in objects what :func:`page_walker` says in numbers."""
    random = Random(11)
    memory = differential.memory
    seen = {Translation: 0, PageFault: 0}
    for _ in range(600):
        case = make_case(random)
        variant = VARIANTS[case.variant]
        words, shift = memory.words(variant)
        slots = [
            (table >> shift) + (case.linear >> level.shift & (1 << level.index_bits) - 1)
            for table, level in zip(variant.tables, variant.levels, strict=True)
        ]
        for slot, entry in zip(slots, case.entries, strict=True):
            words[slot] = entry
        state = PagingState(variant.root, case.cr0, case.cr4, case.efer, pkru=case.pkru)
        updates: list[tuple[int, int]] = []
        user = case.ring == 3
        found = page_walker(memory.qwords, state)(variant.root, case.linear, 0, user, case.ac, updates, None)
        result = walk(memory.ram, state, case.linear, user=user, ac=case.ac)
        assert result.updates == tuple((index << 3, bits) for index, bits in updates)
        seen[type(result)] += 1
        if isinstance(result, Translation):
            assert result.physical == found & ~0xFFF | case.linear & 0xFFF
            assert (result.readable, result.writable, result.executable) == (True, bool(found & 2), bool(found & 4))
        else:
            assert result.reason
            assert result.error_code == (-1 - found if result.vector == 14 else 0)
        for slot in slots:
            words[slot] = 0
    assert min(seen.values()) > 100

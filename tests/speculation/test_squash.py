"""Nothing that ran transiently is seen by whoever looks at registers, memory, page tables, faults or output."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmuemu.machine import Machine
from mmuemu.x86.paging import ADDRESS_MASK
from tests.speculation import places, shrink
from tests.speculation.instructions import KINDS
from tests.speculation.programs import GENE_BITS, Gene, Program, generate, random_program
from tests.speculation.search import batch, work
from tests.speculation.settings import BATCH, sides
from tests.speculation.squash import Bench, Outcome, compare, differences, image

programs = st.builds(
    lambda seed, blocks: Program(seed, tuple(map(tuple, blocks))),
    st.integers(0, 1 << 20),
    st.lists(st.lists(st.integers(0, (1 << GENE_BITS) - 1), max_size=8), min_size=1, max_size=8),
)


# -- the programs themselves -------------------------------------------------------------------------------------------


def test_every_instruction_is_as_long_as_the_generator_says():
    """What the handler skips is one instruction, by an independent decoder."""
    capstone = pytest.importorskip("capstone")
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    checked = 0
    for seed in range(300):
        compiled = generate(random_program(seed), image()[1])
        for start in range(len(compiled.code)):
            after = int.from_bytes(compiled.resume[2 * start : 2 * start + 2], "little")
            if after <= start:
                continue
            found = next(engine.disasm_lite(compiled.code[start:after], start), None)
            if found is not None:
                checked += 1
                assert found[1] == after - start, (seed, hex(start), found, compiled.code[start:after].hex())
    assert checked > 20_000


def test_programs_do_what_programs_do():
    """All kinds of faults come up, at all kinds of addresses, and most programs live to their end."""
    bench = Bench()
    try:
        outcomes = bench.run([random_program(seed) for seed in range(200)])
    finally:
        bench.close()
    assert len(outcomes) == 200
    faults = Counter((fault[0], fault[1]) for outcome in outcomes for fault in outcome.faults)
    assert {(11, 1), (11, 2), (11, 128), (4, 2), (8, 1), (5, 128)} <= set(faults)
    addresses = [fault[2] for outcome in outcomes for fault in outcome.faults if fault[:2] == (11, 1)]
    assert any(address >> 63 for address in addresses)
    assert sum(bool(outcome.final) for outcome in outcomes) > 180
    assert sum(bool(outcome.output) for outcome in outcomes) > 5
    assert len({outcome.final for outcome in outcomes}) > 180


def test_every_kind_of_gene_can_come():
    draw = random.Random(1)
    kinds = {KINDS[Gene(draw.getrandbits(GENE_BITS)).below(len(KINDS))] for _ in range(20_000)}
    assert kinds == set(KINDS)


# -- the comparison ----------------------------------------------------------------------------------------------------


def test_the_same_machine_twice_leaves_the_same():
    assert compare(batch(0), {}, {}) is None


def _spoil_memory(outcome: Outcome, machine: Machine) -> None:
    frame = outcome.pages[places.DATA][0] & ADDRESS_MASK
    machine.kernel.ram.bytes[frame + 77] ^= 1


def _spoil_entry(outcome: Outcome, machine: Machine) -> None:
    root = machine.kernel.memory.half.table.root
    machine.kernel.ram.qwords[(root >> 3) + 511] ^= 0x20


@pytest.mark.parametrize("spoil", [_spoil_memory, _spoil_entry])
def test_one_bit_of_memory_is_noticed(spoil):
    few = [random_program(3), random_program(4)]
    left, right = Bench(), Bench()
    try:
        plain = left.run(few)
        spoilt = right.run(few, spoil)
        if spoil is _spoil_memory:
            assert left.memory() != right.memory()
        else:
            assert [word for word in differences(plain[1], spoilt[1]) if word.startswith("kernel")]
    finally:
        left.close()
        right.close()


class Liar(Bench):
    """A machine whose getpid says something else when nobody looks."""

    def __init__(self, **options):
        lie = options.pop("lie", False)
        super().__init__(**options)
        if lie:
            self.machine.on_syscall("getpid")(lambda event: 12345)


def test_a_difference_is_found_and_made_small(monkeypatch, tmp_path):
    import tests.speculation.squash as squash

    monkeypatch.setattr(squash, "Bench", Liar)
    number = 0
    while (found := compare(batch(number), {}, {"lie": True})) is None:
        number += 1
        assert number < 5
    before = batch(number)[: found.number + 1]
    small = shrink.shrink(before, {}, {"lie": True}, 20)
    assert len(small) == 1
    assert small[0].genes < before[-1].genes
    path = tmp_path / "found.json"
    shrink.write(path, small, {}, {"lie": True}, found)
    programs, left, right = shrink.read(path)
    assert programs == small
    again = compare(programs, left, right)
    assert again is not None
    assert again.words
    assert any("syscall" in line for line in shrink.listing(programs[-1]))


# -- the proof ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", range(12))
def test_squash_is_invisible(chunk):
    """960 programs, every second batch on a Skylake with all flaws, the others on any CPU with any flaws."""
    for number in (2 * chunk, 2 * chunk + 1):
        found = work((number, ""))
        again = f"python -m tests.speculation {BATCH} {number * BATCH}"
        assert isinstance(found, int), f"{found[4].words[0]}; made small and kept by: {again}"


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(programs, min_size=1, max_size=3), st.integers(0, 5))
def test_squash_is_invisible_in_drawn_programs(some, number):
    found = compare(some, *sides(number))
    assert found is None, [*found.words, *shrink.listing(some[-1])]


def test_programs_open_windows_of_many_kinds():
    """The proof proves something: what is squashed has stored, faulted and forwarded before."""
    bench = Bench(**sides(0)[1])
    core = bench.machine.speculation
    core.trace = trace = []
    try:
        bench.run(batch(4))
    finally:
        bench.close()
    windows = [window for window in trace if places.CODE <= window.opener < places.CODE + places.CODE_BYTES]
    assert {"v1", "v2", "rsb", "v4", "fault", "mfbds"} <= {window.flaw for window in windows}
    assert len({window.reason for window in windows}) >= 5
    notes = {step.note for window in windows for step in window.steps}
    assert {"forwarded meltdown", "forwarded meltdown-rw", "faults, forwards nothing"} <= notes
    assert any(window.nested for window in windows)
    assert sum(len(window.steps) for window in windows) > 2000

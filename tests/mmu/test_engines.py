"""The ``python`` engine of the CPU in every paging mode: misses are served by the walk of the mode in force."""

from __future__ import annotations

from random import Random

import pytest
from unicorn import unicorn_const

from mmuemu.cpu import window
from mmuemu.cpu.cpu import Cpu
from mmuemu.cpu.traps import NoHandler
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import PS, A, D, P
from mmuemu.x86.registers import CR4_PKE, CR4_PKS
from tests.mmu.cases import Case, make_case
from tests.mmu.differential import Differential
from tests.mmu.layout import CODE, FRAMES_32, VARIANTS
from tests.mmu.oracle import Oracle, enter, load, start
from tests.mmu.sdm import OPEN


class Rig:
    """A CPU with the ``python`` engine and a bare native one over the same memory."""

    def __init__(self) -> None:
        self.differential = Differential()
        self.memory = self.differential.memory
        self.oracle: Oracle = self.differential.oracle
        self.handler = NoHandler()
        self.cpu = Cpu(self.memory.ram, mmu="python", handler=self.handler)
        for base, ram in self.memory.windows.items():
            self.cpu.uc.mem_map_ptr(base, ram.size, unicorn_const.UC_PROT_ALL, ram.address)

    def put(self, case: Case) -> list[int]:
        """Write a case's entries; their indices."""
        variant = VARIANTS[case.variant]
        words, shift = self.memory.words(variant)
        slots = []
        for table, level, entry in zip(variant.tables, variant.levels, case.entries, strict=True):
            slots.append((table >> shift) + (case.linear >> level.shift & (1 << level.index_bits) - 1))
            words[slots[-1]] = entry
        return slots

    def run(self, case: Case, value: int) -> tuple[int, int, int]:
        """(vector, error code, address) of the exception that ends the case's code on the ``python`` engine."""
        cpu = self.cpu
        state = cpu.window
        state.save()
        enter(state, VARIANTS[case.variant], case.ring)
        load(state, case, value)
        state.q[window.Q_RIP] = start(case)
        state.restore()
        cpu.flush_tlb()
        self.handler.last = None
        cpu.run()
        trap = self.handler.last
        assert trap is not None
        return trap.vector, trap.error_code, trap.address


@pytest.fixture(scope="module")
def rig():
    made = Rig()
    yield made
    made.cpu.close()


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_the_python_engine_does_what_the_native_one_does(rig, name):
    random = Random(5)
    vectors: dict[int, int] = {}
    tried = 0
    while tried < 150:
        case = make_case(random, name)
        # Not told apart on this engine: an implicit supervisor access at CPL 3 (docs/limits.md).
        if case.access == "load segment":
            continue
        tried += 1
        assert rig.differential.check(case) is None
        slots = rig.put(case)
        words, _ = rig.memory.words(VARIANTS[name])
        native = rig.oracle.run(case, 0x77)
        after_native = [words[slot] for slot in slots]
        rig.put(case)
        vector, code, address = rig.run(case, 0x77)
        vectors[vector] = vectors.get(vector, 0) + 1
        assert vector == (native.vector or Vector.BP), case.describe()
        if vector == Vector.PF:
            assert (code, address) == (native.error_code, native.cr2), case.describe()
        after = [words[slot] for slot in slots]
        for number, level in enumerate(VARIANTS[name].levels):
            if vector != Vector.BP and level.shift == 30 and after[number] & PS:
                after[number] |= after_native[number] & A
        assert after == after_native, case.describe()
        for slot in slots:
            words[slot] = 0
    assert vectors[Vector.BP] > 20
    assert name == "none" or vectors[Vector.PF] > 20


def open_case(access: str, ring: int, *, user_page: bool, cr4: int, pkru: int) -> Case:
    case = make_case(Random(1), "4-level")
    variant = VARIANTS["4-level"]
    case.linear, case.access, case.ring, case.ac, case.pkru = 0x1234_5000, access, ring, False, pkru
    case.cr4 = 1 << 5 | cr4
    case.cr0 |= 1 << 16
    case.entries = [target | OPEN for target in (*variant.tables[1:], FRAMES_32[0])]
    case.entries[3] = (FRAMES_32[0] | P | 2 | A | D | 3 << 59) | (4 if user_page else 0)
    return case


@pytest.mark.parametrize(
    ("user_page", "cr4", "pkru", "pkrs", "access", "code"),
    [
        (True, CR4_PKE, 1 << 6, 0, "read", 0x25),
        (True, CR4_PKE, 2 << 6, 0, "read", None),
        (True, CR4_PKE, 2 << 6, 0, "write", 0x27),
        (True, 0, 3 << 6, 3 << 6, "write", None),
        (False, CR4_PKS, 0, 1 << 6, "read", 0x21),
        (False, CR4_PKS, 3 << 6, 2 << 6, "write", 0x23),
        (False, CR4_PKS, 3 << 6, 2 << 6, "read", None),
        (False, CR4_PKE, 3 << 6, 3 << 6, "write", None),
    ],
)
def test_each_value_of_pkru_and_pkrs_has_its_own_walk(rig, user_page, cr4, pkru, pkrs, access, code):
    case = open_case(access, 3 if user_page else 0, user_page=user_page, cr4=cr4, pkru=pkru)
    rig.put(case)
    rig.cpu.pkrs = pkrs
    try:
        vector, error_code, _ = rig.run(case, 1)
        assert (rig.cpu.paging.pkru, rig.cpu.paging.pkrs) == (pkru, pkrs)
    finally:
        rig.cpu.pkrs = 0
    assert (vector, error_code) == ((Vector.BP, 0) if code is None else (Vector.PF, code))


def test_the_walks_kept_are_bounded(rig):
    engine = rig.cpu.engine
    for pkru in range(3000):
        engine.walker((0x8001_0031, 1 << 5 | CR4_PKE, 0xD01, pkru, 0))
    assert len(engine.walkers) <= 1024


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_code_is_forgotten_by_frame_in_every_mode(rig, name):
    """:meth:`forget_code` goes through a window of linear addresses that exists in no mode."""
    variant = VARIANTS[name]
    frame = CODE + 0x1000
    case = make_case(Random(2), name)
    case.access, case.ring, case.ac = "fetch", 0, False
    case.cr4 &= 0x1020
    if variant.tables:
        case.linear = sum(1 << level.shift for level in variant.levels)
        opened = [OPEN & ~4 if level.has_rights else P for level in variant.levels]
        case.entries = [target | flags for target, flags in zip((*variant.tables[1:], frame), opened, strict=True)]
    else:
        case.linear = frame
    rig.put(case)
    ram = rig.memory.ram
    for number, code in enumerate((b"\xb0\x01\xcc", b"\xb0\x02\xcc"), 1):
        ram.write(frame, code)
        rig.cpu.engine.forget_code(frame)
        assert rig.run(case, 0)[0] == Vector.BP
        assert rig.cpu.registers()["rax"] & 0xFF == number

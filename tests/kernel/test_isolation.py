"""Processes stopped at any instruction: what their page tables share, and that every reference is accounted for."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmuemu.machine import Machine
from mmuemu.x86.paging import RW
from tests.kernel import isolation
from tests.run.harness import Programs

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="needs Linux programs and their compiler"
)
STEPS = 2_000


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(tmp_path_factory.mktemp("programs"))


def run(
    machine: Machine, program: Path, *arguments: str, slice_: int = 20_000, most: int = STEPS
) -> tuple[int | None, int]:
    """Run to the end, checking every ``slice_`` instructions; the exit code and the most frames shared at once."""
    shared = 0
    machine.load(str(program), [program.name, *arguments], {})
    for _ in range(most):
        outcome = machine.run(max_instructions=slice_)
        shared = max(shared, isolation.check(machine.kernel))
        if outcome.limit is None:
            return outcome.exit_code, shared
    raise AssertionError("no end in sight")


@pytest.mark.parametrize("mmu", ["python", "native"])
@pytest.mark.parametrize("mode", ["forks", "many", "groups", "orphans"])
def test_process_programs(mode: str, mmu: str, programs: Programs) -> None:
    if mode == "many" and mmu == "native":
        pytest.skip("once is enough")
    slice_ = {"many": 40_000}.get(mode, 4_000)
    with Machine(seed=5, mmu=mmu) as machine:
        code, shared = run(machine, programs("processes"), mode, slice_=slice_)
        assert code == 0
        assert shared > 10


@pytest.mark.parametrize("mode", ["vforks", "relative"])
def test_programs_that_execute(mode: str, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Machine(seed=5) as machine:
        code, shared = run(machine, programs("executes"), mode, slice_=6_000)
        assert code == 0
        assert shared > 10


def test_clones_share_one_address_space(programs: Programs) -> None:
    with Machine(seed=5) as machine:
        assert run(machine, programs("clones"), "sharing", slice_=5_000)[0] == 0


LETTERS = st.lists(
    st.tuples(st.sampled_from("pppsfFwwwwwwlludrRkkkbx"), st.sampled_from("abcd"), st.sampled_from("abcdef")),
    min_size=4,
    max_size=24,
).map(lambda steps: "".join(map("".join, steps)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=LETTERS, seed=st.integers(0, 1 << 16), mmu=st.sampled_from(["python", "native"]))
def test_random_programs(script: str, seed: int, mmu: str, programs: Programs) -> None:
    start = "paa" + "saa"[:3].replace("a", "b", 1) + "fca" + "Fda"
    with Machine(seed=seed, mmu=mmu) as machine:
        assert run(machine, programs("memory_script"), start + script, slice_=9_000)[0] == 0


def test_frames_go_back_when_processes_end(programs: Programs) -> None:
    with Machine(seed=1) as machine:
        run(machine, programs("processes"), "forks", slice_=200_000)
        kernel = machine.kernel
        assert list(kernel.tasks) == []
        assert len(kernel.processes) <= 1
        kernel.frames.flush()
        assert kernel.ram.resident() >> 12 <= kernel.frames.used + 1


class TestTheCheckerItself:
    """A checker that cannot fail proves nothing: broken states must be found."""

    @pytest.fixture
    def machine(self, programs: Programs) -> Machine:
        machine = Machine(seed=3)
        machine.load(str(programs("processes")), ["processes", "many"], {})
        while len(machine.kernel.tasks) < 3:
            machine.run(max_instructions=3_000)
        isolation.check(machine.kernel)
        yield machine
        machine.close()

    def _private(self, machine: Machine) -> tuple[int, int]:
        """(entry address, frame) of a page that two processes share for copy-on-write."""
        kernel = machine.kernel
        for space in isolation.spaces(kernel):
            for linear, entry, _ in space.page_table.iterate(0, 1 << 47):
                frame = entry & 0xF_FFFF_FFFF_F000
                vma = space.vmas.find(linear)
                if vma.mapping is None and kernel.frames.refcount(frame) > 1 and frame != kernel.frames.zero_frame:
                    return space.page_table.entry_address(linear), frame
        raise AssertionError("nothing is shared")

    def test_a_writable_shared_page(self, machine: Machine) -> None:
        address, _ = self._private(machine)
        machine.kernel.ram.qwords[address >> 3] |= RW
        with pytest.raises(AssertionError, match=r"not alone|against"):
            isolation.check(machine.kernel)

    def test_a_reference_too_many(self, machine: Machine) -> None:
        machine.kernel.frames.share(self._private(machine)[1])
        with pytest.raises(AssertionError, match="other references"):
            isolation.check(machine.kernel)

    def test_a_frame_that_nobody_has(self, machine: Machine) -> None:
        machine.kernel.frames.allocate()
        with pytest.raises(AssertionError, match="nothing refers to"):
            isolation.check(machine.kernel)

    def test_a_user_page_in_the_kernel_half(self, machine: Machine) -> None:
        table = machine.kernel.memory.half.table
        address = table.entry_address(machine.kernel.memory.entry)
        machine.kernel.ram.qwords[address >> 3] |= 4
        with pytest.raises(AssertionError, match="user rights"):
            isolation.check(machine.kernel)

    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_ring_three_s_own_root_with_page_table_isolation(self, place: str, programs: Programs) -> None:
        with Machine(seed=3, kpti=True, layout="linux-5level") as machine:
            machine.load(str(programs("processes")), ["processes", "forks"], {})
            machine.run(max_instructions=3_000)
            kernel = machine.kernel
            isolation.check(kernel)
            table = isolation.spaces(kernel)[0].page_table
            if place == "lower":
                kernel.ram.qwords[(table.user_root >> 3) + 7] ^= 1
            else:
                # Ring 3 gets to see a part of the kernel.
                kernel.ram.qwords[(table.user_root >> 3) + 300] = kernel.ram.qwords[(table.root >> 3) + 511]
            with pytest.raises(AssertionError, match="two user halves" if place == "lower" else "another kernel half"):
                isolation.check(kernel)

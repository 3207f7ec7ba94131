"""Long runs hold no more than short ones: of the host's memory, of guest frames, of objects."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from mmuemu.machine import Machine
from tests.run.harness import Programs


def resident() -> int:
    """KiB of this process that the host has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def measure(program: Path, loop: str, rounds: int, mmu: str) -> tuple[int, int, int]:
    """Frames in use, objects and KiB that a run of ``rounds`` has left before its machine is closed."""
    gc.collect()
    objects, before = len(gc.get_objects()), resident()
    with Machine(memory=64 << 20, seed=1, mmu=mmu) as machine:
        machine.load(str(program), [str(program), loop, str(rounds)], {})
        assert machine.run().exit_code == 0
        gc.collect()
        machine.kernel.frames.flush()
        return machine.kernel.frames.used, len(gc.get_objects()) - objects, resident() - before


@pytest.mark.parametrize(
    ("loop", "few", "mmu"),
    [
        ("forkloop", 100, "python"),
        ("callloop", 5_000, "native"),
        ("maploop", 100, "python"),
        ("maploop", 100, "native"),
        ("threadloop", 150, "python"),
        ("execloop", 25, "native"),
        ("spawnloop", 25, "python"),
    ],
)
def test_a_loop_holds_nothing(loop: str, few: int, mmu: str, programs: Programs) -> None:
    program = programs("pressure")
    measure(program, loop, few, mmu)
    frames, objects, _ = measure(program, loop, few, mmu)
    more_frames, more_objects, grown = measure(program, loop, 8 * few, mmu)
    assert more_frames <= frames + 8
    assert more_objects <= objects + 3_000  # what is kept of the last few processes
    assert grown < 8 << 10


def test_a_thousand_forks_leave_the_size_of_the_start(programs: Programs) -> None:
    program = programs("pressure")
    with Machine(memory=64 << 20, seed=1) as machine:
        machine.load(str(program), [str(program), "forkloop", "1000"], {})
        machine.run(max_instructions=20_000)
        machine.kernel.frames.flush()
        start = machine.kernel.ram.resident()
        assert machine.run().exit_code == 0
        machine.kernel.frames.flush()
        # The bounds of what may stay: a few kernel stacks, and the pages the program touched since.
        assert machine.kernel.ram.resident() <= start + (1 << 20)

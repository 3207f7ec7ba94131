"""The scheduler's slices by themselves."""

from __future__ import annotations

from types import SimpleNamespace

from mmuemu.kernel.clock import INSTRUCTION_NS, VirtualClock
from mmuemu.kernel.scheduler import LONGEST_WAIT, SHORTEST, Scheduler
from mmuemu.kernel.timers import Timers


def test_a_slice_ends_while_a_host_descriptor_is_waited_for() -> None:
    """However long a task runs alone: else the one that waits would never be woken."""
    scheduler = Scheduler(SimpleNamespace(timers=Timers(), clock=VirtualClock()), 1)
    scheduler.sleepers["task"] = {0: 1}
    assert all(scheduler.slice() is not None for _ in range(100))
    scheduler.sleepers.clear()
    assert [scheduler.slice() for _ in range(100)][-1] is None
    scheduler.sleepers["task"] = {0: 1}
    assert scheduler.slice() is not None


def test_a_slice_ends_while_there_is_a_deadline() -> None:
    scheduler = Scheduler(SimpleNamespace(timers=Timers(), clock=VirtualClock()), 1)
    assert scheduler.slice() is None
    timer = scheduler.kernel.timers.at(1, lambda: None)
    assert all(scheduler.slice() is not None for _ in range(100))
    timer.cancel()
    assert [scheduler.slice() for _ in range(100)][-1] is None


def test_a_slice_lasts_until_the_deadline() -> None:
    scheduler = Scheduler(SimpleNamespace(timers=Timers(), clock=VirtualClock()), 1)
    for deadline, instructions in (
        (1, SHORTEST),
        (40_000 * INSTRUCTION_NS, 40_000),
        (1 << 60, LONGEST_WAIT),
    ):
        timer = scheduler.kernel.timers.at(deadline, lambda: None)
        assert scheduler.slice() == instructions
        timer.cancel()

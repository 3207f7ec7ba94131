"""Time from counted instructions, and events at exact counts in one order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmuemu.devices.clock import InstructionClock
from mmuemu.errors import UsageError


def test_a_thousand_instructions_are_a_microsecond():
    clock = InstructionClock()
    clock.advance(1500)
    assert (clock.instructions, clock.now) == (1500, 1500)
    slow = InstructionClock(10)
    slow.advance(15)
    assert slow.now == 1500


@pytest.mark.parametrize("bad", [{"instructions_per_us": 0}, {"tsc_hz": 0}])
def test_a_clock_that_stands_still_is_refused(bad):
    with pytest.raises(UsageError):
        InstructionClock(**bad)


def test_a_timer_goes_off_once_and_at_its_count():
    clock = InstructionClock(3)
    rung = []
    timer = clock.timer("t", lambda deadline: rung.append((clock.instructions, deadline)))
    timer.arm(1001)
    assert clock.next_event_in() == 4  # 1001 ns at 3 instructions a microsecond: the fourth has 1333 ns
    clock.advance(3)
    assert rung == []
    clock.advance(100)
    assert rung == [(4, 1001)]
    assert clock.next_event_in() is None
    assert clock.instructions == 103


def test_a_deadline_that_has_passed_is_the_next_instruction():
    clock = InstructionClock()
    clock.advance(10)
    timer = clock.timer("t", lambda _d: None)
    timer.arm(3)
    assert clock.next_event_in() == 1


def test_cancel_and_rearm():
    clock = InstructionClock()
    rung = []
    timer = clock.timer("t", rung.append)
    timer.arm(10)
    timer.cancel()
    clock.advance(20)
    timer.arm(40)
    timer.arm(30)
    clock.advance(100)
    assert rung == [30]


def test_a_timer_that_rearms_itself_runs_within_one_advance():
    clock = InstructionClock()
    rung = []

    def ring(deadline):
        rung.append(deadline)
        timer.arm(deadline + 7)

    timer = clock.timer("t", ring)
    timer.arm(7)
    clock.advance(30)
    assert rung == [7, 14, 21, 28]


def test_a_timer_armed_in_the_past_for_ever_still_lets_time_pass():
    clock = InstructionClock()
    rung = []

    def ring(_deadline):
        rung.append(clock.instructions)
        timer.arm(0)

    timer = clock.timer("t", ring)
    timer.arm(0)
    clock.advance(3)
    assert rung == [1, 2, 3]


def test_someone_is_told_when_the_next_event_comes_nearer_and_only_then():
    clock = InstructionClock()
    told = []
    clock.on_sooner = lambda: told.append(clock.next_event_in())
    late, soon = clock.timer("late", lambda _d: None), clock.timer("soon", lambda _d: None)
    late.arm(100)
    soon.arm(50)
    late.arm(80)
    soon.arm(60)
    soon.cancel()
    assert told == [100, 50]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60)), max_size=12),
    st.lists(st.integers(1, 25), min_size=1, max_size=10),
    st.sampled_from([1, 7, 1000, 3000]),
)
def test_the_order_of_events_is_time_then_age_however_the_run_is_cut(arms, cuts, speed):
    def play(steps):
        clock = InstructionClock(speed)
        rung = []
        timers = [
            clock.timer(str(n), lambda deadline, n=n: rung.append((clock.instructions, deadline, n))) for n in range(6)
        ]
        for number, moment in arms:
            timers[number].arm(moment)
        for step in steps:
            clock.advance(step)
        return rung

    whole = play([sum(cuts)])
    assert play(cuts) == whole
    assert whole == sorted(whole)
    last = dict(arms)
    due = {n: max(-(-moment * speed // 1000), 1) for n, moment in last.items()}
    assert sorted(whole) == sorted((due[n], last[n], n) for n in last if due[n] <= sum(cuts))


def test_the_tsc_runs_at_its_rate_and_can_be_set():
    clock = InstructionClock(1000, tsc_hz=2_000_000_000)
    told = []
    clock.on_tsc = lambda: told.append(clock.tsc())
    clock.advance(500)
    assert clock.tsc() == 1000
    clock.set_tsc(5)
    clock.advance(1)
    assert clock.tsc() == 7
    assert told == [5]


@given(
    st.integers(1, 10**10),
    st.integers(0, 10**6),
    st.integers(1, 10**9),
    st.sampled_from([1, 999, 1000, 4096]),
)
def test_the_moment_of_a_tsc_value_is_when_it_has_been_reached(hz, start, ticks, speed):
    clock = InstructionClock(speed, hz)
    clock.advance(start)
    value = clock.tsc() + ticks
    count = clock.count_at(clock.moment_of_tsc(value))
    clock.advance_to(count)
    assert clock.tsc() >= value

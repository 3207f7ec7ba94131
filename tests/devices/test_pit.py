"""The 8254: modes, latches, read-back, byte order, BCD, channel 2 and the calibration loops kernels run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pc_board import Machine

from mmuemu.devices.pit import HZ, Channel, moment_of, tick_at

MS = 1_000_000


def program(pc, channel, mode, count, access=3):
    pc.outb(0x43, channel << 6 | access << 4 | mode << 1)
    if access & 1:
        pc.outb(0x40 + channel, count & 0xFF)
    if access & 2:
        pc.outb(0x40 + channel, count >> 8)


def read_count(pc, channel=0):
    pc.outb(0x43, channel << 6)
    low = pc.inb(0x40 + channel)
    return pc.inb(0x40 + channel) << 8 | low


def run_ticks(pc, ticks):
    """To the first moment at which so many more ticks have passed."""
    pc.clock.advance_to(moment_of(tick_at(pc.clock.now) + ticks))


@given(st.integers(0, 10**9))
def test_ticks_and_moments_are_inverse(tick):
    assert tick_at(moment_of(tick)) == tick
    assert tick == 0 or tick_at(moment_of(tick) - 1) == tick - 1


@pytest.mark.parametrize("mode", [2, 3, 6, 7])
def test_a_periodic_timer_at_100_hz_comes_100_times_a_second(quiet, mode):
    quiet.remap_pic(0xFFFE)
    program(quiet, 0, mode, 11932)
    quiet.lapic_write(0xF0, 0x1FF)
    quiet.lapic_write(0x350, 0x700)
    taken = quiet.take_until(1000 * MS)
    assert {vector for _, vector in taken} == {0x20}
    assert len(taken) == HZ // 11932 == 99
    assert [when for when, _ in taken[:2]] == [moment_of(11932), moment_of(23864)]


def test_a_count_of_zero_is_65536(quiet):
    program(quiet, 0, 2, 0)
    assert quiet.clock.next_event_in() == moment_of(65536)
    run_ticks(quiet, 1)
    assert read_count(quiet) == 65535


def test_mode_0_interrupts_once_and_counts_on(quiet):
    quiet.remap_pic(0)
    program(quiet, 0, 0, 1000)
    run_ticks(quiet, 999)
    assert read_count(quiet) == 1
    assert quiet.pic.peek() is None
    run_ticks(quiet, 1)
    assert quiet.pic.peek() == 0x20
    run_ticks(quiet, 10)
    assert read_count(quiet) == 0x10000 - 10
    assert quiet.clock.next_event_in() is None


def test_mode_0_a_new_count_starts_anew_and_its_first_byte_stops(quiet):
    program(quiet, 0, 0, 1000)
    run_ticks(quiet, 500)
    quiet.outb(0x40, 0x10)
    assert quiet.clock.next_event_in() is None
    quiet.outb(0x40, 0x00)
    assert quiet.clock.next_event_in() is not None
    assert read_count(quiet) == 0x10


def test_mode_0_then_a_periodic_mode_raises_the_line_at_once(quiet):
    quiet.remap_pic(0)
    quiet.outb(0x43, 0x30)
    assert quiet.pic.peek() is None
    quiet.outb(0x43, 0x34)
    assert quiet.pic.peek() == 0x20


def test_mode_4_strobes_once(quiet):
    quiet.remap_pic(0)
    program(quiet, 0, 4, 50)
    quiet.pic.acknowledge()
    quiet.outb(0x20, 0x20)
    run_ticks(quiet, 50)
    assert quiet.pic.peek() is None
    run_ticks(quiet, 1)
    assert quiet.pic.peek() == 0x20
    assert quiet.clock.next_event_in() is None


def test_the_latch_holds_the_count_until_both_bytes_are_read(quiet):
    program(quiet, 0, 2, 0x4000)
    run_ticks(quiet, 0x10)
    quiet.outb(0x43, 0x00)
    run_ticks(quiet, 0x100)
    quiet.outb(0x43, 0x00)  # a second latch is ignored
    assert quiet.inb(0x40) == 0xF0
    run_ticks(quiet, 0x100)
    assert quiet.inb(0x40) == 0x3F
    assert read_count(quiet) == 0x4000 - 0x210


def test_read_back_latches_status_and_count_of_several_channels(quiet):
    program(quiet, 0, 2, 0x1234)
    quiet.outb(0x43, 0xB6)  # channel 2 mode 3, no count yet
    run_ticks(quiet, 4)
    quiet.outb(0x43, 0xC0 | 2 | 8)
    assert quiet.inb(0x40) == 0x80 | 0x34  # OUT high, loaded, both bytes, mode 2
    assert [quiet.inb(0x40), quiet.inb(0x40)] == [0x30, 0x12]
    assert quiet.inb(0x42) == 0x80 | 0x40 | 0x36  # null count


def test_one_byte_access_modes(quiet):
    program(quiet, 0, 2, 0x80, access=1)
    run_ticks(quiet, 1)
    assert [quiet.inb(0x40), quiet.inb(0x40)] == [0x7F, 0x7F]
    program(quiet, 0, 2, 0x1200, access=2)
    assert quiet.inb(0x40) == 0x12


def test_bcd_counts_in_decimal(quiet):
    quiet.outb(0x43, 0x35)
    quiet.outb(0x40, 0x00)
    quiet.outb(0x40, 0x10)  # 1000
    run_ticks(quiet, 1)
    assert read_count(quiet) == 0x0999
    run_ticks(quiet, 999)
    assert read_count(quiet) == 0x1000
    quiet.outb(0x43, 0x35)
    quiet.outb(0x40, 0)
    quiet.outb(0x40, 0)
    assert quiet.clock.next_event_in() == moment_of(1000 + 10_000) - quiet.clock.instructions


def test_mode_2_a_new_count_waits_for_the_end_of_the_period(quiet):
    program(quiet, 0, 2, 1000)
    run_ticks(quiet, 100)
    quiet.outb(0x40, 200)
    quiet.outb(0x40, 0)
    quiet.outb(0x43, 0xC2 | 0x20)
    assert quiet.inb(0x40) & 0x40  # null count: not loaded yet
    run_ticks(quiet, 100)
    assert read_count(quiet) == 800
    run_ticks(quiet, 800)
    assert read_count(quiet) == 200
    run_ticks(quiet, 100)
    assert read_count(quiet) == 100


def test_mode_3_counts_by_two_and_is_high_for_the_first_half(quiet):
    channel = Channel()
    channel.control(0x36, 0)
    channel.write(5, 0)
    channel.write(0, 0)
    assert [channel.out(tick) for tick in range(10)] == [True, True, True, False, False] * 2
    channel.control(0x36, 0)
    channel.write(8, 0)
    channel.write(0, 0)
    assert [channel.value(tick) for tick in range(8)] == [8, 6, 4, 2, 8, 6, 4, 2]


def test_mode_2_is_low_for_the_last_tick():
    channel = Channel()
    channel.control(0x14, 0)
    channel.write(3, 0)
    assert [channel.out(tick) for tick in range(6)] == [True, True, False] * 2


def test_mode_1_is_low_from_the_gates_rise_for_its_count():
    channel = Channel()
    channel.gate = False
    channel.control(0x12, 0)
    channel.write(3, 0)
    assert channel.out(50)
    channel.set_gate(True, 100)
    assert [channel.out(tick) for tick in range(100, 105)] == [False, False, False, True, True]
    channel.set_gate(False, 110)
    channel.set_gate(True, 120)  # triggers again
    assert not channel.out(121)


@given(
    st.sampled_from([0, 2, 3, 4]),
    st.integers(2, 60),
    st.lists(st.integers(1, 50), min_size=1, max_size=20),
)
def test_next_rise_is_where_out_rises(mode, count, steps):
    channel = Channel()
    channel.control(0x10 | mode << 1, 0)
    channel.write(count, 0)
    tick = 0
    for step in steps:
        tick += step
        rise = channel.next_rise(tick)
        levels = [channel.out(at) for at in range(tick, tick + 130)]
        found = [tick + n for n in range(1, 130) if levels[n] and not levels[n - 1]]
        assert (rise if rise is not None else []) == (found[0] if found else [])


def test_calibration_through_channel_2_and_port_61(quiet):
    """Linux's quick calibration and xv6-like loops: gate on, one-shot, wait for bit 5 of port 0x61."""
    quiet.outb(0x61, quiet.inb(0x61) & ~0x02 | 0x01)
    quiet.outb(0x43, 0xB0)
    quiet.outb(0x42, 11932 & 0xFF)
    quiet.outb(0x42, 11932 >> 8)
    start = quiet.clock.tsc()
    loops = 0
    while not quiet.inb(0x61) & 0x20:
        quiet.run(50)
        loops += 1
    assert abs(quiet.clock.tsc() - start - 10 * MS) < 300
    assert loops > 1000


def test_the_gate_of_channel_2_stops_and_restarts_it(quiet):
    quiet.outb(0x61, 0)
    program(quiet, 2, 0, 1000)
    run_ticks(quiet, 5000)
    assert read_count(quiet, 2) == 1000
    quiet.outb(0x61, 1)
    run_ticks(quiet, 400)
    quiet.outb(0x61, 0)
    run_ticks(quiet, 400)
    assert read_count(quiet, 2) == 600
    quiet.outb(0x61, 1)
    run_ticks(quiet, 600)
    assert quiet.inb(0x61) & 0x20


def test_the_gate_restarts_periodic_modes_from_the_count(quiet):
    quiet.outb(0x61, 1)
    program(quiet, 2, 2, 1000)
    run_ticks(quiet, 300)
    quiet.outb(0x61, 0)
    assert quiet.inb(0x61) & 0x20
    quiet.outb(0x61, 1)
    assert read_count(quiet, 2) == 1000


def test_a_stopped_channel_takes_its_new_count_at_the_gates_rise(quiet):
    quiet.outb(0x61, 1)
    program(quiet, 2, 2, 1000)
    run_ticks(quiet, 300)
    quiet.outb(0x42, 50)
    quiet.outb(0x42, 0)
    quiet.outb(0x61, 0)
    run_ticks(quiet, 5000)
    assert read_count(quiet, 2) == 700
    quiet.outb(0x61, 1)
    assert read_count(quiet, 2) == 50


def test_port_61_keeps_four_bits_and_its_refresh_bit_toggles(quiet):
    quiet.outb(0x61, 0xFF)
    assert quiet.inb(0x61) & 0xCF == 0x0F
    seen = set()
    for _ in range(10):
        seen.add(quiet.inb(0x61) & 0x10)
        quiet.run(15_000)
    assert seen == {0, 0x10}


def test_the_control_port_reads_nothing(quiet):
    assert quiet.inb(0x43) == 0xFF


@given(st.lists(st.tuples(st.sampled_from([0x40, 0x41, 0x42, 0x43, 0x61]), st.integers(0, 255)), max_size=40))
def test_no_sequence_of_writes_breaks_it(writes):
    pc = Machine(firmware=False)
    for port, value in writes:
        pc.outb(port, value)
        pc.run(value * 100)
        for at in (0x40, 0x41, 0x42, 0x61):
            assert 0 <= pc.inb(at) < 256
        step = pc.clock.next_event_in()
        assert step is None or step >= 1

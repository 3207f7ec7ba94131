"""The real-time clock and CMOS: the time in every format, setting it, its flags and interrupts, memory sizes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pc_board import Machine

SECOND = 1_000_000_000


def cmos(pc, index):
    pc.outb(0x70, index)
    return pc.inb(0x71)


def set_cmos(pc, index, value):
    pc.outb(0x70, index)
    pc.outb(0x71, value)


def at(when, **options):
    """A machine that starts at that time, in UTC."""
    return Machine(firmware=False, epoch=int(when.replace(tzinfo=timezone.utc).timestamp()), **options)


def bcd(value):
    return (value >> 4) * 10 + (value & 15)


def read_time(pc):
    """As OSDev and Linux do: wait for UIP to clear, read, decode by register B."""
    while cmos(pc, 0x0A) & 0x80:
        pc.run(10_000)
    status = cmos(pc, 0x0B)
    sec, minute, hour, day, month, year, century = (cmos(pc, n) for n in (0, 2, 4, 7, 8, 9, 0x32))
    decode = (lambda v: v) if status & 4 else bcd
    pm = not status & 2 and hour & 0x80
    hour = decode(hour & 0x7F if not status & 2 else hour)
    if not status & 2:
        hour = hour % 12 + (12 if pm else 0)
    return datetime(decode(century) * 100 + decode(year), decode(month), decode(day), hour, decode(minute), decode(sec))


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2099, 12, 30)),
    st.sampled_from([0, 2, 4, 6]),
    st.integers(0, 100_000),
)
def test_the_time_reads_the_same_in_every_format(when, register_b, later):
    when = when.replace(microsecond=0)
    pc = at(when)
    set_cmos(pc, 0x0B, register_b)
    pc.run(later * SECOND)
    assert read_time(pc) == when + timedelta(seconds=later)
    assert cmos(pc, 6) == (when + timedelta(seconds=later)).isoweekday() % 7 + 1


def test_uip_is_set_just_before_the_second_changes():
    pc = at(datetime(2024, 5, 6, 7, 8, 9))
    pc.run(SECOND - 300_000)
    assert not cmos(pc, 0x0A) & 0x80
    pc.run(100_000)
    assert cmos(pc, 0x0A) == 0xA6
    assert bcd(cmos(pc, 0)) == 9
    pc.run(200_000)
    assert cmos(pc, 0x0A) == 0x26
    assert bcd(cmos(pc, 0)) == 10


@given(st.datetimes(datetime(1980, 1, 1), datetime(2099, 12, 30)), st.permutations([0, 2, 4, 7, 8, 9, 0x32]))
def test_setting_the_time_under_set_works_in_any_order(when, order):
    when = when.replace(microsecond=0)
    pc = at(datetime(2024, 1, 31, 23, 59, 59))
    set_cmos(pc, 0x0B, 0x82)
    pc.run(3 * SECOND)
    assert bcd(cmos(pc, 0)) == 59  # it stands still
    assert not cmos(pc, 0x0A) & 0x80
    values = dict(
        zip(
            (0, 2, 4, 7, 8, 9, 0x32),
            (when.second, when.minute, when.hour, when.day, when.month, when.year % 100, when.year // 100),
            strict=True,
        )
    )
    for index in order:
        set_cmos(pc, index, values[index] // 10 << 4 | values[index] % 10)
    set_cmos(pc, 0x0B, 0x02)
    assert read_time(pc) == when
    pc.run(2 * SECOND)
    assert read_time(pc) == when + timedelta(seconds=2)


def test_a_byte_set_while_it_runs_and_nonsense_is_the_nearest_time():
    pc = at(datetime(2024, 3, 31, 12, 0, 0))
    set_cmos(pc, 8, 0x02)
    assert read_time(pc) == datetime(2024, 2, 29, 12, 0, 0)
    set_cmos(pc, 4, 0x77)
    set_cmos(pc, 2, 0xFF)
    assert read_time(pc) == datetime(2024, 2, 29, 23, 59, 0)


@pytest.mark.parametrize(("rate", "per_second"), [(6, 1024), (15, 2), (3, 8192), (1, 256), (2, 128)])
def test_the_periodic_interrupt_has_its_rate(rate, per_second):
    pc = at(datetime(2024, 1, 1))
    pc.remap_pic(0xFEFB)
    set_cmos(pc, 0x0A, 0x20 | rate)
    set_cmos(pc, 0x0B, 0x42)
    count = 0
    while pc.clock.now < SECOND // 4:
        pc.run(pc.clock.next_event_in())
        assert pc.pic.peek() == 0x28
        pc.pic.acknowledge()
        assert cmos(pc, 0x0C) & 0xC0 == 0xC0
        pc.outb(0xA0, 0x20)
        pc.outb(0x20, 0x20)
        count += 1
    assert abs(count - per_second // 4) <= 1


def test_no_second_edge_until_register_c_is_read():
    pc = at(datetime(2024, 1, 1))
    pc.remap_pic(0xFEFB)
    set_cmos(pc, 0x0B, 0x42)
    pc.run(SECOND // 1000)
    pc.pic.acknowledge()
    pc.outb(0xA0, 0x20)
    pc.outb(0x20, 0x20)
    pc.run(SECOND // 10)
    assert pc.pic.peek() is None
    cmos(pc, 0x0C)
    pc.run(SECOND // 1000)
    assert pc.pic.peek() == 0x28


def test_update_ended_comes_with_each_second():
    pc = at(datetime(2024, 1, 1))
    pc.remap_pic(0xFEFB)
    set_cmos(pc, 0x0B, 0x12)
    pc.run(SECOND - 1)
    assert pc.pic.peek() is None
    pc.run(1)
    assert pc.pic.peek() == 0x28
    assert cmos(pc, 0x0C) == 0xD0


@pytest.mark.parametrize("register_b", [0x20, 0x22, 0x24, 0x26])
def test_the_alarm_rings_at_its_time_in_every_format(register_b):
    pc = at(datetime(2024, 1, 1, 13, 59, 58))
    pc.remap_pic(0xFEFB)
    hour = {0x20: 0x82, 0x22: 0x14, 0x24: 0x82, 0x26: 14}[register_b]
    for index, value in ((1, 1), (3, 0), (5, hour)):
        set_cmos(pc, index, value)
    set_cmos(pc, 0x0B, register_b)
    pc.run(3 * SECOND - 1)
    assert pc.pic.peek() is None
    pc.run(1)
    assert pc.pic.peek() == 0x28
    assert cmos(pc, 0x0C) & 0xA0 == 0xA0
    pc.run(70 * SECOND)
    assert not cmos(pc, 0x0C) & 0x20


def test_alarm_bytes_of_c0_and_up_match_anything():
    pc = at(datetime(2024, 1, 1))
    pc.remap_pic(0xFEFB)
    for index, value in ((1, 0x30), (3, 0xC0), (5, 0xFF)):
        set_cmos(pc, index, value)
    set_cmos(pc, 0x0B, 0x22)
    times = []
    while len(times) < 3:
        pc.run(pc.clock.next_event_in())
        if pc.pic.peek() == 0x28:
            times.append(pc.clock.now // SECOND)
            pc.pic.acknowledge()
            cmos(pc, 0x0C)
            pc.outb(0xA0, 0x20)
            pc.outb(0x20, 0x20)
    assert times == [30, 90, 150]


def test_flags_come_without_interrupts_too_and_are_cleared_by_reading():
    pc = at(datetime(2024, 1, 1, 23, 59, 59))
    pc.run(SECOND)
    assert cmos(pc, 0x0C) == 0x70  # the alarm bytes are all zero: midnight
    assert cmos(pc, 0x0C) == 0
    assert pc.clock.next_event_in() is None


def test_the_divider_in_reset_stops_the_clock():
    pc = at(datetime(2024, 1, 1, 0, 0, 5))
    set_cmos(pc, 0x0A, 0x60)
    pc.run(10 * SECOND)
    assert bcd(cmos(pc, 0)) == 5
    set_cmos(pc, 0x0A, 0x26)
    pc.run(10 * SECOND)
    assert bcd(cmos(pc, 0)) == 15


def test_the_nmi_mask_is_bit_7_of_the_index():
    pc = at(datetime(2024, 1, 1))
    pc.lapic_write(0xF0, 0x1FF)
    pc.lapic_write(0x360, 0x400)
    assert cmos(pc, 0x80 | 0x0D) == 0x80
    assert pc.rtc.nmi_disabled
    pc.nmi()
    assert not pc.nmi_pending
    pc.outb(0x70, 0)
    pc.nmi()
    assert pc.nmi_pending


def test_index_reads_ones_and_plain_bytes_are_memory():
    pc = at(datetime(2024, 1, 1))
    assert pc.inb(0x70) == 0xFF
    set_cmos(pc, 0x40, 0xA5)
    assert cmos(pc, 0x40) == 0xA5
    set_cmos(pc, 0x0D, 0)
    assert cmos(pc, 0x0D) == 0x80


@pytest.mark.parametrize("ram", [32 << 20, 1 << 30, 5 << 30, 1 << 39])
def test_memory_sizes(ram):
    pc = at(datetime(2024, 1, 1), ram=ram)
    words = [sum(cmos(pc, index + n) << 8 * n for n in range(2)) for index in (0x15, 0x17, 0x30, 0x34)]
    below = min(ram, 3 << 30)
    extended = min((below >> 10) - 1024, 65535)
    assert words == [640, extended, extended, (below - (16 << 20)) >> 16]
    above = sum(cmos(pc, 0x5B + n) << 8 * n for n in range(3))
    assert above << 16 == ram - below
    assert cmos(pc, 0x5F) == 0

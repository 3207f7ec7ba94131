"""The buses: who answers, what happens where nobody does, and how wide accesses are split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmuemu.devices.bus import MmioBus, PortBus, Range
from mmuemu.errors import UsageError


class Recorder:
    """A device that is so many bytes of storage and notes each access."""

    def __init__(self, name, first, size, widths=(1,)):
        self.memory = bytearray(size)
        self.seen = []
        self.range = Range(name, first, size, self.read, self.write, widths)

    def read(self, offset, size):
        self.seen.append(("r", offset, size))
        return int.from_bytes(self.memory[offset : offset + size], "little")

    def write(self, offset, size, value):
        self.seen.append(("w", offset, size, value))
        self.memory[offset : offset + size] = value.to_bytes(size, "little")


@pytest.mark.parametrize(("bus", "sizes"), [(PortBus, (1, 2, 4)), (MmioBus, (1, 2, 4, 8))])
def test_nobody_reads_all_ones_and_writes_vanish(bus, sizes):
    bus = bus()
    for size in sizes:
        bus.write(0x1234, size, 0)
        assert bus.read(0x1234, size) == (1 << 8 * size) - 1


@pytest.mark.parametrize("size", [0, 3, 8, 16])
def test_a_port_access_has_one_two_or_four_bytes(size):
    with pytest.raises(UsageError):
        PortBus().read(0x60, size)
    with pytest.raises(UsageError):
        PortBus().write(0x60, size, 0)


def test_a_wide_access_to_a_byte_device_is_split_at_rising_ports():
    bus = PortBus()
    device = Recorder("d", 0x40, 4)
    bus.claim(device.range)
    bus.write(0x40, 4, 0x44332211)
    assert device.seen == [("w", 0, 1, 0x11), ("w", 1, 1, 0x22), ("w", 2, 1, 0x33), ("w", 3, 1, 0x44)]
    assert bus.read(0x41, 2) == 0x3322


def test_an_access_over_the_edge_of_a_device_reads_ones_beyond():
    bus = PortBus()
    device = Recorder("d", 0x40, 2, (1, 2))
    bus.claim(device.range)
    device.memory[:] = b"\x12\x34"
    assert bus.read(0x40, 4) == 0xFFFF3412
    assert bus.read(0x3F, 2) == 0x12FF
    bus.write(0x41, 4, 0xAABBCCDD)
    assert device.memory == b"\x12\xdd"
    assert bus.read(0xFFFF, 4) == 0xFFFF_FFFF


def test_eight_bytes_to_a_four_byte_device_are_two_accesses():
    bus = MmioBus()
    device = Recorder("d", 0xFEE00000, 0x1000, (1, 2, 4))
    bus.claim(device.range)
    bus.write(0xFEE00080, 8, 0x1122334455667788)
    assert device.seen == [("w", 0x80, 4, 0x55667788), ("w", 0x84, 4, 0x11223344)]
    assert bus.read(0xFEE00080, 8) == 0x1122334455667788


def test_a_device_that_knows_only_wide_accesses_does_not_answer_narrow_ones():
    bus = MmioBus()
    device = Recorder("d", 0x1000, 16, (4,))
    bus.claim(device.range)
    assert bus.read(0x1000, 1) == 0xFF
    bus.write(0x1000, 2, 0)
    assert device.seen == []


def test_the_trace_sees_every_access_and_who_answered():
    bus = PortBus()
    bus.claim(Recorder("d", 0x40, 4).range)
    seen = []
    bus.trace = seen.append
    bus.write(0x40, 1, 0x1FF)
    bus.read(0x99, 2)
    assert seen == [("d", True, 0x40, 1, 0xFF), (None, False, 0x99, 2, 0xFFFF)]


@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 40), st.integers(1, 20))
def test_two_devices_never_share_an_address(a, a_size, b, b_size):
    bus = MmioBus()
    bus.claim(Recorder("a", a, a_size).range)
    shared = set(range(a, a + a_size)) & set(range(b, b + b_size))
    if shared:
        with pytest.raises(UsageError, match="overlaps"):
            bus.claim(Recorder("b", b, b_size).range)
    else:
        bus.claim(Recorder("b", b, b_size).range)
    for address in range(70):
        found = bus.find(address)
        inside = "a" if a <= address < a + a_size else "b" if not shared and b <= address < b + b_size else None
        assert (found.name if found else None) == inside


def test_a_range_can_be_released_and_claimed_elsewhere():
    for bus in (PortBus(), MmioBus()):
        device = Recorder("d", 0x1000, 0x100)
        bus.claim(device.range)
        bus.release("d")
        bus.claim(device.range._replace(first=0x5000))
        assert bus.find(0x1000) is None
        assert bus.find(0x50FF).name == "d"
        bus.release("e")
        assert [found.first for found in bus.ranges()] == [0x5000]


def test_ports_end_at_ffff():
    with pytest.raises(UsageError):
        PortBus().claim(Recorder("d", 0xFFFE, 4).range)
    with pytest.raises(UsageError):
        PortBus().claim(Recorder("d", 4, 0).range)

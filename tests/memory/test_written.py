"""Pages written since the last look: whoever writes, and none but those."""

from __future__ import annotations

import ctypes
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmuemu.memory.ram import GuestRam
from mmuemu.memory.written import WrittenPages

PAGES = 64


@pytest.fixture
def looked_after():
    ram = GuestRam(PAGES << 12)
    tracker = WrittenPages.of(ram)
    if tracker is None:
        ram.close()
        pytest.skip("this host does not tell (Linux 6.7 does)")
    yield ram, tracker
    tracker.close()
    ram.close()


def test_everything_counts_as_written_at_first_and_nothing_twice(looked_after):
    ram, tracker = looked_after
    ram.write(5 << 12, b"x")
    assert 5 << 12 in tracker.take(ram.size)
    assert tracker.take(ram.size) == set()
    assert ram.read(5 << 12, 1) == b"x"
    assert tracker.take(ram.size) == set()


def test_every_way_to_write_is_seen(looked_after):
    ram, tracker = looked_after
    tracker.take(ram.size)

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, PAGES - 1)), max_size=30))
    def check(writes):
        for way, page in writes:
            at = page << 12
            if way == 0:
                ram.qwords[at >> 3] += 1
            elif way == 1:
                ctypes.memset(ram.address + at, page, 9)
            elif way == 2:
                with open("/proc/self/maps", "rb") as file:
                    os.readv(file.fileno(), [ram.bytes[at : at + 64]])
            else:
                ram.write(at, b"?")
                ram.discard(at, 4096)
        assert tracker.take(ram.size) == {page << 12 for _, page in writes}

    check()


def test_only_what_lies_below_the_end_is_taken(looked_after):
    ram, tracker = looked_after
    tracker.take(ram.size)
    ram.write(2 << 12, b"a")
    ram.write(9 << 12, b"b")
    assert tracker.take(5 << 12) == {2 << 12}
    assert tracker.take(ram.size) == {9 << 12}

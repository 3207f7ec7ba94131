"""Guest RAM: sizes, reading and writing, and the host memory it really takes."""

from __future__ import annotations

import ctypes
import sys

import pytest

from mmuemu.errors import UsageError
from mmuemu.memory.ram import GuestRam, parse_size

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives pages back")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("64M", 64 << 20),
        ("1G", 1 << 30),
        ("512KiB", 512 << 10),
        ("2 GB", 2 << 30),
        ("1t", 1 << 40),
        ("7b", 7),
    ],
)
def test_sizes_people_write(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "M", "-1M", "1.5G", "64Q", "64MM", "0x1000", "1 6M", "٣M"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize("size", [0, -4096, 4095, 4097])
def test_memory_is_whole_pages(size: int) -> None:
    with pytest.raises(UsageError):
        GuestRam(size)


def test_an_absurd_size_is_an_error_of_the_user() -> None:
    with pytest.raises(UsageError, match="host"):
        GuestRam(1 << 62)


def test_all_views_show_the_same_memory() -> None:
    ram = GuestRam(1 << 20)
    ram.write(0x1008, (0x1122334455667788).to_bytes(8, "little"))
    assert ram.qwords[0x1008 >> 3] == 0x1122334455667788
    assert ram.bytes[0x1008] == 0x88
    ram.qwords[0] = 0xAB
    assert ram.read(0, 9) == b"\xab" + bytes(8)
    assert ctypes.string_at(ram.address + 0x1008, 2) == b"\x88\x77"
    ctypes.memset(ram.address + 5, 0x5A, 1)
    assert ram.read(5, 1) == b"\x5a"
    ram.zero(4, 0x1005)
    assert ram.read(0, 0x1010) == b"\xab" + bytes(0x1008) + bytes.fromhex("77665544332211")[-7:]
    ram.close()


@pytest.mark.parametrize(("pa", "size"), [(-1, 1), (0x1000, 1), (0xFFF, 2), (0, -1), (1 << 63, 1)])
def test_nothing_outside_is_touched(pa: int, size: int) -> None:
    ram = GuestRam(0x1000)
    for operation in (ram.read, ram.zero, ram.discard):
        with pytest.raises(ValueError, match="outside"):
            operation(pa, size)
    if size > 0:
        with pytest.raises(ValueError, match="outside"):
            ram.write(pa, bytes(size))
    ram.close()


def test_discard_zeroes_exactly_its_bytes() -> None:
    ram = GuestRam(0x8000)
    ram.write(0, b"\xff" * 0x8000)
    ram.discard(0x1800, 0x3000)
    assert ram.read(0, 0x8000) == b"\xff" * 0x1800 + bytes(0x3000) + b"\xff" * 0x3800
    ram.discard(0x6010, 0x20)
    assert ram.read(0x6000, 0x40) == b"\xff" * 0x10 + bytes(0x20) + b"\xff" * 0x10
    ram.close()


@linux
def test_memory_costs_what_is_touched_and_discard_gives_it_back() -> None:
    ram = GuestRam(16 << 30)
    assert ram.resident() == 0
    for page in range(256):
        ram.bytes[page << 24] = 1
    assert ram.resident() == 256 << 12
    ram.discard(0, 8 << 30)
    assert ram.resident() == 0
    assert ram.read(5 << 24, 1) == b"\0"
    ram.close()


def test_close_with_a_view_still_held() -> None:
    ram = GuestRam(0x2000)
    held = ram.bytes[:4]
    ram.close()
    assert bytes(held) == bytes(4)

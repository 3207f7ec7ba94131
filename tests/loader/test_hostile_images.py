"""Whatever the bytes: an image is planned and relocated, or refused in one line, in bounded time."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from elf_forge import Forge
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmuemu.errors import BadImage
from mmuemu.loader.elf import read_image
from mmuemu.loader.symbols import all_symbols, dynamic_symbols
from mmuemu.x86.paging import USER_TOP
from tests.fuzz.loader import attempt

Build = Callable[[str], Path]

SEEDS = ["free-pie", "free-relr", "free-ifunc", "library", "library-relr", "glibc-dynamic", "probe-static"]
HUGE = [
    0,
    1,
    7,
    0xFFF,
    0x1000,
    0xFFFF,
    1 << 31,
    (1 << 32) - 1,
    1 << 46,
    USER_TOP,
    1 << 62,
    1 << 63,
    (1 << 64) - 1,
]


def test_the_seeds_themselves_load(build: Build) -> None:
    for name in SEEDS:
        reason = attempt(build(name).read_bytes())
        assert reason is None or reason.startswith("needs the symbol"), (name, reason)


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=2000,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )


@examples(200)
@given(name=st.sampled_from(SEEDS), flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=8))
def test_flipped_bytes(build: Build, name: str, flips: list[tuple[float, int]]) -> None:
    data = bytearray(build(name).read_bytes())
    for place, change in flips:
        data[int(place**3 * (len(data) - 1))] ^= change
    attempt(bytes(data))


@examples(80)
@given(name=st.sampled_from(SEEDS), keep=st.floats(0, 1))
def test_cut_off_files(build: Build, name: str, keep: float) -> None:
    data = build(name).read_bytes()
    attempt(data[: int(keep**2 * len(data))])


def tables(data: bytes) -> tuple[int, int, int, int]:
    """Offsets and counts of the program headers and of the dynamic table."""
    phoff, phnum = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    for index in range(phnum):
        kind, _, offset, _, _, filesz = struct.unpack_from("<IIQQQQ", data, phoff + index * 56)
        if kind == 2:
            return phoff, phnum, offset, filesz // 16
    return phoff, phnum, 0, 0


@examples(250)
@given(
    name=st.sampled_from(SEEDS),
    changes=st.lists(
        st.tuples(
            st.booleans(),
            st.integers(0, 63),
            st.integers(0, 6),
            st.sampled_from(HUGE) | st.integers(0, 1 << 20),
        ),
        min_size=1,
        max_size=4,
    ),
)  # fmt: skip
def test_fields_with_wild_values(build: Build, name: str, changes: list[tuple[bool, int, int, int]]) -> None:
    data = bytearray(build(name).read_bytes())
    phoff, phnum, dynamic, entries = tables(data)
    for in_dynamic, row, column, value in changes:
        if in_dynamic and entries:
            struct.pack_into("<Q", data, dynamic + row % entries * 16 + column % 2 * 8, value)
        elif column == 0:
            struct.pack_into("<I", data, phoff + row % phnum * 56, value & 0xFFFF_FFFF)
        else:
            struct.pack_into("<Q", data, phoff + row % phnum * 56 + column * 8, value)
    attempt(bytes(data))


@examples(100)
@given(name=st.sampled_from(SEEDS[:5]), data=st.data())
def test_relocation_entries_with_wild_values(build: Build, name: str, data: st.DataObject) -> None:
    content = bytearray(build(name).read_bytes())
    image = read_image(bytes(content), name)
    tags = image.dynamic or {}
    for tag, size in ((7, 8), (23, 2), (36, 35), (6, 11)):
        at = image.file_offset(tags[tag], 8) if tag in tags else None
        if at is not None:
            room = max(1, tags.get(size, 24) // 8)
            for _ in range(data.draw(st.integers(0, 3))):
                word = data.draw(st.sampled_from(HUGE) | st.integers(0, (1 << 64) - 1))
                struct.pack_into("<Q", content, at + data.draw(st.integers(0, room - 1)) * 8, word)
    attempt(bytes(content))


@examples(100)
@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda raw: b"\x7fELF\x02\x01\x01" + bytes(9) + raw))
@example(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, 0, 0, 64, 56, 9, 0, 0, 0))
def test_random_bytes(raw: bytes) -> None:
    attempt(raw)


@examples(60)
@given(name=st.sampled_from(["library", "library-relr", "free-pie"]),
       flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=6))  # fmt: skip
def test_symbols_of_damaged_files(build: Build, name: str, flips: list[tuple[float, int]]) -> None:
    data = bytearray(build(name).read_bytes())
    for place, change in flips:
        data[int(place * (len(data) - 1))] ^= change
    attempt(bytes(data), lambda raw: dynamic_symbols(read_image(raw, "hostile")))
    attempt(bytes(data), lambda raw: all_symbols(read_image(raw, "hostile")))


def bounded(data: bytes, seconds: float = 6.0, megabytes: int = 64) -> str | None:
    tracemalloc.start()
    started = time.process_time()
    try:
        reason = attempt(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < seconds
    assert peak < megabytes << 20
    return reason


def test_huge_memory_is_not_allocated() -> None:
    assert bounded(Forge().load(0, 0x200000, 0x100, 0x7FF000000000, flags=6).bytes(), megabytes=2) is None


def test_a_thousand_segments() -> None:
    forge = Forge(phoff=64, size=0x20000)
    for index in range(1170):
        forge.load(index % 16, 0x200000 + index * 16, 16, flags=4 + index % 3)
    reason = bounded(forge.bytes(), megabytes=8)
    assert reason is not None
    assert "lie differently in their pages" in reason
    forge = Forge(size=0x20000)
    for index in range(1170):
        forge.load(0x11000 + index % 256 * 16, 0x200000 + index % 256 * 16 + (index // 256) * 4096, 16)
    assert bounded(forge.bytes(), megabytes=8) is None


def test_a_relr_table_full_of_bitmaps_stays_in_its_segment() -> None:
    words = [0x10000] + [(1 << 64) - 1] * 8000
    table = b"".join(struct.pack("<Q", word) for word in words)
    forge = Forge(kind=3, entry=0x10000, size=0x80000).load(0x10000, 0x10000, 0x60000, 0x7F0000000000, flags=6)
    forge.put(0x20000, table).dynamic([(36, 0x20000), (35, len(table))])
    assert bounded(forge.bytes()) == "RELR relocates 0x70000, outside every segment's file part"


def test_a_table_over_the_whole_file_is_read_once() -> None:
    entry = struct.pack("<QQq", 0x10000, 8, 0)
    forge = Forge(kind=3, entry=0x10000, size=0x110000).load(0x10000, 0x10000, 0x100000, flags=6)
    forge.put(0x10000, entry * 40000).dynamic([(7, 0x10000), (8, 24 * 40000)])
    assert bounded(forge.bytes()) is None


@pytest.mark.parametrize("hash_tag", [4, 0x6FFFFEF5])
def test_a_hash_table_pointing_everywhere(hash_tag: int) -> None:
    forge = Forge(kind=3, entry=0x1000, size=0x12000).load(0x1000, 0x1000, 0x8000)
    forge.put(0x1100, struct.pack("<4I", 0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF, 0))
    data = forge.dynamic([(6, 0x1200), (5, 0x1000), (10, 8), (hash_tag, 0x1100)]).bytes()
    tracemalloc.start()
    started = time.process_time()
    try:
        reason = attempt(data, lambda raw: dynamic_symbols(read_image(raw, "hostile")))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert reason is not None
    assert reason.startswith("has a broken symbol hash table")
    assert time.process_time() - started < 3


def test_what_a_file_holds_is_shown_printably() -> None:
    assert str(BadImage("a\x1b[2J", "needs the dynamic linker \x08\n")) == "a?[2J: needs the dynamic linker ??"

"""gdb's packets: what comes out of any stream of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmuemu.errors import UsageError
from mmuemu.gdbstub.description import BOARD_32, BOARD_64, PROCESS
from mmuemu.gdbstub.link import parse_address
from mmuemu.gdbstub.packets import (
    ALL,
    ANY,
    PACKET_SIZE,
    BadPacket,
    Decoder,
    Interrupt,
    Packet,
    escape,
    frame,
    from_hex,
    number,
    numbers,
    thread_id,
    unescape,
)
from mmuemu.gdbstub.stepping import repeats

CONTENT = st.binary(max_size=60)


@given(CONTENT)
def test_escaping_is_undone(data):
    assert unescape(escape(data)) == data
    assert not set(escape(data)) & set(b"$#*") or data == b""


@given(st.lists(CONTENT | st.just(None), max_size=6), st.integers(1, 7))
def test_packets_come_out_whole_however_the_stream_is_cut(items, size):
    """None stands for an interruption between packets."""
    stream = b"".join(b"+\x03" if item is None else frame(escape(item)) for item in items)
    decoder = Decoder()
    found = [out for start in range(0, len(stream), size) for out in decoder.feed(stream[start : start + size])]
    assert found == [Interrupt() if item is None else Packet(item, True) for item in items]


@given(st.binary(max_size=300), st.integers(1, 50))
def test_garbage_is_survived_and_a_packet_behind_it_is_heard(garbage, size):
    stream = garbage + b"#00" + frame(b"?") + frame(b"g")
    decoder = Decoder()
    found = [out for start in range(0, len(stream), size) for out in decoder.feed(stream[start : start + size])]
    assert Packet(b"g", True) in found


@pytest.mark.parametrize("checksum", [b"00", b"zz", b"+7", b" 7", b"6"])
def test_a_wrong_checksum_is_told(checksum):
    (packet,) = Decoder().feed(b"$g#" + checksum + b"#")[:1]
    assert not packet.good


def test_what_never_ends_is_dropped():
    decoder = Decoder()
    found = []
    for _ in range(100):
        found += decoder.feed(b"$" + b"m" * 4096)
    assert found
    assert not any(packet.good for packet in found)
    assert len(decoder._held) <= 2 * PACKET_SIZE + 4097
    assert decoder.feed(b"#00" + frame(b"?"))[-1] == Packet(b"?", True)


def test_numbers():
    assert number(b"7fFf") == 0x7FFF
    assert numbers(b"1,2:3", b",:") == [1, 2, 3]
    for bad in (b"", b"-1", b"0x10", b"1" * 17, b" 1", b"1_0", b"g"):
        with pytest.raises(BadPacket):
            number(bad)
    for bad in (b"1", b"xy", "é".encode()):
        with pytest.raises(BadPacket):
            from_hex(bad)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"p3e8.3e9", (1000, 1001)), (b"p1", (1, ALL)), (b"p-1.-1", (ALL, ALL)), (b"3e9", (ANY, 1001)),
        (b"-1", (ANY, ALL)), (b"0", (ANY, ANY)), (b"p1.0", (1, ANY)),
    ],
)  # fmt: skip
def test_thread_numbers(text, expected):
    assert thread_id(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1234", ("127.0.0.1", 1234)), (":0", ("127.0.0.1", 0)), ("0.0.0.0:7", ("0.0.0.0", 7)), ("[::1]:80", ("::1", 80))],
)
def test_addresses(text, expected):
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "x", "-1", "65536", "host:", "1:x", "٣"])
def test_addresses_that_are_none(text):
    with pytest.raises(UsageError, match="-g"):
        parse_address(text)


@pytest.mark.parametrize(("layout", "size"), [(PROCESS, 608), (BOARD_64, 600), (BOARD_32, 356)])
def test_registers_fill_the_packet_without_gaps(layout, size):
    places = [layout.place(index) for index in range(len(layout.registers))]
    assert [place.start for place in places[1:]] == [place.stop for place in places[:-1]]
    assert places[-1].stop == layout.size == size
    assert layout.xml.count("<reg ") == len(places)


@pytest.mark.parametrize(
    ("code", "expected"),
    [(b"\xf3\xa4", True), (b"\x66\xf2\xaf", True), (b"\xf3\x48\xab", True), (b"\xa4", False), (b"\xf3\x90", False),
     (b"\xf3", False), (b"\xf3\x0f\xa5", False)],
)  # fmt: skip
def test_repeated_string_instructions(code, expected):
    assert repeats(code) is expected

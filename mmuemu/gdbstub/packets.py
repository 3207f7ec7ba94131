"""gdb's packets as bytes: framing, checksums, escapes, thread numbers (gdb manual, E.1 "Overview", E.2)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

PACKET_SIZE: Final = 0x4000
"""The longest packet either side sends, in bytes between ``$`` and ``#``."""
_ESCAPED: Final = re.compile(rb"[#$}*]")
_ESCAPE: Final = re.compile(rb"\}(.)", re.DOTALL)
ALL: Final = -1
ANY: Final = 0


class Packet(NamedTuple):
    """A whole packet: its content, escapes undone, and whether the checksum was right."""

    content: bytes
    good: bool


class Interrupt(NamedTuple):
    """The byte 0x03 between packets: stop the program."""


class Decoder:
    """From a stream of bytes to packets. Anything between packets but 0x03 is dropped, acknowledgements too.

    A packet longer than twice :data:`PACKET_SIZE` is dropped and counts as one with a bad checksum.
    """

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Packet | Interrupt]:
        """Take bytes; what they complete."""
        self._held += data
        held = self._held
        out: list[Packet | Interrupt] = []
        at = 0
        while at < len(held):
            if held[at] == 3:
                out.append(Interrupt())
            elif held[at] == 0x24:
                end = held.find(b"#", at)
                if end < 0 or end + 3 > len(held):
                    if len(held) - at > 2 * PACKET_SIZE:
                        out.append(Packet(b"", False))
                        at = len(held)
                    break
                out.append(_packet(bytes(held[at + 1 : end]), bytes(held[end + 1 : end + 3])))
                at = end + 2
            at += 1
        del held[:at]
        return out


def _packet(body: bytes, digits: bytes) -> Packet:
    try:
        good = int(digits, 16) == sum(body) & 0xFF and digits.isalnum()
    except ValueError:
        good = False
    return Packet(unescape(body), good and len(body) <= 2 * PACKET_SIZE)


def unescape(body: bytes) -> bytes:
    """``}`` and a byte stand for that byte with bit 5 changed."""
    return _ESCAPE.sub(lambda found: bytes((found[1][0] ^ 0x20,)), body) if b"}" in body else body


def escape(data: bytes) -> bytes:
    """Binary data as it may stand in a packet."""
    return _ESCAPED.sub(lambda found: bytes((0x7D, found[0][0] ^ 0x20)), data)


def frame(body: bytes) -> bytes:
    """A packet around ``body``, which is escaped where it needs to be."""
    return b"$%b#%02x" % (body, sum(body) & 0xFF)


class BadPacket(Exception):
    """A packet that says nothing sensible."""


def number(text: bytes) -> int:
    """A hexadecimal number of at most 64 bits, as gdb writes them. Raises BadPacket."""
    if not text or len(text) > 16 or not re.fullmatch(rb"[0-9a-fA-F]+", text):
        raise BadPacket(text[:32])
    return int(text, 16)


def numbers(text: bytes, separators: bytes = b",") -> list[int]:
    """Several of them with separators between. Raises BadPacket."""
    return [number(part) for part in re.split(b"[" + re.escape(separators) + b"]", text)]


def from_hex(text: bytes) -> bytes:
    """Bytes that were sent as hexadecimal digits. Raises BadPacket."""
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise BadPacket(text[:32]) from None


def _one(text: bytes) -> int:
    return ALL if text == b"-1" else number(text)


def thread_id(text: bytes) -> tuple[int, int]:
    """``pPID.TID``, ``pPID`` or ``TID`` as (process, thread), with :data:`ALL` and :data:`ANY`. Raises BadPacket."""
    if text[:1] != b"p":
        return ANY, _one(text)
    process, dot, thread = text[1:].partition(b".")
    return _one(process), _one(thread) if dot else ALL

"""What lies in a socket's receive queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.files.sockets.unix import UnixSocket


MOST_AT_ONCE: Final = 36_544
"""Bytes of a stream in one message: SKB_MAX_HEAD(0) and UNIX_SKB_FRAGS_SZ."""
_BUFFER: Final = 256
_SHARED: Final = 320
"""``struct sk_buff`` and ``struct skb_shared_info``, as they are allocated."""
_LEAST: Final = 512
_MOST_SLAB: Final = 16_384
_MOST_HEAD: Final = PAGE_SIZE - _SHARED


def packet_size(length: int) -> int:
    """What a packet of ``length`` bytes takes of its sender's buffer (``skb->truesize``; measured on Linux 6.18)."""
    wanted = length + _SHARED
    if wanted > _MOST_SLAB:
        return _BUFFER + _in_pages(wanted)
    return _BUFFER + max(_LEAST, 1 << (wanted - 1).bit_length())


def stream_size(length: int) -> int:
    """The same for ``length`` bytes of a stream, at most :data:`MOST_AT_ONCE`: pages, and a head before them."""
    pages = _in_pages(max(0, length - _MOST_HEAD))
    return packet_size(max(0, length - pages)) + pages


def _in_pages(length: int) -> int:
    return -(-length // PAGE_SIZE) * PAGE_SIZE


class Credentials(NamedTuple):
    """``struct ucred``: who sent a message, made a connection or listens."""

    pid: int
    uid: int
    gid: int

    def pack(self) -> bytes:
        """Three 32-bit numbers."""
        return b"".join((value & 0xFFFF_FFFF).to_bytes(4, "little") for value in self)


class Message:
    """Bytes under way, with the open files (one reference each) and credentials sent along.

    A stream shortens ``data`` from the front as it is read; ``size`` is what the sender is charged until all is.
    """

    __slots__ = ("credentials", "data", "name", "rights", "sender", "size")

    def __init__(
        self,
        sender: UnixSocket,
        data: bytes,
        name: bytes,
        rights: tuple[OpenFile, ...],
        credentials: Credentials,
        size: int,
    ) -> None:
        self.sender = sender
        self.data = data
        self.name = name
        self.rights = rights
        self.credentials = credentials
        self.size = size


@dataclass(slots=True)
class Received:
    """What one receive gives. ``length`` is a packet's own, which may be more than ``data`` has.

    Each of ``rights`` carries a reference that the receiver must release.
    """

    data: bytes
    length: int = 0
    name: bytes | None = None
    rights: tuple[OpenFile, ...] = ()
    credentials: Credentials | None = None

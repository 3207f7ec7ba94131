"""What lies in a socket's receive queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.files.sockets.unix import UnixSocket


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

    A stream shortens ``data`` from the front as it is read; ``size`` is what the sender is charged still.
    """

    __slots__ = ("credentials", "data", "name", "rights", "sender", "size")

    def __init__(
        self, sender: UnixSocket, data: bytes, name: bytes, rights: tuple[OpenFile, ...], credentials: Credentials
    ) -> None:
        self.sender = sender
        self.data = data
        self.name = name
        self.rights = rights
        self.credentials = credentials
        self.size = len(data)


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

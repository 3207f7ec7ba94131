"""SOCK_DGRAM and SOCK_SEQPACKET: messages that stay whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.socket import MSG_PEEK, SOCK_DGRAM, SOCK_SEQPACKET
from mmuemu.kernel.files.sockets.message import Credentials, Received, packet_size
from mmuemu.kernel.files.sockets.unix import SHUT_RECEIVE, SHUT_SEND, UnixSocket

if TYPE_CHECKING:
    from mmuemu.kernel.files.openfile import OpenFile

MAX_QUEUE: Final = 10
"""Datagrams that may wait at a socket that is not connected to their sender (net.unix.max_dgram_qlen)."""
_OVERHEAD: Final = 32


class PacketSocket(UnixSocket):
    """A datagram or a sequenced-packet socket."""

    __slots__ = ()

    def _target(self, to: UnixSocket | None) -> UnixSocket:
        if self.kind == SOCK_SEQPACKET:
            if self.peer is None:
                raise SyscallError(Errno.ENOTCONN)
            return self.peer
        target = to or self.peer
        if target is None:
            raise SyscallError(Errno.ENOTCONN)
        if target.dead:
            if to is None:
                self.peer = None
            raise SyscallError(Errno.ECONNREFUSED)
        if target.peer is not None and target.peer is not self and not target.peer.dead:
            raise SyscallError(Errno.EPERM)
        return target

    def send(
        self, data: bytes, flags: int, to: UnixSocket | None, rights: tuple[OpenFile, ...], credentials: Credentials
    ) -> int:
        """All of it or nothing; EMSGSIZE, EPIPE, ECONNREFUSED, EPERM for one who talks to another only."""
        target = self._target(to)
        if len(data) > self.send_buffer - _OVERHEAD:
            raise SyscallError(Errno.EMSGSIZE)
        self.take_error()
        if self.shut & SHUT_SEND or target.shut & SHUT_RECEIVE:
            raise SyscallError(Errno.EPIPE)
        if self.sent >= self.send_buffer:
            self.block(self.queue, flags, self.send_timeout)
        if target.peer is not self and len(target.incoming) > MAX_QUEUE:
            self.block(target.queue, flags, self.send_timeout)
        self.deliver(target, data, rights, credentials, packet_size(len(data)))
        return len(data)

    def may_send(self) -> bool:
        """Also whether the peer's queue has room."""
        peer = self.peer
        full = peer is not None and peer.peer is not self and len(peer.incoming) > MAX_QUEUE
        return super().may_send() and not full

    def readable_bytes(self) -> int:
        """The length of the first packet; of everything for SOCK_SEQPACKET."""
        if self.kind == SOCK_DGRAM:
            return len(self.incoming[0].data) if self.incoming else 0
        return super().readable_bytes()

    def receive(self, count: int, flags: int) -> Received:
        """One packet, cut to ``count`` bytes."""
        if self.kind == SOCK_SEQPACKET and self.peer is None:
            raise SyscallError(Errno.ENOTCONN)
        if not self.incoming:
            self.take_error()
            if self.shut & SHUT_RECEIVE:
                return Received(b"")
            self.block(self.queue, flags, self.receive_timeout)
        message = self.incoming[0]
        got = Received(
            message.data[:count], len(message.data), message.name, message.rights, message.credentials
        )  # fmt: skip
        if flags & MSG_PEEK:
            for file in message.rights:
                file.acquire()
        else:
            self.incoming.popleft()
            self.consumed(message)
            self.queue.wake()
        return got

"""SOCK_STREAM: bytes in order, without bounds between messages but around passed descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.socket import MSG_PEEK
from mmuemu.kernel.files.sockets.message import MOST_AT_ONCE, Credentials, Message, Received, stream_size
from mmuemu.kernel.files.sockets.unix import SHUT_RECEIVE, SHUT_SEND, UnixSocket

if TYPE_CHECKING:
    from mmuemu.kernel.files.openfile import OpenFile


class StreamSocket(UnixSocket):
    """A stream socket."""

    __slots__ = ()

    whole = True

    def send(
        self, data: bytes, flags: int, to: UnixSocket | None, rights: tuple[OpenFile, ...], credentials: Credentials
    ) -> int:
        """As much as the send buffer has room for; EPIPE, ENOTCONN, EISCONN or EOPNOTSUPP with an address."""
        peer = self.peer
        if to is not None:
            raise SyscallError(Errno.EOPNOTSUPP if peer is None else Errno.EISCONN)
        if peer is None:
            raise SyscallError(Errno.ENOTCONN)
        if self.shut & SHUT_SEND or peer.dead or peer.shut & SHUT_RECEIVE:
            raise SyscallError(Errno.EPIPE)
        if not data:
            return 0
        if self.sent >= self.send_buffer:
            self.block(self.queue, flags, self.send_timeout)
        most, done = min(MOST_AT_ONCE, self.send_buffer // 2 - 64), 0
        while done < len(data) and self.sent < self.send_buffer:
            piece = data[done : done + most]
            try:
                self.deliver(peer, piece, () if done else rights, credentials, stream_size(len(piece)))
            except SyscallError:
                if done:
                    break
                raise
            done += len(piece)
        return done

    def receive(self, count: int, flags: int) -> Received:
        """Up to ``count`` bytes; none at the end. Passed descriptors end what one call gives."""
        if self.peer is None:
            raise SyscallError(Errno.EINVAL)
        if not count:
            return Received(b"")
        if not self.incoming:
            self.take_error()
            if self.shut & SHUT_RECEIVE:
                return Received(b"")
            self.block(self.queue, flags, self.receive_timeout)
        got = Received(b"")
        parts: list[bytes] = []
        peek = flags & MSG_PEEK
        for message in list(self.incoming):
            if got.credentials is None:
                got.name, got.credentials = message.name, message.credentials
            elif self.pass_credentials and got.credentials != message.credentials:
                break
            parts.append(message.data[:count])
            count -= len(parts[-1])
            got.rights = message.rights
            if peek:
                for file in message.rights:
                    file.acquire()
            else:
                self._take(message, len(parts[-1]))
            if got.rights or not count:
                break
        got.data = b"".join(parts)
        got.length = len(got.data)
        return got

    def _take(self, message: Message, count: int) -> None:
        message.rights = ()
        message.data = message.data[count:]
        if not message.data:
            self.consumed(message)
            self.incoming.popleft()

"""UNIX-domain sockets: what all three types share (net/unix/af_unix.c)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import (
    FIONREAD,
    O_RDWR,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLRDNORM,
    POLLWRBAND,
    POLLWRNORM,
    TIOCOUTQ,
)
from mmuemu.kernel.abi.socket import MSG_DONTWAIT, POLLRDHUP, SOCK_DGRAM
from mmuemu.kernel.abi.stat import S_IFSOCK
from mmuemu.kernel.files.inode import FileSystem, Inode
from mmuemu.kernel.files.openfile import OpenFile
from mmuemu.kernel.files.progress import progress_of
from mmuemu.kernel.files.sockets.message import Credentials, Message, Received
from mmuemu.kernel.wait import Blocked, WaitQueue

if TYPE_CHECKING:
    from typing import NoReturn

    from mmuemu.kernel.files.inode import Caller
    from mmuemu.kernel.files.openfile import UserMemory
    from mmuemu.kernel.kernel import Kernel

BUFFER: Final = 212_992
"""The default send and receive buffer (net.core.wmem_default)."""
SHUT_RECEIVE: Final = 1
SHUT_SEND: Final = 2
SHUT_BOTH: Final = 3
NOBODY: Final = Credentials(0, 0xFFFF_FFFF, 0xFFFF_FFFF)
_IN: Final = POLLIN | POLLRDNORM
_OUT: Final = POLLOUT | POLLWRNORM | POLLWRBAND


class SocketNode(Inode):
    """The name of a socket in the file tree; ``socket`` is None once it was closed."""

    __slots__ = ("socket",)

    def __init__(self, fs: FileSystem, mode: int, uid: int, gid: int) -> None:
        super().__init__(fs, S_IFSOCK | mode & 0o7777, uid, gid)
        self.socket: UnixSocket | None = None


class UnixSocket(OpenFile):
    """A socket; its description and it are one. ``queue`` is woken whenever anything about it changes.

    ``address`` is its name as ``sun_path`` has it: with a NUL first when abstract, last when a path, None without
    a name. ``sent`` are the bytes it has under way; ``shut`` has SHUT_* bits.
    """

    __slots__ = (
        "address", "backlog", "credentials", "dead", "error", "incoming", "kernel", "kind", "listening", "node",
        "options", "pass_credentials", "peer", "peer_credentials", "pending", "queue", "receive_buffer",
        "receive_timeout", "send_buffer", "send_timeout", "sent", "shut", "taken",
    )  # fmt: skip

    pollable = True

    def __init__(self, fs: FileSystem, kernel: Kernel, kind: int, credentials: Credentials, flags: int = 0) -> None:
        super().__init__(Inode(fs, S_IFSOCK | 0o777, credentials.uid, credentials.gid), O_RDWR | flags)
        self.kernel = kernel
        self.kind = kind
        self.credentials = credentials
        self.queue = WaitQueue()
        self.peer: UnixSocket | None = None
        self.peer_credentials = NOBODY
        self.incoming: deque[Message] = deque()
        self.sent = 0
        self.shut = 0
        self.dead = False
        self.error = 0
        self.listening = False
        self.backlog = 0
        self.pending: deque[UnixSocket] = deque()
        self.taken = True
        """Whether accept(2) has handed it out; False for a connection that waits for that."""
        self.address: bytes | None = None
        self.node: SocketNode | None = None
        self.options: dict[int, int] = {}
        self.pass_credentials = False
        self.send_buffer = self.receive_buffer = BUFFER
        self.send_timeout = self.receive_timeout = 0
        """Nanoseconds after which a blocking call gives up with EAGAIN; 0 for never."""

    # -- as an open file -------------------------------------------------------------------------------------------

    def path(self) -> bytes:
        """``socket:[inode]``."""
        return b"socket:[%d]" % self.inode.ino

    def reopen(self, caller: Caller, flags: int) -> OpenFile:
        """ENXIO: sockets are not opened."""
        raise SyscallError(Errno.ENXIO)

    def read(self, count: int) -> bytes:
        """As receiving without flags; what came along is dropped."""
        if not count and self.kind != SOCK_DGRAM:
            return b""
        got = self.receive(count, 0)
        for file in got.rights:
            file.release()
        return got.data

    def unread(self, data: bytes) -> None:
        """What was received is lost when the buffer was bad."""

    def write(self, data: bytes) -> int:
        """As sending without flags."""
        task = self.kernel.current
        credentials = self.credentials if task is None else Credentials(task.pid, task.uid, task.gid)
        return self.send(data, 0, None, (), credentials)

    def wait_queues(self) -> tuple[WaitQueue, ...]:
        """Its own."""
        return (self.queue,)

    def ioctl(self, memory: UserMemory, request: int, argument: int) -> int:
        """SIOCINQ: what can be read now; SIOCOUTQ: what the peer has not read."""
        if request == FIONREAD:
            if self.listening:
                raise SyscallError(Errno.EINVAL)
            value = self.readable_bytes()
        elif request == TIOCOUTQ:
            value = self.sent
        else:
            raise SyscallError(Errno.ENOTTY)
        memory.write(argument, value.to_bytes(4, "little"))
        return 0

    def poll(self) -> int:
        """net/unix/af_unix.c: unix_poll and unix_dgram_poll."""
        bits = POLLERR if self.error else 0
        if self.shut & SHUT_RECEIVE:
            bits |= POLLRDHUP | _IN
        if self.shut == SHUT_BOTH or (self.kind != SOCK_DGRAM and self.peer is None and not self.listening):
            bits |= POLLHUP
        if self.incoming or self.pending:
            bits |= _IN
        return bits | (_OUT if self.may_send() else 0)

    # -- for the types ---------------------------------------------------------------------------------------------

    def may_send(self) -> bool:
        """Whether poll calls it writable: three quarters of the send buffer are free."""
        return self.sent * 4 <= self.send_buffer and not self.listening

    def readable_bytes(self) -> int:
        """What SIOCINQ says."""
        return sum(len(message.data) for message in self.incoming)

    def send(
        self, data: bytes, flags: int, to: UnixSocket | None, rights: tuple[OpenFile, ...], credentials: Credentials
    ) -> int:
        """Send ``data`` to ``to`` or the peer; ``rights`` are kept (one more reference each) when it succeeds."""
        raise NotImplementedError

    def receive(self, count: int, flags: int) -> Received:
        """The next bytes or packet; MSG_PEEK leaves it."""
        raise NotImplementedError

    def block(self, queue: WaitQueue, flags: int, timeout: int) -> NoReturn:
        """Sleep on ``queue`` unless the call must not or its time is up: EAGAIN."""
        task = self.kernel.current
        if self.nonblocking or flags & MSG_DONTWAIT or task is None:
            raise SyscallError(Errno.EAGAIN)
        deadline = None
        if timeout:
            now = self.kernel.clock.now()
            progress = progress_of(task)
            if progress.deadline is None:
                progress.deadline = now + timeout
            deadline = progress.deadline
            if now >= deadline:
                raise SyscallError(Errno.EAGAIN)
        raise Blocked(queue, deadline=deadline, restart=not timeout)

    def take_error(self) -> None:
        """Raise the pending error, once."""
        if self.error:
            error, self.error = self.error, 0
            raise SyscallError(error)

    def deliver(
        self, target: UnixSocket, data: bytes, rights: tuple[OpenFile, ...], credentials: Credentials, size: int
    ) -> None:
        """Put a message that takes ``size`` into ``target``'s queue; ENOBUFS when memory for files is used up."""
        try:
            self.inode.fs.quota.charge(size)
        except SyscallError:
            raise SyscallError(Errno.ENOBUFS) from None
        for file in rights:
            file.acquire()
        message = Message(self, data, self.address or b"", rights, credentials, size)
        self.sent += message.size
        target.incoming.append(message)
        target.queue.wake()

    def consumed(self, message: Message) -> None:
        """A message has left the queue: the sender may send as much more."""
        message.sender.sent -= message.size
        self.inode.fs.quota.used -= message.size
        message.sender.queue.wake()

    def drop_queue(self) -> None:
        """Throw away what was never received."""
        for message in self.incoming:
            self.consumed(message)
            for file in message.rights:
                file.release()
        self.incoming.clear()

    def closed(self) -> None:
        """The last descriptor is gone: the peer sees the end, connections not accepted are reset."""
        super().closed()
        self.dead = True
        self.shut = SHUT_BOTH
        if self.node is not None:
            self.node.socket = None
        if self.address is not None and self.names.get(self.address) is self:
            del self.names[self.address]
        peer = self.peer
        if peer is not None and self.kind != SOCK_DGRAM:
            peer.shut = SHUT_BOTH
            if self.incoming or not self.taken:
                peer.error = Errno.ECONNRESET
            peer.queue.wake()
        waiting, self.pending = self.pending, deque()
        for embryo in waiting:
            embryo.closed()
        self.drop_queue()
        self.queue.wake()

    @property
    def names(self) -> dict[bytes, UnixSocket]:
        """Abstract names in use on this machine."""
        return self.inode.fs.sockets

    def shutdown(self, how: int) -> None:
        """``shutdown(2)`` with SHUT_* bits; the peer of a connection gets the mirror image. ENOTCONN."""
        if self.peer is None and not self.listening:
            raise SyscallError(Errno.ENOTCONN)
        self.shut |= how
        peer = self.peer
        if peer is not None and self.kind != SOCK_DGRAM:
            peer.shut |= (SHUT_SEND if how & SHUT_RECEIVE else 0) | (SHUT_RECEIVE if how & SHUT_SEND else 0)
            peer.queue.wake()
        self.queue.wake()

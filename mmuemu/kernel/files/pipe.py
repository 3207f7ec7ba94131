"""Pipes and named pipes (pipe(7), fifo(7)): 64 KiB between a writing and a reading end.

Room is counted in bytes; Linux counts pages, so that many small writes may fill its pipes sooner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import (
    FIONREAD,
    O_ACCMODE,
    O_NONBLOCK,
    O_RDWR,
    O_WRONLY,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLRDNORM,
    POLLWRNORM,
)
from mmuemu.kernel.abi.stat import PERMISSIONS, S_IFIFO
from mmuemu.kernel.files.inode import Caller, FileSystem, Inode
from mmuemu.kernel.files.openfile import OpenFile, UserMemory
from mmuemu.kernel.wait import Blocked, WaitQueue

if TYPE_CHECKING:
    from typing import NoReturn

CAPACITY: Final = 65536
PIPE_BUF: Final = 4096
"""Writes up to this size are not split (include/uapi/linux/limits.h)."""


class PipeInode(Inode):
    """The bytes in flight and how many descriptions read and write."""

    __slots__ = ("buffer", "capacity", "queue", "readers", "writers")

    def __init__(self, fs: FileSystem, mode: int = 0o600, uid: int = 1000, gid: int = 1000) -> None:
        super().__init__(fs, S_IFIFO | mode & PERMISSIONS, uid, gid)
        self.buffer = bytearray()
        self.capacity = CAPACITY
        self.readers = 0
        self.writers = 0
        self.queue = WaitQueue()

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """An end of a named pipe: reading waits for a writer and the reverse, unless O_NONBLOCK or O_RDWR."""
        access = flags & O_ACCMODE
        if access != O_RDWR and not (self.readers if access == O_WRONLY else self.writers):
            if flags & O_NONBLOCK and access == O_WRONLY:
                raise SyscallError(Errno.ENXIO)
            if not flags & O_NONBLOCK:
                raise Blocked(self.queue)
        return PipeEnd(self, flags)


class PipeEnd(OpenFile):
    """One end, or with O_RDWR both."""

    __slots__ = ()

    inode: PipeInode

    def __init__(self, inode: PipeInode, flags: int) -> None:
        super().__init__(inode, flags)
        inode.readers += self.readable
        inode.writers += self.writable
        inode.queue.wake()

    def path(self) -> bytes:
        """``pipe:[inode]`` for a pipe without a name."""
        return b"pipe:[%d]" % self.inode.ino if self.inode.place is None else super().path()

    def closed(self) -> None:
        """This end is gone."""
        super().closed()
        self.inode.readers -= self.readable
        self.inode.writers -= self.writable
        self.inode.queue.wake()
        if not self.inode.readers and not self.inode.writers:
            self.inode.fs.quota.used -= len(self.inode.buffer)
            self.inode.buffer.clear()

    def _block(self) -> NoReturn:
        raise SyscallError(Errno.EAGAIN) if self.nonblocking else Blocked(self.inode.queue)

    def read(self, count: int) -> bytes:
        """What is there, up to ``count``; empty when no writer is left."""
        if not self.readable:
            raise SyscallError(Errno.EBADF)
        buffer = self.inode.buffer
        if not buffer:
            if self.inode.writers and count:
                self._block()
            return b""
        data = bytes(buffer[:count])
        del buffer[:count]
        self.inode.fs.quota.used -= len(data)
        self.inode.queue.wake()
        return data

    def unread(self, data: bytes) -> None:
        """Put ``data`` back."""
        self.inode.fs.quota.used += len(data)
        self.inode.buffer[:0] = data

    def write(self, data: bytes) -> int:
        """As much as there is room for; all or nothing up to PIPE_BUF; EPIPE without a reader."""
        if not self.writable:
            raise SyscallError(Errno.EBADF)
        pipe = self.inode
        if not pipe.readers:
            raise SyscallError(Errno.EPIPE)
        room = pipe.capacity - len(pipe.buffer)
        if room < len(data) and (len(data) <= PIPE_BUF or room <= 0):
            self._block()
        piece = data[:room]
        try:
            pipe.fs.quota.charge(len(piece))
        except SyscallError:
            raise SyscallError(Errno.ENOMEM) from None
        pipe.buffer += piece
        pipe.queue.wake()
        return len(piece)

    def ioctl(self, memory: UserMemory, request: int, argument: int) -> int:
        """FIONREAD: the bytes waiting."""
        if request != FIONREAD:
            raise SyscallError(Errno.ENOTTY)
        memory.write(argument, len(self.inode.buffer).to_bytes(4, "little"))
        return 0

    def poll(self) -> int:
        """Readable with bytes, writable with PIPE_BUF of room (fs/pipe.c: pipe_poll)."""
        pipe = self.inode
        bits = 0
        if self.readable:
            bits |= POLLIN | POLLRDNORM if pipe.buffer else 0
            bits |= 0 if pipe.writers else POLLHUP
        if self.writable:
            bits |= POLLOUT | POLLWRNORM if pipe.capacity - len(pipe.buffer) >= PIPE_BUF else 0
            bits |= 0 if pipe.readers else POLLERR
        return bits

"""Pipes and named pipes (pipe(7), fifo(7)): 64 KiB between a writing and a reading end.

Room is counted in bytes; Linux counts pages, so that many small writes may fill its pipes sooner.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import (
    FIONREAD,
    O_ACCMODE,
    O_DIRECT,
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
from mmuemu.kernel.files.openfile import Blocked, OpenFile, UserMemory
from mmuemu.kernel.wait import WaitQueue

if TYPE_CHECKING:
    from typing import NoReturn

CAPACITY: Final = 65536
MAX_CAPACITY: Final = 1 << 20
"""What F_SETPIPE_SZ grants without a privilege (/proc/sys/fs/pipe-max-size)."""
PIPE_BUF: Final = 4096
"""Writes up to this size are not split (include/uapi/linux/limits.h)."""


class PipeInode(Inode):
    """The bytes in flight and how many descriptions read and write."""

    __slots__ = ("buffer", "capacity", "opened_readers", "opened_writers", "packets", "queue", "readers", "writers")

    def __init__(self, fs: FileSystem, mode: int = 0o600, uid: int = 1000, gid: int = 1000) -> None:
        super().__init__(fs, S_IFIFO | mode & PERMISSIONS, uid, gid)
        self.buffer = bytearray()
        self.capacity = CAPACITY
        self.readers = 0
        self.writers = 0
        self.opened_readers = 0
        self.opened_writers = 0
        """How many ends were ever opened: who waits for one must not miss one that is gone again."""
        self.packets: deque[int] = deque()
        """The sizes that reads must not run together (O_DIRECT); empty for an ordinary stream."""
        self.queue = WaitQueue()

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """An end of a named pipe: reading waits for a writer and the reverse, unless O_NONBLOCK or O_RDWR.

        A pipe without a name (by /proc/self/fd) never waits. One that waits counts as opened already; what to resume
        is left in ``caller.call_state``.
        """
        access = flags & O_ACCMODE
        writing = access == O_WRONLY
        others = self.readers if writing else self.writers
        waits = access != O_RDWR and not others and self.place is not None
        if waits and flags & O_NONBLOCK and writing:
            raise SyscallError(Errno.ENXIO)
        end = PipeEnd(self, flags)
        if not waits or flags & O_NONBLOCK:
            return end
        caller.call_state = FifoOpening(end)
        raise Blocked(self.queue)

    def resize(self, wanted: int) -> None:
        """F_SETPIPE_SZ: a power of two of whole pages (fs/pipe.c: pipe_set_size); EPERM, EBUSY."""
        size = 4096
        while size < wanted:
            size *= 2
        if size > MAX_CAPACITY:
            raise SyscallError(Errno.EPERM)
        if size < len(self.buffer):
            raise SyscallError(Errno.EBUSY)
        self.capacity = size
        self.queue.wake()

    def take(self, count: int) -> bytes:
        """Remove up to ``count`` bytes, but no more than one packet, the rest of which is lost."""
        buffer = self.buffer
        gone = count
        if self.packets:
            gone = self.packets.popleft()
            count = min(count, gone)
        data = bytes(buffer[:count])
        gone = min(gone, len(buffer))
        del buffer[:gone]
        self.fs.quota.used -= gone
        self.queue.wake()
        return data

    def put(self, data: bytes, packet: bool) -> None:
        """Add ``data``, for which there is room; ENOMEM when memory for files is used up."""
        try:
            self.fs.quota.charge(len(data))
        except SyscallError:
            raise SyscallError(Errno.ENOMEM) from None
        if packet or self.packets:
            if not self.packets and self.buffer:
                self.packets.append(len(self.buffer))
            self.packets.append(len(data))
        self.buffer += data
        self.queue.wake()


class FifoOpening:
    """An open of a named pipe that waits for the other end. Forgetting it closes what was opened."""

    __slots__ = ("_before", "_end", "_era")

    def __init__(self, end: PipeEnd) -> None:
        self._end: PipeEnd | None = end
        self._era = end.inode.fs.quota.era
        self._before = self._others()

    def _others(self) -> int:
        end = self._end
        assert end is not None
        return end.inode.opened_readers if end.writable else end.inode.opened_writers

    def resume(self) -> OpenFile:
        """The opened end, once the other was opened; Blocked until then."""
        end = self._end
        assert end is not None
        if self._others() == self._before:
            raise Blocked(end.inode.queue)
        self._end = None
        return end

    def __del__(self) -> None:
        end = getattr(self, "_end", None)
        if end is not None and not end.inode.fs.quota.is_lost(self._era):
            end.closed()


class PipeEnd(OpenFile):
    """One end, or with O_RDWR both."""

    __slots__ = ("_before",)

    whole = True
    pollable = True
    inode: PipeInode

    def __init__(self, inode: PipeInode, flags: int) -> None:
        super().__init__(inode, flags)
        self._before = -1 if inode.writers or self.writable else inode.opened_writers
        """The writers ever opened when this was, if there were none then: it has not been hung up on yet."""
        inode.readers += self.readable
        inode.writers += self.writable
        inode.opened_readers += self.readable
        inode.opened_writers += self.writable
        inode.queue.wake()

    def path(self) -> bytes:
        """``pipe:[inode]`` for a pipe without a name."""
        return b"pipe:[%d]" % self.inode.ino if self.inode.place is None else super().path()

    def closed(self) -> None:
        """This end is gone."""
        super().closed()
        pipe = self.inode
        pipe.readers -= self.readable
        pipe.writers -= self.writable
        if not pipe.readers and not pipe.writers:
            pipe.fs.quota.used -= len(pipe.buffer)
            pipe.buffer.clear()
            pipe.packets.clear()
        pipe.queue.wake()

    def _block(self) -> NoReturn:
        raise SyscallError(Errno.EAGAIN) if self.flags & O_NONBLOCK else Blocked(self.inode.queue)

    def read(self, count: int) -> bytes:
        """What is there, up to ``count``; empty when no writer is left."""
        if not self.readable:
            raise SyscallError(Errno.EBADF)
        pipe = self.inode
        if not count:
            return b""
        if not pipe.buffer:
            if pipe.writers:
                self._block()
            return b""
        return pipe.take(count)

    def unread(self, data: bytes) -> None:
        """Put ``data`` back."""
        pipe = self.inode
        pipe.fs.quota.used += len(data)
        pipe.buffer[:0] = data
        if pipe.packets:
            pipe.packets.appendleft(len(data))
        pipe.queue.wake()

    def write(self, data: bytes) -> int:
        """As much as there is room for; all or nothing up to PIPE_BUF; EPIPE without a reader."""
        if not self.writable:
            raise SyscallError(Errno.EBADF)
        pipe = self.inode
        if not data:
            return 0
        if not pipe.readers:
            raise SyscallError(Errno.EPIPE)
        packet = self.flags & O_DIRECT
        room = pipe.capacity - len(pipe.buffer)
        if room < len(data) and (len(data) <= PIPE_BUF or room <= 0 or (packet and room < PIPE_BUF)):
            self._block()
        piece = data[: PIPE_BUF if packet else room]
        pipe.put(piece, bool(packet))
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
            bits |= 0 if pipe.writers or pipe.opened_writers == self._before else POLLHUP
        if self.writable:
            bits |= POLLOUT | POLLWRNORM if pipe.capacity - len(pipe.buffer) >= PIPE_BUF else 0
            bits |= 0 if pipe.readers else POLLERR
        return bits

    def wait_queues(self) -> tuple[WaitQueue, ...]:
        """The pipe's."""
        return (self.inode.queue,)

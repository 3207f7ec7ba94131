"""Event counters (eventfd(2)): 64 bits that writes add to and reads take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import O_RDWR, POLLERR, POLLIN, POLLOUT
from mmuemu.kernel.files.anonymous import AnonymousFile
from mmuemu.kernel.files.openfile import Blocked
from mmuemu.kernel.wait import WaitQueue

if TYPE_CHECKING:
    from typing import NoReturn

    from mmuemu.kernel.files.inode import FileSystem

MAXIMUM: Final = (1 << 64) - 2


class EventFd(AnonymousFile):
    """One counter. ``semaphore``: a read takes 1, not everything."""

    __slots__ = ("count", "queue", "semaphore")

    label = b"anon_inode:[eventfd]"
    pollable = True

    def __init__(self, fs: FileSystem, count: int, flags: int, semaphore: bool) -> None:
        super().__init__(fs, O_RDWR | flags)
        self.count = count
        self.semaphore = semaphore
        self.queue = WaitQueue()

    def _block(self) -> NoReturn:
        raise SyscallError(Errno.EAGAIN) if self.nonblocking else Blocked(self.queue)

    def read(self, count: int) -> bytes:
        """The counter, or 1 of it, as 8 bytes; EINVAL for a smaller buffer."""
        if count < 8:
            raise SyscallError(Errno.EINVAL)
        if not self.count:
            self._block()
        value = 1 if self.semaphore else self.count
        self.count -= value
        self.queue.wake()
        return value.to_bytes(8, "little")

    def unread(self, data: bytes) -> None:
        """What was taken is lost when the buffer was bad (fs/eventfd.c: eventfd_read)."""

    def write(self, data: bytes) -> int:
        """Add 8 bytes' value; EINVAL for any other number of bytes or for 2 ** 64 - 1."""
        if len(data) != 8:
            raise SyscallError(Errno.EINVAL)
        value = int.from_bytes(data, "little")
        if value > MAXIMUM:
            raise SyscallError(Errno.EINVAL)
        if value > MAXIMUM - self.count:
            self._block()
        self.count += value
        self.queue.wake()
        return 8

    def poll(self) -> int:
        """Readable when not 0, writable while 1 can be added."""
        bits = POLLIN if self.count else 0
        return bits | (POLLERR if self.count > MAXIMUM else POLLOUT if self.count < MAXIMUM else 0)

    def wait_queues(self) -> tuple[WaitQueue, ...]:
        """Woken by every change."""
        return (self.queue,)

"""Timers that are read from a descriptor (timerfd_create(2))."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import O_RDWR, POLLIN
from mmuemu.kernel.files.anonymous import AnonymousFile
from mmuemu.kernel.files.openfile import Blocked
from mmuemu.kernel.wait import WaitQueue

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import FileSystem
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.timers import Timer

CLOCK_REALTIME: Final = 0


class TimerFd(AnonymousFile):
    """A timer; all times in nanoseconds. It is armed again at each read, so that an unread one costs nothing."""

    __slots__ = ("clock", "deadline", "interval", "kernel", "queue", "timer")

    label = b"anon_inode:[timerfd]"
    pollable = True

    def __init__(self, fs: FileSystem, kernel: Kernel, clock: int, flags: int) -> None:
        super().__init__(fs, O_RDWR | flags)
        self.kernel = kernel
        self.clock = clock
        self.interval = 0
        self.deadline = 0
        """When it expires next, in monotonic nanoseconds; 0 while disarmed."""
        self.timer: Timer | None = None
        self.queue = WaitQueue()

    def settings(self) -> tuple[int, int]:
        """The interval, and the time left until the next expiration (0: disarmed)."""
        now = self.kernel.clock.now()
        deadline = self.deadline
        if not deadline:
            return self.interval, 0
        if self.interval and deadline <= now:
            deadline += (now - deadline) // self.interval * self.interval + self.interval
        return self.interval, max(deadline - now, 0)

    def set(self, value: int, interval: int, absolute: bool) -> None:
        """Arm it, or with ``value`` 0 disarm it."""
        now = self.kernel.clock.now()
        if absolute and self.clock == CLOCK_REALTIME:
            value += now - self.kernel.clock.realtime() if value else 0
        self.interval = interval
        if not value:
            self._arm(0)
        else:
            self._arm(max(value, 1) if absolute else now + value)

    def _arm(self, deadline: int) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.deadline = deadline
        if deadline:
            self.timer = self.kernel.timers.at(deadline, self.queue.wake)

    def _expirations(self) -> int:
        late = self.kernel.clock.now() - self.deadline
        if not self.deadline or late < 0:
            return 0
        return late // self.interval + 1 if self.interval else 1

    def read(self, count: int) -> bytes:
        """How often it expired since the last read, in 8 bytes."""
        if count < 8:
            raise SyscallError(Errno.EINVAL)
        expired = self._expirations()
        if not expired:
            if self.nonblocking:
                raise SyscallError(Errno.EAGAIN)
            raise Blocked(self.queue, deadline=self.deadline or None)
        self._arm(self.deadline + expired * self.interval if self.interval else 0)
        return expired.to_bytes(8, "little")

    def unread(self, data: bytes) -> None:
        """What was taken is lost when the buffer was bad."""

    def poll(self) -> int:
        """Readable once expired."""
        return POLLIN if self._expirations() else 0

    def wait_queues(self) -> tuple[WaitQueue, ...]:
        """Woken at each expiration."""
        return (self.queue,)

    def closed(self) -> None:
        """Nobody is told any more."""
        super().closed()
        self._arm(0)

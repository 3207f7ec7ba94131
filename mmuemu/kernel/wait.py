"""Sleeping in a system call: what is waited for, and who is told.

A call that must sleep raises :class:`Blocked`, having had no effect that making it again would repeat. The kernel
parks the task; whoever makes something ready calls :meth:`WaitQueue.wake`, and the call is made again from its
start. What a call must remember between the two it keeps in ``task.call_state``, which is None the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from mmuemu.kernel.abi.errno import Errno, SyscallError


class Waiter(Protocol):
    """Somebody who sleeps: a task, or an epoll instance that passes the news on."""

    def wake(self) -> None:
        """Something waited for may be ready; it may not be, too."""


class WaitQueue:
    """Those who wait for one thing, in the order they came. It is cheap to make and to wake when empty."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: dict[Waiter, None] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def add(self, waiter: Waiter) -> None:
        """Tell ``waiter`` of the next :meth:`wake`."""
        self._waiters[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        """Tell ``waiter`` no more; it need not be waiting."""
        self._waiters.pop(waiter, None)

    def wake(self) -> None:
        """Wake everybody who waits: each looks again, and may go back to sleep."""
        if self._waiters:
            for waiter in list(self._waiters):
                waiter.wake()


RESTART_ALWAYS: Final = 2
"""The call goes on after any handler, SA_RESTART or not (ERESTARTNOINTR)."""


class Blocked(SyscallError):
    """The call sleeps until one of ``queues`` is woken, a host descriptor is ready, or ``deadline`` has come.

    ``deadline`` is in nanoseconds of the kernel's monotonic clock (``kernel.clock.now()``); the call itself must
    see that it has passed when it is made again. ``host`` has host descriptors and the POLL* events waited for.
    A signal whose handler runs ends the call with EINTR, unless ``restart`` and its SA_RESTART (signal(7) lists
    the calls that are never restarted), or ``restart`` is RESTART_ALWAYS; one without a handler leaves it asleep.
    ``on_interrupt`` is called before such an EINTR. A call that has moved some bytes says so by ``progress``: a
    signal then ends it with that count. With ``killable`` only a signal that ends the process ends the sleep, and
    others wait (TASK_KILLABLE). Without a kernel it is EAGAIN.
    """

    def __init__(
        self,
        *queues: WaitQueue,
        deadline: int | None = None,
        host: Mapping[int, int] | None = None,
        restart: int = True,
        on_interrupt: Callable[[], None] | None = None,
        progress: int | None = None,
        killable: bool = False,
    ) -> None:
        super().__init__(Errno.EAGAIN)
        self.queues = queues
        self.deadline = deadline
        self.host = host
        self.restart = restart
        self.on_interrupt = on_interrupt
        self.progress = progress
        self.killable = killable

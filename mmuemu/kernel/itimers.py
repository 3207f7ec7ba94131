"""Timers that send signals: setitimer's three of a process, and those of timer_create.

An interval starts anew when its signal is taken from the queue, as on Linux (kernel/time/itimer.c, posix-timers.c):
what ran out in between is counted, not queued. CPU-time timers go by the clock here, while a thread of the process is
ready to run.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.signals.info import by_kernel, by_timer
from mmuemu.kernel.signals.send import send
from mmuemu.kernel.task import State

if TYPE_CHECKING:
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.signals.pending import SigInfo
    from mmuemu.kernel.task import Task
    from mmuemu.kernel.timers import Timer

ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF = range(3)
ITIMER_SIGNALS: Final = (Signal.SIGALRM, Signal.SIGVTALRM, Signal.SIGPROF)
SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD, SIGEV_THREAD_ID = 0, 1, 2, 4
DELAYTIMER_MAX: Final = (1 << 31) - 1
_RETRY: Final = 10_000_000
"""How long a CPU-time timer waits before it looks again whether its process runs (a jiffy at 100 Hz)."""


class SignalTimer:
    """One timer of ``process``: a deadline and an interval in nanoseconds of the monotonic clock, 0 for none."""

    __slots__ = ("_generation", "_timer", "cpu", "deadline", "interval", "process")

    def __init__(self, process: Process, cpu: bool) -> None:
        self.process = process
        self.cpu = cpu
        self.deadline = 0
        self.interval = 0
        self._timer: Timer | None = None
        self._generation = 0

    def set(self, deadline: int, interval: int) -> None:
        """Go off at ``deadline`` (0: never) and every ``interval`` from then on."""
        self.cancel()
        self.deadline, self.interval = deadline, interval
        if deadline:
            self._arm()

    def cancel(self) -> None:
        """Go off no more; a signal that is pending already does not start it anew."""
        self._generation += 1
        self.deadline = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        kernel = self.process.kernel
        self._timer = kernel.timers.at(self.deadline, self._expire)
        kernel.scheduler.watch_time()

    def _expire(self) -> None:
        if self.cpu and not any(thread.state is State.RUNNABLE for thread in self.process.threads.values()):
            self.deadline = self.process.kernel.clock.now() + _RETRY
            self._arm()
            return
        self._timer = None
        self.fire()

    def fire(self) -> None:
        """The deadline has come."""
        raise NotImplementedError

    def forward(self) -> int:
        """Set the deadline after now in whole intervals, which must not be 0; how many those were."""
        now = self.process.kernel.clock.now()
        count = max((now - self.deadline) // self.interval + 1, 0)
        self.deadline += count * self.interval
        return count

    def remaining(self, least: int) -> int:
        """Nanoseconds left, ``least`` when it is about to go off, 0 when it is not set."""
        if not self.deadline:
            return 0
        if self._timer is None and self.interval:
            self.forward()
        return max(self.deadline - self.process.kernel.clock.now(), least)

    def start_anew(self, generation: int) -> int:
        """The signal of that generation is delivered: the next interval begins. How many were missed."""
        if generation != self._generation:
            return 0
        if not self.interval:
            self.deadline = 0
            return 0
        missed = self.forward() - 1
        self._arm()
        return max(missed, 0)


class IntervalTimer(SignalTimer):
    """One of getitimer(2)'s."""

    __slots__ = ("signal",)

    def __init__(self, process: Process, which: int) -> None:
        super().__init__(process, which != ITIMER_REAL)
        self.signal = ITIMER_SIGNALS[which]

    def fire(self) -> None:
        """Send the signal; it starts the next interval when it is taken."""
        generation = self._generation

        def taken(info: SigInfo) -> SigInfo:
            self.start_anew(generation)
            return info

        if self.interval == 0:
            self.deadline = 0
        send(self.process, replace(by_kernel(self.signal), taken=taken))


class PosixTimer(SignalTimer):
    """One of timer_create(2)'s: ``notify`` is SIGEV_*, ``thread`` who gets the signal (None: the process)."""

    __slots__ = ("clock", "notify", "number", "overrun", "signal", "thread", "value")

    def __init__(
        self, process: Process, number: int, clock: int, cpu: bool, notify: int, signal: int, value: bytes
    ) -> None:
        super().__init__(process, cpu)
        self.number = number
        self.clock = clock
        self.notify = notify
        self.signal = signal
        self.value = value
        self.thread: Task | None = None
        self.overrun = 0
        """Of the last signal that was delivered."""

    def fire(self) -> None:
        """Send the signal, if there is one to send."""
        if self.notify == SIGEV_NONE:
            if not self.interval:
                self.deadline = 0
            return
        generation = self._generation

        def taken(info: SigInfo) -> SigInfo:
            self.overrun = min(self.start_anew(generation), DELAYTIMER_MAX)
            return replace(info, payload=info.payload[:4] + struct.pack("<i", self.overrun) + info.payload[8:])

        target = self.process if self.thread is None else self.thread
        before = len(target.signals)
        send(target, replace(by_timer(self.signal, self.number, 0, self.value), taken=taken))
        if len(target.signals) == before:
            self.start_anew(generation)  # ignored: it goes on all the same
        elif not self.interval:
            self.deadline = 0


def interval_timer(process: Process, which: int) -> IntervalTimer:
    """A process's timer ITIMER_*."""
    timer = process.itimers.get(which)
    if timer is None:
        timer = process.itimers[which] = IntervalTimer(process, which)
    return timer


def forget_posix_timers(process: Process) -> None:
    """What execve does to the timers of timer_create(2)."""
    for timer in process.posix_timers.values():
        timer.cancel()
    process.posix_timers.clear()


def forget_timers(process: Process) -> None:
    """The process ends."""
    forget_posix_timers(process)
    for timer in process.itimers.values():
        timer.cancel()
    process.itimers.clear()

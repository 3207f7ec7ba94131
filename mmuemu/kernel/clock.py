"""Time as a guest sees it: the host's, or a virtual clock that makes a run repeatable."""

from __future__ import annotations

import time
from typing import Protocol

NANOSECONDS = 1_000_000_000
INSTRUCTION_NS = 20
"""How much virtual time a counted instruction takes: about what it takes in truth, so that waits last as long."""


class Clock(Protocol):
    """Nanoseconds by clock, and waiting."""

    virtual: bool
    """Whether its time is a guest's alone, so that it can be jumped over."""

    def now(self) -> int:
        """The monotonic clock, looked at without any effect."""

    def set(self, now: int) -> None:
        """Have :meth:`now` go on from ``now``: a snapshot of that time was returned to."""

    def passed(self, nanoseconds: int) -> None:
        """That much time has passed in the guest without this clock's doing."""

    def wait(self, nanoseconds: int) -> None:
        """Let the host's time pass, not the guest's: nothing that it knows of will ever happen."""

    def realtime(self) -> int:
        """Nanoseconds since the epoch (CLOCK_REALTIME)."""

    def monotonic(self) -> int:
        """Nanoseconds since the machine started (CLOCK_MONOTONIC, CLOCK_BOOTTIME)."""

    def cpu(self) -> int:
        """Nanoseconds of CPU time used."""

    def used(self) -> int:
        """Nanoseconds of CPU time used by everybody, looked at without any effect."""

    def sleep(self, nanoseconds: int) -> None:
        """Let that much time pass."""

    def tsc(self) -> int:
        """The time-stamp counter: 2.1 GHz."""


class HostClock:
    """The host's own time."""

    virtual = False

    def __init__(self) -> None:
        self.offset = 0
        """What the guest's monotonic clock is ahead of the host's: none, before a snapshot was returned to."""

    def now(self) -> int:
        return time.monotonic_ns() + self.offset

    def set(self, now: int) -> None:
        """It is ``now``: the guest has not seen the time in between."""
        self.offset = now - time.monotonic_ns()

    def passed(self, nanoseconds: int) -> None:
        """The host has counted it."""

    def wait(self, nanoseconds: int) -> None:
        time.sleep(nanoseconds / NANOSECONDS)

    def realtime(self) -> int:
        return time.time_ns()

    def monotonic(self) -> int:
        return time.monotonic_ns() + self.offset

    def cpu(self) -> int:
        return time.process_time_ns()

    def used(self) -> int:
        return time.monotonic_ns() + self.offset

    def sleep(self, nanoseconds: int) -> None:
        time.sleep(nanoseconds / NANOSECONDS)

    def tsc(self) -> int:
        return (time.monotonic_ns() + self.offset) * 21 // 10


class VirtualClock:
    """Time that only moves when it is asked for or slept through, so that the same run reads the same times.

    It starts at 2024-01-01 00:00:00 UTC. Each reading takes a microsecond.
    """

    EPOCH = 1_704_067_200 * NANOSECONDS
    STEP = 1_000
    virtual = True

    def __init__(self) -> None:
        self._now = 0

    def now(self) -> int:
        return self._now

    def set(self, now: int) -> None:
        self._now = now

    def passed(self, nanoseconds: int) -> None:
        self._now += nanoseconds

    def wait(self, nanoseconds: int) -> None:
        time.sleep(nanoseconds / NANOSECONDS)

    def _tick(self) -> int:
        self._now += self.STEP
        return self._now

    def realtime(self) -> int:
        return self.EPOCH + self._tick()

    def monotonic(self) -> int:
        return self._tick()

    def cpu(self) -> int:
        return self._tick()

    def used(self) -> int:
        return self._now

    def sleep(self, nanoseconds: int) -> None:
        self._now += nanoseconds

    def tsc(self) -> int:
        return self._tick() * 21 // 10

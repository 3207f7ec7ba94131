"""The local APIC's timer: one-shot, periodic and TSC-deadline, by arithmetic on the clock.

Source: Intel SDM volume 3, 11.5.4 (APIC timer, divide configuration, TSC-deadline mode). The bus clock is 1 GHz, as
in QEMU: one count with a divisor of 1 is one nanosecond.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mmuemu.devices.clock import InstructionClock

ONE_SHOT: Final = 0
PERIODIC: Final = 1
TSC_DEADLINE: Final = 2

SHORTEST_PERIOD_NS: Final = 1_000
"""Periodic interrupts closer than this are merged: no CPU could take them, and the host must stay in charge."""


def divisor(configuration: int) -> int:
    """The divide configuration register's bits 3, 1 and 0 as a divisor: 2, 4, ..., 128, and 1 for all set."""
    bits = configuration >> 1 & 4 | configuration & 3
    return 1 << (bits + 1 & 7)


class ApicTimer:
    """The counter. ``expired`` is called when it gets to 0 while ``armed`` for an interrupt (unmasked)."""

    def __init__(self, clock: InstructionClock, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._expired = expired
        self._alarm = clock.timer("apic timer", self._ring)
        self.reset()

    def reset(self) -> None:
        """The state after power-up: stopped, one-shot, masked."""
        self.mode = ONE_SHOT
        self.masked = True
        self.initial = 0
        self.divide = 0
        self.deadline = 0
        self._start = 0
        self._alarm.cancel()

    def configure(self, mode: int, masked: bool) -> None:
        """A write to the LVT timer register."""
        if (mode == TSC_DEADLINE) != (self.mode == TSC_DEADLINE):
            self.initial = self.deadline = 0
        elif mode == ONE_SHOT and self.mode == PERIODIC and self.initial:
            # The period that runs now becomes the one shot.
            self._start += (self._clock.now - self._start) // self._period() * self._period()
        self.mode, self.masked = mode, masked or mode > TSC_DEADLINE
        self._arm()

    def set_initial(self, count: int) -> None:
        """A write to the initial count register: starts the counter, or stops it with 0."""
        if self.mode != TSC_DEADLINE:
            self.initial, self._start = count, self._clock.now
            self._arm()

    def set_divide(self, configuration: int) -> None:
        """A write to the divide configuration register: a running counter goes on from where it is."""
        left = self.current()
        self.divide = configuration & 0xB
        self._start = self._clock.now - (self.initial - left) * divisor(self.divide)
        self._arm()

    def set_deadline(self, value: int) -> None:
        """A write to IA32_TSC_DEADLINE; ignored in the other modes."""
        if self.mode == TSC_DEADLINE:
            self.deadline = value
            self._arm()

    def tsc_was_set(self) -> None:
        """The TSC has jumped; a deadline may lie elsewhere now."""
        self._arm()

    def current(self) -> int:
        """The current count register."""
        if not self.initial or self.mode == TSC_DEADLINE:
            return 0
        gone = (self._clock.now - self._start) // divisor(self.divide)
        if self.mode == PERIODIC:
            return self.initial - gone % self.initial
        return max(self.initial - gone, 0)

    def _period(self) -> int:
        return self.initial * divisor(self.divide)

    def _arm(self) -> None:
        now = self._clock.now
        self._alarm.cancel()
        if self.mode == TSC_DEADLINE:
            self._arm_deadline()
        elif not self.initial or self.masked:
            pass  # nothing to tell anyone: the count is computed when it is read
        elif self.mode == ONE_SHOT:
            if self._start + self._period() > now:
                self._alarm.arm(self._start + self._period())
        else:
            period = self._period()
            soonest = now if period >= SHORTEST_PERIOD_NS else now + SHORTEST_PERIOD_NS
            self._alarm.arm(self._start + ((soonest - self._start) // period + 1) * period)

    def _arm_deadline(self) -> None:
        if not self.deadline:
            return
        if self._clock.tsc() >= self.deadline:
            self._pass_deadline()
        else:
            self._alarm.arm(self._clock.moment_of_tsc(self.deadline))

    def _pass_deadline(self) -> None:
        self.deadline = 0
        if not self.masked:
            self._expired()

    def _ring(self, _deadline: int) -> None:
        if self.mode == TSC_DEADLINE:
            self._arm_deadline()
            return
        if self.mode == PERIODIC:
            self._arm()
        self._expired()

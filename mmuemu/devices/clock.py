"""The machine's time: nanoseconds derived from counted guest instructions, and the events that are due by it.

Sources: none but arithmetic. ``instructions_per_us`` is the speed of the pretended CPU; at the default 1000 one
instruction takes one nanosecond.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mmuemu.errors import UsageError

NS_PER_SECOND: Final = 1_000_000_000


def ceil_div(a: int, b: int) -> int:
    """``a / b`` rounded up, for ``b > 0``."""
    return -(-a // b)


class Timer:
    """One device's alarm on a clock: unarmed, or armed for a moment. Made by :meth:`InstructionClock.timer`."""

    __slots__ = ("_clock", "callback", "deadline", "due", "name", "order")

    def __init__(self, clock: InstructionClock, name: str, order: int, callback: Callable[[int], None]) -> None:
        self._clock = clock
        self.name = name
        self.order = order
        self.callback = callback
        self.deadline: int | None = None
        """The moment it is armed for, in nanoseconds; None: not armed."""
        self.due = 0
        """The instruction count at which it goes off, when armed."""

    def arm(self, deadline: int) -> None:
        """Go off once at ``deadline`` (nanoseconds), but not before the next instruction; replaces what was armed."""
        self.deadline = deadline
        self.due = self._clock.count_at(deadline)
        self._clock._requeue()

    def cancel(self) -> None:
        """Do not go off."""
        if self.deadline is not None:
            self.deadline = None
            self._clock._requeue()


class InstructionClock:
    """Time counted in guest instructions.

    Timers go off inside :meth:`advance` and nowhere else, in the order of (instruction count, deadline, the order
    in which the timers were made).
    """

    def __init__(self, instructions_per_us: int = 1000, tsc_hz: int = NS_PER_SECOND) -> None:
        """Raises UsageError unless both rates are positive."""
        if instructions_per_us < 1 or tsc_hz < 1:
            raise UsageError("the clock needs at least 1 instruction per microsecond and a TSC of at least 1 Hz")
        self.instructions_per_us = instructions_per_us
        self.tsc_hz = tsc_hz
        self.instructions = 0
        """Instructions counted so far (idle time counts as if instructions had run)."""
        self.on_sooner: Callable[[], None] | None = None
        """Called when the next event has come nearer: a CPU running towards the old one must look again."""
        self.on_tsc: Callable[[], None] | None = None
        """Called when the TSC was set (a TSC deadline then lies elsewhere)."""
        self._tsc_offset = 0
        self._timers: list[Timer] = []
        self._head: Timer | None = None
        self._head_due: int | None = None

    @property
    def now(self) -> int:
        """Nanoseconds since the machine started."""
        return self.instructions * 1000 // self.instructions_per_us

    def count_at(self, moment: int) -> int:
        """The first instruction count, later than now, at which ``now >= moment``."""
        return max(ceil_div(moment * self.instructions_per_us, 1000), self.instructions + 1)

    def timer(self, name: str, callback: Callable[[int], None]) -> Timer:
        """A new unarmed timer; ``callback`` gets the deadline it was armed for."""
        timer = Timer(self, name, len(self._timers), callback)
        self._timers.append(timer)
        return timer

    def next_event_in(self) -> int | None:
        """Instructions until the next timer goes off (at least 1), or None when none is armed."""
        return None if self._head is None else self._head.due - self.instructions

    def advance(self, instructions: int) -> None:
        """Count ``instructions`` more, and set off every timer due by then, each at its own count."""
        self.advance_to(self.instructions + instructions)

    def advance_to(self, count: int) -> None:
        """Advance to an absolute instruction count; one already passed is no error and does nothing."""
        while (head := self._head) is not None and head.due <= count:
            self.instructions = head.due
            deadline = head.deadline
            assert deadline is not None
            head.deadline = None
            self._requeue()
            head.callback(deadline)
        self.instructions = max(self.instructions, count)

    def tsc(self) -> int:
        """The time-stamp counter (64 bits)."""
        ticks = self.instructions * self.tsc_hz // (self.instructions_per_us * 1_000_000)
        return (ticks + self._tsc_offset) & 0xFFFF_FFFF_FFFF_FFFF

    def set_tsc(self, value: int) -> None:
        """``wrmsr`` to IA32_TIME_STAMP_COUNTER."""
        self._tsc_offset += value - self.tsc()
        if self.on_tsc is not None:
            self.on_tsc()

    def moment_of_tsc(self, value: int) -> int:
        """The moment, in nanoseconds, at which the TSC reaches ``value``; at most now if it has been reached."""
        ticks = value - self.tsc()
        if ticks <= 0:
            return self.now
        base = self.instructions * self.tsc_hz // (self.instructions_per_us * 1_000_000)
        return ceil_div((base + ticks) * NS_PER_SECOND, self.tsc_hz)

    def _requeue(self) -> None:
        before = self._head_due
        armed = [timer for timer in self._timers if timer.deadline is not None]
        self._head = min(armed, key=lambda t: (t.due, t.deadline, t.order), default=None)
        self._head_due = self._head.due if self._head is not None else None
        if self.on_sooner is None or self._head_due is None:
            return
        if before is None or self._head_due < before:
            self.on_sooner()

"""Deadlines: what happens when the monotonic clock reaches a time."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Timer:
    """One deadline; :meth:`cancel` it when it is not wanted any more."""

    __slots__ = ("action", "deadline")

    def __init__(self, deadline: int, action: Callable[[], None]) -> None:
        self.deadline = deadline
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Nothing happens at the deadline."""
        self.action = None


class Timers:
    """Every deadline of a machine, in nanoseconds of its monotonic clock; equal ones go off in the order made."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._order = 0

    def at(self, deadline: int, action: Callable[[], None]) -> Timer:
        """Call ``action`` once the clock has reached ``deadline``."""
        timer = Timer(deadline, action)
        self._order += 1
        heapq.heappush(self._heap, (deadline, self._order, timer))
        return timer

    @property
    def next(self) -> int | None:
        """The nearest deadline, None without one."""
        heap = self._heap
        while heap and heap[0][2].action is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def glance(self) -> int | None:
        """The nearest deadline or one of a cancelled timer before it, for another thread: nothing is changed."""
        try:
            return self._heap[0][0]
        except IndexError:
            return None

    def expire(self, now: int) -> None:
        """Let everything happen that is due."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            timer = heapq.heappop(heap)[2]
            action, timer.action = timer.action, None
            if action is not None:
                action()

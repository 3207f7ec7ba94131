"""Sleeping until somebody else has finished the call: what futexes and System V IPC have in common.

The one who makes a thing ready hands it to the sleeper at the front there and then, and leaves the call's result;
the sleeper, woken, only returns it. So nobody who comes in between can take it away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.wait import Blocked, WaitQueue

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

S = TypeVar("S", bound="Sleeper")


class Sleeper:
    """One task asleep in one call; it is the task's ``call_state`` for as long as the call lasts."""

    __slots__ = ("deadline", "queue", "result", "task")

    def __init__(self, task: Task, deadline: int | None = None) -> None:
        self.task = task
        self.deadline = deadline
        self.queue = WaitQueue()
        self.result: int | None = None
        task.call_state = self

    @property
    def asleep(self) -> bool:
        """Whether its call still waits: it was neither finished, nor did a signal or the task's end cut it short."""
        return self.result is None and self.task.call_state is self

    def finish(self, result: int = 0) -> None:
        """Let the call end with ``result`` (negative: an error number)."""
        self.result = result
        self.queue.wake()

    def wait(self, *, restart: int = True, late: Errno = Errno.ETIMEDOUT) -> int:
        """The result, once there is one. Raises Blocked before, ``late`` at the deadline, or the result's error."""
        result = self.result
        if result is None:
            if self.deadline is not None and self.task.kernel.clock.now() >= self.deadline:
                raise SyscallError(late)
            raise Blocked(self.queue, deadline=self.deadline, restart=restart)
        if result < 0:
            raise SyscallError(-result)
        return result


def sleeping(task: Task, kind: type[S]) -> S | None:
    """The sleeper of that ``kind`` whose call ``task`` makes again, None when it makes the call for the first time."""
    state = task.call_state
    return state if isinstance(state, kind) else None

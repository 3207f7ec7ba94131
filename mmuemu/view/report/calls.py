"""System calls for a report: each with the line that strace would write, and how long it took."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mmuemu.view.report.events import SYSCALL, EventLog
from mmuemu.view.strace import Strace

if TYPE_CHECKING:
    from mmuemu.kernel.options import Tracer
    from mmuemu.kernel.signals.pending import SigInfo
    from mmuemu.kernel.syscalls.table import Syscall
    from mmuemu.kernel.task import Task

_UNFINISHED: Final = " <unfinished ...>"
_RESUMED: Final = " resumed>"
_PADDING: Final = re.compile(r"\) {2,}= ")


class CallRecorder:
    """A tracer (:class:`~mmuemu.kernel.options.Tracer`) that keeps calls in ``log`` and tells ``following`` all, too.

    ``now`` is the time since the recording began, in ns.
    """

    def __init__(self, log: EventLog, now: Callable[[], int], following: Tracer | None) -> None:
        self._log = log
        self._now = now
        self._following = following
        self._strace = Strace(self._take, numbered=True, direct=True)
        self._rows: dict[int, int] = {}
        """By thread: the row of the call it is in."""
        self._begun: dict[int, str] = {}
        """By thread: the first part of a call that another came between."""
        self._lines: list[tuple[int, str]] = []
        self.slept: int | None = None
        """When the last call began to wait; None when somebody has run since."""

    def _take(self, text: str) -> None:
        number, _, line = text.rstrip("\n").partition(" ")
        line = line.lstrip(" ")
        if line.endswith(_UNFINISHED):
            self._begun[int(number)] = line[: -len(_UNFINISHED)]
        elif not line.startswith(("---", "+++")):
            self._lines.append((int(number), line))

    def _told(self, task: Task) -> None:
        """Finish the call that the tracer has written a line for."""
        for tid, line in self._lines:
            row = self._rows.pop(tid, None) if tid == task.tid else None
            if row is not None:
                begun = self._begun.pop(tid, "")
                text = begun + line.partition(_RESUMED)[2] if line.startswith("<...") else line
                self._log.finish(row, self._now(), _PADDING.sub(") = ", text, count=1))
        self._lines.clear()

    # -- what the kernel tells ----------------------------------------------------------------------------------------

    def enter(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...]) -> None:
        """A row for the call, which stands before what happens in it."""
        if self._following is not None:
            self._following.enter(task, call, number, arguments)
        name = f"syscall_{number}" if call is None else call.name
        row = self._log.add(SYSCALL, self._now(), task.pid, task.tid, f"{name}(...)")
        if row >= 0:
            self._rows[task.tid] = row
            self._strace.enter(task, call, number, arguments)
            self._lines.clear()

    def leave(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...], result: int) -> None:
        """The row's span and text."""
        if self._following is not None:
            self._following.leave(task, call, number, arguments, result)
        if self.slept is not None:
            self._log.off_cpu(self.slept)
            self._log.on_cpu(self._now(), task.pid, task.tid)
            self.slept = None
        if task.tid in self._rows:
            self._strace.leave(task, call, number, arguments, result)
            self._told(task)

    def signal(self, task: Task, info: SigInfo) -> None:
        """A signal may interrupt the call."""
        if self._following is not None:
            self._following.signal(task, info)
        if task.tid in self._rows:
            self._strace.signal(task, info)
            self._told(task)

    def ignored(self, task: Task, info: SigInfo) -> None:
        """Nothing to a call."""
        if self._following is not None:
            self._following.ignored(task, info)

    def sleeps(self, task: Task) -> None:
        """The call takes longer, and the CPU is somebody else's, or nobody's."""
        if self._following is not None:
            self._following.sleeps(task)
        self.slept = self._now()

    def ended(self, task: Task) -> None:
        """The thread's last call never returns."""
        if self._following is not None:
            self._following.ended(task)
        if task.tid in self._rows:
            self._strace.ended(task)
            self._told(task)
            self._rows.pop(task.tid, None)

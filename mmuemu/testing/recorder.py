"""What a run did, recorded while it runs: system calls, refused page faults, lines that were touched transiently."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno
from mmuemu.testing.faults import Fault, refused

if TYPE_CHECKING:
    from mmuemu.kernel.events import FaultEvent
    from mmuemu.kernel.signals.pending import SigInfo
    from mmuemu.kernel.syscalls.table import Syscall
    from mmuemu.kernel.task import Task
    from mmuemu.machine import Machine
    from mmuemu.speculation.trace import Window
    from mmuemu.view.report.events import EventLog

MOST_CALLS: Final = 100_000
MOST_FAULTS: Final = 1000
MOST_FILLS: Final = 100_000
"""What is kept of a run, the last ones."""


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that returned: ``args`` as many as it has, ``result`` negative for an error number."""

    pid: int
    name: str
    args: tuple[int, ...]
    result: int

    @property
    def error(self) -> str:
        """``"ENOENT"``, or nothing when it succeeded."""
        return Errno(-self.result).name if -self.result in Errno._value2member_map_ else ""

    def __str__(self) -> str:
        arguments = ", ".join(hex(value) if abs(value) > 9 else str(value) for value in self.args)
        return f"[{self.pid}] {self.name}({arguments}) = {self.result}{f' {self.error}' if self.error else ''}"


@dataclass(frozen=True, slots=True)
class Fill:
    """A cache line that an instruction brought nearer in a transient window."""

    line: int
    """Linear address of its first byte."""
    physical: int
    instruction: int
    causes: tuple[str, ...]
    """The chain of flaws that led there, the outermost first."""
    ring: int

    def __str__(self) -> str:
        return f"{self.line:#x} by {self.instruction:#x} in ring {self.ring} ({' > '.join(self.causes)})"


Moment = tuple[int, int, int, Call | Fault]
"""Nanoseconds of the guest's clock, process, thread, what happened."""


class Recorder:
    """Listens to one machine (it is its tracer)."""

    def __init__(self, machine: Machine) -> None:
        self.moments: deque[Moment] = deque(maxlen=MOST_CALLS)
        """Of calls and refused faults, in order."""
        self._now = machine.kernel.clock.now
        self._start = self._now()
        self.calls: deque[Call] = deque(maxlen=MOST_CALLS)
        self.faults: deque[Fault] = deque(maxlen=MOST_FAULTS)
        self.fills: deque[Fill] = deque(maxlen=MOST_FILLS)
        machine.kernel.tracer = self
        machine.on_fault(self._fault)
        if machine.speculation is not None:
            machine.speculation.on_window = self._window

    # -- the kernel's tracer -------------------------------------------------------------------------------------

    def enter(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...]) -> None:
        """A call begins: what is kept is its end."""

    def leave(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...], result: int) -> None:
        """A call returns."""
        name, count = (f"syscall_{number}", 6) if call is None else (call.name, len(call.kinds))
        made = Call(task.pid, name, arguments[:count], result)
        self.calls.append(made)
        self.moments.append((self._now() - self._start, task.pid, task.tid, made))

    def signal(self, task: Task, info: SigInfo) -> None:
        """A signal is delivered: nothing is kept of it."""

    def ignored(self, task: Task, info: SigInfo) -> None:
        """A signal is dropped."""

    def sleeps(self, task: Task) -> None:
        """A call has to wait."""

    def ended(self, task: Task) -> None:
        """A thread ends."""

    def log(self) -> EventLog:
        """What happened, as a report shows it."""
        from mmuemu.view.report.events import FAULT, SYSCALL, EventLog

        log = EventLog()
        for time, pid, tid, what in self.moments:
            if isinstance(what, Call):
                log.add(SYSCALL, time, pid, tid, str(what).partition("] ")[2])
            else:
                log.add(FAULT, time, pid, tid, f"refused {what}")
        return log

    # -- the rest ------------------------------------------------------------------------------------------------

    def _fault(self, event: FaultEvent) -> None:
        if not event.resolved:
            made = refused(event)
            self.faults.append(made)
            self.moments.append((self._now() - self._start, event.task.pid, event.task.tid, made))

    def _window(self, window: Window) -> None:
        self.fills.extend(Fill(fill.linear, fill.line, fill.address, fill.causes, window.ring) for fill in window.fills)


__all__ = ["MOST_CALLS", "Call", "Fill", "Recorder"]

"""What a debugger learns from system calls: a program was executed, vfork has returned, a call that is caught."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.options import Tracer

if TYPE_CHECKING:
    from mmuemu.gdbstub.processes import ProcessTarget
    from mmuemu.kernel.signals.pending import SigInfo
    from mmuemu.kernel.syscalls.table import Syscall
    from mmuemu.kernel.task import Task

EXECVE: Final = frozenset({59, 322})


class CallWatch:
    """The kernel's tracer while programs are debugged; passes everything on to the one that was there."""

    def __init__(self, target: ProcessTarget, inner: Tracer | None) -> None:
        self.target = target
        self.inner = inner

    def enter(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...]) -> None:
        """Pass it on."""
        if self.inner is not None:
            self.inner.enter(task, call, number, arguments)

    def leave(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...], result: int) -> None:
        """Pass it on, and tell the target."""
        if self.inner is not None:
            self.inner.leave(task, call, number, arguments, result)
        self.target.call_left(task, number, result)

    def signal(self, task: Task, info: SigInfo) -> None:
        """Pass it on."""
        if self.inner is not None:
            self.inner.signal(task, info)

    def ignored(self, task: Task, info: SigInfo) -> None:
        """Pass it on."""
        if self.inner is not None:
            self.inner.ignored(task, info)

    def sleeps(self, task: Task) -> None:
        """Pass it on."""
        if self.inner is not None:
            self.inner.sleeps(task)

    def ended(self, task: Task) -> None:
        """Pass it on."""
        if self.inner is not None:
            self.inner.ended(task)

"""Sending signals: to a thread, to a process, and the kernel's own for a trap (kernel/signal.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel import life
from mmuemu.kernel.abi.signals import IGNORED_BY_DEFAULT, SIG_DFL, SIG_IGN, STOPS_BY_DEFAULT, Signal
from mmuemu.kernel.process import Process
from mmuemu.kernel.signals.pending import SigInfo

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task
    from mmuemu.kernel.traps import Death


def handler_of(process: Process, number: int) -> int:
    """The handler's address, SIG_DFL or SIG_IGN."""
    return int.from_bytes(process.actions.get(number, b"")[:8], "little")


def ignored(process: Process, number: int) -> bool:
    """Whether the signal would have no effect."""
    handler = handler_of(process, number)
    return handler == SIG_IGN or (handler == SIG_DFL and (number in IGNORED_BY_DEFAULT or number in STOPS_BY_DEFAULT))


def send(target: Task | Process, info: SigInfo) -> None:
    """Make a signal pending, and wake who is to take it."""
    process = target if isinstance(target, Process) else target.process
    kernel = process.kernel
    number = info.signal
    if process.zombie or not process.threads:
        return
    blocked_by_all = all(thread.signal_mask >> (number - 1) & 1 for thread in process.threads.values())
    if number not in (Signal.SIGKILL, Signal.SIGSTOP) and not blocked_by_all and ignored(process, number):
        return
    target.signals.add(info)
    bit = 1 << (number - 1)
    threads = list(process.threads.values()) if isinstance(target, Process) else [target]
    for thread in threads:
        if not thread.signal_mask & bit:
            thread.wake()
            if thread is kernel.current:
                kernel.attention = True
            break


def force(task: Task, death: Death) -> None:
    """The signal of a trap: the handler gets it even now, or the process dies (``force_sig_info``)."""
    life.exit_group(task.process, death=death)

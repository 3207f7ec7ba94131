"""Delivering signals just before a task returns to ring 3 (kernel/signal.c, arch/x86/kernel/signal.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel import life
from mmuemu.kernel import registers as regs
from mmuemu.kernel.abi.errno import Errno
from mmuemu.kernel.abi.signals import SIG_DFL, SIG_IGN, Signal, signal_name
from mmuemu.kernel.signals.send import handler_of, ignored
from mmuemu.kernel.traps import Death

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task
    from mmuemu.kernel.wait import Blocked

_ALL: Final = (1 << 64) - 1


def interrupt_call(task: Task, blocked: Blocked) -> None:
    """A signal ends the sleep of the call that ``task`` is in: :func:`deliver` decides how the call ends."""
    task.interrupted = True
    task.restart = blocked.restart


def deliver(task: Task) -> None:
    """Act on the signals that ``task`` does not block; its call, if one was interrupted, ends or sleeps on."""
    process = task.process
    while True:
        wanted = _ALL & ~task.signal_mask
        info = task.signals.take(wanted) or process.signals.take(wanted)
        if info is None:
            break
        number = info.signal
        if number != Signal.SIGKILL and ignored(process, number):
            continue
        handler = handler_of(process, number)
        reason = ""
        if handler not in (SIG_DFL, SIG_IGN):
            reason = f"the program's handler for {signal_name(number)} cannot be called in this version"
        life.exit_group(process, death=Death(number, reason=reason))
        return
    task.interrupted = False


def end_call(task: Task, result: int) -> None:
    """The interrupted call returns ``result``."""
    task.interrupted = False
    task.in_call = False
    task.call_state = None
    task.registers[regs.AX] = result


EINTR: Final = -Errno.EINTR

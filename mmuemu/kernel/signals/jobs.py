"""Job control: processes that stop and go on, and what their parents hear of it (kernel/signal.c, kernel/exit.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.signals import CLD_CONTINUED, CLD_STOPPED, SA_NOCLDSTOP, SIG_IGN, Signal
from mmuemu.kernel.signals.info import by_child, by_kernel
from mmuemu.kernel.task import State

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.process import Process

_TICK = 10_000_000


def stop(process: Process, number: int) -> None:
    """Every thread of ``process`` stops, by signal ``number``; a call that one slept in is made again later."""
    scheduler = process.kernel.scheduler
    for thread in process.threads.values():
        scheduler.remove(thread)
        thread.state = State.STOPPED
        if thread is process.kernel.current:
            process.kernel.attention = True
    process.stop_signal = number
    process.continued = False
    _tell_parent(process, CLD_STOPPED, number)


def resume(process: Process, *, told: bool) -> None:
    """A stopped process goes on; with ``told`` its parent hears of it, as with SIGCONT."""
    if not process.stop_signal:
        return
    process.stop_signal = 0
    scheduler = process.kernel.scheduler
    for thread in process.threads.values():
        if thread.state is State.STOPPED:
            scheduler.add(thread)
    if told:
        process.continued = True
        _tell_parent(process, CLD_CONTINUED, Signal.SIGCONT)


def _tell_parent(process: Process, code: int, status: int) -> None:
    """SIGCHLD, unless the parent does not want to know, and whoever waits (``do_notify_parent_cldstop``)."""
    from mmuemu.kernel.signals.send import action_of, send

    process.stop_reported = False
    parent = process.parent
    if parent is None:
        return
    action = action_of(parent, Signal.SIGCHLD)
    if action.handler != SIG_IGN and not action.flags & SA_NOCLDSTOP:
        uid = process.leader.uid if process.leader is not None else 0
        send(parent, by_child(code, process.pid, uid, status, process.cpu_time // _TICK))
    parent.child_events.wake()


def is_orphaned(kernel: Kernel, pgid: int, but: Process | None = None) -> bool:
    """Whether no member of a process group (``but`` left out) has a parent in its session outside the group.

    The main process counts as the child of a shell.
    """
    for process in kernel.processes.values():
        if process.pgid != pgid or process is but or process.zombie:
            continue
        if process is kernel.main:
            return False
        parent = process.parent
        if parent is not None and parent.pgid != pgid and parent.sid == process.sid:
            return False
    return True


def orphan_groups(process: Process, orphans: list[Process]) -> None:
    """``process`` has ended and left ``orphans``: stopped members of a group that this orphans get SIGHUP and SIGCONT.

    After ``kill_orphaned_pgrp`` (kernel/exit.c).
    """
    kernel = process.kernel
    for child in orphans:
        if child.pgid != process.pgid and child.sid == process.sid:
            _hang_up(kernel, child.pgid)
    parent = process.parent
    if process is kernel.main or (parent is not None and parent.pgid != process.pgid and parent.sid == process.sid):
        _hang_up(kernel, process.pgid, process)


def _hang_up(kernel: Kernel, pgid: int, but: Process | None = None) -> None:
    from mmuemu.kernel.signals.send import to_group

    stopped = any(other.pgid == pgid and other.stop_signal for other in kernel.processes.values())
    if stopped and is_orphaned(kernel, pgid, but):
        to_group(kernel, pgid, by_kernel(Signal.SIGHUP))
        to_group(kernel, pgid, by_kernel(Signal.SIGCONT))

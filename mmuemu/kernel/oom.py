"""When guest memory runs out: who is killed so that the others can go on (mm/oom_kill.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel import life
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.kernel.smaps import table_bytes
from mmuemu.kernel.traps import Death
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.process import Process

OOM_SCORE_ADJ_MIN: Final = -1000
"""A process with this adjustment is never killed."""


def badness(kernel: Kernel, process: Process) -> int | None:
    """Pages that killing ``process`` would free, resident ones and page tables, adjusted; None: it may not be killed.

    The adjustment counts in thousandths of all memory. A child of vfork does not count: its memory is another's.
    """
    if not process.threads or process.oom_score_adj == OOM_SCORE_ADJ_MIN or process.vfork_waiter is not None:
        return None
    mm = next(iter(process.threads.values())).mm
    pages = mm.resident + table_bytes(mm) // PAGE_SIZE + 1
    return pages + process.oom_score_adj * (kernel.frames.limit // 1000)


def score(kernel: Kernel, process: Process) -> int:
    """What /proc/PID/oom_score shows (fs/proc/base.c: proc_oom_score)."""
    points = badness(kernel, process)
    return 0 if points is None else max((1000 + points * 1000 // kernel.frames.limit) * 2 // 3, 0)


def _victim(kernel: Kernel) -> Process | None:
    """The worst process, of equals the last one."""
    chosen, most = None, 0
    for process in kernel.processes.values():
        points = badness(kernel, process)
        if points is not None and (chosen is None or points >= most):
            chosen, most = process, points
    return chosen


def _give_up_the_dead(kernel: Kernel) -> bool:
    """The first process's memory is kept after its end, to be looked at: not when others need it."""
    main = kernel.main
    if main is None or main.threads or main.leader is None or not main.leader.mm.resident or main.leader.mm.users:
        return False
    main.leader.mm.unmap_areas(0, main.leader.mm.task_size)
    return True


def make_room(kernel: Kernel) -> bool:
    """Kill the worst process for lack of memory; whether that freed some.

    When it is the one that runs, it dies on its way back to ring 3: until then its memory is in use.
    """
    task = kernel.current
    if task is None or task.process.oom_reason:
        return False
    if _give_up_the_dead(kernel):
        return True
    victim = _victim(kernel)
    if victim is None:
        return False
    thread = next(iter(victim.threads.values()))
    mm, pages = thread.mm, thread.mm.resident
    sharing = [other for other in kernel.processes.values() if any(t.mm is mm for t in other.threads.values())]
    for process in sharing:
        process.oom_reason = (
            f"out of memory: all {kernel.ram.size >> 20} MiB of guest memory are in use (--memory), {pages} pages by it"
        )
    if victim is not kernel.main and kernel.on_oom_kill is not None:
        kernel.on_oom_kill(victim, pages)
    if mm is task.mm:
        for process in sharing:
            kernel.send_signal(process, SigInfo(Signal.SIGKILL))
        return False
    for process in sharing:
        life.exit_group(process, death=Death(Signal.SIGKILL))
    _give_up_the_dead(kernel)
    return True

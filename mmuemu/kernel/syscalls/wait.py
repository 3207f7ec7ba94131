"""wait4(2) and waitid(2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mmuemu.kernel import life
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.accounting import process_usage
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.kernel.syscalls.pidfd import process_of
from mmuemu.kernel.syscalls.table import syscall
from mmuemu.kernel.wait import Blocked

if TYPE_CHECKING:
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task

WNOHANG: Final = 1
WSTOPPED: Final = 2
WEXITED: Final = 4
WCONTINUED: Final = 8
WNOWAIT: Final = 0x0100_0000
_CLONE_OPTIONS: Final = 0xE000_0000
"""__WNOTHREAD, __WALL and __WCLONE."""
_WCLONE: Final = 0x8000_0000
_WALL: Final = 0x4000_0000
P_ALL, P_PID, P_PGID, P_PIDFD = range(4)
CLD_STOPPED: Final = 5
CLD_CONTINUED: Final = 6
_INFO_BYTES: Final = 28
"""waitid writes si_signo to si_status and nothing else (kernel/exit.c)."""
CONTINUED_STATUS: Final = 0xFFFF


def _eligible(process: Process, options: int) -> bool:
    """Whether the options ask for this kind of child: by its exit signal (wait(2), "Linux-specific options")."""
    return bool(options & _WALL) or (process.exit_signal != Signal.SIGCHLD) == bool(options & _WCLONE)


def _news(child: Process, options: int) -> tuple[SigInfo, int] | None:
    """What there is to tell of ``child``: siginfo and wait status; None when nothing is wanted."""
    if child.zombie:
        return (life.child_info(child), child.wait_status) if options & WEXITED else None
    if child.stop_reported:
        return None
    if child.stop_signal and options & WSTOPPED:
        payload = life.child_payload(child, child.stop_signal)
        return SigInfo(Signal.SIGCHLD, CLD_STOPPED, payload), child.stop_signal << 8 | 0x7F
    if child.continued and options & WCONTINUED:
        payload = life.child_payload(child, Signal.SIGCONT)
        return SigInfo(Signal.SIGCHLD, CLD_CONTINUED, payload), CONTINUED_STATUS
    return None


def _wait(task: Task, wanted: Callable[[Process], bool], options: int) -> tuple[Process, SigInfo, int] | None:
    """The first child with news; None with WNOHANG and no news. ECHILD without a child that is wanted."""
    own = task.process
    children = [child for child in own.children.values() if wanted(child) and _eligible(child, options)]
    if not children:
        raise SyscallError(Errno.ECHILD)
    for child in children:
        news = _news(child, options)
        if news is not None:
            if not options & WNOWAIT:
                child.stop_reported = True
                if child.zombie:
                    life.reap(child)
            return child, *news
    if options & WNOHANG:
        return None
    raise Blocked(own.child_events)


def usage(child: Process) -> bytes:
    """A ``struct rusage`` of a child and its own children that it waited for (kernel/sys.c: RUSAGE_BOTH)."""
    both = process_usage(child)
    both.add(child.children_used)
    return both.pack()


@syscall(61, "wait4", "pid", "ptr", "int", "ptr")
def sys_wait4(task: Task, pid: int, status: int, options: int, rusage: int) -> int:
    """wait4(2)."""
    if options & 0xFFFF_FFFF & ~(WNOHANG | WSTOPPED | WCONTINUED | _CLONE_OPTIONS):
        raise SyscallError(Errno.EINVAL)
    if pid == -(1 << 31):
        raise SyscallError(Errno.ESRCH)
    group = task.process.pgid if pid == 0 else -pid
    found = _wait(
        task,
        lambda child: pid == -1 or (child.pid == pid if pid > 0 else child.pgid == group),
        options | WEXITED,
    )
    if found is None:
        return 0
    child, _, word = found
    if status:
        task.memory.write_u32(status, word)
    if rusage:
        task.memory.write(rusage, usage(child))
    return child.pid


@syscall(247, "waitid", "int", "pid", "ptr", "int", "ptr")
def sys_waitid(task: Task, kind: int, number: int, info: int, options: int, rusage: int) -> int:
    """waitid(2)."""
    allowed = WNOHANG | WSTOPPED | WEXITED | WCONTINUED | WNOWAIT | _CLONE_OPTIONS
    if options & 0xFFFF_FFFF & ~allowed or not options & (WEXITED | WSTOPPED | WCONTINUED):
        raise SyscallError(Errno.EINVAL)
    if kind == P_PIDFD:
        kind, number = P_PID, process_of(task, number).pid
    if kind not in (P_ALL, P_PID, P_PGID) or (kind == P_PID and number <= 0) or (kind == P_PGID and number < 0):
        raise SyscallError(Errno.EINVAL)
    group = number or task.process.pgid
    wanted: dict[int, Callable[[Process], bool]] = {
        P_ALL: lambda child: True,
        P_PID: lambda child: child.pid == number,
        P_PGID: lambda child: child.pgid == group,
    }
    try:
        found = _wait(task, wanted[kind], options)
    except SyscallError:
        if info:
            task.memory.write(info, bytes(28))
        raise
    if info:
        task.memory.write(
            info, bytes(32) if found is None else SigInfo(Signal.SIGCHLD, found[1].code, found[1].payload).pack()[:48]
        )
    if rusage and found is not None:
        task.memory.write(rusage, usage(found[0]))
    return 0

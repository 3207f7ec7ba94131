"""Process groups and sessions (setpgid(2), setsid(2), credentials(7))."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.syscalls.table import syscall

if TYPE_CHECKING:
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task


def find_process(task: Task, pid: int) -> Process:
    """The process ``pid`` (0: the caller's, and the number of any thread). ESRCH when there is none."""
    if pid == 0:
        return task.process
    kernel = task.kernel
    process = kernel.processes.get(pid)
    if process is None:
        thread = kernel.tasks.get(pid)
        if thread is None:
            raise SyscallError(Errno.ESRCH)
        process = thread.process
    return process


@syscall(111, "getpgrp")
def sys_getpgrp(task: Task) -> int:
    """getpgrp(2)."""
    return task.process.pgid


@syscall(121, "getpgid", "pid")
def sys_getpgid(task: Task, pid: int) -> int:
    """getpgid(2)."""
    return find_process(task, pid).pgid


@syscall(109, "setpgid", "pid", "pid")
def sys_setpgid(task: Task, pid: int, pgid: int) -> int:
    """setpgid(2): of the caller, or of a child that has not executed a program yet."""
    if (pgid or pid) < 0:
        raise SyscallError(Errno.EINVAL)
    own = task.process
    target = own if pid in (0, own.pid) else own.children.get(pid)
    if target is None:
        raise SyscallError(Errno.ESRCH)
    if target is not own:
        if target.sid != own.sid:
            raise SyscallError(Errno.EPERM)
        if target.executed:
            raise SyscallError(Errno.EACCES)
    if target.sid == target.pid:
        raise SyscallError(Errno.EPERM)
    wanted = pgid or target.pid
    if wanted != target.pid:
        members = [other for other in task.kernel.processes.values() if other.pgid == wanted]
        if not any(other.sid == own.sid for other in members):
            raise SyscallError(Errno.EPERM)
    target.pgid = wanted
    return 0


@syscall(124, "getsid", "pid")
def sys_getsid(task: Task, pid: int) -> int:
    """getsid(2)."""
    return find_process(task, pid).sid


@syscall(112, "setsid")
def sys_setsid(task: Task) -> int:
    """setsid(2)."""
    process = task.process
    if any(other.pgid == process.pid for other in task.kernel.processes.values()):
        raise SyscallError(Errno.EPERM)
    process.sid = process.pgid = process.pid
    return process.pid

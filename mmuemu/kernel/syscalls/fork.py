"""fork(2), vfork(2), clone(2), clone3(2), and the two exits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel import life
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import LAST_SIGNAL, Signal
from mmuemu.kernel.files.pidfd import PidFd
from mmuemu.kernel.life import (
    CLONE_CHILD_SETTID,
    CLONE_PARENT,
    CLONE_PARENT_SETTID,
    CLONE_PIDFD,
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
)
from mmuemu.kernel.process import Process
from mmuemu.kernel.syscalls.table import syscall
from mmuemu.kernel.wait import Blocked, WaitQueue
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

CSIGNAL: Final = 0xFF
CLONE_ARGS_SIZE_VER0: Final = 64
_KNOWN: Final = 0x1_FFFF_FFFF
"""CLONE_* there are, but for CLONE_INTO_CGROUP: there are no control groups."""
_REFUSED: Final = 0x40_007F
"""CLONE_DETACHED, and the exit signal, which clone3 wants in its own field (0x80 is CLONE_NEWTIME there)."""
_NEVER: Final = WaitQueue()


def _start(
    task: Task, flags: int, stack: int, parent_tid: int, child_tid: int, tls: int, exit_signal: int, pidfd: int = 0
) -> int:
    """Clone, and for CLONE_VFORK sleep until the child has executed a program or ended, whatever signals come.

    CLONE_PIDFD stores a descriptor for the child at ``pidfd``.
    """
    waiting = task.call_state
    if isinstance(waiting, Process):
        if waiting.vfork_waiter is task:
            raise Blocked(_NEVER, killable=True)
        return waiting.pid
    if flags & CLONE_PIDFD:
        if flags & CLONE_THREAD:
            raise SyscallError(Errno.EINVAL)
        task.memory.write_u32(pidfd, task.files.lowest_free())
    child = life.clone(task, flags, stack, tls, exit_signal, child_tid)
    if flags & CLONE_PIDFD:
        task.memory.write_u32(pidfd, task.files.install(PidFd(task.fs.mounts.pipes, child.process, 0), True))
    if flags & CLONE_PARENT_SETTID:
        task.memory.write_u32(parent_tid, child.tid)
    if flags & CLONE_CHILD_SETTID:
        child.memory.write_u32(child_tid, child.tid)
    if flags & CLONE_VFORK:
        child.process.vfork_waiter = task
        task.call_state = child.process
        raise Blocked(_NEVER, killable=True)
    return child.tid


@syscall(57, "fork")
def sys_fork(task: Task) -> int:
    """fork(2)."""
    return _start(task, 0, 0, 0, 0, 0, Signal.SIGCHLD)


@syscall(58, "vfork")
def sys_vfork(task: Task) -> int:
    """vfork(2)."""
    return _start(task, CLONE_VM | CLONE_VFORK, 0, 0, 0, 0, Signal.SIGCHLD)


@syscall(56, "clone", "ulong", "addr", "ptr", "ptr", "addr")
def sys_clone(task: Task, flags: int, stack: int, parent_tid: int, child_tid: int, tls: int) -> int:
    """clone(2)."""
    signal, flags = flags & CSIGNAL, flags & 0xFFFF_FFFF & ~CSIGNAL
    if flags & CLONE_PIDFD and flags & CLONE_PARENT_SETTID:
        raise SyscallError(Errno.EINVAL)
    return _start(task, flags, stack, parent_tid, child_tid, tls, signal, parent_tid)


@syscall(435, "clone3", "struct", "size")
def sys_clone3(task: Task, address: int, size: int) -> int:
    """clone3(2); set_tid and cgroup are refused."""
    if size > PAGE_SIZE:
        raise SyscallError(Errno.E2BIG)
    if size < CLONE_ARGS_SIZE_VER0:
        raise SyscallError(Errno.EINVAL)
    words = memoryview(task.memory.read(address, size & ~7).ljust(88, b"\0")).cast("Q").tolist()
    flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size = words[:10]
    if any(words[11:]):
        raise SyscallError(Errno.E2BIG)
    if flags & (~_KNOWN | _REFUSED) or exit_signal > LAST_SIGNAL or set_tid or set_tid_size:
        raise SyscallError(Errno.EINVAL)
    if flags & (CLONE_THREAD | CLONE_PARENT) and exit_signal:
        raise SyscallError(Errno.EINVAL)
    if bool(stack) != bool(stack_size) or stack + stack_size > task.mm.task_size:
        raise SyscallError(Errno.EINVAL)
    return _start(task, flags, stack + stack_size, parent_tid, child_tid, tls, exit_signal, pidfd)


@syscall(60, "exit", "int")
def sys_exit(task: Task, status: int) -> int:
    """exit(2): this thread ends."""
    if task is task.process.leader:
        task.process.exit_status = status & 0xFF
    life.exit_task(task)
    return 0


@syscall(231, "exit_group", "int")
def sys_exit_group(task: Task, status: int) -> int:
    """exit_group(2)."""
    life.exit_group(task.process, status & 0xFF)
    return 0

"""System calls on descriptors for processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import O_NONBLOCK
from mmuemu.kernel.abi.signals import LAST_SIGNAL
from mmuemu.kernel.files.pidfd import PidFd
from mmuemu.kernel.signals.info import by_process
from mmuemu.kernel.signals.send import may_send, send
from mmuemu.kernel.syscalls.table import syscall

if TYPE_CHECKING:
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task


def process_of(task: Task, fd: int) -> Process:
    """The process behind a descriptor; EBADF for any other file."""
    file = task.files.get_opened(fd)
    if not isinstance(file, PidFd):
        raise SyscallError(Errno.EBADF)
    return file.process


@syscall(434, "pidfd_open", "pid", "open_flags")
def sys_pidfd_open(task: Task, pid: int, flags: int) -> int:
    """pidfd_open(2): always close-on-exec."""
    if flags & ~O_NONBLOCK or pid <= 0:
        raise SyscallError(Errno.EINVAL)
    process = task.kernel.processes.get(pid)
    if process is None:
        raise SyscallError(Errno.ENOENT if pid in task.kernel.tasks else Errno.ESRCH)
    return task.files.install(PidFd(task.fs.mounts.pipes, process, flags), True)


@syscall(424, "pidfd_send_signal", "fd", "signal", "ptr", "flags")
def sys_pidfd_send_signal(task: Task, fd: int, number: int, info: int, flags: int) -> int:
    """pidfd_send_signal(2) without flags; a siginfo of the caller's is not taken over (EPERM for another process)."""
    if flags:
        raise SyscallError(Errno.EINVAL)
    process = process_of(task, fd)
    if not 0 <= number <= LAST_SIGNAL:
        raise SyscallError(Errno.EINVAL)
    if info:
        given = task.memory.read(info, 16)
        if int.from_bytes(given[:4], "little") != number:
            raise SyscallError(Errno.EINVAL)
        if process is not task.process and int.from_bytes(given[8:12], "little", signed=True) >= 0:
            raise SyscallError(Errno.EPERM)
    if task.kernel.processes.get(process.pid) is not process:
        raise SyscallError(Errno.ESRCH)
    if not may_send(task, process, number):
        raise SyscallError(Errno.EPERM)
    if number:
        send(process, by_process(number, task.pid, task.uid))
    return 0


@syscall(438, "pidfd_getfd", "fd", "fd", "flags")
def sys_pidfd_getfd(task: Task, fd: int, wanted: int, flags: int) -> int:
    """pidfd_getfd(2): a duplicate of another process's descriptor."""
    if flags:
        raise SyscallError(Errno.EINVAL)
    process = process_of(task, fd)
    thread = next(iter(process.threads.values()), None)
    if thread is None:
        raise SyscallError(Errno.ESRCH)
    if task.uid not in (0, thread.uid):
        raise SyscallError(Errno.EPERM)
    return task.files.install(thread.files.get(wanted), True)

"""The ioctls of terminals that concern job control (ioctl_tty(2))."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi import fcntl as c
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.files.pty import Master, Slave
from mmuemu.kernel.syscalls.table import signed32

if TYPE_CHECKING:
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.files.terminal import Terminal
    from mmuemu.kernel.task import Task

JOB_REQUESTS: Final = frozenset(
    {c.TIOCGPGRP, c.TIOCSPGRP, c.TIOCGSID, c.TIOCSCTTY, c.TIOCNOTTY, c.TIOCGPTPEER}
)  # fmt: skip


def job_control(task: Task, file: OpenFile, request: int, argument: int) -> int:
    """Serve one of JOB_REQUESTS; ENOTTY for what is no terminal, or not the caller's."""
    terminal = file.terminal()
    if terminal is None:
        raise SyscallError(Errno.ENOTTY)
    if request == c.TIOCGPTPEER:
        return _open_peer(task, file, argument)
    if request == c.TIOCSCTTY:
        return _acquire(task, terminal)
    process = task.process
    master = isinstance(file, Master)
    if not terminal.belongs_to(process) and not (master and request in (c.TIOCGPGRP, c.TIOCGSID)):
        raise SyscallError(Errno.ENOTTY)
    if request == c.TIOCSPGRP:
        return _set_foreground(task, terminal, signed32(task.memory.read_u32(argument)))
    if request == c.TIOCNOTTY:
        if process.sid == process.pid:
            terminal.hang_up()
        return 0
    if not terminal.session and request == c.TIOCGSID:
        raise SyscallError(Errno.ENOTTY)
    task.memory.write_u32(argument, terminal.foreground if request == c.TIOCGPGRP else terminal.session)
    return 0


def _acquire(task: Task, terminal: Terminal) -> int:
    process = task.process
    if terminal.belongs_to(process):
        return 0
    if process.sid != process.pid or terminal.session or task.fs.mounts.terminal_of(process) is not None:
        raise SyscallError(Errno.EPERM)
    terminal.take(process)
    return 0


def _set_foreground(task: Task, terminal: Terminal, pgid: int) -> int:
    terminal.check_foreground(Signal.SIGTTOU)
    if pgid < 0:
        raise SyscallError(Errno.EINVAL)
    members = [process for process in task.kernel.processes.values() if process.pgid == pgid]
    if not members:
        raise SyscallError(Errno.ESRCH)
    if members[0].sid != task.process.sid:
        raise SyscallError(Errno.EPERM)
    terminal.foreground = pgid
    return 0


def _open_peer(task: Task, file: OpenFile, flags: int) -> int:
    """TIOCGPTPEER: the terminal of a master, without a path."""
    if not isinstance(file, Master):
        raise SyscallError(Errno.ENOTTY)
    node = task.fs.mounts.pts.nodes[file.pty.number]
    return task.files.install(Slave(node, flags & ~c.O_CLOEXEC, file.pty), bool(flags & c.O_CLOEXEC))

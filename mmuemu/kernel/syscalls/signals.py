"""Signal calls: dispositions and masks are kept, and signals with a default action act."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import LAST_SIGNAL, Signal
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.kernel.syscalls.groups import find_process
from mmuemu.kernel.syscalls.table import syscall

if TYPE_CHECKING:
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task

SIGACTION_BYTES: Final = 32
SS_DISABLE: Final = 2
MINSIGSTKSZ: Final = 2048
UNBLOCKABLE: Final = 1 << (Signal.SIGKILL - 1) | 1 << (Signal.SIGSTOP - 1)
_MASK: Final = (1 << 64) - 1


@syscall(13, "rt_sigaction", "signal", "struct", "struct", "size")
def sys_rt_sigaction(task: Task, number: int, action: int, old: int, size: int) -> int:
    """rt_sigaction(2)."""
    if size != 8 or not 1 <= number <= LAST_SIGNAL:
        raise SyscallError(Errno.EINVAL)
    before = task.signal_actions.get(number, bytes(SIGACTION_BYTES))
    if action:
        if number in (Signal.SIGKILL, Signal.SIGSTOP):
            raise SyscallError(Errno.EINVAL)
        task.signal_actions[number] = task.memory.read(action, SIGACTION_BYTES)
    if old:
        task.memory.write(old, before)
    return 0


@syscall(14, "rt_sigprocmask", "int", "ptr", "ptr", "size")
def sys_rt_sigprocmask(task: Task, how: int, mask: int, old: int, size: int) -> int:
    """rt_sigprocmask(2); signals that become unblocked while pending are acted on."""
    if size != 8:
        raise SyscallError(Errno.EINVAL)
    before = task.signal_mask
    if mask:
        value = task.memory.read_u64(mask)
        if how == 0:
            value |= before
        elif how == 1:
            value = before & ~value & _MASK
        elif how != 2:
            raise SyscallError(Errno.EINVAL)
        task.signal_mask = value & ~UNBLOCKABLE
    if old:
        task.memory.write_u64(old, before)
    if task.kernel.signalled(task):
        task.kernel.attention = True
    return 0


@syscall(127, "rt_sigpending", "ptr", "size")
def sys_rt_sigpending(task: Task, address: int, size: int) -> int:
    """rt_sigpending(2)."""
    if size > 8:
        raise SyscallError(Errno.EINVAL)
    task.memory.write(address, task.pending_signals.to_bytes(8, "little")[:size])
    return 0


@syscall(131, "sigaltstack", "struct", "struct")
def sys_sigaltstack(task: Task, new: int, old: int) -> int:
    """sigaltstack(2): kept, not used before signal handlers run."""
    before = task.alternate_stack
    if new:
        address, flags, size = struct.unpack("<QixxxxQ", task.memory.read(new, 24))
        if flags & ~(SS_DISABLE | 1 << 31):
            raise SyscallError(Errno.EINVAL)
        if not flags & SS_DISABLE and size < MINSIGSTKSZ:
            raise SyscallError(Errno.ENOMEM)
        task.alternate_stack = (0, SS_DISABLE, 0) if flags & SS_DISABLE else (address, flags, size)
    if old:
        task.memory.write(old, struct.pack("<QiIQ", before[0], before[1], 0, before[2]))
    return 0


def _send(target: Task | Process, number: int) -> int:
    if not 0 <= number <= LAST_SIGNAL:
        raise SyscallError(Errno.EINVAL)
    if number:
        target.kernel.send_signal(target, SigInfo(number))
    return 0


@syscall(62, "kill", "pid", "signal")
def sys_kill(task: Task, pid: int, number: int) -> int:
    """kill(2)."""
    kernel = task.kernel
    if pid > 0:
        return _send(find_process(task, pid), number)
    group = task.process.pgid if pid == 0 else -pid
    found = [
        process
        for process in kernel.processes.values()
        if (process is not task.process if pid == -1 else process.pgid == group)
    ]
    if not found:
        raise SyscallError(Errno.ESRCH)
    for process in found:
        _send(process, number)
    return 0


@syscall(200, "tkill", "pid", "signal")
def sys_tkill(task: Task, tid: int, number: int) -> int:
    """tkill(2)."""
    if tid <= 0:
        raise SyscallError(Errno.EINVAL)
    thread = task.kernel.tasks.get(tid)
    if thread is None:
        raise SyscallError(Errno.ESRCH)
    return _send(thread, number)


@syscall(234, "tgkill", "pid", "pid", "signal")
def sys_tgkill(task: Task, pid: int, tid: int, number: int) -> int:
    """tgkill(2)."""
    if tid <= 0 or pid <= 0:
        raise SyscallError(Errno.EINVAL)
    thread = task.kernel.tasks.get(tid)
    if thread is None or thread.pid != pid:
        raise SyscallError(Errno.ESRCH)
    return _send(thread, number)

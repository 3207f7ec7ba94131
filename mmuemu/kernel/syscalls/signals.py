"""Signal calls: dispositions, masks, alternate stacks, sending and waiting (signal(7))."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, cast

from mmuemu.kernel import registers as pt
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import (
    LAST_SIGNAL,
    SI_TKILL,
    SI_USER,
    SS_AUTODISARM,
    UNBLOCKABLE,
    Signal,
)
from mmuemu.kernel.events import tell_signal
from mmuemu.kernel.process import INIT, Process
from mmuemu.kernel.signals.action import SIGACTION_BYTES, unpack_action
from mmuemu.kernel.signals.frame import altstack_state
from mmuemu.kernel.signals.info import SIGINFO_BYTES, by_process, by_queue
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.kernel.signals.send import action_of, discard_ignored, may_send, send, set_mask
from mmuemu.kernel.signals.sigreturn import set_altstack, sigreturn
from mmuemu.kernel.syscalls.table import syscall
from mmuemu.kernel.wait import Blocked

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK = range(3)
_ALL: Final = (1 << 64) - 1
_NANOSECONDS: Final = 1_000_000_000
_STACK: Final = struct.Struct("<QiIQ")
_TIMESPEC: Final = struct.Struct("<qq")


@syscall(13, "rt_sigaction", "signal", "struct", "struct", "size")
def sys_rt_sigaction(task: Task, number: int, action: int, old: int, size: int) -> int:
    """rt_sigaction(2); flags that do not exist are cleared."""
    if size != 8:
        raise SyscallError(Errno.EINVAL)
    new = task.memory.read(action, SIGACTION_BYTES) if action else None
    if not 1 <= number <= LAST_SIGNAL or (new is not None and number in (Signal.SIGKILL, Signal.SIGSTOP)):
        raise SyscallError(Errno.EINVAL)
    process = task.process
    before = action_of(process, number).pack()
    if new is not None:
        process.actions[number] = unpack_action(new).pack()
        discard_ignored(process, number)
    if old:
        task.memory.write(old, before)
    return 0


@syscall(15, "rt_sigreturn")
def sys_rt_sigreturn(task: Task) -> int:
    """rt_sigreturn(2): the end of a signal handler."""
    result = sigreturn(task)
    if task.kernel.events.signal:
        tell_signal("return", task, None, handler=task.registers[pt.IP])
    return result


@syscall(14, "rt_sigprocmask", "int", "ptr", "ptr", "size")
def sys_rt_sigprocmask(task: Task, how: int, mask: int, old: int, size: int) -> int:
    """rt_sigprocmask(2)."""
    if size != 8:
        raise SyscallError(Errno.EINVAL)
    before = task.signal_mask
    if mask:
        value = task.memory.read_u64(mask) & ~UNBLOCKABLE
        if how == SIG_BLOCK:
            value |= before
        elif how == SIG_UNBLOCK:
            value = before & ~value
        elif how != SIG_SETMASK:
            raise SyscallError(Errno.EINVAL)
        set_mask(task, value)
    if old:
        task.memory.write_u64(old, before)
    return 0


@syscall(127, "rt_sigpending", "ptr", "size")
def sys_rt_sigpending(task: Task, address: int, size: int) -> int:
    """rt_sigpending(2): what is pending and blocked."""
    if size > 8:
        raise SyscallError(Errno.EINVAL)
    pending = (task.signals.bits | task.process.signals.bits) & task.signal_mask
    task.memory.write(address, pending.to_bytes(8, "little")[:size])
    return 0


@syscall(131, "sigaltstack", "struct", "struct")
def sys_sigaltstack(task: Task, new: int, old: int) -> int:
    """sigaltstack(2)."""
    sp = task.registers[pt.SP]
    address, flags, size = task.alternate_stack
    state = altstack_state(sp, task.alternate_stack) | flags & SS_AUTODISARM
    if new:
        wanted, wanted_flags, _, wanted_size = _STACK.unpack(task.memory.read(new, _STACK.size))
        set_altstack(task, (wanted, wanted_flags & 0xFFFF_FFFF, wanted_size), sp)
    if old:
        task.memory.write(old, _STACK.pack(address, state - (state >> 31 << 32), 0, size))
    return 0


# -- sending -----------------------------------------------------------------------------------------------------


def _check_number(number: int) -> None:
    if not 0 <= number <= LAST_SIGNAL:
        raise SyscallError(Errno.EINVAL)


def _send_to(task: Task, target: Task | Process, info: SigInfo) -> None:
    """Send after the permission check; number 0 only checks (EPERM)."""
    process = target if isinstance(target, Process) else target.process
    if not may_send(task, process, info.signal):
        raise SyscallError(Errno.EPERM)
    if info.signal:
        send(target, info)


def _send_to_all(task: Task, targets: list[Process], info: SigInfo) -> int:
    """Success when one could be sent to; ESRCH without any, EPERM when none may be."""
    refused = 0
    for process in targets:
        try:
            _send_to(task, process, info)
        except SyscallError as error:
            if error.errno is not Errno.EPERM:
                raise
            refused += 1
    if not targets:
        raise SyscallError(Errno.ESRCH)
    if refused == len(targets):
        raise SyscallError(Errno.EPERM)
    return 0


@syscall(62, "kill", "pid", "signal")
def sys_kill(task: Task, pid: int, number: int) -> int:
    """kill(2): a process, a group (0: the caller's), or with -1 everybody but init and the caller."""
    _check_number(number)
    processes = task.kernel.processes
    info = by_process(number, task.pid, task.uid)
    if pid > 0:
        target = processes.get(pid)
        if target is None:
            raise SyscallError(Errno.EPERM if pid == INIT and task.uid else Errno.ESRCH)
        _send_to(task, target, info)
        return 0
    if pid == -1:
        targets = [process for process in processes.values() if process is not task.process]
    elif pid == -(1 << 31):
        raise SyscallError(Errno.ESRCH)
    else:
        group = -pid if pid else task.pgid
        targets = [process for process in processes.values() if process.pgid == group]
    return _send_to_all(task, targets, info)


def _thread(task: Task, pid: int | None, tid: int) -> Task:
    """The thread ``tid``, of process ``pid`` if that is not None. EINVAL, ESRCH."""
    if tid <= 0 or (pid is not None and pid <= 0):
        raise SyscallError(Errno.EINVAL)
    thread = task.kernel.tasks.get(tid)
    if thread is None or (pid is not None and thread.pid != pid):
        raise SyscallError(Errno.ESRCH)
    return thread


@syscall(200, "tkill", "pid", "signal")
def sys_tkill(task: Task, tid: int, number: int) -> int:
    """tkill(2)."""
    thread = _thread(task, None, tid)
    _check_number(number)
    _send_to(task, thread, by_process(number, task.pid, task.uid, SI_TKILL))
    return 0


@syscall(234, "tgkill", "pid", "pid", "signal")
def sys_tgkill(task: Task, pid: int, tid: int, number: int) -> int:
    """tgkill(2)."""
    thread = _thread(task, pid, tid)
    _check_number(number)
    _send_to(task, thread, by_process(number, task.pid, task.uid, SI_TKILL))
    return 0


def _user_info(task: Task, number: int, address: int, pid: int) -> SigInfo:
    """A program's own siginfo. EINVAL, E2BIG; EPERM for one that claims to be the kernel's or kill's."""
    info = by_queue(number, task.memory.read(address, SIGINFO_BYTES))
    if info is None:
        raise SyscallError(Errno.E2BIG)
    if (info.code >= SI_USER or info.code == SI_TKILL) and task.pid != pid:
        raise SyscallError(Errno.EPERM)
    _check_number(number)
    return info


@syscall(129, "rt_sigqueueinfo", "pid", "signal", "struct")
def sys_rt_sigqueueinfo(task: Task, pid: int, number: int, address: int) -> int:
    """rt_sigqueueinfo(2)."""
    info = _user_info(task, number, address, pid)
    target = task.kernel.processes.get(pid)
    if target is None:
        raise SyscallError(Errno.ESRCH)
    _send_to(task, target, info)
    return 0


@syscall(297, "rt_tgsigqueueinfo", "pid", "pid", "signal", "struct")
def sys_rt_tgsigqueueinfo(task: Task, pid: int, tid: int, number: int, address: int) -> int:
    """rt_tgsigqueueinfo(2)."""
    if pid <= 0 or tid <= 0:
        raise SyscallError(Errno.EINVAL)
    info = _user_info(task, number, address, pid)
    _send_to(task, _thread(task, pid, tid), info)
    return 0


# -- waiting -----------------------------------------------------------------------------------------------------


@syscall(34, "pause")
def sys_pause(task: Task) -> int:
    """pause(2)."""
    raise Blocked(restart=False)


@syscall(130, "rt_sigsuspend", "ptr", "size")
def sys_rt_sigsuspend(task: Task, address: int, size: int) -> int:
    """rt_sigsuspend(2): the old mask comes back with the handler's end."""
    if task.call_state is None:
        if size != 8:
            raise SyscallError(Errno.EINVAL)
        mask = task.memory.read_u64(address)
        task.call_state = True
        task.saved_mask = task.signal_mask
        set_mask(task, mask)
    raise Blocked(restart=False)


@syscall(128, "rt_sigtimedwait", "ptr", "ptr", "ptr", "size")
def sys_rt_sigtimedwait(task: Task, address: int, info_address: int, timeout: int, size: int) -> int:
    """rt_sigtimedwait(2): EAGAIN when the time is over."""
    now = task.kernel.clock.now()
    if task.call_state is None:
        if size != 8:
            raise SyscallError(Errno.EINVAL)
        wanted = task.memory.read_u64(address) & ~UNBLOCKABLE
        task.call_state = (wanted, _deadline(task, timeout, now))
    wanted, deadline = cast("tuple[int, int | None]", task.call_state)
    info = task.signals.take(wanted) or task.process.signals.take(wanted)
    if info is not None:
        task.signal_wait = 0
        if info_address:
            task.memory.write(info_address, info.pack())
        return info.signal
    if deadline is not None and now >= deadline:
        task.signal_wait = 0
        raise SyscallError(Errno.EAGAIN)
    task.signal_wait = wanted
    raise Blocked(deadline=deadline, restart=False)


def _deadline(task: Task, timeout: int, now: int) -> int | None:
    """When a wait with the timespec at ``timeout`` is over; None for never. EINVAL."""
    if not timeout:
        return None
    seconds, nanoseconds = _TIMESPEC.unpack(task.memory.read(timeout, 16))
    if seconds < 0 or not 0 <= nanoseconds < _NANOSECONDS:
        raise SyscallError(Errno.EINVAL)
    return int(now + seconds * _NANOSECONDS + nanoseconds)

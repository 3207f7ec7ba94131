"""Identity, thread set-up and scheduling calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel import speculation_control
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import LAST_SIGNAL
from mmuemu.kernel.syscalls.table import syscall

if TYPE_CHECKING:
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task

ARCH_SET_GS: Final = 0x1001
ARCH_SET_FS: Final = 0x1002
ARCH_GET_FS: Final = 0x1003
ARCH_GET_GS: Final = 0x1004
PR_SET_PDEATHSIG: Final = 1
PR_GET_PDEATHSIG: Final = 2
PR_GET_DUMPABLE: Final = 3
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_GET_NAME: Final = 16
PR_SET_NO_NEW_PRIVS: Final = 38
PR_GET_NO_NEW_PRIVS: Final = 39
PR_SET_THP_DISABLE: Final = 41
PR_GET_THP_DISABLE: Final = 42
PR_GET_SPECULATION_CTRL: Final = 52
PR_SET_SPECULATION_CTRL: Final = 53
PR_SET_VMA: Final = 0x53564D41


@syscall(39, "getpid")
def sys_getpid(task: Task) -> int:
    """getpid(2)."""
    return task.pid


@syscall(186, "gettid")
def sys_gettid(task: Task) -> int:
    """gettid(2)."""
    return task.tid


@syscall(110, "getppid")
def sys_getppid(task: Task) -> int:
    """getppid(2)."""
    return task.ppid


@syscall(102, "getuid")
def sys_getuid(task: Task) -> int:
    """getuid(2)."""
    return task.uid


@syscall(107, "geteuid")
def sys_geteuid(task: Task) -> int:
    """geteuid(2)."""
    return task.uid


@syscall(104, "getgid")
def sys_getgid(task: Task) -> int:
    """getgid(2)."""
    return task.gid


@syscall(108, "getegid")
def sys_getegid(task: Task) -> int:
    """getegid(2)."""
    return task.gid


def _become(current: int, *wanted: int) -> int:
    """Setting ids: an unprivileged process may only keep its own (setresuid(2)); -1 leaves one alone."""
    if current != 0 and any(value not in (current, 0xFFFF_FFFF) for value in wanted):
        raise SyscallError(Errno.EPERM)
    return next((value for value in wanted if value != 0xFFFF_FFFF), current)


@syscall(105, "setuid", "uid")
def sys_setuid(task: Task, uid: int) -> int:
    """setuid(2)."""
    if uid == 0xFFFF_FFFF:
        raise SyscallError(Errno.EINVAL)
    task.uid = _become(task.uid, uid)
    return 0


@syscall(106, "setgid", "uid")
def sys_setgid(task: Task, gid: int) -> int:
    """setgid(2)."""
    if gid == 0xFFFF_FFFF:
        raise SyscallError(Errno.EINVAL)
    task.gid = _become(task.gid, gid)
    return 0


@syscall(113, "setreuid", "uid", "uid")
def sys_setreuid(task: Task, real: int, effective: int) -> int:
    """setreuid(2)."""
    task.uid = _become(task.uid, effective, real)
    return 0


@syscall(114, "setregid", "uid", "uid")
def sys_setregid(task: Task, real: int, effective: int) -> int:
    """setregid(2)."""
    task.gid = _become(task.gid, effective, real)
    return 0


@syscall(117, "setresuid", "uid", "uid", "uid")
def sys_setresuid(task: Task, real: int, effective: int, saved: int) -> int:
    """setresuid(2)."""
    task.uid = _become(task.uid, effective, real, saved)
    return 0


@syscall(119, "setresgid", "uid", "uid", "uid")
def sys_setresgid(task: Task, real: int, effective: int, saved: int) -> int:
    """setresgid(2)."""
    task.gid = _become(task.gid, effective, real, saved)
    return 0


@syscall(118, "getresuid", "ptr", "ptr", "ptr")
def sys_getresuid(task: Task, real: int, effective: int, saved: int) -> int:
    """getresuid(2)."""
    for address in (real, effective, saved):
        task.memory.write_u32(address, task.uid)
    return 0


@syscall(120, "getresgid", "ptr", "ptr", "ptr")
def sys_getresgid(task: Task, real: int, effective: int, saved: int) -> int:
    """getresgid(2)."""
    for address in (real, effective, saved):
        task.memory.write_u32(address, task.gid)
    return 0


@syscall(115, "getgroups", "int", "ptr")
def sys_getgroups(task: Task, size: int, _list: int) -> int:
    """getgroups(2): no supplementary groups."""
    if size < 0:
        raise SyscallError(Errno.EINVAL)
    return 0


@syscall(116, "setgroups", "size", "ptr")
def sys_setgroups(task: Task, _size: int, _list: int) -> int:
    """setgroups(2): needs CAP_SETGID."""
    raise SyscallError(Errno.EPERM)


@syscall(158, "arch_prctl", "int", "addr")
def sys_arch_prctl(task: Task, code: int, address: int) -> int:
    """arch_prctl(2): the FS and GS bases; other codes are refused as by a kernel without them."""
    cpu = task.kernel.cpu
    if code in (ARCH_SET_FS, ARCH_SET_GS):
        if address >= task.mm.task_size:
            raise SyscallError(Errno.EPERM)
        if code == ARCH_SET_FS:
            cpu.set_bases(fs=address)
        else:
            # Inside the kernel, swapgs has moved the user's GS base aside.
            cpu.set_bases(kernel_gs=address)
        return 0
    if code in (ARCH_GET_FS, ARCH_GET_GS):
        fs, gs = cpu.user_bases()
        task.memory.write_u64(address, fs if code == ARCH_GET_FS else gs)
        return 0
    raise SyscallError(Errno.EINVAL)


@syscall(218, "set_tid_address", "ptr")
def sys_set_tid_address(task: Task, address: int) -> int:
    """set_tid_address(2)."""
    task.clear_child_tid = address
    return task.tid


@syscall(334, "rseq", "ptr", "uint", "flags", "uint")
def sys_rseq(task: Task, _area: int, _size: int, _flags: int, _signature: int) -> int:
    """rseq(2): refused, as by a kernel built without it; libraries go on without."""
    raise SyscallError(Errno.ENOSYS)


@syscall(157, "prctl", "int", "ulong", "ulong", "ulong", "ulong")
def sys_prctl(task: Task, option: int, first: int, second: int, third: int, fourth: int) -> int:
    """prctl(2): the task's name and a few flags; others are EINVAL."""
    if option == PR_SET_NAME:
        task.name = task.memory.read_cstring(first, 16)[:15].decode("utf-8", "surrogateescape")
        return 0
    if option == PR_GET_NAME:
        task.memory.write(first, task.name.encode("utf-8", "surrogateescape")[:15].ljust(16, b"\0"))
        return 0
    if option == PR_SET_PDEATHSIG:
        if first > LAST_SIGNAL:
            raise SyscallError(Errno.EINVAL)
        task.parent_death_signal = first
        return 0
    if option == PR_GET_PDEATHSIG:
        task.memory.write_u32(first, task.parent_death_signal)
        return 0
    if option == PR_SET_THP_DISABLE:
        if second or third or fourth:
            raise SyscallError(Errno.EINVAL)
        task.mm.huge.disabled = bool(first)
        return 0
    if option == PR_GET_THP_DISABLE:
        if first or second or third or fourth:
            raise SyscallError(Errno.EINVAL)
        return int(task.mm.huge.disabled)
    if option == PR_GET_SPECULATION_CTRL:
        if second or third or fourth:
            raise SyscallError(Errno.EINVAL)
        return speculation_control.get(task, first)
    if option == PR_SET_SPECULATION_CTRL:
        if third or fourth:
            raise SyscallError(Errno.EINVAL)
        speculation_control.put(task, first, second)
        return 0
    if option in (PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS):
        return 0
    if option == PR_GET_DUMPABLE:
        return 1
    if option == PR_GET_NO_NEW_PRIVS:
        return 0
    raise SyscallError(Errno.EINVAL)


@syscall(24, "sched_yield")
def sys_sched_yield(task: Task) -> int:
    """sched_yield(2): those that wait for the CPU go first."""
    kernel = task.kernel
    if kernel.scheduler.ready:
        kernel.reschedule = kernel.attention = True
    return 0


@syscall(204, "sched_getaffinity", "pid", "uint", "ptr")
def sys_sched_getaffinity(task: Task, pid: int, size: int, mask: int) -> int:
    """sched_getaffinity(2): one CPU."""
    if pid not in (0, task.tid):
        raise SyscallError(Errno.ESRCH)
    if size & 7 or not size * 8 & 0xFFFF_FFFF:
        raise SyscallError(Errno.EINVAL)
    task.memory.write_u64(mask, 1)
    return 8


@syscall(203, "sched_setaffinity", "pid", "uint", "ptr")
def sys_sched_setaffinity(task: Task, pid: int, size: int, mask: int) -> int:
    """sched_setaffinity(2): the mask must contain the one CPU."""
    if pid not in (0, task.tid):
        raise SyscallError(Errno.ESRCH)
    if not size or not task.memory.read(mask, min(size, 8))[0] & 1:
        raise SyscallError(Errno.EINVAL)
    return 0


@syscall(309, "getcpu", "ptr", "ptr", "ptr")
def sys_getcpu(task: Task, cpu: int, node: int, _cache: int) -> int:
    """getcpu(2)."""
    for address in (cpu, node):
        if address:
            task.memory.write_u32(address, 0)
    return 0


@syscall(140, "getpriority", "int", "pid")
def sys_getpriority(task: Task, which: int, who: int) -> int:
    """getpriority(2): the raw call returns 20 - nice, of the most favoured process meant."""
    return max(20 - process.nice for process in _meant(task, which, who))


@syscall(141, "setpriority", "int", "pid", "int")
def sys_setpriority(task: Task, which: int, who: int, nice: int) -> int:
    """setpriority(2): remembered, and no reason to the scheduler; EACCES for less than before without privilege."""
    nice = max(-20, min(nice, 19))
    for process in _meant(task, which, who):
        if nice < process.nice and task.uid:
            raise SyscallError(Errno.EACCES)
        process.nice = nice
    return 0


def _meant(task: Task, which: int, who: int) -> list[Process]:
    """The processes that PRIO_PROCESS, PRIO_PGRP or PRIO_USER means; EINVAL, ESRCH."""
    kernel, own = task.kernel, task.process
    if which == 0:
        thread = kernel.tasks.get(who) if who else task
        found = [] if thread is None else [thread.process]
    elif which == 1:
        found = [process for process in kernel.processes.values() if process.pgid == (who or own.pgid)]
    elif which == 2:
        wanted = who or task.uid
        found = list({id(t.process): t.process for t in kernel.tasks.values() if t.uid == wanted}.values())
    else:
        raise SyscallError(Errno.EINVAL)
    if not found:
        raise SyscallError(Errno.ESRCH)
    return found


@syscall(135, "personality", "ulong")
def sys_personality(task: Task, persona: int) -> int:
    """personality(2): remembered; it changes nothing."""
    process = task.process
    before = process.personality
    if persona & 0xFFFF_FFFF != 0xFFFF_FFFF:
        process.personality = persona & 0xFFFF_FFFF
    return before

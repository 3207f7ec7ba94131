"""eventfd, timerfd, signalfd and epoll."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import O_CLOEXEC, O_NONBLOCK
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.files.epoll import EpollFile
from mmuemu.kernel.files.eventfd import EventFd
from mmuemu.kernel.files.signalfd import SignalFd
from mmuemu.kernel.files.timerfd import TimerFd
from mmuemu.kernel.syscalls.files_poll import expired, sleep_on, timespec, with_mask
from mmuemu.kernel.syscalls.table import syscall

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

_SECOND: Final = 1_000_000_000
EFD_SEMAPHORE: Final = 1
_CLOCKS: Final = frozenset({0, 1, 7})
_ALARM_CLOCKS: Final = frozenset({8, 9})
TFD_TIMER_ABSTIME: Final = 1
TFD_TIMER_CANCEL_ON_SET: Final = 2
_UNBLOCKABLE: Final = 1 << (Signal.SIGKILL - 1) | 1 << (Signal.SIGSTOP - 1)
EPOLL_CTL_ADD: Final = 1
EPOLL_CTL_DEL: Final = 2
EPOLL_CTL_MOD: Final = 3
_EPOLL_EVENT: Final = struct.Struct("<IQ")
_MAX_EVENTS: Final = 0x7FFF_FFFF // _EPOLL_EVENT.size


def _new_flags(flags: int) -> int:
    """Flags every one of these takes; EINVAL for others."""
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        raise SyscallError(Errno.EINVAL)
    return flags & O_NONBLOCK


@syscall(284, "eventfd", "uint")
def sys_eventfd(task: Task, count: int) -> int:
    """Make an event counter."""
    return sys_eventfd2(task, count, 0)


@syscall(290, "eventfd2", "uint", "open_flags")
def sys_eventfd2(task: Task, count: int, flags: int) -> int:
    """Make an event counter with EFD_* flags."""
    status = _new_flags(flags & ~EFD_SEMAPHORE)
    file = EventFd(task.fs.mounts.pipes, count, status, bool(flags & EFD_SEMAPHORE))
    return task.files.install(file, bool(flags & O_CLOEXEC))


@syscall(283, "timerfd_create", "clockid", "open_flags")
def sys_timerfd_create(task: Task, clock: int, flags: int) -> int:
    """Make a timer; the alarm clocks need a privilege."""
    status = _new_flags(flags)
    if clock not in _CLOCKS:
        raise SyscallError(Errno.EPERM if clock in _ALARM_CLOCKS else Errno.EINVAL)
    file = TimerFd(task.fs.mounts.pipes, task.kernel, clock, status)
    return task.files.install(file, bool(flags & O_CLOEXEC))


def _timer(task: Task, fd: int) -> TimerFd:
    file = task.files.get_opened(fd)
    if not isinstance(file, TimerFd):
        raise SyscallError(Errno.EINVAL)
    return file


def _pack_itimerspec(settings: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<qq", *divmod(value, _SECOND)) for value in settings)


@syscall(286, "timerfd_settime", "fd", "flags", "struct", "struct")
def sys_timerfd_settime(task: Task, fd: int, flags: int, new: int, old: int) -> int:
    """Arm or disarm a timer: interval and first expiration, two struct timespec."""
    fields = struct.unpack("<4q", task.memory.read(new, 32))
    known = not flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET)
    if not known or any(s < 0 or not 0 <= ns < _SECOND for s, ns in (fields[:2], fields[2:])):
        raise SyscallError(Errno.EINVAL)
    timer = _timer(task, fd)
    before = timer.settings()
    timer.set(fields[2] * _SECOND + fields[3], fields[0] * _SECOND + fields[1], bool(flags & TFD_TIMER_ABSTIME))
    if old:
        task.memory.write(old, _pack_itimerspec(before))
    return 0


@syscall(287, "timerfd_gettime", "fd", "struct")
def sys_timerfd_gettime(task: Task, fd: int, current: int) -> int:
    """The interval and the time left."""
    task.memory.write(current, _pack_itimerspec(_timer(task, fd).settings()))
    return 0


@syscall(282, "signalfd", "fd", "struct", "size")
def sys_signalfd(task: Task, fd: int, mask: int, size: int) -> int:
    """signalfd4 without flags."""
    return sys_signalfd4(task, fd, mask, size, 0)


@syscall(289, "signalfd4", "fd", "struct", "size", "open_flags")
def sys_signalfd4(task: Task, fd: int, mask: int, size: int, flags: int) -> int:
    """Make a descriptor that signals are read from, or change one's mask."""
    if size != 8:
        raise SyscallError(Errno.EINVAL)
    wanted = task.memory.read_u64(mask) & ~_UNBLOCKABLE
    status = _new_flags(flags)
    if fd == -1:
        file = SignalFd(task.fs.mounts.pipes, task.kernel, wanted, status)
        return task.files.install(file, bool(flags & O_CLOEXEC))
    found = task.files.get_opened(fd)
    if not isinstance(found, SignalFd):
        raise SyscallError(Errno.EINVAL)
    found.mask = wanted
    for queue in found.wait_queues():
        queue.wake()
    return fd


@syscall(213, "epoll_create", "int")
def sys_epoll_create(task: Task, size: int) -> int:
    """Make an epoll instance; the size means nothing but must be positive."""
    if size <= 0:
        raise SyscallError(Errno.EINVAL)
    return sys_epoll_create1(task, 0)


@syscall(291, "epoll_create1", "open_flags")
def sys_epoll_create1(task: Task, flags: int) -> int:
    """Make an epoll instance with EPOLL_CLOEXEC."""
    if flags & ~O_CLOEXEC:
        raise SyscallError(Errno.EINVAL)
    return task.files.install(EpollFile(task.fs.mounts.pipes, 0), bool(flags))


@syscall(233, "epoll_ctl", "fd", "int", "fd", "struct")
def sys_epoll_ctl(task: Task, epfd: int, operation: int, fd: int, event: int) -> int:
    """Add, change or remove what an instance watches."""
    bits = data = 0
    if operation != EPOLL_CTL_DEL:
        bits, data = _EPOLL_EVENT.unpack(task.memory.read(event, _EPOLL_EVENT.size))
    epoll = task.files.get_opened(epfd)
    file = task.files.get_opened(fd)
    if not file.pollable:
        raise SyscallError(Errno.EPERM)
    if not isinstance(epoll, EpollFile) or epoll is file:
        raise SyscallError(Errno.EINVAL)
    if operation == EPOLL_CTL_ADD:
        epoll.add(fd, file, bits, data)
    elif operation == EPOLL_CTL_MOD:
        epoll.modify(fd, file, bits, data)
    elif operation == EPOLL_CTL_DEL:
        epoll.delete(fd, file)
    else:
        raise SyscallError(Errno.EINVAL)
    return 0


def _epoll_wait(task: Task, epfd: int, address: int, limit: int, timeout_ns: int | None, masked: bool = False) -> int:
    if not 0 < limit <= _MAX_EVENTS:
        raise SyscallError(Errno.EINVAL)
    if address + limit * _EPOLL_EVENT.size > task.mm.task_size:
        raise SyscallError(Errno.EFAULT)
    epoll = task.files.get_opened(epfd)
    if not isinstance(epoll, EpollFile):
        raise SyscallError(Errno.EINVAL)
    found = epoll.harvest(limit)
    if found:
        task.memory.write(address, b"".join([_EPOLL_EVENT.pack(*pair) for pair in found]))
    elif not expired(task, timeout_ns, masked):
        raise sleep_on(task, [(epoll, 0)], timeout_ns)
    return len(found)


def _milliseconds(timeout: int) -> int | None:
    return None if timeout < 0 else timeout * 1_000_000


@syscall(232, "epoll_wait", "fd", "struct", "int", "int")
def sys_epoll_wait(task: Task, epfd: int, events: int, limit: int, timeout: int) -> int:
    """Wait for up to ``limit`` events; the timeout is in milliseconds."""
    return _epoll_wait(task, epfd, events, limit, _milliseconds(timeout))


@syscall(281, "epoll_pwait", "fd", "struct", "int", "int", "ptr", "size")
def sys_epoll_pwait(task: Task, epfd: int, events: int, limit: int, timeout: int, mask: int, size: int) -> int:
    """epoll_wait with a signal mask."""
    timeout_ns = _milliseconds(timeout)
    return with_mask(task, mask, size, lambda: _epoll_wait(task, epfd, events, limit, timeout_ns, bool(mask)))


@syscall(441, "epoll_pwait2", "fd", "struct", "int", "struct", "ptr", "size")
def sys_epoll_pwait2(task: Task, epfd: int, events: int, limit: int, timeout: int, mask: int, size: int) -> int:
    """epoll_pwait with a struct timespec."""
    timeout_ns = timespec(task, timeout)
    return with_mask(task, mask, size, lambda: _epoll_wait(task, epfd, events, limit, timeout_ns, bool(mask)))

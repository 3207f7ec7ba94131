"""POSIX message queue calls (mq_overview(7))."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import O_ACCMODE, O_CLOEXEC, O_CREAT, O_EXCL, O_NONBLOCK
from mmuemu.kernel.abi.signals import LAST_SIGNAL
from mmuemu.kernel.clock import NANOSECONDS
from mmuemu.kernel.ipc.mqueue import MQ_PRIO_MAX, SIGEV_SIGNAL, OpenQueue
from mmuemu.kernel.syscalls.table import syscall

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

SIGEV_NONE: Final = 1
SIGEV_THREAD: Final = 2
_NAME_MAX: Final = 255
_PATH_MAX: Final = 4096
_ATTR: Final = struct.Struct("<qqqq32x")
_TIMESPEC: Final = struct.Struct("<qq")
_ACCESS: Final = {0: 4, 1: 2, 2: 6}
"""What the access mode of open(2) asks of the permission bits."""


def _name(task: Task, address: int) -> bytes:
    name = task.memory.read_cstring(address, _PATH_MAX)
    if not name:
        raise SyscallError(Errno.ENOENT)
    if b"/" in name or name in (b".", b".."):
        raise SyscallError(Errno.EACCES)
    if len(name) > _NAME_MAX:
        raise SyscallError(Errno.ENAMETOOLONG)
    return name


def _queue(task: Task, fd: int) -> OpenQueue:
    file = task.files.get_opened(fd)
    if not isinstance(file, OpenQueue):
        raise SyscallError(Errno.EBADF)
    return file


def _deadline(task: Task, address: int) -> int | None:
    """The time of day at ``address`` on the monotonic clock."""
    if not address or task.call_state is not None:
        return None
    seconds, nanoseconds = _TIMESPEC.unpack(task.memory.read(address, 16))
    if seconds < 0 or not 0 <= nanoseconds < NANOSECONDS:
        raise SyscallError(Errno.EINVAL)
    clock = task.kernel.clock
    return int(seconds * NANOSECONDS + nanoseconds - clock.realtime() + clock.now())


@syscall(240, "mq_open", "string", "open_flags", "mode", "ptr")
def sys_mq_open(task: Task, name_address: int, flags: int, mode: int, attributes: int) -> int:
    """mq_open(3)."""
    wanted = None
    if attributes and flags & O_CREAT:
        _, capacity, longest, _ = _ATTR.unpack(task.memory.read(attributes, _ATTR.size))
        wanted = (capacity, longest)
    queues = task.kernel.ipc.mqueue
    name = _name(task, name_address)
    access = flags & O_ACCMODE
    queue = queues.queues.get(name)
    task.files.lowest_free()
    if queue is None:
        if not flags & O_CREAT:
            raise SyscallError(Errno.ENOENT)
        queue = queues.create(task, name, mode, wanted)
    elif flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL:
        raise SyscallError(Errno.EEXIST)
    elif access not in _ACCESS:
        raise SyscallError(Errno.EINVAL)
    elif not queue.permits(task.uid, task.gid, _ACCESS[access]):
        raise SyscallError(Errno.EACCES)
    file = OpenQueue(queue, flags & (O_ACCMODE | O_NONBLOCK))
    return task.files.install(file, bool(flags & O_CLOEXEC))


@syscall(241, "mq_unlink", "string")
def sys_mq_unlink(task: Task, name: int) -> int:
    """mq_unlink(3)."""
    task.kernel.ipc.mqueue.unlink(task, _name(task, name))
    return 0


@syscall(242, "mq_timedsend", "fd", "in_buffer", "size", "uint", "ptr")
def sys_mq_timedsend(task: Task, fd: int, buffer: int, size: int, priority: int, timeout: int) -> int:
    """mq_timedsend(3)."""
    if priority >= MQ_PRIO_MAX:
        raise SyscallError(Errno.EINVAL)
    deadline = _deadline(task, timeout)
    file = _queue(task, fd)
    if not file.writable:
        raise SyscallError(Errno.EBADF)
    if size > file.inode.longest:
        raise SyscallError(Errno.EMSGSIZE)
    text = task.memory.read(buffer, size) if size else b""
    return task.kernel.ipc.mqueue.send(task, file, (priority, text), deadline)


@syscall(243, "mq_timedreceive", "fd", "out_buffer", "size", "ptr", "ptr")
def sys_mq_timedreceive(task: Task, fd: int, buffer: int, size: int, priority: int, timeout: int) -> int:
    """mq_timedreceive(3)."""
    deadline = _deadline(task, timeout)
    file = _queue(task, fd)
    if not file.readable:
        raise SyscallError(Errno.EBADF)
    if size < file.inode.longest:
        raise SyscallError(Errno.EMSGSIZE)
    found, text = task.kernel.ipc.mqueue.receive(task, file, deadline)
    if priority:
        task.memory.write_u32(priority, found)
    if text:
        task.memory.write(buffer, text)
    return len(text)


@syscall(244, "mq_notify", "fd", "ptr")
def sys_mq_notify(task: Task, fd: int, event: int) -> int:
    """mq_notify(3), by a signal or not at all; SIGEV_THREAD needs a netlink socket, of which there are none."""
    way = SIGEV_NONE
    signal, value = 0, b""
    if event:
        value, signal, way = struct.unpack("<8sii", task.memory.read(event, 16))
        if way not in (SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD):
            raise SyscallError(Errno.EINVAL)
        if way == SIGEV_SIGNAL and not 0 <= signal <= LAST_SIGNAL:
            raise SyscallError(Errno.EINVAL)
        if way == SIGEV_THREAD:
            raise SyscallError(Errno.EBADF)
    queue = _queue(task, fd).inode
    owner = getattr(task, "process", task)
    if not event:
        if queue.notify is not None and queue.notify[0] is owner:
            queue.notify = None
    elif queue.notify is not None:
        raise SyscallError(Errno.EBUSY)
    else:
        queue.notify = (owner, way, signal, value)
    return 0


@syscall(245, "mq_getsetattr", "fd", "ptr", "ptr")
def sys_mq_getsetattr(task: Task, fd: int, new: int, old: int) -> int:
    """mq_getattr(3), mq_setattr(3): only O_NONBLOCK can change."""
    flags = None
    if new:
        flags = _ATTR.unpack(task.memory.read(new, _ATTR.size))[0]
        if flags & ~O_NONBLOCK:
            raise SyscallError(Errno.EINVAL)
    file = _queue(task, fd)
    queue = file.inode
    if old:
        before = (file.flags & O_NONBLOCK, queue.capacity, queue.longest, len(queue.messages))
        task.memory.write(old, _ATTR.pack(*before))
    if flags is not None:
        file.flags = file.flags & ~O_NONBLOCK | flags
    return 0

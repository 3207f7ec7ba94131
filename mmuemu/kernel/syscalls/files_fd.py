"""System calls on descriptors: duplicating, flags, pipes, sizes, writing back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi import fcntl as c
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.files.memfs import MemoryFile, RegularInode
from mmuemu.kernel.files.notify import modified
from mmuemu.kernel.files.openfile import OpenFile, OpenRegular
from mmuemu.kernel.files.pipe import PipeEnd, PipeInode
from mmuemu.kernel.syscalls.files_lock import LOCK_COMMANDS, record_lock
from mmuemu.kernel.syscalls.files_tty import JOB_REQUESTS, job_control
from mmuemu.kernel.syscalls.table import signed32, syscall
from mmuemu.kernel.syscalls.transfer import may_grow

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

_SETTABLE: Final = c.O_APPEND | c.O_NONBLOCK | c.O_ASYNC | c.O_DIRECT | c.O_NOATIME
"""Flags F_SETFL may change (fs/fcntl.c: SETFL_MASK)."""


@syscall(32, "dup", "fd")
def sys_dup(task: Task, fd: int) -> int:
    """Duplicate a descriptor."""
    return task.files.dup(fd)


@syscall(33, "dup2", "fd", "fd")
def sys_dup2(task: Task, old: int, new: int) -> int:
    """Duplicate a descriptor to a given number."""
    return task.files.dup2(old, new)


@syscall(292, "dup3", "fd", "fd", "open_flags")
def sys_dup3(task: Task, old: int, new: int, flags: int) -> int:
    """dup2 with O_CLOEXEC."""
    if flags & ~c.O_CLOEXEC:
        raise SyscallError(Errno.EINVAL)
    return task.files.dup3(old, new, bool(flags))


@syscall(72, "fcntl", "fd", "int", "ulong")
def sys_fcntl(task: Task, fd: int, command: int, argument: int) -> int:
    """Descriptor flags, status flags, duplicating, locks, pipe sizes, seals."""
    files = task.files
    file = files.get(fd)
    if command in (c.F_DUPFD, c.F_DUPFD_CLOEXEC):
        return files.dup(fd, signed32(argument), command == c.F_DUPFD_CLOEXEC)
    if command == c.F_GETFD:
        return c.FD_CLOEXEC if fd in files.cloexec else 0
    if command == c.F_SETFD:
        if argument & c.FD_CLOEXEC:
            files.cloexec.add(fd)
        else:
            files.cloexec.discard(fd)
        return 0
    if command == c.F_GETFL:
        return file.flags & ~c.O_CLOEXEC
    file = files.get_opened(fd)
    if command == c.F_SETFL:
        file.flags = file.flags & ~_SETTABLE | argument & _SETTABLE
        return 0
    return _fcntl_more(task, file, command, argument)


def _fcntl_more(task: Task, file: OpenFile, command: int, argument: int) -> int:
    if command in LOCK_COMMANDS:
        return record_lock(task, file, command, argument)
    if command in (c.F_SETPIPE_SZ, c.F_GETPIPE_SZ):
        if not isinstance(file, PipeEnd):
            raise SyscallError(Errno.EBADF)
        if command == c.F_SETPIPE_SZ:
            file.inode.resize(argument & 0xFFFF_FFFF)
        return file.inode.capacity
    if command in (c.F_ADD_SEALS, c.F_GET_SEALS):
        return _seal(file, command, argument & 0xFFFF_FFFF)
    if command in (c.F_GETOWN, c.F_SETOWN, c.F_GETSIG, c.F_SETSIG):
        return 0
    raise SyscallError(Errno.EINVAL)


def _seal(file: OpenFile, command: int, bits: int) -> int:
    inode = file.inode
    if not isinstance(inode, RegularInode) or inode.seals is None:
        raise SyscallError(Errno.EINVAL)
    if command == c.F_GET_SEALS:
        return inode.seals
    if not file.writable or inode.seals & c.F_SEAL_SEAL:
        raise SyscallError(Errno.EPERM)
    if bits & ~0x1F:
        raise SyscallError(Errno.EINVAL)
    inode.seals |= bits
    return 0


@syscall(16, "ioctl", "fd", "request", "ulong")
def sys_ioctl(task: Task, fd: int, request: int, argument: int) -> int:
    """Device control; the requests every file knows are served here."""
    file = task.files.get_opened(fd)
    if request == c.FIOCLEX:
        task.files.cloexec.add(fd)
        return 0
    if request == c.FIONCLEX:
        task.files.cloexec.discard(fd)
        return 0
    if request == c.FIONBIO:
        on = any(task.memory.read(argument, 4))
        file.flags = file.flags | c.O_NONBLOCK if on else file.flags & ~c.O_NONBLOCK
        return 0
    if request == c.FIOASYNC:
        on = any(task.memory.read(argument, 4))
        if on and not file.pollable:
            raise SyscallError(Errno.ENOTTY)
        file.flags = file.flags | c.O_ASYNC if on else file.flags & ~c.O_ASYNC
        return 0
    if request in JOB_REQUESTS:
        return job_control(task, file, request, argument)
    return file.ioctl(task.memory, request, argument)


@syscall(22, "pipe", "struct")
def sys_pipe(task: Task, result: int) -> int:
    """Make a pipe."""
    return sys_pipe2(task, result, 0)


@syscall(293, "pipe2", "struct", "open_flags")
def sys_pipe2(task: Task, result: int, flags: int) -> int:
    """Make a pipe with O_CLOEXEC or O_NONBLOCK."""
    if flags & ~(c.O_CLOEXEC | c.O_NONBLOCK | c.O_DIRECT):
        raise SyscallError(Errno.EINVAL)
    pipe = PipeInode(task.fs.mounts.pipes, 0o600, task.uid, task.gid)
    files = task.files
    status = flags & ~c.O_CLOEXEC
    cloexec = bool(flags & c.O_CLOEXEC)
    first = files.install(PipeEnd(pipe, c.O_RDONLY | status), cloexec)
    second = -1
    try:
        second = files.install(PipeEnd(pipe, c.O_WRONLY | status), cloexec)
        task.memory.write(result, first.to_bytes(4, "little") + second.to_bytes(4, "little"))
    except SyscallError:
        files.close(first)
        if second >= 0:
            files.close(second)
        raise
    return 0


@syscall(319, "memfd_create", "string", "flags")
def sys_memfd_create(task: Task, name: int, flags: int) -> int:
    """Make a file without a name, in memory."""
    try:
        label = task.memory.read_cstring(name, 250)
    except SyscallError as error:
        raise SyscallError(Errno.EINVAL if error.errno is Errno.ENAMETOOLONG else error.errno) from error
    if flags & ~(c.MFD_CLOEXEC | c.MFD_ALLOW_SEALING | c.MFD_NOEXEC_SEAL | c.MFD_EXEC):
        raise SyscallError(Errno.EINVAL)
    mode = 0o666 if flags & c.MFD_NOEXEC_SEAL else 0o777
    inode = MemoryFile(task.fs.mounts.pipes, mode, task.uid, task.gid)
    inode.nlink = 0
    inode.seals = 0 if flags & (c.MFD_ALLOW_SEALING | c.MFD_NOEXEC_SEAL) else c.F_SEAL_SEAL
    inode.label = b"memfd:" + label
    return task.files.install(OpenRegular(inode, c.O_RDWR | c.O_LARGEFILE), bool(flags & c.MFD_CLOEXEC))


@syscall(74, "fsync", "fd")
def sys_fsync(task: Task, fd: int) -> int:
    """Write a file back."""
    task.files.get_opened(fd).sync()
    return 0


@syscall(75, "fdatasync", "fd")
def sys_fdatasync(task: Task, fd: int) -> int:
    """Write a file's data back."""
    return sys_fsync(task, fd)


@syscall(162, "sync")
def sys_sync(task: Task) -> int:
    """Write everything back: what the guest sees is always current."""
    return 0


@syscall(306, "syncfs", "fd")
def sys_syncfs(task: Task, fd: int) -> int:
    """Write a file system back."""
    task.files.get_opened(fd)
    return 0


@syscall(277, "sync_file_range", "fd", "off", "off", "flags")
def sys_sync_file_range(task: Task, fd: int, offset: int, count: int, flags: int) -> int:
    """Write part of a file back."""
    if offset < 0 or count < 0 or flags & ~7:
        raise SyscallError(Errno.EINVAL)
    inode = task.files.get_opened(fd).inode
    if not inode.seekable and not inode.is_directory:
        raise SyscallError(Errno.ESPIPE)
    return 0


@syscall(77, "ftruncate", "fd", "off")
def sys_ftruncate(task: Task, fd: int, size: int) -> int:
    """Set an open file's length."""
    if size < 0:
        raise SyscallError(Errno.EINVAL)
    file = task.files.get_opened(fd)
    if file.writable and isinstance(file, OpenRegular):
        may_grow(task, file.inode, size)
    file.truncate(size)
    modified(file.inode)
    return 0


@syscall(285, "fallocate", "fd", "flags", "off", "off")
def sys_fallocate(task: Task, fd: int, mode: int, offset: int, count: int) -> int:
    """Extend a file, or make part of it zeros. Nothing is reserved: space is taken when written."""
    file = task.files.get_opened(fd)
    if offset < 0 or count <= 0:
        raise SyscallError(Errno.EINVAL)
    known = c.FALLOC_FL_KEEP_SIZE | c.FALLOC_FL_PUNCH_HOLE | c.FALLOC_FL_ZERO_RANGE
    punch = mode & c.FALLOC_FL_PUNCH_HOLE
    if mode & ~known or (punch and mode & known != c.FALLOC_FL_KEEP_SIZE | c.FALLOC_FL_PUNCH_HOLE):
        raise SyscallError(Errno.EOPNOTSUPP)
    if not file.writable:
        raise SyscallError(Errno.EBADF)
    inode = file.inode
    if not isinstance(inode, RegularInode):
        raise SyscallError(Errno.ESPIPE if isinstance(file, PipeEnd) else Errno.ENODEV)
    end = offset + count
    if end > c.MAX_FILE_SIZE:
        raise SyscallError(Errno.EFBIG)
    if not mode & c.FALLOC_FL_KEEP_SIZE:
        may_grow(task, inode, end)
    if punch or mode & c.FALLOC_FL_ZERO_RANGE:
        inode.punch(offset, min(count, max(inode.size - offset, 0)))
    if end > inode.size and not mode & c.FALLOC_FL_KEEP_SIZE:
        file.truncate(end)
    modified(inode)
    return 0


@syscall(221, "fadvise64", "fd", "off", "off", "advice")
def sys_fadvise64(task: Task, fd: int, offset: int, count: int, advice: int) -> int:
    """Advice about coming reads: taken note of, no more."""
    if isinstance(task.files.get_opened(fd), PipeEnd):
        raise SyscallError(Errno.ESPIPE)
    if advice > 5 or count < 0:
        raise SyscallError(Errno.EINVAL)
    return 0


@syscall(187, "readahead", "fd", "off", "size")
def sys_readahead(task: Task, fd: int, offset: int, count: int) -> int:
    """Read ahead into the page cache: there is nothing to gain."""
    file = task.files.get_opened(fd)
    if not file.readable:
        raise SyscallError(Errno.EBADF)
    if not isinstance(file, OpenRegular) or count >> 63:
        raise SyscallError(Errno.EINVAL)
    return 0

"""System calls on open files: open, close, read, write, seek and their vector and positioned kinds.

Semantics: the man pages of section 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import (
    AT_FDCWD,
    MAX_FILE_SIZE,
    MAX_RW_COUNT,
    O_APPEND,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_NOFOLLOW,
    O_NONBLOCK,
    O_PATH,
    O_TMPFILE,
    O_TRUNC,
    O_WRONLY,
    OPEN_FLAGS,
    PATH_MAX,
    RESOLVE_ALL,
    RESOLVE_BENEATH,
    RESOLVE_CACHED,
    RESOLVE_IN_ROOT,
)
from mmuemu.kernel.files.notify import accessed, modified, opened
from mmuemu.kernel.files.opening import open_file
from mmuemu.kernel.files.pipe import FifoOpening
from mmuemu.kernel.syscalls.table import syscall
from mmuemu.kernel.syscalls.transfer import CHUNK, RLIMIT_FSIZE, read_into, read_iovec, store_part, write_from

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

RWF_NOWAIT: Final = 8
RWF_APPEND: Final = 16


@syscall(0, "read", "fd", "out_buffer", "size")
def sys_read(task: Task, fd: int, buffer: int, count: int) -> int:
    """Read from a descriptor."""
    file = task.files.get_opened(fd)
    if buffer + count > task.mm.task_size:
        raise SyscallError(Errno.EFAULT if file.readable else Errno.EBADF)
    if count <= CHUNK:
        data = file.read(count)
        if data:
            try:
                task.memory.write(buffer, data)
            except SyscallError:
                stored = store_part(task, file, buffer, data)
                file.unread(data[stored:])
                if not stored:
                    raise
                return stored
            if file.inode.fs.watched:
                accessed(file.inode)
        return len(data)
    return read_into(task, file, [(buffer, min(count, MAX_RW_COUNT))])


@syscall(1, "write", "fd", "in_buffer", "size")
def sys_write(task: Task, fd: int, buffer: int, count: int) -> int:
    """Write to a descriptor."""
    file = task.files.get_opened(fd)
    if not file.writable:
        raise SyscallError(Errno.EBADF)
    if buffer + count > task.mm.task_size:
        raise SyscallError(Errno.EFAULT)
    if count <= CHUNK and not file.whole and RLIMIT_FSIZE not in task.process.limits:
        try:
            data = task.memory.read(buffer, count) if count else b""
        except SyscallError:
            if not file.bulk:
                raise
        else:
            done = file.write(data)
            if done and file.inode.fs.watched:
                modified(file.inode)
            return done
    return write_from(task, file, [(buffer, min(count, MAX_RW_COUNT))])


def install_opened(task: Task, dirfd: int, path: int, flags: int, mode: int, resolve_flags: int = 0) -> int:
    """Open a path of the guest's and give it a descriptor; an open of a named pipe may have to be resumed."""
    files = task.files
    opening = task.call_state
    if isinstance(opening, FifoOpening):
        file = opening.resume()
        opened(file)
    else:
        name = task.memory.read_cstring(path, PATH_MAX)
        files.lowest_free()
        if task.fs.mounts.quota.full:
            raise SyscallError(Errno.ENFILE)
        file = open_file(task, name, flags, mode, dirfd, resolve_flags)
    return files.install(file, bool(flags & O_CLOEXEC))


@syscall(2, "open", "path", "open_flags", "octal")
def sys_open(task: Task, path: int, flags: int, mode: int) -> int:
    """Open a file."""
    return sys_openat(task, AT_FDCWD, path, flags, mode)


@syscall(257, "openat", "dirfd", "path", "open_flags", "octal")
def sys_openat(task: Task, dirfd: int, path: int, flags: int, mode: int) -> int:
    """Open a file relative to a directory."""
    if flags & O_PATH:
        flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
    if not flags & (O_CREAT | O_TMPFILE & ~O_DIRECTORY):
        mode = 0
    return install_opened(task, dirfd, path, flags & OPEN_FLAGS, mode)


@syscall(437, "openat2", "dirfd", "path", "struct", "size")
def sys_openat2(task: Task, dirfd: int, path: int, how: int, size: int) -> int:
    """openat with RESOLVE_* flags in a ``struct open_how`` (flags, mode, resolve); nothing unknown is ignored."""
    if size < 24:
        raise SyscallError(Errno.EINVAL)
    if size > 4096:
        raise SyscallError(Errno.E2BIG)
    raw = task.memory.read(how, size)
    if any(raw[24:]):
        raise SyscallError(Errno.E2BIG)
    flags, mode, resolving = (int.from_bytes(raw[at : at + 8], "little") for at in (0, 8, 16))
    makes = flags & (O_CREAT | O_TMPFILE & ~O_DIRECTORY)
    if flags & ~OPEN_FLAGS or resolving & ~RESOLVE_ALL or (mode & ~0o7777 if makes else mode):
        raise SyscallError(Errno.EINVAL)
    if flags & O_PATH and flags & ~(O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC):
        raise SyscallError(Errno.EINVAL)
    if resolving & RESOLVE_BENEATH and resolving & RESOLVE_IN_ROOT:
        raise SyscallError(Errno.EINVAL)
    if resolving & RESOLVE_CACHED:
        raise SyscallError(Errno.EAGAIN)
    return install_opened(task, dirfd, path, flags, mode, resolving)


@syscall(85, "creat", "path", "octal")
def sys_creat(task: Task, path: int, mode: int) -> int:
    """Make or empty a file and open it for writing."""
    return sys_openat(task, AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode)


@syscall(3, "close", "fd")
def sys_close(task: Task, fd: int) -> int:
    """Close a descriptor."""
    task.files.close(fd)
    return 0


@syscall(436, "close_range", "uint", "uint", "flags")
def sys_close_range(task: Task, first: int, last: int, flags: int) -> int:
    """Close, or mark close-on-exec (flag 4), every descriptor of a range."""
    if first > last or flags & ~6:
        raise SyscallError(Errno.EINVAL)
    for fd in [fd for fd in task.files if first <= fd <= last]:
        if flags & 4:
            task.files.cloexec.add(fd)
        else:
            task.files.close(fd)
    return 0


@syscall(8, "lseek", "fd", "off", "whence")
def sys_lseek(task: Task, fd: int, offset: int, whence: int) -> int:
    """Move a file offset."""
    return task.files.get_opened(fd).seek(offset, whence)


def _at(task: Task, fd: int, pairs: list[tuple[int, int]], offset: int, write: bool) -> int:
    if offset < 0:
        raise SyscallError(Errno.EINVAL)
    file = task.files.get_opened(fd)
    if file.positioned and (file.writable if write else file.readable):
        total = 0
        for base, length in pairs:
            if base + length > task.mm.task_size:
                raise SyscallError(Errno.EFAULT)
            total += length
        if offset + total > MAX_FILE_SIZE:
            raise SyscallError(Errno.EINVAL)
    pairs = [(base, min(length, MAX_RW_COUNT)) for base, length in pairs]
    return (write_from if write else read_into)(task, file, pairs, offset)


@syscall(17, "pread64", "fd", "out_buffer", "size", "off")
def sys_pread64(task: Task, fd: int, buffer: int, count: int, offset: int) -> int:
    """Read at an offset."""
    return _at(task, fd, [(buffer, count)], offset, False)


@syscall(18, "pwrite64", "fd", "in_buffer", "size", "off")
def sys_pwrite64(task: Task, fd: int, buffer: int, count: int, offset: int) -> int:
    """Write at an offset."""
    return _at(task, fd, [(buffer, count)], offset, True)


@syscall(19, "readv", "fd", "iovec", "int")
def sys_readv(task: Task, fd: int, vector: int, count: int) -> int:
    """Read into several buffers."""
    file = task.files.get_opened(fd)
    if not file.readable:
        raise SyscallError(Errno.EBADF)
    pairs = read_iovec(task, vector, count)
    return read_into(task, file, pairs) if pairs else 0


@syscall(20, "writev", "fd", "iovec", "int")
def sys_writev(task: Task, fd: int, vector: int, count: int) -> int:
    """Write several buffers; small ones together, so that a line stays one write on the host."""
    file = task.files.get_opened(fd)
    if not file.writable:
        raise SyscallError(Errno.EBADF)
    pairs = read_iovec(task, vector, count)
    return write_from(task, file, pairs) if pairs else 0


def _vector_at(task: Task, fd: int, vector: int, count: int, offset: int, write: bool) -> int:
    if offset < 0:
        raise SyscallError(Errno.EINVAL)
    file = task.files.get_opened(fd)
    if not file.positioned:
        raise SyscallError(Errno.ESPIPE)
    if not (file.writable if write else file.readable):
        raise SyscallError(Errno.EBADF)
    return _at(task, fd, read_iovec(task, vector, count), offset, write)


@syscall(295, "preadv", "fd", "iovec", "int", "off", "off")
def sys_preadv(task: Task, fd: int, vector: int, count: int, offset: int, high: int) -> int:
    """Read into several buffers at an offset (64-bit callers ignore the high half)."""
    return _vector_at(task, fd, vector, count, offset, False)


@syscall(296, "pwritev", "fd", "iovec", "int", "off", "off")
def sys_pwritev(task: Task, fd: int, vector: int, count: int, offset: int, high: int) -> int:
    """Write several buffers at an offset."""
    return _vector_at(task, fd, vector, count, offset, True)


def _with_flags(task: Task, fd: int, vector: int, count: int, offset: int, flags: int, write: bool) -> int:
    """RWF_HIPRI, DSYNC and SYNC change nothing here; RWF_NOWAIT and RWF_APPEND hold for this call alone."""
    if flags & ~(RWF_APPEND | RWF_NOWAIT | 7 if write else RWF_NOWAIT | 7):
        raise SyscallError(Errno.EOPNOTSUPP)
    file = task.files.get_opened(fd)
    before = file.flags
    file.flags |= (O_APPEND if flags & RWF_APPEND else 0) | (O_NONBLOCK if flags & RWF_NOWAIT else 0)
    try:
        if offset == -1:
            return (sys_writev if write else sys_readv)(task, fd, vector, count)
        return _vector_at(task, fd, vector, count, offset, write)
    finally:
        file.flags = before


@syscall(327, "preadv2", "fd", "iovec", "int", "off", "off", "flags")
def sys_preadv2(task: Task, fd: int, vector: int, count: int, offset: int, high: int, flags: int) -> int:
    """As preadv with RWF_* flags, at the file offset for -1."""
    return _with_flags(task, fd, vector, count, offset, flags, False)


@syscall(328, "pwritev2", "fd", "iovec", "int", "off", "off", "flags")
def sys_pwritev2(task: Task, fd: int, vector: int, count: int, offset: int, high: int, flags: int) -> int:
    """As pwritev with RWF_* flags, at the file offset for -1."""
    return _with_flags(task, fd, vector, count, offset, flags, True)

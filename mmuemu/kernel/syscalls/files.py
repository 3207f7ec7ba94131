"""System calls on open files: open, close, read, write, seek and their vector and positioned kinds.

Importing this module registers every call that concerns files. Semantics: the man pages of section 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import (
    AT_FDCWD,
    IOV_MAX,
    MAX_RW_COUNT,
    O_APPEND,
    O_CLOEXEC,
    O_CREAT,
    O_TMPFILE,
    O_TRUNC,
    O_WRONLY,
    PATH_MAX,
)
from mmuemu.kernel.files.opening import open_file
from mmuemu.kernel.syscalls import files_fd, files_names, files_poll, files_stat
from mmuemu.kernel.syscalls.table import syscall

if TYPE_CHECKING:
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.task import Task

__all__ = ["files_fd", "files_names", "files_poll", "files_stat"]

CHUNK: Final = 1 << 20
"""The most bytes copied at once, so that a huge count costs no huge buffer."""


@syscall(0, "read", "fd", "out_buffer", "size")
def sys_read(task: Task, fd: int, buffer: int, count: int) -> int:
    """Read from a descriptor."""
    file = task.files.get_opened(fd)
    if count <= CHUNK:
        data = file.read(count)
        if data:
            try:
                task.memory.write(buffer, data)
            except SyscallError:
                file.unread(data)
                raise
        return len(data)
    return read_long(task, file, buffer, count)


def read_long(task: Task, file: OpenFile, buffer: int, count: int) -> int:
    """Read more than a chunk: pieces until the file gives no more; a late error ends it quietly."""
    count = min(count, MAX_RW_COUNT)
    done = 0
    while done < count:
        data = b""
        try:
            want = min(CHUNK, count - done)
            data = file.read(want)
            if data:
                task.memory.write(buffer + done, data)
        except SyscallError:
            file.unread(data)
            if done:
                break
            raise
        done += len(data)
        if len(data) < want or not file.bulk:
            break
    return done


@syscall(1, "write", "fd", "in_buffer", "size")
def sys_write(task: Task, fd: int, buffer: int, count: int) -> int:
    """Write to a descriptor."""
    file = task.files.get_opened(fd)
    if count <= CHUNK:
        if not file.writable:
            raise SyscallError(Errno.EBADF)
        return file.write(task.memory.read(buffer, count) if count else b"")
    return write_long(task, file, buffer, count)


def write_long(task: Task, file: OpenFile, buffer: int, count: int) -> int:
    """Write more than a chunk."""
    if not file.writable:
        raise SyscallError(Errno.EBADF)
    count = min(count, MAX_RW_COUNT)
    done = 0
    while done < count:
        want = min(CHUNK, count - done)
        try:
            piece = file.write(task.memory.read(buffer + done, want))
        except SyscallError:
            if done:
                break
            raise
        done += piece
        if piece < want:
            break
    return done


@syscall(2, "open", "path", "open_flags", "octal")
def sys_open(task: Task, path: int, flags: int, mode: int) -> int:
    """Open a file."""
    return sys_openat(task, AT_FDCWD, path, flags, mode)


@syscall(257, "openat", "dirfd", "path", "open_flags", "octal")
def sys_openat(task: Task, dirfd: int, path: int, flags: int, mode: int) -> int:
    """Open a file relative to a directory."""
    name = task.memory.read_cstring(path, PATH_MAX)
    files = task.files
    files.lowest_free()
    if not flags & (O_CREAT | O_TMPFILE):
        mode = 0
    return files.install(open_file(task, name, flags, mode, dirfd), bool(flags & O_CLOEXEC))


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


@syscall(17, "pread64", "fd", "out_buffer", "size", "off")
def sys_pread64(task: Task, fd: int, buffer: int, count: int, offset: int) -> int:
    """Read at an offset."""
    if offset < 0:
        raise SyscallError(Errno.EINVAL)
    file = task.files.get_opened(fd)
    count = min(count, MAX_RW_COUNT)
    done = 0
    while True:
        want = min(CHUNK, count - done)
        try:
            data = file.pread(offset + done, want)
            if data:
                task.memory.write(buffer + done, data)
        except SyscallError:
            if done:
                return done
            raise
        done += len(data)
        if len(data) < want or done >= count:
            return done


@syscall(18, "pwrite64", "fd", "in_buffer", "size", "off")
def sys_pwrite64(task: Task, fd: int, buffer: int, count: int, offset: int) -> int:
    """Write at an offset."""
    if offset < 0:
        raise SyscallError(Errno.EINVAL)
    file = task.files.get_opened(fd)
    count = min(count, MAX_RW_COUNT)
    done = 0
    while True:
        want = min(CHUNK, count - done)
        try:
            piece = file.pwrite(offset + done, task.memory.read(buffer + done, want) if want else b"")
        except SyscallError:
            if done:
                return done
            raise
        done += piece
        if piece < want or done >= count:
            return done


def read_iovec(task: Task, address: int, count: int) -> list[tuple[int, int]]:
    """The (address, length) pairs of an iovec array; EINVAL over IOV_MAX or for lengths over SSIZE_MAX."""
    if not 0 <= count <= IOV_MAX:
        raise SyscallError(Errno.EINVAL)
    if not count:
        return []
    raw = memoryview(task.memory.read(address, 16 * count)).cast("Q").tolist()
    pairs = []
    total = 0
    for base, length in zip(raw[::2], raw[1::2], strict=True):
        if length >> 63:
            raise SyscallError(Errno.EINVAL)
        length = min(length, MAX_RW_COUNT - total)
        total += length
        pairs.append((base, length))
    return pairs


@syscall(19, "readv", "fd", "iovec", "int")
def sys_readv(task: Task, fd: int, vector: int, count: int) -> int:
    """Read into several buffers."""
    file = task.files.get_opened(fd)
    if not file.readable:
        raise SyscallError(Errno.EBADF)
    done = 0
    for base, length in read_iovec(task, vector, count):
        if not length:
            continue
        try:
            piece = read_long(task, file, base, length)
        except SyscallError:
            if done:
                break
            raise
        done += piece
        if piece < length or not file.bulk:
            break
    return done


@syscall(20, "writev", "fd", "iovec", "int")
def sys_writev(task: Task, fd: int, vector: int, count: int) -> int:
    """Write several buffers; small ones together, so that a line stays one write on the host."""
    file = task.files.get_opened(fd)
    if not file.writable:
        raise SyscallError(Errno.EBADF)
    pairs = read_iovec(task, vector, count)
    total = sum([length for _, length in pairs])
    if total <= CHUNK:
        read = task.memory.read
        return file.write(b"".join([read(base, length) for base, length in pairs if length]))
    done = 0
    for base, length in pairs:
        try:
            piece = write_long(task, file, base, length)
        except SyscallError:
            if done:
                break
            raise
        done += piece
        if piece < length:
            break
    return done


def _transfer_at(task: Task, fd: int, vector: int, count: int, offset: int, write: bool) -> int:
    one = sys_pwrite64 if write else sys_pread64
    if offset < 0:
        raise SyscallError(Errno.EINVAL)
    file = task.files.get_opened(fd)
    if not (file.writable if write else file.readable):
        raise SyscallError(Errno.EBADF)
    done = 0
    for base, length in read_iovec(task, vector, count):
        try:
            piece = one(task, fd, base, length, offset + done)
        except SyscallError:
            if done:
                break
            raise
        done += piece
        if piece < length:
            break
    return done


@syscall(295, "preadv", "fd", "iovec", "int", "off", "off")
def sys_preadv(task: Task, fd: int, vector: int, count: int, offset: int, high: int) -> int:
    """Read into several buffers at an offset (64-bit callers ignore the high half)."""
    return _transfer_at(task, fd, vector, count, offset, False)


@syscall(296, "pwritev", "fd", "iovec", "int", "off", "off")
def sys_pwritev(task: Task, fd: int, vector: int, count: int, offset: int, high: int) -> int:
    """Write several buffers at an offset."""
    return _transfer_at(task, fd, vector, count, offset, True)


@syscall(327, "preadv2", "fd", "iovec", "int", "off", "off", "flags")
def sys_preadv2(task: Task, fd: int, vector: int, count: int, offset: int, high: int, flags: int) -> int:
    """As preadv, at the file offset for -1; RWF_* flags are refused but for HIPRI and the sync ones."""
    if flags & ~7:
        raise SyscallError(Errno.EOPNOTSUPP)
    if offset == -1:
        return sys_readv(task, fd, vector, count)
    return _transfer_at(task, fd, vector, count, offset, False)


@syscall(328, "pwritev2", "fd", "iovec", "int", "off", "off", "flags")
def sys_pwritev2(task: Task, fd: int, vector: int, count: int, offset: int, high: int, flags: int) -> int:
    """As pwritev, at the file offset for -1; RWF_APPEND (16) is known."""
    if flags & ~(7 | 16):
        raise SyscallError(Errno.EOPNOTSUPP)
    file = task.files.get_opened(fd)
    before = file.flags
    if flags & 16:
        file.flags |= O_APPEND
    try:
        if offset == -1:
            return sys_writev(task, fd, vector, count)
        return _transfer_at(task, fd, vector, count, offset, True)
    finally:
        file.flags = before

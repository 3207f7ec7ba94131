"""Copying between descriptors without the program's memory: sendfile, copy_file_range, splice, tee, vmsplice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi import fcntl as c
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.files.notify import accessed, modified
from mmuemu.kernel.files.openfile import OpenFile, OpenRegular
from mmuemu.kernel.files.pipe import PipeEnd
from mmuemu.kernel.files.progress import Progress, progress_of
from mmuemu.kernel.syscalls.table import signed32, signed64, syscall
from mmuemu.kernel.syscalls.transfer import CHUNK, gather, read_iovec, scatter, write_from
from mmuemu.kernel.wait import Blocked

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

SPLICE_F_NONBLOCK: Final = 2
_SPLICE_FLAGS: Final = 15


def _move(source: OpenFile, target: OpenFile, want: int, read_at: int | None, write_at: int | None) -> int:
    """Read up to ``want`` bytes and write them; what the target did not take goes back."""
    data = source.read(want) if read_at is None else source.pread(read_at, want)
    if not data:
        return 0
    piece = 0
    try:
        piece = target.write(data) if write_at is None else target.pwrite(write_at, data)
    finally:
        if piece < len(data) and read_at is None:
            source.unread(data[piece:])
    if piece:
        accessed(source.inode)
        modified(target.inode)
    return piece


def _copy(source: OpenFile, target: OpenFile, count: int, read_at: int | None, write_at: int | None) -> int:
    """Move up to ``count`` bytes between files, at offsets or at the files' own; a late error ends it quietly."""
    done = 0
    count = min(count, c.MAX_RW_COUNT)
    while done < count:
        want = min(CHUNK, count - done)
        try:
            piece = _move(
                source, target, want, None if read_at is None else read_at + done,
                None if write_at is None else write_at + done,
            )  # fmt: skip
        except SyscallError:
            if done:
                break
            raise
        done += piece
        if piece < want:
            break
    return done


@syscall(40, "sendfile", "fd", "fd", "struct", "size")
def sys_sendfile(task: Task, out_fd: int, in_fd: int, offset: int, count: int) -> int:
    """Copy from a file that can be mapped to any other; a blocking socket takes everything, a pipe what fits."""
    source = task.files.get_opened(in_fd)
    target = task.files.get_opened(out_fd)
    if not source.readable or not target.writable:
        raise SyscallError(Errno.EBADF)
    if offset and not source.positioned:
        raise SyscallError(Errno.ESPIPE)
    if not source.bulk or target.flags & c.O_APPEND or count >> 63:
        raise SyscallError(Errno.EINVAL)
    start = signed64(task.memory.read_u64(offset)) if offset else None
    if start is not None and start < 0:
        raise SyscallError(Errno.EINVAL)
    state = task.call_state
    done = state.done if isinstance(state, Progress) else 0
    count = min(count, c.MAX_RW_COUNT)
    while done < count:
        try:
            piece = _copy(source, target, count - done, start, None)
        except Blocked as blocked:
            if done:
                progress_of(task).done = done
                blocked.progress = done
            raise
        except SyscallError:
            if done:
                break
            raise
        done += piece
        if start is not None:
            start += piece
            task.memory.write_u64(offset, start)
        if not piece or not target.whole or isinstance(target, PipeEnd):
            break
    return done


@syscall(326, "copy_file_range", "fd", "struct", "fd", "struct", "size", "flags")
def sys_copy_file_range(
    task: Task, in_fd: int, in_offset: int, out_fd: int, out_offset: int, count: int, flags: int
) -> int:
    """Copy between regular files."""
    source = task.files.get_opened(in_fd)
    target = task.files.get_opened(out_fd)
    if flags:
        raise SyscallError(Errno.EINVAL)
    if source.inode.is_directory or target.inode.is_directory:
        raise SyscallError(Errno.EISDIR)
    if not isinstance(source, OpenRegular) or not isinstance(target, OpenRegular):
        raise SyscallError(Errno.EINVAL)
    if not source.readable or not target.writable or target.flags & c.O_APPEND:
        raise SyscallError(Errno.EBADF)
    start = task.memory.read_u64(in_offset) if in_offset else source.offset
    to = task.memory.read_u64(out_offset) if out_offset else target.offset
    if max(start, to) + count >= 1 << 64:
        raise SyscallError(Errno.EOVERFLOW)
    if max(start, to) >> 63:
        raise SyscallError(Errno.EINVAL)
    if source.inode is target.inode and start < to + count and to < start + count:
        raise SyscallError(Errno.EINVAL)
    done = _copy(source, target, count, start, to)
    if in_offset:
        task.memory.write_u64(in_offset, start + done)
    else:
        source.offset += done
    if out_offset:
        task.memory.write_u64(out_offset, to + done)
    else:
        target.offset += done
    return done


def _offset(task: Task, file: OpenFile, address: int) -> int | None:
    """The offset a splice names; ESPIPE for a pipe, EINVAL where a file has none."""
    if not address:
        return None
    if isinstance(file, PipeEnd):
        raise SyscallError(Errno.ESPIPE)
    if not file.inode.seekable:
        raise SyscallError(Errno.EINVAL)
    offset = signed64(task.memory.read_u64(address))
    if offset < 0:
        raise SyscallError(Errno.EINVAL)
    return offset


@syscall(275, "splice", "fd", "struct", "fd", "struct", "size", "flags")
def sys_splice(task: Task, in_fd: int, in_at: int, out_fd: int, out_at: int, count: int, flags: int) -> int:
    """Move bytes between a pipe and another file (fs/splice.c: do_splice)."""
    if not count:
        return 0
    if flags & ~_SPLICE_FLAGS:
        raise SyscallError(Errno.EINVAL)
    source = task.files.get_opened(in_fd)
    target = task.files.get_opened(out_fd)
    if (in_at and isinstance(source, PipeEnd)) or (out_at and isinstance(target, PipeEnd)):
        raise SyscallError(Errno.ESPIPE)
    if not source.readable or not target.writable:
        raise SyscallError(Errno.EBADF)
    if count >> 63:
        raise SyscallError(Errno.EINVAL)
    read_at = _offset(task, source, in_at)
    write_at = _offset(task, target, out_at)
    pipes = [file for file in (source, target) if isinstance(file, PipeEnd)]
    if not pipes or (len(pipes) == 2 and source.inode is target.inode) or target.flags & c.O_APPEND:
        raise SyscallError(Errno.EINVAL)
    if isinstance(target, PipeEnd):
        _need_room(target, flags)
        count = min(count, target.inode.capacity - len(target.inode.buffer))
    before = [(file, file.flags) for file in pipes]
    for file in pipes:
        file.flags |= c.O_NONBLOCK if flags & SPLICE_F_NONBLOCK else 0
    try:
        done = _move(source, target, min(count, CHUNK), read_at, write_at)
    finally:
        for file, old in before:
            file.flags = old
    if read_at is not None:
        task.memory.write_u64(in_at, read_at + done)
    if write_at is not None:
        task.memory.write_u64(out_at, write_at + done)
    return done


def _need_room(target: PipeEnd, flags: int) -> None:
    """Wait until a page fits into a pipe; EPIPE without a reader."""
    pipe = target.inode
    if not pipe.readers:
        raise SyscallError(Errno.EPIPE)
    if pipe.capacity - len(pipe.buffer) <= 0:
        nonblocking = target.nonblocking or flags & SPLICE_F_NONBLOCK
        raise SyscallError(Errno.EAGAIN) if nonblocking else Blocked(pipe.queue)


@syscall(276, "tee", "fd", "fd", "size", "flags")
def sys_tee(task: Task, in_fd: int, out_fd: int, count: int, flags: int) -> int:
    """Copy from one pipe to another what stays in the first."""
    if flags & ~_SPLICE_FLAGS:
        raise SyscallError(Errno.EINVAL)
    if not count:
        return 0
    source = task.files.get_opened(in_fd)
    target = task.files.get_opened(out_fd)
    if not source.readable or not target.writable:
        raise SyscallError(Errno.EBADF)
    if not isinstance(source, PipeEnd) or not isinstance(target, PipeEnd) or source.inode is target.inode:
        raise SyscallError(Errno.EINVAL)
    pipe = source.inode
    if not pipe.buffer:
        if not pipe.writers:
            return 0
        nonblocking = source.nonblocking or flags & SPLICE_F_NONBLOCK
        raise SyscallError(Errno.EAGAIN) if nonblocking else Blocked(pipe.queue)
    _need_room(target, flags)
    room = target.inode.capacity - len(target.inode.buffer)
    data = bytes(pipe.buffer[: min(count, room)])
    target.inode.put(data, False)
    return len(data)


@syscall(278, "vmsplice", "fd", "iovec", "ulong", "flags")
def sys_vmsplice(task: Task, fd: int, vector: int, count: int, flags: int) -> int:
    """Move bytes between memory and a pipe; they are always copied."""
    if flags & ~_SPLICE_FLAGS:
        raise SyscallError(Errno.EINVAL)
    file = task.files.get_opened(fd)
    if not isinstance(file, PipeEnd):
        raise SyscallError(Errno.EBADF)
    pairs = read_iovec(task, vector, signed32(count))
    total = sum(length for _, length in pairs)
    if not total:
        return 0
    if not file.writable:
        data = file.read(min(total, CHUNK))
        try:
            scatter(task, pairs, data)
        except SyscallError:
            file.unread(data)
            raise
        return len(data)
    if not flags & SPLICE_F_NONBLOCK:
        return write_from(task, file, pairs)
    before, file.flags = file.flags, file.flags | c.O_NONBLOCK
    try:
        return file.write(gather(task, pairs))
    finally:
        file.flags = before

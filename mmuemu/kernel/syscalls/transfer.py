"""Moving bytes between an open file and a task's buffers: the one loop behind every read and write."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import IOV_MAX, MAX_RW_COUNT, O_APPEND
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.files.notify import accessed, modified
from mmuemu.kernel.files.openfile import OpenRegular
from mmuemu.kernel.files.pipe import PipeEnd
from mmuemu.kernel.files.progress import Progress, progress_of
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.kernel.wait import Blocked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmuemu.kernel.files.inode import Inode
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.task import Task

    Pairs = list[tuple[int, int]]

RLIMIT_FSIZE: Final = 1
CHUNK: Final = 1 << 20
"""The most bytes copied at once, so that a huge count costs no huge buffer."""


def read_iovec(task: Task, address: int, count: int) -> Pairs:
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


def pieces(pairs: Pairs, skip: int = 0) -> Iterator[tuple[int, int]]:
    """The buffers in pieces of at most CHUNK bytes, without the first ``skip`` bytes."""
    for base, length in pairs:
        passed = min(skip, length)
        skip -= passed
        while passed < length:
            size = min(CHUNK, length - passed)
            yield base + passed, size
            passed += size


def scatter(task: Task, pairs: Pairs, data: bytes) -> None:
    """Store ``data`` in the buffers, which have room for it; EFAULT."""
    done = 0
    for base, size in pieces(pairs):
        if done >= len(data):
            break
        task.memory.write(base, data[done : done + size])
        done += size


def store_part(task: Task, file: OpenFile, base: int, data: bytes) -> int:
    """Store what of ``data``, read from ``file``, fits before a bad address; how much, which may be nothing.

    Only what can be read again from its middle is stored in part (a file, mm/filemap.c).
    """
    done = 0
    if file.bulk:
        with suppress(SyscallError):
            for piece in task.memory.chunks(base, len(data), True):
                piece[:] = data[done : done + len(piece)]
                done += len(piece)
    return done


def _first_part(task: Task, base: int, size: int) -> bytes:
    """What can be read at ``base``, up to ``size`` bytes; EFAULT when there is nothing."""
    data = bytearray()
    try:
        for piece in task.memory.chunks(base, size, False):
            data += piece
    except SyscallError:
        if not data:
            raise
    return bytes(data)


def gather(task: Task, pairs: Pairs, skip: int = 0, partly: bool = False) -> bytes:
    """The bytes of the buffers from ``skip`` on, at most CHUNK of them; EFAULT when not even the first is there.

    ``partly``: the first buffer's readable beginning will do.
    """
    parts: list[bytes] = []
    left = CHUNK
    for base, size in pieces(pairs, skip):
        try:
            parts.append(task.memory.read(base, min(size, left)))
        except SyscallError:
            if parts:
                break
            if not partly:
                raise
            return _first_part(task, base, min(size, left))
        left -= len(parts[-1])
        if not left:
            break
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_into(task: Task, file: OpenFile, pairs: Pairs, offset: int | None = None) -> int:
    """Read into buffers, at the file's own offset or at ``offset``; an error after some bytes ends it quietly."""
    if offset is None and not file.bulk:
        total = min(sum([length for _, length in pairs]), CHUNK)
        data = file.read(total)
        try:
            scatter(task, pairs, data)
        except SyscallError:
            file.unread(data)
            raise
        if data and file.inode.fs.watched:
            accessed(file.inode)
        return len(data)
    done = 0
    for base, size in list(pieces(pairs)) or [(0, 0)]:
        data = b""
        try:
            data = file.read(size) if offset is None else file.pread(offset + done, size)
            if data:
                task.memory.write(base, data)
        except SyscallError:
            stored = store_part(task, file, base, data) if data else 0
            if offset is None and data:
                file.unread(data[stored:])
            done += stored
            if done:
                break
            raise
        done += len(data)
        if len(data) < size:
            break
    if done and file.inode.fs.watched:
        accessed(file.inode)
    return done


def _room(task: Task, file: OpenFile, offset: int | None) -> int:
    """Bytes that RLIMIT_FSIZE leaves at ``offset`` (the file's own if None); EFBIG and SIGXFSZ at the limit."""
    limit = task.process.limits[RLIMIT_FSIZE][0]
    if file.flags & O_APPEND:
        offset = file.inode.size
    room = limit - (file.offset if offset is None else offset)
    if room <= 0:
        task.kernel.send_signal(task, SigInfo(Signal.SIGXFSZ))
        raise SyscallError(Errno.EFBIG)
    return room


def may_grow(task: Task, inode: Inode, size: int) -> None:
    """Whether RLIMIT_FSIZE lets ``inode`` become ``size`` bytes; EFBIG and SIGXFSZ (fs/attr.c: inode_newsize_ok)."""
    limit = task.process.limits.get(RLIMIT_FSIZE)
    if limit is not None and size > limit[0] and size > inode.size:
        task.kernel.send_signal(task, SigInfo(Signal.SIGXFSZ))
        raise SyscallError(Errno.EFBIG)


def write_from(task: Task, file: OpenFile, pairs: Pairs, offset: int | None = None) -> int:
    """Write buffers, at the file's own offset or at ``offset``.

    A file that is ``whole`` takes everything, sleeping where it must; what was written by then is remembered in
    ``task.call_state``. Elsewhere a short write or an error after some bytes ends it quietly.
    """
    if offset is None and not file.writable:
        raise SyscallError(Errno.EBADF)
    state = task.call_state
    done = state.done if isinstance(state, Progress) else 0
    total = sum([length for _, length in pairs])
    limited, cut = RLIMIT_FSIZE in task.process.limits and isinstance(file, OpenRegular), False
    while True:
        try:
            data = gather(task, pairs, done, file.bulk)
            if limited and data:
                room = _room(task, file, None if offset is None else offset + done)
                cut, data = room < len(data), data[:room]
            piece = file.write(data) if offset is None else file.pwrite(offset + done, data)
        except Blocked as blocked:
            if done:
                progress_of(task).done = done
                blocked.progress = done
            raise
        except SyscallError as error:
            if not done:
                raise
            if error.errno is Errno.EPIPE and isinstance(file, PipeEnd):
                task.kernel.send_signal(task, SigInfo(Signal.SIGPIPE))
            return done
        done += piece
        if piece and file.inode.fs.watched:
            modified(file.inode)
        if done >= total or cut or (piece < len(data) and not file.whole) or not piece:
            return done

"""System calls on sockets: making, naming and connecting them, sending and receiving.

Only AF_UNIX exists. Semantics: the man pages of section 2, unix(7), net/socket.c, net/unix/af_unix.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi import socket as s
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import MAX_RW_COUNT
from mmuemu.kernel.files.progress import Progress, progress_of
from mmuemu.kernel.files.sockets import connection
from mmuemu.kernel.files.sockets.message import Credentials, Received
from mmuemu.kernel.files.sockets.unix import UnixSocket
from mmuemu.kernel.syscalls.sockets_control import ControlData, read_control, socket_of, write_control
from mmuemu.kernel.syscalls.table import syscall
from mmuemu.kernel.syscalls.transfer import CHUNK, gather, pieces, read_iovec
from mmuemu.kernel.wait import Blocked

if TYPE_CHECKING:
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.task import Task

    Pairs = list[tuple[int, int]]

_KINDS: Final = {s.SOCK_STREAM: s.SOCK_STREAM, s.SOCK_DGRAM: s.SOCK_DGRAM, s.SOCK_RAW: s.SOCK_DGRAM,
                 s.SOCK_SEQPACKET: s.SOCK_SEQPACKET}  # fmt: skip
MSGHDR: Final = 56
"""Bytes of ``struct msghdr``; ``struct mmsghdr`` has a length behind it."""
_MMSGHDR: Final = 64
_UIO_MAX: Final = 1024


def credentials_of(task: Task) -> Credentials:
    """Who the caller is."""
    return Credentials(task.pid, task.uid, task.gid)


def _kind(family: int, kind: int, protocol: int) -> int:
    """The socket type wanted; the errors of net/socket.c: __sock_create."""
    if kind & ~(s.SOCK_TYPE_MASK | s.SOCK_CLOEXEC | s.SOCK_NONBLOCK):
        raise SyscallError(Errno.EINVAL)
    if not 0 <= family < s.AF_MAX or family != s.AF_UNIX:
        raise SyscallError(Errno.EAFNOSUPPORT)
    if kind & s.SOCK_TYPE_MASK >= s.SOCK_MAX:
        raise SyscallError(Errno.EINVAL)
    if protocol not in (0, s.AF_UNIX):
        raise SyscallError(Errno.EPROTONOSUPPORT)
    found = _KINDS.get(kind & s.SOCK_TYPE_MASK)
    if found is None:
        raise SyscallError(Errno.ESOCKTNOSUPPORT)
    return found


def _make(task: Task, kind: int, flags: int) -> UnixSocket:
    pipes = task.fs.mounts.pipes
    return connection.new_socket(pipes, task.kernel, kind, credentials_of(task), flags & s.SOCK_NONBLOCK)


@syscall(41, "socket", "int", "int", "int")
def sys_socket(task: Task, family: int, kind: int, protocol: int) -> int:
    """Make a socket; there is no network, so every family but AF_UNIX is refused."""
    wanted = _kind(family, kind, protocol)
    return task.files.install(_make(task, wanted, kind), bool(kind & s.SOCK_CLOEXEC))


@syscall(53, "socketpair", "int", "int", "int", "struct")
def sys_socketpair(task: Task, family: int, kind: int, protocol: int, result: int) -> int:
    """Make two sockets that are connected to each other."""
    wanted = _kind(family, kind, protocol)
    one, other = _make(task, wanted, kind), _make(task, wanted, kind)
    connection.join(one, other)
    files = task.files
    cloexec = bool(kind & s.SOCK_CLOEXEC)
    first = files.install(one, cloexec)
    second = -1
    try:
        second = files.install(other, cloexec)
        task.memory.write(result, first.to_bytes(4, "little") + second.to_bytes(4, "little"))
    except SyscallError:
        files.close(first)
        if second >= 0:
            files.close(second)
        raise
    return 0


def _read_address(task: Task, address: int, length: int) -> bytes:
    """The bytes of a ``struct sockaddr``; EINVAL over 128 of them."""
    if not 0 <= length <= 128:
        raise SyscallError(Errno.EINVAL)
    return task.memory.read(address, length) if length else b""


def _write_address(task: Task, address: int, length_at: int, name: bytes | None) -> None:
    """Store a name in a buffer whose size stands at ``length_at``, and its true length there."""
    packed = connection.pack_address(name)
    room = int.from_bytes(task.memory.read(length_at, 4), "little", signed=True)
    if room < 0:
        raise SyscallError(Errno.EINVAL)
    task.memory.write(address, packed[:room])
    task.memory.write_u32(length_at, len(packed))


@syscall(49, "bind", "fd", "struct", "int")
def sys_bind(task: Task, fd: int, address: int, length: int) -> int:
    """Give a socket a name."""
    socket = socket_of(task, fd)
    connection.bind(task, socket, connection.parse_address(_read_address(task, address, length)))
    return 0


@syscall(50, "listen", "fd", "int")
def sys_listen(task: Task, fd: int, backlog: int) -> int:
    """Take connections."""
    connection.listen(socket_of(task, fd), backlog, credentials_of(task))
    return 0


@syscall(42, "connect", "fd", "struct", "int")
def sys_connect(task: Task, fd: int, address: int, length: int) -> int:
    """Connect to a named socket; AF_UNSPEC undoes it for datagrams."""
    socket = socket_of(task, fd)
    raw = _read_address(task, address, length)
    if socket.kind == s.SOCK_DGRAM and len(raw) >= 2 and not any(raw[:2]):
        socket.peer = None
        return 0
    name = connection.parse_address(raw)
    connection.connect(
        socket, connection.find(task, socket.inode.fs, name, socket.kind), credentials_of(task)
    )  # fmt: skip
    return 0


@syscall(43, "accept", "fd", "struct", "struct")
def sys_accept(task: Task, fd: int, address: int, length_at: int) -> int:
    """Take a connection."""
    return sys_accept4(task, fd, address, length_at, 0)


@syscall(288, "accept4", "fd", "struct", "struct", "flags")
def sys_accept4(task: Task, fd: int, address: int, length_at: int, flags: int) -> int:
    """Take a connection, with SOCK_CLOEXEC and SOCK_NONBLOCK."""
    if flags & ~(s.SOCK_CLOEXEC | s.SOCK_NONBLOCK):
        raise SyscallError(Errno.EINVAL)
    listener = socket_of(task, fd)
    task.files.lowest_free()
    found = connection.accept(listener, flags & s.SOCK_NONBLOCK)
    new = task.files.install(found, bool(flags & s.SOCK_CLOEXEC))
    if address:
        try:
            _write_address(task, address, length_at, found.peer.address if found.peer is not None else None)
        except SyscallError:
            task.files.close(new)
            raise
    return new


@syscall(51, "getsockname", "fd", "struct", "struct")
def sys_getsockname(task: Task, fd: int, address: int, length_at: int) -> int:
    """A socket's own name."""
    _write_address(task, address, length_at, socket_of(task, fd).address)
    return 0


@syscall(52, "getpeername", "fd", "struct", "struct")
def sys_getpeername(task: Task, fd: int, address: int, length_at: int) -> int:
    """The name of the other end."""
    peer = socket_of(task, fd).peer
    if peer is None:
        raise SyscallError(Errno.ENOTCONN)
    _write_address(task, address, length_at, peer.address)
    return 0


@syscall(48, "shutdown", "fd", "int")
def sys_shutdown(task: Task, fd: int, how: int) -> int:
    """End one or both directions."""
    socket = socket_of(task, fd)
    if how not in (s.SHUT_RD, s.SHUT_WR, s.SHUT_RDWR):
        raise SyscallError(Errno.EINVAL)
    socket.shutdown(how + 1)
    return 0


# -- sending ------------------------------------------------------------------------------------------------------


def _send(
    task: Task, socket: UnixSocket, pairs: Pairs, flags: int, to: bytes, rights: tuple[OpenFile, ...],
    credentials: Credentials,
) -> int:  # fmt: skip
    """Send everything; a stream's progress is remembered. EPIPE without a signal comes back as a number."""
    if flags & s.MSG_OOB:
        raise SyscallError(Errno.EOPNOTSUPP)
    state = task.call_state
    done = state.done if isinstance(state, Progress) else 0
    total = sum([length for _, length in pairs])
    if total > MAX_RW_COUNT or (total > CHUNK and socket.kind != s.SOCK_STREAM):
        raise SyscallError(Errno.EMSGSIZE)
    try:
        target = None
        if to and socket.kind != s.SOCK_SEQPACKET:
            target = socket if socket.kind == s.SOCK_STREAM else _find(task, socket, to)
        while True:
            data = gather(task, pairs, done) if total else b""
            done += socket.send(data, flags, target, () if done else rights, credentials)
            if done >= total:
                return done
    except Blocked as blocked:
        if done:
            progress_of(task).done = done
            blocked.progress = done
        raise
    except SyscallError as error:
        if done:
            return done
        if error.errno is Errno.EPIPE and (flags & s.MSG_NOSIGNAL or socket.kind != s.SOCK_STREAM):
            return -Errno.EPIPE
        raise


def _find(task: Task, socket: UnixSocket, raw: bytes) -> UnixSocket:
    return connection.find(task, socket.inode.fs, connection.parse_address(raw), socket.kind)


@syscall(44, "sendto", "fd", "in_buffer", "size", "flags", "struct", "int")
def sys_sendto(task: Task, fd: int, buffer: int, size: int, flags: int, address: int, length: int) -> int:
    """Send, to an address or to the peer."""
    socket = socket_of(task, fd)
    to = _read_address(task, address, length) if address else b""
    pairs = [(buffer, min(size, MAX_RW_COUNT))]
    return _send(task, socket, pairs, flags, to, (), credentials_of(task))


def _header(task: Task, address: int) -> tuple[int, int, Pairs, int, int]:
    """Name, its length, buffers, control data and its length of a ``struct msghdr``."""
    raw = task.memory.read(address, MSGHDR)
    words = memoryview(raw).cast("Q").tolist()
    if words[3] > _UIO_MAX:
        raise SyscallError(Errno.EMSGSIZE)
    length = int.from_bytes(raw[8:12], "little", signed=True)
    if length < 0:
        raise SyscallError(Errno.EINVAL)
    pairs = read_iovec(task, words[2], words[3])
    return words[0], min(length, 128) if words[0] else 0, pairs, words[4], words[5]


def _sendmsg(task: Task, socket: UnixSocket, message: int, flags: int) -> int:
    if flags & s.MSG_CMSG_COMPAT:
        raise SyscallError(Errno.EINVAL)
    name, length, pairs, control, control_length = _header(task, message)
    to = _read_address(task, name, length) if name else b""
    extra = ControlData()
    if control and control_length:
        if control_length > 0x7FFF_FFFF:
            raise SyscallError(Errno.ENOBUFS)
        extra = read_control(task, control, control_length)
    return _send(task, socket, pairs, flags, to, extra.rights, extra.credentials or credentials_of(task))


@syscall(46, "sendmsg", "fd", "struct", "flags")
def sys_sendmsg(task: Task, fd: int, message: int, flags: int) -> int:
    """Send several buffers with descriptors and credentials."""
    return _sendmsg(task, socket_of(task, fd), message, flags)


@syscall(307, "sendmmsg", "fd", "struct", "uint", "flags")
def sys_sendmmsg(task: Task, fd: int, vector: int, count: int, flags: int) -> int:
    """Send several messages; an error after the first ends it quietly."""
    socket = socket_of(task, fd)
    count = min(count, _UIO_MAX)
    state = task.call_state
    first = state.messages if isinstance(state, _Messages) else 0
    for number in range(first, count):
        at = vector + number * _MMSGHDR
        try:
            task.call_state = None
            result = _sendmsg(task, socket, at, flags)
        except Blocked as blocked:
            if number:
                task.call_state = _Messages(number)
                blocked.progress = number
            raise
        except SyscallError:
            if number:
                return number
            raise
        if result < 0:
            return number or result
        task.memory.write_u32(at + MSGHDR, result)
    return count


class _Messages:
    """How many messages of a sendmmsg or recvmmsg are done, and when it gives up."""

    __slots__ = ("deadline", "messages")

    def __init__(self, messages: int, deadline: int | None = None) -> None:
        self.messages = messages
        self.deadline = deadline


# -- receiving ----------------------------------------------------------------------------------------------------


def _store(task: Task, pairs: Pairs, skip: int, data: bytes) -> None:
    done = 0
    for base, size in pieces(pairs, skip):
        if done >= len(data):
            break
        task.memory.write(base, data[done : done + size])
        done += size


def _receive(task: Task, socket: UnixSocket, pairs: Pairs, flags: int) -> tuple[int, Received]:
    """Receive into buffers: the count stored, and what came along. MSG_WAITALL fills them, whatever it takes."""
    stream = socket.kind == s.SOCK_STREAM
    if flags & s.MSG_OOB:
        raise SyscallError(Errno.EINVAL if stream else Errno.EOPNOTSUPP)
    total = sum([length for _, length in pairs])
    everything = stream and flags & s.MSG_WAITALL and not flags & s.MSG_PEEK
    state = task.call_state
    done = state.done if isinstance(state, Progress) else 0
    while True:
        try:
            got = socket.receive(min(total - done, CHUNK), flags)
        except Blocked as blocked:
            if done:
                progress_of(task).done = done
                blocked.progress = done
            raise
        except SyscallError:
            if done:
                return done, Received(b"")
            raise
        _store(task, pairs, done, got.data)
        done += len(got.data)
        if not everything or not got.data or got.rights or done >= total:
            return done, got


@syscall(45, "recvfrom", "fd", "out_buffer", "size", "flags", "struct", "struct")
def sys_recvfrom(task: Task, fd: int, buffer: int, size: int, flags: int, address: int, length_at: int) -> int:
    """Receive, and learn from whom."""
    socket = socket_of(task, fd)
    done, got = _receive(task, socket, [(buffer, min(size, MAX_RW_COUNT))], flags)
    for file in got.rights:
        file.release()
    if address and got.name is not None:
        if got.name:
            _write_address(task, address, length_at, got.name)
        else:
            task.memory.write_u32(length_at, 0)
    return got.length if flags & s.MSG_TRUNC and socket.kind != s.SOCK_STREAM else done


def _recvmsg(task: Task, socket: UnixSocket, message: int, flags: int) -> int:
    if flags & s.MSG_CMSG_COMPAT:
        raise SyscallError(Errno.EINVAL)
    name, length, pairs, control, control_length = _header(task, message)
    done, got = _receive(task, socket, pairs, flags)
    told = flags & s.MSG_CMSG_CLOEXEC
    if socket.kind != s.SOCK_STREAM and got.length > len(got.data):
        told |= s.MSG_TRUNC
        if flags & s.MSG_TRUNC:
            done = got.length
    packed = connection.pack_address(got.name) if got.name else b""
    if name:
        task.memory.write(name, packed[:length])
        task.memory.write_u32(message + 8, len(packed))
    credentials = (got.credentials or socket.peer_credentials) if socket.pass_credentials else None
    used, cut = write_control(task, control, control_length, got.rights, credentials, bool(flags & s.MSG_CMSG_CLOEXEC))
    task.memory.write_u64(message + 40, used)
    task.memory.write_u32(message + 48, told | (s.MSG_CTRUNC if cut else 0))
    return done


@syscall(47, "recvmsg", "fd", "struct", "flags")
def sys_recvmsg(task: Task, fd: int, message: int, flags: int) -> int:
    """Receive into several buffers, with descriptors and credentials."""
    return _recvmsg(task, socket_of(task, fd), message, flags)


@syscall(299, "recvmmsg", "fd", "struct", "uint", "flags", "struct")
def sys_recvmmsg(task: Task, fd: int, vector: int, count: int, flags: int, timeout: int) -> int:
    """Receive several messages; the timeout is looked at after each, as Linux does (BUGS in recvmmsg(2))."""
    from mmuemu.kernel.syscalls.files_poll import timespec

    socket = socket_of(task, fd)
    count = min(count, _UIO_MAX)
    state = task.call_state
    if not isinstance(state, _Messages):
        limit = timespec(task, timeout)
        state = _Messages(0, None if limit is None else task.kernel.clock.now() + limit)
    for number in range(state.messages, count):
        at = vector + number * _MMSGHDR
        wait = s.MSG_DONTWAIT if flags & s.MSG_WAITFORONE and number else 0
        try:
            task.call_state = None
            result = _recvmsg(task, socket, at, flags & ~s.MSG_WAITFORONE | wait)
        except Blocked as blocked:
            state.messages = number
            task.call_state = state
            blocked.progress = number or None
            raise
        except SyscallError:
            if number:
                return number
            raise
        task.memory.write_u32(at + MSGHDR, result)
        if state.deadline is not None and task.kernel.clock.now() >= state.deadline:
            return number + 1
    return count

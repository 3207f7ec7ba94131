"""Control data of messages (cmsg(3)), and socket options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi import socket as s
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.files.sockets.message import Credentials
from mmuemu.kernel.files.sockets.unix import BUFFER, UnixSocket
from mmuemu.kernel.syscalls.table import signed64, syscall

if TYPE_CHECKING:
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.task import Task

_HEADER: Final = 16
"""Bytes of ``struct cmsghdr``: length, level, type."""
_MAX_CONTROL: Final = 1 << 17
_SWITCHES: Final = frozenset(
    {s.SO_DEBUG, s.SO_REUSEADDR, s.SO_DONTROUTE, s.SO_BROADCAST, s.SO_KEEPALIVE, s.SO_OOBINLINE, s.SO_REUSEPORT}
)
_MIN_SEND: Final = 4608
_MIN_RECEIVE: Final = 2304


def socket_of(task: Task, fd: int) -> UnixSocket:
    """The socket behind a descriptor; EBADF, ENOTSOCK."""
    file = task.files.get_opened(fd)
    if not isinstance(file, UnixSocket):
        raise SyscallError(Errno.ENOTSOCK)
    return file


@dataclass(slots=True)
class ControlData:
    """What sendmsg was given besides bytes."""

    rights: tuple[OpenFile, ...] = ()
    credentials: Credentials | None = None


def read_control(task: Task, address: int, length: int) -> ControlData:
    """SCM_RIGHTS and SCM_CREDENTIALS; EINVAL for what is malformed, EBADF, EPERM for another's credentials."""
    if length > _MAX_CONTROL:
        raise SyscallError(Errno.ENOBUFS)
    raw = task.memory.read(address, length)
    found = ControlData()
    at = 0
    while at + _HEADER <= length:
        size = int.from_bytes(raw[at : at + 8], "little")
        level, kind = (int.from_bytes(raw[at + n : at + n + 4], "little", signed=True) for n in (8, 12))
        if size < _HEADER or size > length - at:
            raise SyscallError(Errno.EINVAL)
        body = raw[at + _HEADER : at + size]
        if level == s.SOL_SOCKET:
            if kind == s.SCM_RIGHTS:
                numbers = memoryview(body[: len(body) & ~3]).cast("i").tolist() if len(body) >= 4 else []
                if len(numbers) + len(found.rights) > s.SCM_MAX_FD:
                    raise SyscallError(Errno.EINVAL)
                found.rights += tuple(task.files.get(fd) for fd in numbers)
            elif kind == s.SCM_CREDENTIALS and len(body) == 12:
                found.credentials = _claimed(task, body)
            else:
                raise SyscallError(Errno.EINVAL)
        at += size + 7 & ~7
    return found


def _claimed(task: Task, body: bytes) -> Credentials:
    pid, uid, gid = (int.from_bytes(body[n : n + 4], "little") for n in (0, 4, 8))
    if task.uid and (pid, uid, gid) != (task.pid, task.uid, task.gid):
        raise SyscallError(Errno.EPERM)
    return Credentials(pid, uid, gid)


def _header(size: int, kind: int) -> bytes:
    return (_HEADER + size).to_bytes(8, "little") + s.SOL_SOCKET.to_bytes(4, "little") + kind.to_bytes(4, "little")


def write_control(
    task: Task, address: int, room: int, rights: tuple[OpenFile, ...], credentials: Credentials | None, cloexec: bool
) -> tuple[int, bool]:
    """Store what came along and give passed files descriptors; the bytes used, and whether something did not fit.

    The references that ``rights`` carry are used up.
    """
    used = 0
    cut = False
    room = room if address else 0
    try:
        if credentials is not None:
            piece = _header(12, s.SCM_CREDENTIALS) + credentials.pack()
            if room < _HEADER:
                cut = True
            else:
                task.memory.write(address, piece[:room])
                cut = len(piece) > room
                used = min(len(piece) + 7 & ~7, room)
        if rights:
            more, lost = _write_rights(task, address + used, room - used, rights, cloexec)
            used += more
            cut = cut or lost
    finally:
        for file in rights:
            file.release()
    return used, cut


def _write_rights(task: Task, address: int, room: int, rights: tuple[OpenFile, ...], cloexec: bool) -> tuple[int, bool]:
    fitting = max(room - _HEADER, 0) // 4
    numbers: list[int] = []
    for file in rights[:fitting]:
        try:
            numbers.append(task.files.install(file, cloexec))
        except SyscallError:
            break
    if not numbers:
        return 0, True
    body = b"".join(fd.to_bytes(4, "little") for fd in numbers)
    task.memory.write(address, _header(len(body), s.SCM_RIGHTS) + body)
    return min(_HEADER + len(body) + 7 & ~7, room), len(numbers) < len(rights)


def _timeval(raw: bytes) -> int:
    seconds, microseconds = (signed64(int.from_bytes(raw[n : n + 8], "little")) for n in (0, 8))
    if not 0 <= microseconds < 1_000_000:
        raise SyscallError(Errno.EDOM)
    return seconds * 1_000_000_000 + microseconds * 1000 if seconds >= 0 else 0


@syscall(54, "setsockopt", "fd", "int", "int", "struct", "int")
def sys_setsockopt(task: Task, fd: int, level: int, option: int, value_at: int, length: int) -> int:
    """Set an option of level SOL_SOCKET."""
    socket = socket_of(task, fd)
    if length < 0:
        raise SyscallError(Errno.EINVAL)
    if level != s.SOL_SOCKET:
        raise SyscallError(Errno.EOPNOTSUPP)
    if length < 4:
        raise SyscallError(Errno.EINVAL)
    raw = task.memory.read(value_at, min(length, 16))
    value = int.from_bytes(raw[:4], "little", signed=True)
    if option in (s.SO_RCVTIMEO, s.SO_SNDTIMEO):
        if length < 16:
            raise SyscallError(Errno.EINVAL)
        nanoseconds = _timeval(raw)
        if option == s.SO_RCVTIMEO:
            socket.receive_timeout = nanoseconds
        else:
            socket.send_timeout = nanoseconds
    elif option == s.SO_PASSCRED:
        socket.pass_credentials = bool(value)
    elif option == s.SO_SNDBUF:
        socket.send_buffer = max(min(value & 0xFFFF_FFFF, BUFFER) * 2, _MIN_SEND)
    elif option == s.SO_RCVBUF:
        socket.receive_buffer = max(min(value & 0xFFFF_FFFF, BUFFER) * 2, _MIN_RECEIVE)
    elif option in _SWITCHES:
        socket.options[option] = int(bool(value))
    elif option == s.SO_RCVLOWAT:
        socket.options[option] = 0x7FFF_FFFF if value < 0 else value or 1
    elif option == s.SO_LINGER:
        if length < 8:
            raise SyscallError(Errno.EINVAL)
        socket.options[option] = int.from_bytes(raw[:8], "little")
    else:
        raise SyscallError(Errno.ENOPROTOOPT)
    return 0


def _option(socket: UnixSocket, option: int) -> bytes:
    """An option's value; ENOPROTOOPT for one that sockets here have not."""
    numbers = {
        s.SO_TYPE: socket.kind,
        s.SO_ERROR: socket.error,
        s.SO_SNDBUF: socket.send_buffer,
        s.SO_RCVBUF: socket.receive_buffer,
        s.SO_PASSCRED: int(socket.pass_credentials),
        s.SO_ACCEPTCONN: int(socket.listening),
        s.SO_PROTOCOL: 0,
        s.SO_DOMAIN: s.AF_UNIX,
        s.SO_RCVLOWAT: socket.options.get(option, 1),
        s.SO_SNDLOWAT: 1,
    }
    if option in numbers:
        return numbers[option].to_bytes(4, "little")
    if option in _SWITCHES:
        return socket.options.get(option, 0).to_bytes(4, "little")
    if option == s.SO_LINGER:
        return socket.options.get(option, 0).to_bytes(8, "little")
    if option == s.SO_PEERCRED:
        return socket.peer_credentials.pack()
    if option in (s.SO_RCVTIMEO, s.SO_SNDTIMEO):
        timeout = socket.receive_timeout if option == s.SO_RCVTIMEO else socket.send_timeout
        seconds, rest = divmod(timeout, 1_000_000_000)
        return seconds.to_bytes(8, "little") + (rest // 1000).to_bytes(8, "little")
    raise SyscallError(Errno.ENOPROTOOPT)


@syscall(55, "getsockopt", "fd", "int", "int", "struct", "struct")
def sys_getsockopt(task: Task, fd: int, level: int, option: int, value_at: int, length_at: int) -> int:
    """Read an option of level SOL_SOCKET."""
    socket = socket_of(task, fd)
    if level != s.SOL_SOCKET:
        raise SyscallError(Errno.EOPNOTSUPP)
    room = int.from_bytes(task.memory.read(length_at, 4), "little", signed=True)
    if room < 0:
        raise SyscallError(Errno.EINVAL)
    value = _option(socket, option)[:room]
    if option == s.SO_ERROR:
        socket.error = 0
    task.memory.write(value_at, value)
    task.memory.write_u32(length_at, len(value))
    return 0

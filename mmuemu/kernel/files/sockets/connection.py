"""Making sockets, naming them, and connecting one to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import W_OK
from mmuemu.kernel.abi.socket import AF_UNIX, SOCK_DGRAM, SOCK_STREAM, SOMAXCONN, UNIX_PATH_MAX
from mmuemu.kernel.abi.stat import S_IFSOCK
from mmuemu.kernel.files.naming import make_node
from mmuemu.kernel.files.opening import check
from mmuemu.kernel.files.paths import lookup, resolve
from mmuemu.kernel.files.sockets.message import Credentials
from mmuemu.kernel.files.sockets.packet import PacketSocket
from mmuemu.kernel.files.sockets.stream import StreamSocket
from mmuemu.kernel.files.sockets.unix import SHUT_RECEIVE, SocketNode, UnixSocket

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import Caller, FileSystem
    from mmuemu.kernel.kernel import Kernel


def new_socket(fs: FileSystem, kernel: Kernel, kind: int, credentials: Credentials, flags: int = 0) -> UnixSocket:
    """A socket of one of the three kinds."""
    made = StreamSocket if kind == SOCK_STREAM else PacketSocket
    return made(fs, kernel, kind, credentials, flags)


def join(one: UnixSocket, other: UnixSocket) -> None:
    """Connect two sockets to each other, as socketpair does."""
    one.peer, other.peer = other, one
    one.peer_credentials, other.peer_credentials = other.credentials, one.credentials


def parse_address(raw: bytes) -> bytes:
    """The name in a ``struct sockaddr_un``: an abstract one with its leading NUL, a path, empty for none; EINVAL."""
    if not 2 <= len(raw) <= 2 + UNIX_PATH_MAX or int.from_bytes(raw[:2], "little") != AF_UNIX:
        raise SyscallError(Errno.EINVAL)
    name = raw[2:]
    return name if name[:1] in (b"", b"\0") else name.split(b"\0", 1)[0]


def pack_address(name: bytes | None) -> bytes:
    """The ``struct sockaddr_un`` of a name as sockets keep it."""
    return AF_UNIX.to_bytes(2, "little") + (name or b"")


def bind(caller: Caller, socket: UnixSocket, name: bytes) -> None:
    """Give a socket a name, an abstract one of five digits when ``name`` is empty; EADDRINUSE, EINVAL."""
    names = socket.names
    if socket.address is not None:
        if name[:1] not in (b"", b"\0") and _taken(caller, name):
            raise SyscallError(Errno.EADDRINUSE)
        if name:
            raise SyscallError(Errno.EINVAL)
        return
    if not name:
        number = next(n for n in range(1 << 20) if b"\0%05x" % n not in names)
        name = b"\0%05x" % number
    if name[:1] == b"\0":
        if name in names:
            raise SyscallError(Errno.EADDRINUSE)
        names[name] = socket
        socket.address = name
        return
    try:
        make_node(caller, name, S_IFSOCK | 0o777)
    except SyscallError as error:
        raise SyscallError(Errno.EADDRINUSE if error.errno is Errno.EEXIST else error.errno) from None
    node = lookup(caller, name, follow=False)
    assert isinstance(node, SocketNode)
    node.socket = socket
    socket.node = node
    socket.address = name + b"\0"


def _taken(caller: Caller, path: bytes) -> bool:
    return resolve(caller, path, follow=False).inode is not None


def find(caller: Caller, fs: FileSystem, name: bytes, kind: int) -> UnixSocket:
    """The socket called ``name``; ECONNREFUSED when none is there, EPROTOTYPE for one of another type."""
    if not name:
        raise SyscallError(Errno.EINVAL)
    if name[:1] == b"\0":
        found = fs.sockets.get(name)
    else:
        node = lookup(caller, name)
        check(caller, node, W_OK)
        found = node.socket if isinstance(node, SocketNode) else None
    if found is None:
        raise SyscallError(Errno.ECONNREFUSED)
    if found.kind != kind:
        raise SyscallError(Errno.EPROTOTYPE)
    return found


def listen(socket: UnixSocket, backlog: int, credentials: Credentials) -> None:
    """Wait for connections; EOPNOTSUPP for datagrams, EINVAL without a name or when connected."""
    if socket.kind == SOCK_DGRAM:
        raise SyscallError(Errno.EOPNOTSUPP)
    if socket.address is None or socket.peer is not None:
        raise SyscallError(Errno.EINVAL)
    socket.listening = True
    socket.backlog = min(backlog & 0xFFFF_FFFF, SOMAXCONN)
    socket.credentials = credentials
    socket.queue.wake()


def connect(socket: UnixSocket, target: UnixSocket, credentials: Credentials) -> None:
    """Connect to a listening socket; sleeps while its backlog is full. Datagrams: choose whom to talk to."""
    if socket.kind == SOCK_DGRAM:
        if target.peer is not None and target.peer is not socket:
            raise SyscallError(Errno.EPERM)
        socket.peer = target
        return
    if socket.listening:
        raise SyscallError(Errno.EINVAL)
    if not target.listening or target.dead or target.shut & SHUT_RECEIVE:
        raise SyscallError(Errno.ECONNREFUSED)
    if socket.peer is not None:
        raise SyscallError(Errno.EISCONN)
    if len(target.pending) > target.backlog:
        socket.block(target.queue, 0, socket.send_timeout)
    embryo = new_socket(socket.inode.fs, socket.kernel, socket.kind, target.credentials)
    embryo.taken = False
    embryo.address = target.address
    socket.credentials = credentials
    join(socket, embryo)
    target.pending.append(embryo)
    target.queue.wake()
    socket.queue.wake()


def accept(socket: UnixSocket, flags: int) -> UnixSocket:
    """The next connection; EINVAL when it does not listen, EOPNOTSUPP for datagrams."""
    if socket.kind == SOCK_DGRAM:
        raise SyscallError(Errno.EOPNOTSUPP)
    if not socket.listening:
        raise SyscallError(Errno.EINVAL)
    if not socket.pending:
        if socket.shut & SHUT_RECEIVE:
            raise SyscallError(Errno.EINVAL)
        socket.block(socket.queue, 0, socket.receive_timeout)
    found = socket.pending.popleft()
    found.taken = True
    found.flags |= flags
    socket.queue.wake()
    return found

"""Descriptors of host files: opened when needed, without following links, and only so many at a time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakSet

from mmuemu.kernel.abi.errno import Errno, SyscallError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

DEFAULT_OPEN: Final = 96
"""How many host files are kept open besides pinned ones."""

NO_FOLLOW: Final = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
)
DIRECTORY: Final = getattr(os, "O_DIRECTORY", 0)
SEARCH: Final = getattr(os, "O_PATH", os.O_RDONLY) | DIRECTORY
"""Open a directory to look names up in it; with O_PATH search permission is enough."""


def guest_error(error: OSError) -> SyscallError:
    """A host failure as the guest's errno, by name, since numbers differ between hosts."""
    import errno

    name = errno.errorcode.get(error.errno or 0, "EIO")
    if name in ("EMFILE", "ENFILE"):
        return SyscallError(Errno.ENFILE)
    return SyscallError(Errno.__members__.get(name, Errno.EIO))


def raise_guest(error: OSError) -> NoReturn:
    """Raise ``error`` as the guest sees it."""
    raise guest_error(error) from error


class Located(Protocol):
    """A host file that can be opened again: the directory it lies in, its name there and its identity."""

    host_dir: HasDescriptor | None
    host_name: bytes
    host_id: tuple[int, int]


class HasDescriptor(Protocol):
    """A host directory."""

    def host_fd(self) -> int:
        """A descriptor for ``dir_fd=`` calls, valid until the next host file is opened."""


class HostDescriptors:
    """The pool: the oldest descriptor is closed when there are ``limit`` of them."""

    def __init__(self, limit: int = DEFAULT_OPEN) -> None:
        self.limit = limit
        self._open: dict[HostHandle, None] = {}
        self._lasting: WeakSet[HostHandle] = WeakSet()
        """Those that are never closed for lack of room."""

    def __len__(self) -> int:
        return len(self._open)

    def add(self, handle: HostHandle) -> None:
        """Keep ``handle`` open, closing the oldest when there are too many."""
        while len(self._open) >= self.limit:
            next(iter(self._open)).close()
        self._open[handle] = None

    def last(self, handle: HostHandle) -> None:
        """Keep ``handle`` open as long as somebody has it."""
        self._open.pop(handle, None)
        self._lasting.add(handle)

    def forget(self, handle: HostHandle) -> None:
        """``handle`` is closed."""
        self._open.pop(handle, None)

    def close(self) -> None:
        """Close everything that is opened again on demand."""
        for handle in list(self._open):
            handle.close()

    def close_for_good(self) -> None:
        """Close the lasting ones, too: nobody looks at files any more."""
        self.close()
        for handle in list(self._lasting):
            handle.close()


class HostHandle:
    """One host descriptor of one file, opened again on demand: below its directory, never through a link.

    ``node`` gives the file; for regular files it is a weak reference, so that a file nobody has open goes at once.
    """

    __slots__ = ("__weakref__", "_flags", "_node", "_pool", "fd")

    def __init__(self, pool: HostDescriptors, node: Callable[[], Located | None], flags: int) -> None:
        self._pool = pool
        self._node = node
        self._flags = flags | NO_FOLLOW
        self.fd = -1

    def __del__(self) -> None:
        if self.fd >= 0:
            self.close()

    def get(self) -> int:
        """The descriptor; SyscallError when the host refuses, ESTALE when another file has the name now."""
        fd = self.fd
        return fd if fd >= 0 else self._reopen()

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes of the file from ``offset``; a large count makes no larger buffer than the file."""
        fd = self.fd
        if fd < 0:
            fd = self._reopen()
        try:
            if count > 65536:
                count = min(count, max(os.fstat(fd).st_size - offset, 0))
            return os.pread(fd, count, offset)
        except OSError as error:
            raise_guest(error)

    def _reopen(self) -> int:
        node = self._node()
        if node is None or node.host_dir is None:
            raise SyscallError(Errno.ESTALE)
        directory = node.host_dir.host_fd()
        try:
            fd = os.open(node.host_name, self._flags, dir_fd=directory)
        except OSError as error:
            raise_guest(error)
        st = os.fstat(fd)
        if (st.st_dev, st.st_ino) != node.host_id:
            os.close(fd)
            raise SyscallError(Errno.ESTALE)
        self.fd = fd
        self._pool.add(self)
        return fd

    def keep(self, fd: int) -> None:
        """Use ``fd``, opened elsewhere, until there are too many."""
        self.close()
        self.fd = fd
        self._pool.add(self)

    def adopt(self, fd: int) -> None:
        """Use ``fd``, opened elsewhere, for good."""
        self.close()
        self.fd = fd
        self._pool.last(self)

    def pin(self) -> bool:
        """Keep the descriptor as long as the inode (its name is about to be removed); False if it cannot be."""
        try:
            self.get()
        except SyscallError:
            return False
        self._pool.last(self)
        return True

    def close(self) -> None:
        """Close the descriptor; :meth:`get` opens it again."""
        self._pool.forget(self)
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

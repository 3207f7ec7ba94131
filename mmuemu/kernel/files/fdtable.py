"""The descriptor table of a process: small numbers to open file descriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import O_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmuemu.kernel.files.openfile import OpenFile

DEFAULT_LIMIT: Final = 1024
"""RLIMIT_NOFILE's usual soft limit."""


class FdTable:
    """Descriptors 0 to ``limit`` - 1. The lowest free one is always given (POSIX)."""

    __slots__ = ("__weakref__", "_files", "_lowest", "cloexec", "limit", "users")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._files: dict[int, OpenFile] = {}
        self._lowest = 0
        self.cloexec: set[int] = set()
        self.limit = limit
        self.users = 1
        """How many tasks share this table (CLONE_FILES)."""

    def acquire(self) -> FdTable:
        """One more task shares the table."""
        self.users += 1
        return self

    def release(self) -> None:
        """A task that shared the table has ended or has its own now; the last one closes everything."""
        self.users -= 1
        if self.users == 0:
            self.close_all()

    def opened(self) -> list[OpenFile]:
        """The descriptions behind all descriptors."""
        return list(self._files.values())

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._files))

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, fd: int) -> bool:
        return fd in self._files

    def get(self, fd: int) -> OpenFile:
        """The description behind ``fd``; EBADF if there is none."""
        file = self._files.get(fd)
        if file is None:
            raise SyscallError(Errno.EBADF)
        return file

    def get_opened(self, fd: int) -> OpenFile:
        """As :meth:`get`, and EBADF for an O_PATH descriptor, which gives no access to the file."""
        file = self._files.get(fd)
        if file is None or file.flags & O_PATH:
            raise SyscallError(Errno.EBADF)
        return file

    def lowest_free(self, minimum: int = 0) -> int:
        """The lowest free descriptor from ``minimum`` on; EMFILE when there is none below the limit."""
        files = self._files
        fd = max(minimum, self._lowest)
        while fd in files:
            fd += 1
        if minimum <= self._lowest:
            self._lowest = fd
        if fd >= self.limit:
            raise SyscallError(Errno.EMFILE)
        return fd

    def install(self, file: OpenFile, cloexec: bool = False, minimum: int = 0) -> int:
        """Give ``file`` the lowest free descriptor and return it; EMFILE, ENFILE (then a new file is dropped)."""
        fd = self.lowest_free(minimum)
        self._files[fd] = file.acquire()
        if cloexec:
            self.cloexec.add(fd)
        return fd

    def install_at(self, fd: int, file: OpenFile, cloexec: bool = False) -> int:
        """Make ``fd`` stand for ``file``, closing what it stood for; EBADF outside the table."""
        if not 0 <= fd < self.limit:
            raise SyscallError(Errno.EBADF)
        file.acquire()
        old = self._files.get(fd)
        self._files[fd] = file
        if cloexec:
            self.cloexec.add(fd)
        else:
            self.cloexec.discard(fd)
        if old is not None:
            self._closed(old)
        return fd

    def _closed(self, file: OpenFile) -> None:
        """A descriptor for ``file`` is gone, and so are all record locks of this table on it (fcntl(2))."""
        locks = file.inode.locks
        if locks is not None:
            locks.remove_owner(self)
        file.release()

    def close(self, fd: int) -> None:
        """Free ``fd``; EBADF if it is free."""
        file = self._files.pop(fd, None)
        if file is None:
            raise SyscallError(Errno.EBADF)
        self.cloexec.discard(fd)
        if fd < self._lowest:
            self._lowest = fd
        self._closed(file)

    def dup(self, fd: int, minimum: int = 0, cloexec: bool = False) -> int:
        """The lowest free descriptor from ``minimum`` on, for the same description."""
        file = self.get(fd)
        if not 0 <= minimum < self.limit:
            raise SyscallError(Errno.EINVAL)
        return self.install(file, cloexec, minimum)

    def dup2(self, old: int, new: int) -> int:
        """Make ``new`` a duplicate of ``old``."""
        file = self.get(old)
        if old == new:
            return new
        return self.install_at(new, file)

    def dup3(self, old: int, new: int, cloexec: bool) -> int:
        """As :meth:`dup2`, but EINVAL for equal descriptors."""
        if old == new:
            raise SyscallError(Errno.EINVAL)
        return self.install_at(new, self.get(old), cloexec)

    def clone(self) -> FdTable:
        """The table a forked process gets: its own numbers, the same descriptions."""
        table = FdTable(self.limit)
        table._files = {fd: file.acquire() for fd, file in self._files.items()}
        table._lowest = self._lowest
        table.cloexec = set(self.cloexec)
        return table

    def close_on_exec(self) -> None:
        """Close what execve(2) closes."""
        for fd in sorted(self.cloexec):
            self.close(fd)

    def close_all(self) -> None:
        """Close everything, as exit does."""
        for fd in sorted(self._files):
            self.close(fd)

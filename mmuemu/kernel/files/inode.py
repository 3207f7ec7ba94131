"""Inodes: what a name in the guest's tree stands for, and the operations every kind of it shares.

The base classes refuse everything a kind does not allow with the errno Linux gives; kinds override what they
allow. Names are bytes; a directory never sees ``.``, ``..`` or a slash, path resolution keeps those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.stat import (
    PERMISSIONS,
    PROC_SUPER_MAGIC,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    Stat,
    StatFs,
    dirent_type,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmuemu.kernel.files.context import FsContext
    from mmuemu.kernel.files.fdtable import FdTable
    from mmuemu.kernel.files.inotify import Watch
    from mmuemu.kernel.files.locks import FileLocks
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.files.sockets.unix import UnixSocket


MAX_FILES: Final = 1 << 16
"""Open file descriptions of a whole machine (/proc/sys/fs/file-max)."""


class Caller(Protocol):
    """What path resolution needs of the calling task."""

    @property
    def pid(self) -> int:
        """The process's number."""

    uid: int
    gid: int
    fs: FsContext
    files: FdTable
    call_state: object
    """What a call that slept remembers."""


class Mapping(Protocol):
    """The page cache of a mapped file, kept coherent with reads and writes (set by the memory manager)."""

    def overlay(self, offset: int, data: bytes) -> bytes:
        """``data`` read at ``offset`` with the bytes of cached pages in place of it."""

    def written(self, offset: int, data: bytes) -> None:
        """``data`` was written at ``offset``."""

    def truncated(self, size: int) -> None:
        """The file now has ``size`` bytes."""


class FileSystem:
    """One mounted file system: its device number, its inode numbers, its clock and the room it may take.

    ``clock`` gives nanoseconds since the epoch; ``limit`` bounds the bytes kept in memory (ENOSPC beyond).
    """

    def __init__(self, name: str, magic: int, dev: int, clock: Callable[[], int], quota: Quota, flags: int = 0) -> None:
        self.name = name
        self.magic = magic
        self.dev = dev
        self.clock = clock
        self.quota = quota
        self.flags = flags
        self.root: Inode | None = None
        self.covers: Inode | None = None
        """The inode this file system is mounted over; None at the top of the tree."""
        self._next_ino = 1
        self.watched = 0
        """How many watches inotify has on inodes of it."""
        self.sockets: dict[bytes, UnixSocket] = {}
        """The abstract names of sockets (on pipefs, where all sockets live)."""

    def new_ino(self) -> int:
        """An inode number nobody in this file system has."""
        ino = self._next_ino
        self._next_ino = ino + 1
        return ino

    def statfs(self) -> StatFs:
        """The figures of ``statfs(2)``."""
        if self.magic == PROC_SUPER_MAGIC:
            return StatFs(self.magic, 4096, 0, 0, 0, 0, self.flags)
        free = max(self.quota.limit - self.quota.used, 0)
        return StatFs(self.magic, 4096, self.quota.limit >> 12, free >> 12, 1 << 20, 1 << 19, self.flags)


class Quota:
    """How many bytes in-memory files may take together, and how many files may be open."""

    __slots__ = ("era", "files", "limit", "lost", "max_files", "used")

    def __init__(self, limit: int, max_files: int = MAX_FILES) -> None:
        self.limit = limit
        self.used = 0
        self.max_files = max_files
        self.files = 0
        self.era = 0
        """Goes up with each snapshot of the machine and each return to one."""
        self.lost: tuple[tuple[int, int], ...] = ()
        """(last era before, last era of it) for each stretch of time that was taken back."""

    def next_era(self) -> tuple[int, tuple[tuple[int, int], ...]]:
        """A snapshot is taken: what :meth:`go_back` wants to return to it."""
        state = self.era, self.lost
        self.era += 1
        return state

    def go_back(self, era: int, lost: tuple[tuple[int, int], ...]) -> None:
        """Everything made since then was never made."""
        self.lost = (*lost, (era, self.era))
        self.era += 1

    def is_lost(self, era: int) -> bool:
        """Whether what was made in ``era`` was taken back: its end is then nothing to this machine."""
        return any(before < era <= last for before, last in self.lost)

    @property
    def full(self) -> bool:
        """Whether no file more may be open."""
        return self.files >= self.max_files

    def open_file(self) -> None:
        """One more open file description, or ENFILE."""
        if self.files >= self.max_files:
            raise SyscallError(Errno.ENFILE)
        self.files += 1

    def charge(self, count: int) -> None:
        """Take ``count`` bytes (negative: give back), or raise ENOSPC."""
        used = self.used + count
        if count > 0 and used > self.limit:
            raise SyscallError(Errno.ENOSPC)
        self.used = used


class Inode:
    """A file of any kind. ``mode`` holds type and permission bits; times are in nanoseconds."""

    __slots__ = (
        "__weakref__",
        "atime_ns",
        "ctime_ns",
        "fs",
        "gid",
        "ino",
        "linkable",
        "locks",
        "mapping",
        "mode",
        "mounted",
        "mtime_ns",
        "nlink",
        "opens",
        "place",
        "uid",
        "watches",
        "write_count",
    )

    seekable = False

    def __init__(
        self, fs: FileSystem, mode: int, uid: int = 0, gid: int = 0, ino: int = 0, now: int | None = None
    ) -> None:
        self.fs = fs
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.ino = ino or fs.new_ino()
        self.nlink = 1
        self.atime_ns = self.mtime_ns = self.ctime_ns = fs.clock() if now is None else now
        self.mapping: Mapping | None = None
        self.mounted: Inode | None = None
        """The root of the file system mounted over this inode."""
        self.place: tuple[Directory, bytes] | None = None
        """The directory and name this inode was last reached by."""
        self.locks: FileLocks | None = None
        """Who has locked what of it; None while nobody ever has."""
        self.linkable = False
        """Whether it may be given a name though it has none (O_TMPFILE without O_EXCL)."""
        self.opens = 0
        """Open file descriptions of it."""
        self.watches: list[Watch] | None = None
        """Who watches it (inotify(7)); None while nobody ever has."""
        self.write_count = 0
        """Descriptions open for writing or, negative, programs that run from it (Linux's ``i_writecount``)."""

    @property
    def dev(self) -> int:
        """The device number ``stat`` shows."""
        return self.fs.dev

    @property
    def rdev(self) -> int:
        """The device this inode stands for, 0 for a file that is no device."""
        return 0

    @property
    def size(self) -> int:
        """The size ``stat`` shows, in bytes."""
        return 0

    @property
    def blocks(self) -> int:
        """Storage taken, in units of 512 bytes."""
        return 0

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return self.mode & S_IFMT == S_IFDIR

    @property
    def is_symlink(self) -> bool:
        """Whether this is a symbolic link."""
        return self.mode & S_IFMT == S_IFLNK

    @property
    def is_regular(self) -> bool:
        """Whether this is a regular file."""
        return self.mode & S_IFMT == S_IFREG

    @property
    def kind(self) -> int:
        """The DT_* value of a directory entry."""
        return dirent_type(self.mode)

    def stat(self) -> Stat:
        """What ``stat(2)`` says."""
        return Stat(
            self.dev, self.ino, self.mode, self.nlink, self.uid, self.gid, self.rdev, self.size, self.blocks,
            self.atime_ns, self.mtime_ns, self.ctime_ns,
        )  # fmt: skip

    def permits(self, uid: int, gid: int, want: int) -> bool:
        """Whether ``uid``/``gid`` may do ``want`` (R_OK, W_OK, X_OK), as fs/namei.c: acl_permission_check."""
        mode = self.mode
        if uid == 0:
            return not want & 1 or mode & S_IFMT == S_IFDIR or bool(mode & 0o111)
        if uid == self.uid:
            mode >>= 6
        elif gid == self.gid:
            mode >>= 3
        return mode & want == want

    def set_mode(self, permissions: int) -> None:
        """Change the permission bits."""
        self.mode = self.mode & ~PERMISSIONS | permissions & PERMISSIONS
        self.ctime_ns = self.fs.clock()

    def set_owner(self, uid: int, gid: int) -> None:
        """Change owner and group; -1 keeps one."""
        self.uid = self.uid if uid < 0 else uid
        self.gid = self.gid if gid < 0 else gid
        self.ctime_ns = self.fs.clock()

    def set_times(self, atime_ns: int | None, mtime_ns: int | None) -> None:
        """Change the access and modification times; None keeps one."""
        if atime_ns is not None:
            self.atime_ns = atime_ns
        if mtime_ns is not None:
            self.mtime_ns = mtime_ns
        self.ctime_ns = self.fs.clock()

    def linked(self, change: int) -> None:
        """The number of names changed by ``change``."""
        self.nlink += change
        self.ctime_ns = self.fs.clock()

    def get_write_access(self) -> None:
        """One more writer; ETXTBSY while a program runs from this file."""
        if self.write_count < 0:
            raise SyscallError(Errno.ETXTBSY)
        self.write_count += 1

    def deny_write_access(self) -> None:
        """A program starts to run from this file (undone by :meth:`allow_write_access`); ETXTBSY with writers."""
        if self.write_count > 0:
            raise SyscallError(Errno.ETXTBSY)
        self.write_count -= 1

    def allow_write_access(self) -> None:
        """A program runs from this file no more."""
        self.write_count += 1

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """A new open file description; permissions were checked before."""
        raise SyscallError(Errno.ENXIO)

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset``; shorter only at the end of the file."""
        raise SyscallError(Errno.EISDIR if self.is_directory else Errno.EINVAL)

    def write_at(self, offset: int, data: bytes) -> int:
        """Write ``data`` at ``offset`` and return how much was written."""
        raise SyscallError(Errno.EISDIR if self.is_directory else Errno.EINVAL)

    def truncate(self, size: int) -> None:
        """Make the file ``size`` bytes long."""
        raise SyscallError(Errno.EISDIR if self.is_directory else Errno.EINVAL)


class Symlink(Inode):
    """A symbolic link with a fixed target."""

    __slots__ = ("target",)

    def __init__(self, fs: FileSystem, target: bytes, uid: int = 0, gid: int = 0, now: int | None = None) -> None:
        super().__init__(fs, S_IFLNK | 0o777, uid, gid, now=now)
        self.target = target

    @property
    def size(self) -> int:
        """The length of the target."""
        return len(self.target)

    def read_link(self, caller: Caller) -> bytes:
        """The target's text."""
        return self.target

    def jump(self, caller: Caller) -> Inode | None:
        """The inode a /proc "magic" link leads to without its text being walked; None for ordinary links."""
        return None


class Directory(Inode):
    """A directory: names to inodes. The mutators are refused unless a kind allows them."""

    __slots__ = ()

    @property
    def parent(self) -> Directory:
        """The directory above in the same file system (itself at its root)."""
        return self.place[0] if self.place is not None else self

    def lookup(self, name: bytes) -> Inode | None:
        """The inode called ``name``, or None."""
        raise NotImplementedError

    def entries(self) -> list[tuple[bytes, int, int]]:
        """Every entry but ``.`` and ``..`` as (name, inode number, DT_* kind)."""
        raise NotImplementedError

    def find(self, name: bytes, caller: Caller) -> Inode | None:
        """:meth:`lookup` for a caller (what /proc shows depends on who looks)."""
        return self.lookup(name)

    def holds(self, name: bytes, inode: Inode) -> bool:
        """Whether ``name`` still stands for ``inode``."""
        try:
            return self.lookup(name) is inode
        except SyscallError:
            return False

    def list(self, caller: Caller) -> list[tuple[bytes, int, int]]:
        """:meth:`entries` for a caller."""
        return self.entries()

    def is_empty(self) -> bool:
        """Whether ``rmdir`` may remove it."""
        return not self.entries()

    def removed(self) -> None:
        """``rmdir`` took this directory's name: it is empty and stays so."""
        self.nlink = 0

    def refuse(self) -> Errno:
        """Why nothing can be created, removed or renamed here."""
        return Errno.EPERM

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """A description that lists this directory."""
        from mmuemu.kernel.files.openfile import OpenDirectory

        return OpenDirectory(self, flags)

    def create(self, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        """Make a file; ``mode`` is S_IFREG or S_IFIFO with permission bits (umask already applied)."""
        raise SyscallError(self.refuse())

    def create_unnamed(self, mode: int, uid: int, gid: int) -> Inode:
        """Make a regular file without a name (O_TMPFILE)."""
        raise SyscallError(Errno.EOPNOTSUPP)

    def mkdir(self, name: bytes, mode: int, uid: int, gid: int) -> Directory:
        """Make a directory."""
        raise SyscallError(self.refuse())

    def symlink(self, name: bytes, target: bytes, uid: int, gid: int) -> Inode:
        """Make a symbolic link to ``target``."""
        raise SyscallError(self.refuse())

    def link(self, name: bytes, inode: Inode) -> None:
        """Give ``inode``, of this file system, the further name ``name``."""
        raise SyscallError(self.refuse())

    def unlink(self, name: bytes, inode: Inode) -> None:
        """Remove ``name``, which is ``inode`` and no directory."""
        raise SyscallError(self.refuse())

    def rmdir(self, name: bytes, inode: Directory) -> None:
        """Remove the empty directory ``inode`` called ``name``."""
        raise SyscallError(self.refuse())

    def rename(
        self,
        name: bytes,
        inode: Inode,
        target: Directory,
        new_name: bytes,
        replaced: Inode | None,
        exchange: bool,
    ) -> None:
        """Move ``name`` to ``target``/``new_name``, replacing or exchanging with ``replaced``."""
        raise SyscallError(self.refuse())

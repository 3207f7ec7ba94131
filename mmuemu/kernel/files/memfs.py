"""Files and directories in memory (tmpfs), and how a directory's changes are kept there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import MAX_FILE_SIZE
from mmuemu.kernel.abi.stat import PERMISSIONS, S_IFDIR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK, S_ISGID, S_ISUID
from mmuemu.kernel.files.content import Content
from mmuemu.kernel.files.inode import Caller, Directory, FileSystem, Inode, Symlink
from mmuemu.kernel.files.openfile import OpenRegular

if TYPE_CHECKING:
    from mmuemu.kernel.files.openfile import OpenFile


NAME_COST = 1024
"""What a name and its inode are taken to cost in memory, so that empty files are bounded too."""


class RegularInode(Inode):
    """A regular file whose bytes may be in memory (``content``) or come from elsewhere until written."""

    __slots__ = ("content", "label", "seals")

    seekable = True

    def __init__(
        self, fs: FileSystem, mode: int, uid: int = 0, gid: int = 0, ino: int = 0, now: int | None = None
    ) -> None:
        super().__init__(fs, S_IFREG | mode & PERMISSIONS, uid, gid, ino, now)
        self.content: Content | None = None
        self.seals: int | None = None
        """F_SEAL_* bits of a memfd; None where sealing is not possible."""
        self.label: bytes | None = None
        """What stands for the path of a file that never had one."""

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """A description with an offset."""
        return OpenRegular(self, flags)

    def store(self) -> Content:
        """The in-memory bytes, made on first use."""
        if self.content is None:
            self.content = Content(self.fs.quota)
        return self.content

    @property
    def size(self) -> int:
        """The file's length in bytes."""
        return self.content.size if self.content is not None else 0

    @property
    def blocks(self) -> int:
        """Memory taken, in 512-byte units of whole pages."""
        return ((self.content.stored + 4095) >> 12) << 3 if self.content is not None else 0

    def read_raw(self, offset: int, count: int) -> bytes:
        """The stored bytes, without those only a mapping has."""
        return self.content.read(offset, count) if self.content is not None else b""

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset``, as reads and mappings see them."""
        data = self.read_raw(offset, count)
        return data if self.mapping is None else self.mapping.overlay(offset, data)

    def write_at(self, offset: int, data: bytes) -> int:
        """Write as much as there is room for; EFBIG past the largest offset, ENOSPC when full."""
        if offset + len(data) > MAX_FILE_SIZE:
            if offset >= MAX_FILE_SIZE:
                raise SyscallError(Errno.EFBIG)
            data = data[: MAX_FILE_SIZE - offset]
        done = self.store().write(offset, data)
        if self.mode & (S_ISUID | S_ISGID):
            self.mode &= ~S_ISUID if self.mode & 0o10 == 0 else ~(S_ISUID | S_ISGID)
        self.mtime_ns = self.ctime_ns = self.fs.clock()
        if self.mapping is not None:
            self.mapping.written(offset, data[:done])
        return done

    def truncate(self, size: int) -> None:
        """Set the length."""
        self.store().truncate(size)
        self.mtime_ns = self.ctime_ns = self.fs.clock()
        if self.mapping is not None:
            self.mapping.truncated(size)

    def punch(self, offset: int, count: int) -> None:
        """Make a range zeros without changing the size."""
        self.store().punch(offset, count)
        self.mtime_ns = self.ctime_ns = self.fs.clock()
        if self.mapping is not None:
            end = min(offset + count, self.size)
            for at in range(offset, end, 1 << 20):
                self.mapping.written(at, bytes(min(1 << 20, end - at)))

    def data_from(self, offset: int) -> int:
        """SEEK_DATA."""
        return self.content.data_from(offset) if self.content is not None else self.size

    def hole_from(self, offset: int) -> int:
        """SEEK_HOLE."""
        return self.content.hole_from(offset) if self.content is not None else self.size


class MemoryFile(RegularInode):
    """A regular file in memory."""

    __slots__ = ()

    def __init__(self, fs: FileSystem, mode: int, uid: int = 0, gid: int = 0, data: bytes = b"") -> None:
        super().__init__(fs, mode, uid, gid)
        if data:
            self.store().write(0, data)


class MemorySymlink(Symlink):
    """A symbolic link in memory, its text charged to the file system."""

    __slots__ = ("_era",)

    def __init__(self, fs: FileSystem, target: bytes, uid: int = 0, gid: int = 0) -> None:
        self.target = b""
        self.fs = fs
        self._era = fs.quota.era
        fs.quota.charge(len(target))
        super().__init__(fs, target, uid, gid)

    def __del__(self) -> None:
        if hasattr(self, "fs") and not self.fs.quota.is_lost(self._era):
            self.fs.quota.used -= len(self.target)


class VolatileDirectory(Directory):
    """A directory whose changes are kept in memory; kinds say how a name is set and removed."""

    __slots__ = ()

    def put(self, name: bytes, inode: Inode) -> None:
        """Make ``name`` stand for ``inode``."""
        raise NotImplementedError

    def drop(self, name: bytes) -> None:
        """Make ``name`` stand for nothing."""
        raise NotImplementedError

    def touched(self) -> None:
        """The set of names changed."""
        self.mtime_ns = self.ctime_ns = self.fs.clock()

    def subdirectories(self, change: int) -> None:
        """A subdirectory came or went: its ``..`` is a link to this directory."""
        self.nlink += change

    def _alive(self) -> None:
        if self.nlink == 0:
            raise SyscallError(Errno.ENOENT)

    def _add(self, name: bytes, inode: Inode) -> None:
        self._alive()
        self.put(name, inode)
        inode.place = (self, name)
        self.touched()

    def create(self, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        """Make a regular file, a named pipe or a socket's name."""
        inode: Inode
        if mode & S_IFMT == S_IFIFO:
            from mmuemu.kernel.files.pipe import PipeInode

            inode = PipeInode(self.fs, mode, uid, gid)
        elif mode & S_IFMT == S_IFSOCK:
            from mmuemu.kernel.files.sockets.unix import SocketNode

            inode = SocketNode(self.fs, mode, uid, gid)
        else:
            inode = MemoryFile(self.fs, mode, uid, gid)
        self._add(name, inode)
        return inode

    def create_unnamed(self, mode: int, uid: int, gid: int) -> Inode:
        """Make a regular file without a name."""
        self._alive()
        inode = MemoryFile(self.fs, mode, uid, gid)
        inode.nlink = 0
        inode.place = (self, b"#%d" % inode.ino)
        return inode

    def mkdir(self, name: bytes, mode: int, uid: int, gid: int) -> Directory:
        """Make a directory."""
        self._alive()
        inode = MemoryDirectory(self.fs, mode, uid, gid)
        self._add(name, inode)
        self.subdirectories(1)
        return inode

    def symlink(self, name: bytes, target: bytes, uid: int, gid: int) -> Inode:
        """Make a symbolic link."""
        inode = MemorySymlink(self.fs, target, uid, gid)
        self._add(name, inode)
        return inode

    def link(self, name: bytes, inode: Inode) -> None:
        """Add a name."""
        self._add(name, inode)
        inode.linked(1)

    def unlink(self, name: bytes, inode: Inode) -> None:
        """Remove a name."""
        self.drop(name)
        self.touched()
        inode.linked(-1)

    def rmdir(self, name: bytes, inode: Directory) -> None:
        """Remove an empty directory."""
        self.drop(name)
        self.touched()
        self.subdirectories(-1)
        inode.removed()

    def rename(
        self,
        name: bytes,
        inode: Inode,
        target: Directory,
        new_name: bytes,
        replaced: Inode | None,
        exchange: bool,
    ) -> None:
        """Move or exchange; permission, emptiness and ancestry were checked."""
        if not isinstance(target, VolatileDirectory):
            raise SyscallError(Errno.EXDEV)
        target._alive()
        if exchange and replaced is not None:
            self.put(name, replaced)
            replaced.place = (self, name)
            self._moved(replaced, target, self)
        else:
            if isinstance(replaced, Directory):
                target.rmdir(new_name, replaced)
            elif replaced is not None:
                target.unlink(new_name, replaced)
        target.put(new_name, inode)
        if not exchange:
            self.drop(name)
        inode.place = (target, new_name)
        self._moved(inode, self, target)
        self.touched()
        target.touched()
        inode.linked(0)

    @staticmethod
    def _moved(inode: Inode, source: VolatileDirectory, target: VolatileDirectory) -> None:
        if inode.is_directory and source is not target:
            source.subdirectories(-1)
            target.subdirectories(1)


class MemoryDirectory(VolatileDirectory):
    """A directory in memory."""

    __slots__ = ("names",)

    def __init__(self, fs: FileSystem, mode: int, uid: int = 0, gid: int = 0) -> None:
        super().__init__(fs, S_IFDIR | mode & PERMISSIONS, uid, gid)
        self.nlink = 2
        self.names: dict[bytes, Inode] = {}

    @property
    def size(self) -> int:
        """tmpfs counts 20 bytes an entry (mm/shmem.c: BOGO_DIRENT_SIZE), and two entries when empty."""
        return 40 + 20 * len(self.names)

    def lookup(self, name: bytes) -> Inode | None:
        """The inode called ``name``."""
        return self.names.get(name)

    def entries(self) -> list[tuple[bytes, int, int]]:
        """Every entry in the order of creation."""
        return [(name, inode.ino, inode.kind) for name, inode in self.names.items()]

    def is_empty(self) -> bool:
        """Whether it has no entries."""
        return not self.names

    def put(self, name: bytes, inode: Inode) -> None:
        """Set a name."""
        if name not in self.names:
            self.fs.quota.charge(NAME_COST)
        self.names[name] = inode

    def drop(self, name: bytes) -> None:
        """Remove a name."""
        del self.names[name]
        self.fs.quota.used -= NAME_COST

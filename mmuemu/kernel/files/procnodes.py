"""The nodes /proc is made of: texts made when they are read, links that lead where they say, directories."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import SEEK_END
from mmuemu.kernel.abi.stat import S_IFDIR, S_IFLNK, S_IFREG
from mmuemu.kernel.files.inode import Caller, Directory, FileSystem, Inode, Symlink
from mmuemu.kernel.files.openfile import OpenFile, moved_offset

if TYPE_CHECKING:
    from collections.abc import Callable

N = TypeVar("N", bound=Inode)


class ProcFile(Inode):
    """A text that is made when the file is read."""

    __slots__ = ("store", "text")

    seekable = True

    def __init__(
        self,
        fs: FileSystem,
        text: Callable[[], bytes],
        mode: int = 0o444,
        store: Callable[[bytes, Caller], None] | None = None,
    ) -> None:
        """``store`` takes what is written, and from whom; without it nothing can be."""
        super().__init__(fs, S_IFREG | mode)
        self.text = text
        self.store = store

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """A description that keeps one text from its first read on."""
        return OpenText(self, flags, self.text, caller)

    def truncate(self, size: int) -> None:
        """O_TRUNC has no effect on what can be written."""
        if self.store is None:
            super().truncate(size)

    def read_at(self, offset: int, count: int) -> bytes:
        """Part of the text as it is now."""
        return self.text()[offset : offset + count]


class CallerFile(ProcFile):
    """A text that depends on who opened the file."""

    __slots__ = ("told",)

    def __init__(self, fs: FileSystem, told: Callable[[Caller], bytes], mode: int = 0o444) -> None:
        super().__init__(fs, lambda: b"", mode)
        self.told = told

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """A description with that caller's text."""
        return OpenText(self, flags, lambda: self.told(caller), caller)


class OpenText(OpenFile):
    """An opened /proc text; reading from the start makes it anew."""

    __slots__ = ("_caller", "_make", "_text")

    bulk = True
    inode: ProcFile

    def __init__(self, inode: ProcFile, flags: int, make: Callable[[], bytes], caller: Caller) -> None:
        super().__init__(inode, flags)
        self._make = make
        self._caller = caller
        self._text: bytes | None = None

    def read(self, count: int) -> bytes:
        """Read and move."""
        data = self.pread(self.offset, count)
        self.offset += len(data)
        return data

    def pread(self, offset: int, count: int) -> bytes:
        """Read at an offset."""
        if not self.readable:
            raise SyscallError(Errno.EBADF)
        if self._text is None or offset == 0:
            self._text = self._make()
        return self._text[offset : offset + count]

    def write(self, data: bytes) -> int:
        """Tell the kernel, where it listens."""
        if not self.writable:
            raise SyscallError(Errno.EBADF)
        if self.inode.store is None:
            raise SyscallError(Errno.EACCES)
        self.inode.store(data, self._caller)
        self.offset += len(data)
        return len(data)

    def pwrite(self, offset: int, data: bytes) -> int:
        """As :meth:`write`: there is no place in a text."""
        return self.write(data)

    def seek(self, offset: int, whence: int) -> int:
        """Move; there is no end to seek from (fs/seq_file.c: seq_lseek)."""
        if whence == SEEK_END:
            raise SyscallError(Errno.EINVAL)
        self.offset = moved_offset(self.offset, 0, offset, whence)
        return self.offset


class ProcLink(Symlink):
    """A link whose text depends on who looks, or a magic one that leads to an inode whatever its text."""

    __slots__ = ("find_inode", "text")

    def __init__(
        self,
        fs: FileSystem,
        text: Callable[[Caller], bytes],
        find_inode: Callable[[], Inode | None] | None = None,
        mode: int = 0o777,
    ) -> None:
        super().__init__(fs, b"")
        self.mode = S_IFLNK | mode
        self.text = text
        self.find_inode = find_inode

    def read_link(self, caller: Caller) -> bytes:
        """The text."""
        return self.text(caller)

    def jump(self, caller: Caller) -> Inode | None:
        """The inode a magic link leads to; ENOENT when there is none (a kernel thread's exe)."""
        if self.find_inode is None:
            return None
        inode = self.find_inode()
        if inode is None:
            raise SyscallError(Errno.ENOENT)
        return inode


class ProcDirectory(Directory):
    """A directory with fixed entries."""

    __slots__ = ("names",)

    def __init__(self, fs: FileSystem, mode: int = 0o555) -> None:
        super().__init__(fs, S_IFDIR | mode)
        self.nlink = 2
        self.names: dict[bytes, Inode] = {}

    def add(self, name: str, inode: N) -> N:
        """Add an entry."""
        self.names[name.encode()] = inode
        inode.place = (self, name.encode())
        if inode.is_directory:
            self.nlink += 1
        return inode

    def texts(self, **files: Callable[[], bytes]) -> None:
        """Add text files."""
        for name, text in files.items():
            self.add(name, ProcFile(self.fs, text))

    def lookup(self, name: bytes) -> Inode | None:
        """A fixed entry."""
        return self.names.get(name)

    def entries(self) -> list[tuple[bytes, int, int]]:
        """The fixed entries."""
        return [(name, inode.ino, inode.kind) for name, inode in self.names.items()]

    def holds(self, name: bytes, inode: Inode) -> bool:
        """What /proc shows is never deleted while it can be seen."""
        return True

    def refuse(self) -> Errno:
        """proc refuses creation as if the name could not exist (fs/proc/generic.c has no create)."""
        return Errno.ENOENT

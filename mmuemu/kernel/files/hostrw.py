"""Host directories mounted for writing: what the guest does there is done on the host.

Every operation names one component relative to a directory descriptor inside the mount and follows no link.
Set-user-ID and set-group-ID bits never reach the host.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import MAX_FILE_SIZE, O_ACCMODE, O_RDONLY
from mmuemu.kernel.abi.stat import S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK, Stat
from mmuemu.kernel.files.hostfd import NO_FOLLOW, HostHandle, raise_guest
from mmuemu.kernel.files.hostfs import (
    HOST_GID,
    HOST_UID,
    HostDirectory,
    HostFile,
    HostFs,
    HostInode,
    HostSymlink,
)
from mmuemu.kernel.files.inode import Caller, Directory, Inode
from mmuemu.kernel.files.pipe import PipeInode
from mmuemu.kernel.files.sockets.unix import SocketNode

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmuemu.kernel.files.openfile import OpenFile

V9FS_MAGIC: Final = 0x0102_1997
_BITS: Final = 0o1777


class WritableFs(HostFs):
    """A host directory shared with the guest. statfs calls it 9p, what Linux guests share directories by."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.magic = V9FS_MAGIC

    def new_directory(self, st: os.stat_result) -> HostDirectory:
        """A directory node."""
        return WritableDirectory(self, st)

    def new_file(self, st: os.stat_result) -> HostFile:
        """A regular file node."""
        return WritableFile(self, st)

    def new_symlink(self, st: os.stat_result) -> HostSymlink:
        """A symbolic link node."""
        return WritableSymlink(self, st)

    def new_special(self, st: os.stat_result) -> HostInode:
        """A named pipe or a socket's name; devices are shown and never opened."""
        kind = {S_IFIFO: WritableFifo, S_IFSOCK: WritableSocket}.get(st.st_mode & S_IFMT)
        return super().new_special(st) if kind is None else kind(self, st)


class WritableInode(HostInode):
    """Attributes that are changed on the host; subclasses give a descriptor to change them by."""

    def change_fd(self) -> int:
        """A descriptor of the file itself."""
        raise NotImplementedError

    def detach(self) -> None:
        """Nothing is kept in memory."""

    def set_mode(self, permissions: int) -> None:
        """chmod on the host."""
        try:
            os.chmod(self.change_fd(), permissions & _BITS)
        except OSError as error:
            raise_guest(error)
        self.refresh()

    def set_owner(self, uid: int, gid: int) -> None:
        """chown on the host, the guest's user being the running one."""
        user = HOST_UID if uid == self.fs.uid else uid
        group = HOST_GID if gid == self.fs.gid else gid
        try:
            os.chown(self.change_fd(), user, group)
        except OSError as error:
            raise_guest(error)
        self.refresh()

    def set_times(self, atime_ns: int | None, mtime_ns: int | None) -> None:
        """utimens on the host."""
        self.refresh()
        st = self.st
        times = (
            st.st_atime_ns if atime_ns is None else atime_ns,
            st.st_mtime_ns if mtime_ns is None else mtime_ns,
        )
        try:
            os.utime(self.change_fd(), ns=times)
        except OSError as error:
            raise_guest(error)
        self.refresh()

    def linked(self, change: int) -> None:
        """A name came or went on the host."""
        self.refresh()
        if self.nlink <= 0:
            self.fs.table.pop(self.host_id, None)

    def refresh(self) -> None:
        """Take the host's attributes as they are now."""
        try:
            self.adopt(os.fstat(self.change_fd()))
        except (OSError, SyscallError):
            return


class NamedInode(HostInode):
    """A file on the host that is not opened: its own attributes are changed by its name."""

    def detach(self) -> None:
        """Nothing is kept in memory."""

    def linked(self, change: int) -> None:
        """A name came or went on the host; another name, if there is one, will be looked up afresh."""
        self.nlink += change
        if self.nlink <= 0:
            self.fs.table.pop(self.host_id, None)

    def set_mode(self, permissions: int) -> None:
        """chmod on the host (links have no mode of their own, and are never asked for)."""
        try:
            fd = os.open(self.host_name, os.O_PATH | NO_FOLLOW, dir_fd=self._directory())
        except OSError as error:
            raise_guest(error)
        try:
            if _identity(fd) != self.host_id:
                raise SyscallError(Errno.ESTALE)
            os.chmod(f"/proc/self/fd/{fd}", permissions & _BITS)
        except OSError as error:
            raise_guest(error)
        finally:
            os.close(fd)
        self.refresh()

    def set_owner(self, uid: int, gid: int) -> None:
        """lchown on the host."""
        user = HOST_UID if uid == self.fs.uid else uid
        group = HOST_GID if gid == self.fs.gid else gid
        try:
            os.chown(self.host_name, user, group, dir_fd=self._directory(), follow_symlinks=False)
        except OSError as error:
            raise_guest(error)
        self.refresh()

    def set_times(self, atime_ns: int | None, mtime_ns: int | None) -> None:
        """utimens on the host."""
        self.refresh()
        times = (
            self.st.st_atime_ns if atime_ns is None else atime_ns,
            self.st.st_mtime_ns if mtime_ns is None else mtime_ns,
        )
        try:
            os.utime(self.host_name, ns=times, dir_fd=self._directory(), follow_symlinks=False)
        except OSError as error:
            raise_guest(error)
        self.refresh()

    def _directory(self) -> int:
        if self.host_dir is None:
            raise SyscallError(Errno.ESTALE)
        return self.host_dir.host_fd()

    def refresh(self) -> None:
        """Take the host's attributes as they are now."""
        try:
            st = os.stat(self.host_name, dir_fd=self._directory(), follow_symlinks=False)
        except OSError as error:
            raise_guest(error)
        if (st.st_dev, st.st_ino) != self.host_id:
            raise SyscallError(Errno.ESTALE)
        self.adopt(st)


class WritableSymlink(NamedInode, HostSymlink):
    """A symbolic link on the host."""


class WritableFifo(NamedInode, PipeInode):
    """A named pipe: its name is on the host, its bytes stay among the guest's programs."""

    def __init__(self, fs: HostFs, st: os.stat_result) -> None:
        PipeInode.__init__(self, fs)
        self.start(st)


class WritableSocket(NamedInode, SocketNode):
    """The name of a socket on the host; it connects the guest's programs only."""

    def __init__(self, fs: HostFs, st: os.stat_result) -> None:
        SocketNode.__init__(self, fs, st.st_mode, 0, 0)
        self.start(st)


class WritableFile(WritableInode, HostFile):
    """A regular file on the host, written in place."""

    def __init__(self, fs: HostFs, st: os.stat_result) -> None:
        HostFile.__init__(self, fs, st)
        self.writer = HostHandle(fs.descriptors, ref(self), os.O_RDWR)

    def __del__(self) -> None:
        if hasattr(self, "writer"):
            self.writer.close()
        super().__del__()

    def change_fd(self) -> int:
        """Whichever descriptor is open, or can be opened."""
        for handle in (self.writer, self.reader):
            if handle.fd >= 0:
                return handle.fd
        try:
            return self.reader.get()
        except SyscallError:
            return self.writer.get()

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """A description; the host decides whether the file may be written."""
        if flags & O_ACCMODE != O_RDONLY:
            self.writer.get()
        return super().open(caller, flags)

    def stat(self) -> Stat:
        """The host's attributes now."""
        if self.writer.fd >= 0:
            self.adopt(os.fstat(self.writer.fd))
        return super().stat()

    @property
    def size(self) -> int:
        """The host's length now."""
        fd = self.writer.fd if self.writer.fd >= 0 else self.reader.fd
        return os.fstat(fd).st_size if fd >= 0 else self.st.st_size

    def read_host(self, offset: int, count: int) -> bytes:
        """Bytes of the host file, by the descriptor that is open."""
        handle = self.writer if self.reader.fd < 0 and self.writer.fd >= 0 else self.reader
        return handle.read_at(offset, count)

    def write_at(self, offset: int, data: bytes) -> int:
        """Write on the host."""
        if offset + len(data) > MAX_FILE_SIZE:
            raise SyscallError(Errno.EFBIG)
        try:
            done = os.pwrite(self.writer.get(), data, offset)
        except OSError as error:
            raise_guest(error)
        if self.mapping is not None:
            self.mapping.written(offset, data[:done])
        return done

    def truncate(self, size: int) -> None:
        """Set the length on the host."""
        try:
            os.ftruncate(self.writer.get(), size)
        except OSError as error:
            raise_guest(error)
        if self.mapping is not None:
            self.mapping.truncated(size)

    def punch(self, offset: int, count: int) -> None:
        """Make a range zeros by writing them."""
        end = offset + count
        while offset < end:
            offset += self.write_at(offset, bytes(min(1 << 20, end - offset)))

    def host_fd(self) -> int:
        """A descriptor to ask the host by."""
        return self.change_fd()

    def pin(self) -> None:
        """The name goes: keep a descriptor, since the file may be open."""
        if not self.writer.pin():
            self.reader.pin()


class WritableDirectory(WritableInode, HostDirectory):
    """A directory on the host, changed in place."""

    def __init__(self, fs: HostFs, st: os.stat_result) -> None:
        HostDirectory.__init__(self, fs, st)
        self.opened = HostHandle(fs.descriptors, lambda: self, os.O_RDONLY)

    def change_fd(self) -> int:
        """A descriptor that is not O_PATH, which chmod and utime refuse."""
        if self.host_dir is not None:
            return self.opened.get()
        if self.opened.fd < 0:
            self.opened.keep(os.open(b".", os.O_RDONLY | NO_FOLLOW, dir_fd=self.host_fd()))
        return self.opened.fd

    def touched(self) -> None:
        """The host keeps the times."""

    def subdirectories(self, change: int) -> None:
        """The host keeps the count."""

    def _found(self, name: bytes) -> Inode:
        inode = self.lookup(name)
        if inode is None:
            raise SyscallError(Errno.ENOENT)
        return inode

    def create(self, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        """Make a regular file, a named pipe or a socket's name on the host."""
        if mode & S_IFMT != S_IFREG:
            return self._create_special(name, mode)
        try:
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o600, dir_fd=self.host_fd())
        except OSError as error:
            raise_guest(error)
        try:
            os.chmod(fd, mode & _BITS)
            inode = self._found(name)
            if isinstance(inode, WritableFile) and inode.host_id == _identity(fd):
                inode.writer.keep(fd)
                fd = -1
            return inode
        finally:
            if fd >= 0:
                os.close(fd)

    def _create_special(self, name: bytes, mode: int) -> Inode:
        kind = mode & S_IFMT
        if kind not in (S_IFIFO, S_IFSOCK):
            raise SyscallError(Errno.EPERM)
        try:
            os.mknod(name, kind | 0o600, dir_fd=self.host_fd())
        except OSError as error:
            raise_guest(error)
        inode = self._found(name)
        if inode.mode & S_IFMT != kind:
            raise SyscallError(Errno.ESTALE)
        inode.set_mode(mode)
        return inode

    def create_unnamed(self, mode: int, uid: int, gid: int) -> Inode:
        """Files without a name are not made on the host."""
        raise SyscallError(Errno.EOPNOTSUPP)

    def mkdir(self, name: bytes, mode: int, uid: int, gid: int) -> Directory:
        """Make a directory on the host."""
        try:
            os.mkdir(name, 0o700, dir_fd=self.host_fd())
        except OSError as error:
            raise_guest(error)
        inode = self._found(name)
        if not isinstance(inode, Directory):
            raise SyscallError(Errno.ENOTDIR)
        inode.set_mode(mode)
        return inode

    def symlink(self, name: bytes, target: bytes, uid: int, gid: int) -> Inode:
        """Make a symbolic link on the host: its text only, the guest follows it in its own tree."""
        try:
            os.symlink(target, name, dir_fd=self.host_fd())
        except OSError as error:
            raise_guest(error)
        return self._found(name)

    def link(self, name: bytes, inode: Inode) -> None:
        """Add a name on the host."""
        if not isinstance(inode, (WritableFile, HostSymlink)) or inode.host_dir is None:
            raise SyscallError(Errno.EPERM)
        if inode.nlink == 0:
            raise SyscallError(Errno.ENOENT)
        source, target = _two_fds(inode.host_dir.host_fd, self.host_fd)
        try:
            os.link(inode.host_name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            raise_guest(error)
        self._found(name)

    def unlink(self, name: bytes, inode: Inode) -> None:
        """Remove a name on the host."""
        if isinstance(inode, WritableFile):
            inode.pin()
        try:
            os.unlink(name, dir_fd=self.host_fd())
        except OSError as error:
            raise_guest(error)
        inode.linked(-1)

    def rmdir(self, name: bytes, inode: Directory) -> None:
        """Remove a directory on the host."""
        try:
            os.rmdir(name, dir_fd=self.host_fd())
        except OSError as error:
            raise_guest(error)
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
        """Rename on the host; the host cannot be asked to exchange."""
        if exchange or not isinstance(target, WritableDirectory):
            raise SyscallError(Errno.EINVAL)
        if isinstance(replaced, WritableFile):
            replaced.pin()
        old, new = _two_fds(self.host_fd, target.host_fd)
        try:
            os.rename(name, new_name, src_dir_fd=old, dst_dir_fd=new)
        except OSError as error:
            raise_guest(error)
        if isinstance(inode, HostInode):
            inode.host_dir, inode.host_name = target, new_name
        inode.place = (target, new_name)
        if isinstance(replaced, Directory):
            replaced.removed()
        elif replaced is not None:
            replaced.linked(-1)


def _identity(fd: int) -> tuple[int, int]:
    st = os.fstat(fd)
    return st.st_dev, st.st_ino


def _two_fds(first: Callable[[], int], second: Callable[[], int]) -> tuple[int, int]:
    """Two directory descriptors valid at once (opening the second may have closed the first)."""
    first()
    b = second()
    a = first()
    if second() != b:
        raise SyscallError(Errno.ENFILE)
    return a, b

"""Host files and directories as the guest sees them: read from the host, changes kept in memory (an overlay).

The host is only touched through descriptors of directories already inside the view, one name at a time and
without following links, so nothing outside can be reached. A name removed in the guest is hidden (a
whiteout), a file is copied up in the pieces that are written, and files may be renamed freely: where a file
lies on the host and where the guest sees it are two different things.
"""

from __future__ import annotations

import os
import stat as host_stat
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary, ref

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import O_ACCMODE, O_WRONLY
from mmuemu.kernel.abi.stat import OVERLAYFS_SUPER_MAGIC, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, Stat
from mmuemu.kernel.files.content import Content
from mmuemu.kernel.files.hostfd import (
    DIRECTORY,
    NO_FOLLOW,
    SEARCH,
    HasDescriptor,
    HostDescriptors,
    HostHandle,
    raise_guest,
)
from mmuemu.kernel.files.inode import Caller, FileSystem, Inode, Quota, Symlink
from mmuemu.kernel.files.memfs import NAME_COST, RegularInode, VolatileDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmuemu.kernel.files.openfile import OpenFile

HOST_UID: Final[int] = getattr(os, "geteuid", lambda: 1000)()
HOST_GID: Final[int] = getattr(os, "getegid", lambda: 1000)()
HOST_GROUPS: Final = frozenset(getattr(os, "getgroups", list)())
_MISSING: Final = object()


class HostFs(FileSystem):
    """A view of one host directory or file. The guest's user stands for the user who runs the emulator.

    ``uid`` and ``gid`` are the guest's; files of the running user are shown as theirs.
    """

    def __init__(
        self,
        name: str,
        clock: Callable[[], int],
        quota: Quota,
        descriptors: HostDescriptors,
        uid: int = 1000,
        gid: int = 1000,
        dev: int = 0,
    ) -> None:
        super().__init__(name, OVERLAYFS_SUPER_MAGIC, dev, clock, quota)
        self.descriptors = descriptors
        self.uid = uid
        self.gid = gid
        self.table: WeakValueDictionary[tuple[int, int], HostInode] = WeakValueDictionary()
        self.kept: set[HostInode] = set()
        """Inodes whose changes must outlive the last open file."""
        self._next_ino = 1 << 40

    def guest_uid(self, uid: int) -> int:
        """A host user id as the guest sees it."""
        return self.uid if uid == HOST_UID else uid

    def guest_gid(self, gid: int) -> int:
        """A host group id as the guest sees it."""
        return self.gid if gid == HOST_GID else gid

    def inode_for(self, st: os.stat_result, host_dir: HostDirectory, name: bytes) -> Inode:
        """The inode of the host file ``name`` in ``host_dir``; the same one for every name of a file."""
        key = (st.st_dev, st.st_ino)
        known = self.table.get(key)
        if known is not None and known.mode & S_IFMT == st.st_mode & S_IFMT and known.nlink:
            known.host_dir, known.host_name = host_dir, name
            known.adopt(st)
            return known
        kind = host_stat.S_IFMT(st.st_mode)
        node: HostInode
        if kind == S_IFDIR:
            node = self.new_directory(st)
        elif kind == S_IFREG:
            node = self.new_file(st)
        elif kind == S_IFLNK:
            node = self.new_symlink(st)
        else:
            node = self.new_special(st)
        node.host_dir, node.host_name = host_dir, name
        self.table[key] = node
        return node

    def new_directory(self, st: os.stat_result) -> HostDirectory:
        """A directory node."""
        return HostDirectory(self, st)

    def new_file(self, st: os.stat_result) -> HostFile:
        """A regular file node."""
        return HostFile(self, st)

    def new_symlink(self, st: os.stat_result) -> HostSymlink:
        """A symbolic link node."""
        return HostSymlink(self, st)

    def new_special(self, st: os.stat_result) -> HostInode:
        """A node of a device, a socket or a named pipe."""
        return HostSpecial(self, st)


class HostInode(Inode):
    """What host nodes share: where the file lies, its identity, attributes that are the host's for now."""

    fs: HostFs
    host_dir: HasDescriptor | None
    host_name: bytes
    host_id: tuple[int, int]
    detached: bool
    lenient: bool
    st: os.stat_result

    def start(self, st: os.stat_result) -> None:
        """Take the first attributes."""
        self.host_dir = None
        self.host_name = b""
        self.host_id = (st.st_dev, st.st_ino)
        self.detached = False
        self.lenient = HOST_UID == 0
        self.adopt(st)

    def adopt(self, st: os.stat_result) -> None:
        """Follow the host's attributes, unless the guest changed them."""
        self.st = st
        if not self.detached:
            self.mode = st.st_mode
            self.nlink = st.st_nlink
            self.uid = self.fs.guest_uid(st.st_uid)
            self.gid = self.fs.guest_gid(st.st_gid)

    def detach(self) -> None:
        """The guest changes this file: from now on its attributes are the guest's."""
        if not self.detached:
            st = self.st
            self.atime_ns, self.mtime_ns, self.ctime_ns = st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns
            self.detached = True
            self.fs.kept.add(self)

    @property
    def dev(self) -> int:
        """The host's device number."""
        return self.host_id[0]

    @property
    def rdev(self) -> int:
        """The host's."""
        return self.st.st_rdev

    @property
    def size(self) -> int:
        """The host's."""
        return self.st.st_size

    @property
    def blocks(self) -> int:
        """The host's."""
        return self.st.st_blocks

    def stat(self) -> Stat:
        """Host attributes with the guest's changes over them."""
        if self.detached:
            return super().stat()
        st = self.st
        return Stat(
            st.st_dev, st.st_ino, st.st_mode, st.st_nlink, self.uid, self.gid, st.st_rdev,
            self.size, self.blocks, st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns,
        )  # fmt: skip

    def permits(self, uid: int, gid: int, want: int) -> bool:
        """As the host's kernel would let the running user, until the guest sets other bits."""
        if self.lenient:
            uid = 0
        elif self.st.st_gid in HOST_GROUPS and not self.detached:
            gid = self.gid
        return super().permits(uid, gid, want)

    def set_mode(self, permissions: int) -> None:
        """Change the bits in memory."""
        self.detach()
        self.lenient = False
        super().set_mode(permissions)

    def set_owner(self, uid: int, gid: int) -> None:
        """Change the owner in memory."""
        self.detach()
        self.lenient = False
        super().set_owner(uid, gid)

    def set_times(self, atime_ns: int | None, mtime_ns: int | None) -> None:
        """Change the times in memory."""
        self.detach()
        super().set_times(atime_ns, mtime_ns)

    def linked(self, change: int) -> None:
        """A name came or went in memory."""
        self.detach()
        super().linked(change)
        if self.nlink <= 0:
            self.fs.kept.discard(self)
            self.fs.table.pop(self.host_id, None)


class HostSymlink(HostInode, Symlink):
    """A symbolic link on the host; its target is walked in the guest's tree."""

    def __init__(self, fs: HostFs, st: os.stat_result) -> None:
        Symlink.__init__(self, fs, b"", now=0)
        self.ino = st.st_ino
        self.start(st)

    @property
    def size(self) -> int:
        """The length of the target."""
        return self.st.st_size

    def read_link(self, caller: Caller) -> bytes:
        """The target's text."""
        if self.host_dir is None:
            raise SyscallError(Errno.ENOENT)
        try:
            return os.readlink(self.host_name, dir_fd=self.host_dir.host_fd())
        except OSError as error:
            raise_guest(error)


class HostSpecial(HostInode):
    """A device, socket or named pipe on the host: shown, never opened."""

    def __init__(self, fs: HostFs, st: os.stat_result) -> None:
        super().__init__(fs, st.st_mode, ino=st.st_ino, now=0)
        self.start(st)

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """EACCES."""
        raise SyscallError(Errno.EACCES)


class HostFile(HostInode, RegularInode):
    """A regular file on the host; what is written stays in memory."""

    def __init__(self, fs: HostFs, st: os.stat_result) -> None:
        RegularInode.__init__(self, fs, st.st_mode, ino=st.st_ino, now=0)
        self.start(st)
        self.reader = HostHandle(fs.descriptors, ref(self), os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "reader"):
            self.reader.close()

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """A description; the host file is opened now, so that the host may refuse."""
        if self.content is None and flags & O_ACCMODE != O_WRONLY:
            self.reader.get()
        return super().open(caller, flags)

    @property
    def size(self) -> int:
        """The length now."""
        if self.content is not None:
            return self.content.size
        fd = self.reader.fd
        return os.fstat(fd).st_size if fd >= 0 else self.st.st_size

    @property
    def blocks(self) -> int:
        """The host's, or the memory taken when more."""
        if self.content is None:
            return self.st.st_blocks
        return (min(self.content.size, max(self.content.stored, self.st.st_size)) + 4095 >> 12) << 3

    def stat(self) -> Stat:
        """Attributes as they are now."""
        if not self.detached and self.reader.fd >= 0:
            self.adopt(os.fstat(self.reader.fd))
        return super().stat()

    def read_host(self, offset: int, count: int) -> bytes:
        """Bytes of the host file."""
        return self.reader.read_at(offset, count)

    def read_raw(self, offset: int, count: int) -> bytes:
        """Bytes as the guest left them."""
        return self.read_host(offset, count) if self.content is None else self.content.read(offset, count)

    def store(self) -> Content:
        """The in-memory bytes over the host's."""
        if self.content is None:
            size = self.size
            self.detach()
            self.content = Content(self.fs.quota, self.reader.read_at, size)
        return self.content

    def truncate(self, size: int) -> None:
        """Set the length in memory."""
        if size == 0 and self.content is None:
            self.detach()
            self.content = Content(self.fs.quota)
        super().truncate(size)

    def data_from(self, offset: int) -> int:
        """SEEK_DATA, as the host says."""
        return self._sought(offset, os.SEEK_DATA) if self.content is None else self.content.data_from(offset)

    def hole_from(self, offset: int) -> int:
        """SEEK_HOLE, as the host says."""
        return self._sought(offset, os.SEEK_HOLE) if self.content is None else self.content.hole_from(offset)

    def _sought(self, offset: int, whence: int) -> int:
        try:
            return os.lseek(self.host_fd(), offset, whence)
        except OSError:
            return self.size

    def host_fd(self) -> int:
        """A descriptor to ask the host by."""
        return self.reader.get()


class HostDirectory(HostInode, VolatileDirectory):
    """A directory on the host with the guest's changes over it: name -> inode, or None for a hidden name."""

    def __init__(self, fs: HostFs, st: os.stat_result) -> None:
        VolatileDirectory.__init__(self, fs, st.st_mode, ino=st.st_ino, now=0)
        self.start(st)
        self.handle = HostHandle(fs.descriptors, lambda: self, SEARCH)
        self.changes: dict[bytes, Inode | None] = {}

    def host_fd(self) -> int:
        """The descriptor to look names up with, opened from the nearest open directory above down."""
        fd = self.handle.fd
        if fd < 0:
            chain: list[HostDirectory] = [self]
            above = self.host_dir
            while isinstance(above, HostDirectory) and above.handle.fd < 0:
                chain.append(above)
                above = above.host_dir
            for directory in reversed(chain):
                fd = directory.handle.get()
        return fd

    def stat(self) -> Stat:
        """Attributes as they are now."""
        if not self.detached and self.handle.fd >= 0:
            self.adopt(os.fstat(self.handle.fd))
        return super().stat()

    def lookup(self, name: bytes) -> Inode | None:
        """The guest's entry, or the host's."""
        found = self.changes.get(name, _MISSING)
        if found is not _MISSING:
            return found  # type: ignore[return-value]
        return self.host_lookup(name)

    def host_lookup(self, name: bytes) -> Inode | None:
        """The host's entry."""
        st = self.host_stat(name)
        if st is None:
            return None
        inode = self.fs.inode_for(st, self, name)
        inode.place = (self, name)
        return inode

    def host_stat(self, name: bytes) -> os.stat_result | None:
        """What the host says of ``name``, or None."""
        if b"/" in name or name in (b"", b".", b".."):
            return None
        try:
            return os.stat(name, dir_fd=self.host_fd(), follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise_guest(error)

    def entries(self) -> list[tuple[bytes, int, int]]:
        """Both sets of names, sorted, so that a listing does not depend on the host's order."""
        found = {entry[0]: entry for entry in self.host_entries() if entry[0] not in self.changes}
        for name, inode in self.changes.items():
            if inode is not None:
                found[name] = (name, inode.ino, inode.kind)
        return [found[name] for name in sorted(found)]

    def host_entries(self) -> list[tuple[bytes, int, int]]:
        """The host's names with inode numbers and DT_* kinds."""
        try:
            fd = os.open(b".", os.O_RDONLY | DIRECTORY | NO_FOLLOW, dir_fd=self.host_fd())
            try:
                with os.scandir(fd) as listing:
                    return [(os.fsencode(e.name), e.inode(), _kind(e)) for e in listing]
            finally:
                os.close(fd)
        except OSError as error:
            raise_guest(error)

    def put(self, name: bytes, inode: Inode) -> None:
        """Set a name in memory."""
        if name not in self.changes:
            self.fs.quota.charge(NAME_COST)
        self.detach()
        self.changes[name] = inode

    def drop(self, name: bytes) -> None:
        """Hide a name, or forget one that is only in memory."""
        self.detach()
        known = name in self.changes
        if self.host_stat(name) is not None:
            self.changes[name] = None
            self.fs.quota.used += 0 if known else NAME_COST
        elif known:
            del self.changes[name]
            self.fs.quota.used -= NAME_COST

    def touched(self) -> None:
        """The set of names changed."""
        self.detach()
        super().touched()

    def removed(self) -> None:
        """The name is gone in memory."""
        super().removed()
        self.fs.quota.used -= NAME_COST * len(self.changes)
        self.changes.clear()
        self.fs.kept.discard(self)
        self.fs.table.pop(self.host_id, None)

    def subdirectories(self, change: int) -> None:
        """Count, where the host's file system counts (some say 1 for every directory)."""
        self.detach()
        if self.nlink >= 2:
            self.nlink += change


def _kind(entry: os.DirEntry[str]) -> int:
    """The DT_* value; DT_UNKNOWN (0) for what is neither file, directory nor link."""
    if entry.is_symlink():
        return S_IFLNK >> 12
    if entry.is_dir(follow_symlinks=False):
        return S_IFDIR >> 12
    return S_IFREG >> 12 if entry.is_file(follow_symlinks=False) else 0

"""File modes, ``struct stat``, ``struct statx``, ``struct statfs`` and directory entries of x86-64 Linux.

Layouts: arch/x86/include/uapi/asm/stat.h, include/uapi/linux/stat.h, include/uapi/asm-generic/statfs.h and
fs/readdir.c (``linux_dirent``, ``linux_dirent64``).
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

S_IFMT: Final = 0o170000
S_IFSOCK: Final = 0o140000
S_IFLNK: Final = 0o120000
S_IFREG: Final = 0o100000
S_IFBLK: Final = 0o060000
S_IFDIR: Final = 0o040000
S_IFCHR: Final = 0o020000
S_IFIFO: Final = 0o010000
S_ISUID: Final = 0o4000
S_ISGID: Final = 0o2000
S_ISVTX: Final = 0o1000
PERMISSIONS: Final = 0o7777

TMPFS_MAGIC: Final = 0x0102_1994
PROC_SUPER_MAGIC: Final = 0x9FA0
SYSFS_MAGIC: Final = 0x6265_6572
OVERLAYFS_SUPER_MAGIC: Final = 0x794C_7630

STATX_BASIC_STATS: Final = 0x7FF

_STAT = Struct("<QQQIIIIQqqqqqqqqqqqq")
_STATX = Struct("<IIQIIIHHQQQQqIiqIiqIiqIiIIIIQ104x")
_STATFS = Struct("<qqQQQQQiiqqq4q")
_DIRENT64 = Struct("<QqHB")
_DIRENT = Struct("<QqH")

STAT_SIZE: Final = _STAT.size
STATX_SIZE: Final = _STATX.size
STATFS_SIZE: Final = _STATFS.size

_NS = 1_000_000_000


class Stat(NamedTuple):
    """What a file is: ``stat(2)``'s fields, times in nanoseconds since the epoch, ``blocks`` of 512 bytes."""

    dev: int
    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    blksize: int = 4096


class StatFs(NamedTuple):
    """What a file system is: ``statfs(2)``'s fields, sizes in blocks of ``bsize`` bytes."""

    type: int
    bsize: int
    blocks: int
    bfree: int
    files: int
    ffree: int
    flags: int


def makedev(major: int, minor: int) -> int:
    """A ``dev_t`` as user space sees it (sysmacros.h: gnu_dev_makedev)."""
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & 0xFFFF_FF00) << 12 | (major & 0xFFFF_F000) << 32


def major(dev: int) -> int:
    """The major number of a ``dev_t`` (sysmacros.h: gnu_dev_major)."""
    return ((dev >> 8) & 0xFFF) | ((dev >> 32) & 0xFFFF_F000)


def minor(dev: int) -> int:
    """The minor number of a ``dev_t`` (sysmacros.h: gnu_dev_minor)."""
    return (dev & 0xFF) | ((dev >> 12) & 0xFFFF_FF00)


def pack_stat(st: Stat) -> bytes:
    """The 144 bytes of ``struct stat``."""
    u64 = 0xFFFF_FFFF_FFFF_FFFF
    atime, atime_ns = divmod(st.atime_ns, _NS)
    mtime, mtime_ns = divmod(st.mtime_ns, _NS)
    ctime, ctime_ns = divmod(st.ctime_ns, _NS)
    return _STAT.pack(
        st.dev & u64, st.ino & u64, st.nlink, st.mode, st.uid, st.gid, 0, st.rdev & u64,
        st.size, st.blksize, st.blocks, atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns, 0, 0, 0,
    )  # fmt: skip


def pack_statx(st: Stat) -> bytes:
    """The 256 bytes of ``struct statx`` with the basic fields; no birth time (its mask bit stays clear)."""
    atime, atime_ns = divmod(st.atime_ns, _NS)
    mtime, mtime_ns = divmod(st.mtime_ns, _NS)
    ctime, ctime_ns = divmod(st.ctime_ns, _NS)
    return _STATX.pack(
        STATX_BASIC_STATS, st.blksize, 0, st.nlink & 0xFFFF_FFFF, st.uid, st.gid, st.mode, 0,
        st.ino & 0xFFFF_FFFF_FFFF_FFFF, st.size, st.blocks, 0,
        atime, atime_ns, 0, 0, 0, 0, ctime, ctime_ns, 0, mtime, mtime_ns, 0,
        major(st.rdev), minor(st.rdev), major(st.dev), minor(st.dev), 0,
    )  # fmt: skip


def pack_statfs(fs: StatFs) -> bytes:
    """The 120 bytes of ``struct statfs``."""
    return _STATFS.pack(
        fs.type, fs.bsize, fs.blocks, fs.bfree, fs.bfree, fs.files, fs.ffree, 0, 0, 255, fs.bsize, fs.flags,
        0, 0, 0, 0,
    )  # fmt: skip


def pack_dirent64(ino: int, offset: int, kind: int, name: bytes) -> bytes:
    """One ``linux_dirent64``; ``kind`` is a DT_* value, ``offset`` the position after this entry."""
    length = (_DIRENT64.size + len(name) + 1 + 7) & ~7
    return (_DIRENT64.pack(ino, offset, length, kind) + name).ljust(length, b"\0")


def pack_dirent(ino: int, offset: int, kind: int, name: bytes) -> bytes:
    """One old ``linux_dirent``, whose last byte is the DT_* value."""
    length = (_DIRENT.size + len(name) + 2 + 7) & ~7
    return (_DIRENT.pack(ino, offset, length) + name).ljust(length - 1, b"\0") + bytes((kind,))


def dirent_type(mode: int) -> int:
    """The DT_* value of a file mode (include/linux/fs_types.h: S_DT)."""
    return (mode & S_IFMT) >> 12

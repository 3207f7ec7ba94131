"""What happens to files, told to those who watch them (include/linux/fsnotify.h, fs/notify/fsnotify.c).

A file system without a watch has ``watched`` 0: whoever reads, writes or closes looks at that first. The order of
the events of one call is Linux's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.fcntl import O_PATH
from mmuemu.kernel.abi.inotify import (
    IN_ACCESS,
    IN_ATTRIB,
    IN_CLOSE_NOWRITE,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_ISDIR,
    IN_MODIFY,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_OPEN,
)

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import Directory, Inode
    from mmuemu.kernel.files.openfile import OpenFile


def _kind(inode: Inode) -> int:
    return IN_ISDIR if inode.is_directory else 0


def _to_self(inode: Inode, mask: int) -> None:
    if inode.watches:
        for watch in inode.watches[:]:
            watch.tell(mask)


def _to_directory(directory: Directory, mask: int, name: bytes, cookie: int = 0) -> None:
    if directory.watches:
        for watch in directory.watches[:]:
            watch.tell(mask, name, cookie)


def happened(inode: Inode, mask: int) -> None:
    """``mask`` happened to ``inode``: its directory's watches hear it with the name, then its own without."""
    if not inode.fs.watched:
        return
    mask |= _kind(inode)
    if inode.place is not None:
        directory, name = inode.place
        if directory.watches:
            gone = not directory.holds(name, inode)
            for watch in directory.watches[:]:
                if not (gone and watch.named_only):
                    watch.tell(mask, name)
    _to_self(inode, mask)


def accessed(inode: Inode) -> None:
    """Bytes or entries were read."""
    happened(inode, IN_ACCESS)


def modified(inode: Inode) -> None:
    """Bytes or the length changed."""
    happened(inode, IN_MODIFY)


def attributes(inode: Inode) -> None:
    """The mode, the owner or both times changed."""
    happened(inode, IN_ATTRIB)


def times_set(inode: Inode, atime_ns: int | None, mtime_ns: int | None) -> None:
    """Times were set: both count as attributes, one alone as what would have set it (fsnotify_change)."""
    happened(inode, IN_MODIFY if atime_ns is None else IN_ACCESS if mtime_ns is None else IN_ATTRIB)


def opened(file: OpenFile) -> None:
    """A description was made; one of O_PATH is silent."""
    if file.inode.fs.watched and not file.flags & O_PATH:
        happened(file.inode, IN_OPEN)


def closed(file: OpenFile) -> None:
    """The last descriptor is closed."""
    if not file.flags & O_PATH:
        happened(file.inode, IN_CLOSE_WRITE if file.writable else IN_CLOSE_NOWRITE)


def created(directory: Directory, name: bytes, inode: Inode) -> None:
    """A new file has a name."""
    _to_directory(directory, IN_CREATE | _kind(inode), name)


def linked(directory: Directory, name: bytes, inode: Inode) -> None:
    """A file has a further name."""
    _to_self(inode, IN_ATTRIB)
    _to_directory(directory, IN_CREATE, name)


def ended_if_unused(inode: Inode) -> None:
    """A file without names that nobody has open is no more: so are its watches."""
    if inode.watches and inode.nlink <= 0 and not inode.opens:
        _to_self(inode, IN_DELETE_SELF)
        for watch in inode.watches[:]:
            watch.end()


def removed(directory: Directory, name: bytes, inode: Inode) -> None:
    """A name is gone."""
    if not directory.fs.watched:
        return
    if not inode.is_directory:
        _to_self(inode, IN_ATTRIB)
    ended_if_unused(inode)
    _to_directory(directory, IN_DELETE | _kind(inode), name)


def moved(source: Directory, name: bytes, target: Directory, new_name: bytes, inode: Inode) -> None:
    """``inode`` went from one name to another; both events have the same cookie, which no other pair has."""
    for watch in (source.watches or target.watches or ())[:1]:
        cookie = watch.next_cookie()
        _to_directory(source, IN_MOVED_FROM | _kind(inode), name, cookie)
        _to_directory(target, IN_MOVED_TO | _kind(inode), new_name, cookie)


def renamed(
    source: Directory, name: bytes, inode: Inode, target: Directory, new_name: bytes, replaced: Inode | None,
    exchange: bool,
) -> None:  # fmt: skip
    """A rename replaced or exchanged ``replaced``, or found nothing there."""
    if not source.fs.watched:
        return
    moved(source, name, target, new_name, inode)
    if replaced is None:
        _to_self(inode, IN_MOVE_SELF)
    elif exchange:
        _to_self(inode, IN_MOVE_SELF)
        moved(target, new_name, source, name, replaced)
        _to_self(replaced, IN_MOVE_SELF)
    else:
        _to_self(replaced, IN_ATTRIB | _kind(replaced))
        _to_self(inode, IN_MOVE_SELF)
        ended_if_unused(replaced)

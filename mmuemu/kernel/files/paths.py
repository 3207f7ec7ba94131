"""Path resolution, all of it ours: component by component over the guest's tree (path_resolution(7)).

The host sees one component at a time, relative to a directory that is already inside the view.
Symbolic links are followed here, in the guest's tree, so none can lead out of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import (
    AT_FDCWD,
    MAX_SYMLINKS,
    NAME_MAX,
    PATH_MAX,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    X_OK,
)
from mmuemu.kernel.files.inode import Directory, Symlink

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import Caller, Inode


class Resolved:
    """Where a path led: ``parent`` and ``name`` of the last component and the ``inode`` there, or None.

    ``name`` is empty when the path ended in ``.``, ``..``, ``/`` or a magic link; ``last`` is that component
    as written. ``slash`` tells of a trailing slash, so only a directory will do.
    """

    __slots__ = ("inode", "last", "name", "parent", "slash")

    def __init__(self, parent: Directory, name: bytes, inode: Inode | None, slash: bool, last: bytes) -> None:
        self.parent = parent
        self.name = name
        self.inode = inode
        self.slash = slash
        self.last = last

    def existing(self) -> Inode:
        """The inode; ENOENT if there is none, ENOTDIR if a directory was asked for by a trailing slash."""
        inode = self.inode
        if inode is None:
            raise SyscallError(Errno.ENOENT)
        if self.slash and not isinstance(inode, Directory):
            raise SyscallError(Errno.ENOTDIR)
        return inode


def start_of(caller: Caller, dirfd: int, path: bytes) -> Directory:
    """The directory ``path`` starts at for an ``*at`` call: root, working directory or ``dirfd``'s."""
    if path[:1] == b"/":
        return caller.fs.root
    if dirfd == AT_FDCWD:
        return caller.fs.cwd
    inode = caller.files.get(dirfd).inode
    if not isinstance(inode, Directory):
        raise SyscallError(Errno.ENOTDIR)
    return inode


def above(directory: Directory, root: Directory) -> Directory:
    """``..``: the parent, through mount points, never above ``root``."""
    while directory is not root:
        if directory is not directory.fs.root:
            return directory.parent
        point = directory.fs.covers
        if not isinstance(point, Directory):
            break
        directory = point
    return directory


def resolve(
    caller: Caller, path: bytes, dirfd: int = AT_FDCWD, follow: bool = True, keep: bool = False, scope: int = 0
) -> Resolved:
    """Walk ``path``; ``follow`` says whether a symbolic link at the end is followed.

    Without ``follow`` a trailing slash still follows it, unless ``keep`` (calls that change names) forbids
    it. A missing last component is no error here: the result's ``inode`` is None. ``scope`` has RESOLVE_* bits of
    openat2(2), which refuse links (ELOOP) and ways out (EXDEV).

    Raises SyscallError: ENOENT (empty path, missing directory), ENOTDIR, EACCES (no search permission), ELOOP
    (over 40 links), ENAMETOOLONG.
    """
    if not path:
        raise SyscallError(Errno.ENOENT)
    if len(path) >= PATH_MAX:
        raise SyscallError(Errno.ENAMETOOLONG)
    root = caller.fs.root
    if scope & (RESOLVE_BENEATH | RESOLVE_IN_ROOT):
        root = current = start_of(caller, dirfd, b".")
        if path[:1] == b"/" and scope & RESOLVE_BENEATH:
            raise SyscallError(Errno.EXDEV)
    else:
        current = start_of(caller, dirfd, path)
    todo = [c for c in path.split(b"/") if c]
    todo.reverse()
    return _walk(caller, current, todo, path[-1:] == b"/", follow, keep, root, scope)


def _check_link(link: Symlink, there: Inode | None, target: bytes, scope: int) -> None:
    """Whether openat2's flags let a link be followed (fs/namei.c: pick_link, nd_jump_link)."""
    if scope & RESOLVE_NO_SYMLINKS or (there is not None and scope & RESOLVE_NO_MAGICLINKS):
        raise SyscallError(Errno.ELOOP)
    out = there is not None and scope & (RESOLVE_BENEATH | RESOLVE_IN_ROOT)
    if out or (target[:1] == b"/" and scope & RESOLVE_BENEATH):
        raise SyscallError(Errno.EXDEV)
    if there is not None and scope & RESOLVE_NO_XDEV and there.fs is not link.fs:
        raise SyscallError(Errno.EXDEV)


def _walk(
    caller: Caller, current: Directory, todo: list[bytes], slash: bool, follow: bool, keep: bool,
    root: Directory, scope: int,
) -> Resolved:  # fmt: skip
    """Take the components of ``todo``, the next one last, from ``current`` on."""
    links = 0
    uid, gid = caller.uid, caller.gid
    parent: Directory = current
    inode: Inode | None = current
    name = last = b""
    while todo:
        if not isinstance(inode, Directory):
            raise SyscallError(Errno.ENOENT if inode is None else Errno.ENOTDIR)
        current = inode
        if not current.permits(uid, gid, X_OK):
            raise SyscallError(Errno.EACCES)
        last = component = todo.pop()
        if component == b".":
            name = b""
            continue
        if component == b"..":
            inode = above(current, root)
            name = b""
            crosses = scope & RESOLVE_NO_XDEV and inode.fs is not current.fs
            if crosses or (current is root and scope & RESOLVE_BENEATH):
                raise SyscallError(Errno.EXDEV)
            continue
        if len(component) > NAME_MAX:
            raise SyscallError(Errno.ENAMETOOLONG)
        parent, name = current, component
        inode = current.find(component, caller)
        if inode is None:
            if todo:
                raise SyscallError(Errno.ENOENT)
            break
        while inode.mounted is not None:
            inode = inode.mounted
            if scope & RESOLVE_NO_XDEV:
                raise SyscallError(Errno.EXDEV)
        if isinstance(inode, Symlink) and (todo or follow or (slash and not keep)):
            links += 1
            if links > MAX_SYMLINKS:
                raise SyscallError(Errno.ELOOP)
            there = inode.jump(caller)
            if scope:
                _check_link(inode, there, b"" if there is not None else inode.read_link(caller), scope)
            if there is not None:
                inode, name = there, b""
                continue
            target = inode.read_link(caller)
            inode, slash = _expand(root, target, current, todo, slash)
            name = b""
    if name == b"" and isinstance(inode, Directory):
        parent = inode
    return Resolved(parent, name, inode, slash, last)


def _expand(
    root: Directory, target: bytes, current: Directory, todo: list[bytes], slash: bool
) -> tuple[Directory, bool]:
    """Put a link's components before the rest; where to go on, and whether the end must be a directory."""
    if not target:
        raise SyscallError(Errno.ENOENT)
    if len(target) >= PATH_MAX:
        raise SyscallError(Errno.ENAMETOOLONG)
    if not todo and target[-1:] == b"/":
        slash = True
    todo.extend(c for c in reversed(target.split(b"/")) if c)
    return (root if target[:1] == b"/" else current), slash


def lookup(caller: Caller, path: bytes, dirfd: int = AT_FDCWD, follow: bool = True) -> Inode:
    """The inode ``path`` names; ENOENT and the errors of :func:`resolve`."""
    return resolve(caller, path, dirfd, follow).existing()


def path_of(inode: Inode) -> bytes:
    """The path an inode was last reached by, from the top of the tree; `` (deleted)`` is added when gone."""
    label = getattr(inode, "label", None)
    if label is not None:
        return b"/" + bytes(label) + b" (deleted)"
    names: list[bytes] = []
    deleted = False
    node: Inode | None = inode
    while node is not None:
        if node is node.fs.root and node.fs.covers is not None:
            node = node.fs.covers
            continue
        if node.place is None:
            break
        directory, name = node.place
        deleted = deleted or not directory.holds(name, node)
        names.append(name)
        node = directory
    path = b"/" + b"/".join(reversed(names))
    return path + b" (deleted)" if deleted else path


def is_beneath(directory: Directory, top: Directory) -> bool:
    """Whether ``directory`` is ``top`` or lies below it in the same file system."""
    while directory is not top:
        parent = directory.parent
        if parent is directory:
            return False
        directory = parent
    return True

"""Where a process stands in the file tree (Linux's ``struct fs_struct``): root, working directory, umask."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import Directory
    from mmuemu.kernel.files.namespace import MountTree


class FsContext:
    """Root and working directory (as inodes), umask, and the mount tree they belong to."""

    __slots__ = ("cwd", "mounts", "root", "umask")

    def __init__(
        self,
        mounts: MountTree,
        cwd: Directory | None = None,
        umask: int = 0o022,
    ) -> None:
        self.mounts = mounts
        self.root = mounts.root
        self.cwd = cwd if cwd is not None else mounts.root
        self.umask = umask

    def clone(self) -> FsContext:
        """The context a forked process gets."""
        return FsContext(self.mounts, self.cwd, self.umask)

"""Where a process stands in the file tree (Linux's ``struct fs_struct``): root, working directory, umask."""

from __future__ import annotations

from time import sleep
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmuemu.kernel.files.inode import Directory
    from mmuemu.kernel.files.namespace import MountTree


class FsContext:
    """Root and working directory (as inodes), umask, and the mount tree they belong to."""

    __slots__ = ("cwd", "mounts", "root", "sleep", "umask")

    def __init__(
        self,
        mounts: MountTree,
        cwd: Directory | None = None,
        umask: int = 0o022,
        sleep: Callable[[float], object] = sleep,
    ) -> None:
        self.mounts = mounts
        self.root = mounts.root
        self.cwd = cwd if cwd is not None else mounts.root
        self.umask = umask
        self.sleep = sleep
        """Waits that many seconds: how poll and select spend their timeout."""

    def clone(self) -> FsContext:
        """The context a forked process gets."""
        return FsContext(self.mounts, self.cwd, self.umask, self.sleep)

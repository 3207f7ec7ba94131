"""Where a process stands in the file tree (Linux's ``struct fs_struct``): root, working directory, umask."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmuemu.kernel.files.inode import Directory
    from mmuemu.kernel.files.namespace import MountTree


def host_sleep(nanoseconds: int) -> None:
    """Let the host's time pass."""
    time.sleep(nanoseconds / 1e9)


class FsContext:
    """Root and working directory (as inodes), umask, and the mount tree they belong to."""

    __slots__ = ("cwd", "mounts", "root", "sleep", "umask")

    def __init__(
        self,
        mounts: MountTree,
        cwd: Directory | None = None,
        umask: int = 0o022,
        sleep: Callable[[int], object] = host_sleep,
    ) -> None:
        self.mounts = mounts
        self.root = mounts.root
        self.cwd = cwd if cwd is not None else mounts.root
        self.umask = umask
        self.sleep = sleep
        """Waits that many nanoseconds: how poll and select spend their timeout."""

    def clone(self) -> FsContext:
        """The context a forked process gets."""
        return FsContext(self.mounts, self.cwd, self.umask, self.sleep)

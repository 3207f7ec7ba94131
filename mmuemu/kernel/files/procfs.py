"""placeholder root, replaced below."""

from __future__ import annotations
from mmuemu.kernel.files.inode import Directory
from mmuemu.kernel.abi.stat import PROC_SUPER_MAGIC, S_IFDIR


class ProcRoot(Directory):
    def __init__(self, tree):
        super().__init__(tree.memory_fs("proc", PROC_SUPER_MAGIC), S_IFDIR | 0o555)

    def lookup(self, name):
        return None

    def entries(self):
        return []

"""/proc/PID: what a process is, has open and has in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.files import proctext
from mmuemu.kernel.files.inode import Caller, FileSystem, Inode
from mmuemu.kernel.files.paths import path_of
from mmuemu.kernel.files.procnodes import ProcDirectory, ProcFile, ProcLink
from mmuemu.kernel.files.procsource import ProcessFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mmuemu.kernel.files.procfs import ProcRoot


class DescriptorDirectory(ProcDirectory):
    """/proc/PID/fd and fdinfo: one entry per open descriptor."""

    __slots__ = ("facts", "info")

    def __init__(self, fs: FileSystem, facts: Callable[[], ProcessFacts], info: bool) -> None:
        super().__init__(fs, 0o500)
        self.facts = facts
        self.info = info

    def _owner(self) -> None:
        facts = self.facts()
        self.uid, self.gid = facts.uid, facts.gid

    def lookup(self, name: bytes) -> Inode | None:
        """The entry of a descriptor."""
        files = self.facts().files
        if not name.isdigit() or (len(name) > 1 and name[:1] == b"0") or int(name) not in files:
            return None
        file = files.get(int(name))
        inode: Inode
        if self.info:
            inode = ProcFile(self.fs, lambda: proctext.fdinfo(file))
        else:
            mode = (0o500 if file.readable else 0) | (0o300 if file.writable else 0)
            inode = ProcLink(self.fs, lambda caller: file.path(), lambda: file.inode, mode)
        inode.uid, inode.gid = self.uid, self.gid
        inode.place = (self, name)
        return inode

    def entries(self) -> list[tuple[bytes, int, int]]:
        """Every descriptor; the inode numbers are of the moment, as each look makes new ones."""
        kind = 8 if self.info else 10
        return [(b"%d" % fd, (self.ino << 20) + fd, kind) for fd in self.facts().files]

    def permits(self, uid: int, gid: int, want: int) -> bool:
        """The process itself and its user."""
        self._owner()
        return super().permits(uid, gid, want)


class ProcessDirectory(ProcDirectory):
    """/proc/PID (and /proc/PID/task/TID, which shows the same)."""

    __slots__ = ("facts",)

    def __init__(self, root: ProcRoot, pid: int, facts: Callable[[], ProcessFacts], thread: bool = False) -> None:
        super().__init__(root.fs)
        self.facts = facts
        first = facts()
        fs = root.fs
        tree = root.tree
        self.texts(
            cmdline=lambda: b"".join(a + b"\0" for a in facts().arguments),
            comm=lambda: facts().name[:15] + b"\n",
            status=lambda: proctext.status(facts()),
            stat=lambda: proctext.stat(facts()),
            statm=lambda: proctext.statm(facts()),
            maps=lambda: tree.proc.maps(pid) if tree.proc is not None else b"",
            limits=lambda: proctext.limits(facts()),
            mounts=lambda: proctext.mounts(tree),
            mountinfo=lambda: proctext.mountinfo(tree),
            cgroup=lambda: b"0::/\n",
            oom_score=lambda: b"0\n",
            oom_score_adj=lambda: b"0\n",
        )
        self.add("environ", ProcFile(fs, lambda: b"".join(e + b"\0" for e in facts().environment), 0o400))
        self.add("auxv", ProcFile(fs, lambda: facts().auxv, 0o400))
        self.add("exe", ProcLink(fs, lambda c: _path(facts().exe), lambda: facts().exe))
        self.add("cwd", ProcLink(fs, lambda c: path_of(facts().fs.cwd), lambda: facts().fs.cwd))
        self.add("root", ProcLink(fs, lambda c: b"/", lambda: facts().fs.root))
        self.add("fd", DescriptorDirectory(fs, facts, False))
        self.add("fdinfo", DescriptorDirectory(fs, facts, True))
        if not thread:
            self.add("task", TaskDirectory(root, pid, facts))
        for inode in (self, *self.names.values()):
            inode.uid, inode.gid = first.uid, first.gid


class TaskDirectory(ProcDirectory):
    """/proc/PID/task: one directory per thread."""

    __slots__ = ("facts", "pid", "root")

    def __init__(self, root: ProcRoot, pid: int, facts: Callable[[], ProcessFacts]) -> None:
        super().__init__(root.fs)
        self.root = root
        self.pid = pid
        self.facts = facts

    def _ids(self) -> Iterable[int]:
        return self.facts().threads or (self.pid,)

    def lookup(self, name: bytes) -> Inode | None:
        """A thread's directory."""
        if not name.isdigit() or int(name) not in self._ids():
            return None
        if name not in self.names:
            self.add(name.decode(), ProcessDirectory(self.root, self.pid, self.facts, thread=True))
        return self.names[name]

    def entries(self) -> list[tuple[bytes, int, int]]:
        """The threads."""
        return [(b"%d" % tid, (self.ino << 20) + tid, 4) for tid in self._ids()]


def _path(inode: Inode | None) -> bytes:
    if inode is None:
        raise SyscallError(Errno.ENOENT)
    return path_of(inode)

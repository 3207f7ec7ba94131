"""/proc/PID: what a process is, has open and has in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.files import proctext
from mmuemu.kernel.files.inode import Caller, FileSystem, Inode
from mmuemu.kernel.files.paths import path_of
from mmuemu.kernel.files.procmem import MemoryFileNode, OpenMem, OpenPagemap
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
    """/proc/PID, and /proc/PID/task/TID with ``thread``."""

    __slots__ = ("facts",)

    def __init__(self, root: ProcRoot, pid: int, facts: Callable[[], ProcessFacts], thread: bool = False) -> None:
        super().__init__(root.fs)
        self.facts = facts
        first = facts()
        self._add_texts(root, pid)
        self._add_files(root, pid)
        if not thread:
            self.add("task", TaskDirectory(root, pid, facts))
        for inode in (self, *self.names.values()):
            inode.uid, inode.gid = first.uid, first.gid

    def _add_texts(self, root: ProcRoot, pid: int) -> None:
        facts, tree = self.facts, root.tree
        self.texts(
            cmdline=lambda: facts().command_line,
            status=lambda: proctext.status(facts()),
            stat=lambda: proctext.stat(facts()),
            statm=lambda: proctext.statm(facts()),
            maps=lambda: tree.proc.maps(pid) if tree.proc is not None else b"",
            smaps=lambda: root.memory_text(pid, lambda memory: memory.smaps()),
            smaps_rollup=lambda: root.memory_text(pid, lambda memory: memory.rollup()),
            limits=lambda: proctext.limits(facts()),
            mounts=lambda: proctext.mounts(tree),
            mountinfo=lambda: proctext.mountinfo(tree),
            oom_score=lambda: b"%d\n" % facts().oom_score,
            io=lambda: proctext.io(facts()),
            syscall=lambda: proctext.syscall(facts()),
            **{name: lambda text=text: text for name, text in proctext.PROCESS_CONSTANTS.items()},
        )

    def _add_files(self, root: ProcRoot, pid: int) -> None:
        facts, fs = self.facts, root.fs

        def rename(data: bytes, caller: Caller) -> None:
            if caller.pid != pid:
                raise SyscallError(Errno.EINVAL)
            facts().rename(data.split(b"\0")[0].removesuffix(b"\n")[:15])

        def adjust(data: bytes, caller: Caller) -> None:
            value = proctext.parsed_number(data)
            if not -1000 <= value <= 1000:
                raise SyscallError(Errno.EINVAL)
            if value < facts().oom_score_adj and caller.uid:
                raise SyscallError(Errno.EACCES)
            facts().set_oom_score_adj(value)

        self.add("comm", ProcFile(fs, lambda: facts().name[:15] + b"\n", 0o644, rename))
        self.add("oom_score_adj", ProcFile(fs, lambda: b"%d\n" % facts().oom_score_adj, 0o644, adjust))
        self.add("environ", ProcFile(fs, lambda: facts().environ, 0o400))
        self.add("auxv", ProcFile(fs, lambda: facts().auxv, 0o400))
        self.add("mem", MemoryFileNode(fs, 0o600, lambda: root.memory(pid), OpenMem))
        self.add("pagemap", MemoryFileNode(fs, 0o400, lambda: root.memory(pid), OpenPagemap))
        self.add("exe", ProcLink(fs, lambda c: _path(facts().exe), lambda: facts().exe))
        self.add("cwd", ProcLink(fs, lambda c: path_of(facts().fs.cwd), lambda: facts().fs.cwd))
        self.add("root", ProcLink(fs, lambda c: b"/", lambda: facts().fs.root))
        self.add("fd", DescriptorDirectory(fs, facts, False))
        self.add("fdinfo", DescriptorDirectory(fs, facts, True))


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
        if not name.isdigit() or name[:1] == b"0" or int(name) not in self._ids():
            self.names.pop(name, None)
            return None
        if name not in self.names:
            tid = int(name)
            self.add(name.decode(), ProcessDirectory(self.root, self.pid, lambda: self._thread(tid), thread=True))
        return self.names[name]

    def _thread(self, tid: int) -> ProcessFacts:
        """The facts of one thread; ESRCH when it has ended."""
        proc = self.root.tree.proc
        found = self.facts() if proc is None or tid == self.pid else proc.thread(self.pid, tid)
        if found is None:
            raise SyscallError(Errno.ESRCH)
        return found

    def entries(self) -> list[tuple[bytes, int, int]]:
        """The threads."""
        return [(b"%d" % tid, (self.ino << 20) + tid, 4) for tid in self._ids()]


def _path(inode: Inode | None) -> bytes:
    if inode is None:
        raise SyscallError(Errno.ENOENT)
    return path_of(inode)

"""/proc: a directory tree made on demand from what the kernel tells (:mod:`procsource`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import SEEK_END
from mmuemu.kernel.abi.stat import PROC_SUPER_MAGIC, S_IFDIR, S_IFLNK, S_IFREG
from mmuemu.kernel.files import proctext
from mmuemu.kernel.files.inode import Caller, Directory, FileSystem, Inode, Symlink
from mmuemu.kernel.files.openfile import OpenFile, moved_offset
from mmuemu.kernel.files.paths import path_of
from mmuemu.kernel.files.procsource import ProcessFacts, SystemFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mmuemu.kernel.files.namespace import MountTree


class ProcFile(Inode):
    """A text that is made when the file is read."""

    __slots__ = ("text",)

    seekable = True

    def __init__(self, fs: FileSystem, text: Callable[[], bytes], mode: int = 0o444) -> None:
        super().__init__(fs, S_IFREG | mode)
        self.text = text

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """A description that keeps one text from its first read on."""
        return OpenText(self, flags)

    def read_at(self, offset: int, count: int) -> bytes:
        """Part of the text as it is now."""
        return self.text()[offset : offset + count]


class OpenText(OpenFile):
    """An opened /proc text; reading from the start makes it anew."""

    __slots__ = ("_text",)

    bulk = True
    inode: ProcFile

    def __init__(self, inode: ProcFile, flags: int) -> None:
        super().__init__(inode, flags)
        self._text: bytes | None = None

    def read(self, count: int) -> bytes:
        """Read and move."""
        data = self.pread(self.offset, count)
        self.offset += len(data)
        return data

    def pread(self, offset: int, count: int) -> bytes:
        """Read at an offset."""
        if not self.readable:
            raise SyscallError(Errno.EBADF)
        if self._text is None or offset == 0:
            self._text = self.inode.text()
        return self._text[offset : offset + count]

    def write(self, data: bytes) -> int:
        """Nothing in /proc can be written."""
        raise SyscallError(Errno.EACCES if self.writable else Errno.EBADF)

    def pwrite(self, offset: int, data: bytes) -> int:
        """Nothing in /proc can be written."""
        return self.write(data)

    def seek(self, offset: int, whence: int) -> int:
        """Move; there is no end to seek from (fs/seq_file.c: seq_lseek)."""
        if whence == SEEK_END:
            raise SyscallError(Errno.EINVAL)
        self.offset = moved_offset(self.offset, 0, offset, whence)
        return self.offset


class ProcLink(Symlink):
    """A link whose text depends on who looks, or a magic one that leads to an inode whatever its text."""

    __slots__ = ("find_inode", "text")

    def __init__(
        self,
        fs: FileSystem,
        text: Callable[[Caller], bytes],
        find_inode: Callable[[], Inode | None] | None = None,
        mode: int = 0o777,
    ) -> None:
        super().__init__(fs, b"")
        self.mode = S_IFLNK | mode
        self.text = text
        self.find_inode = find_inode

    def read_link(self, caller: Caller) -> bytes:
        """The text."""
        return self.text(caller)

    def jump(self, caller: Caller) -> Inode | None:
        """The inode a magic link leads to; ENOENT when there is none (a kernel thread's exe)."""
        if self.find_inode is None:
            return None
        inode = self.find_inode()
        if inode is None:
            raise SyscallError(Errno.ENOENT)
        return inode


class ProcDirectory(Directory):
    """A directory with fixed entries."""

    __slots__ = ("names",)

    def __init__(self, fs: FileSystem, mode: int = 0o555) -> None:
        super().__init__(fs, S_IFDIR | mode)
        self.nlink = 2
        self.names: dict[bytes, Inode] = {}

    def add(self, name: str, inode: Inode) -> Inode:
        """Add an entry."""
        self.names[name.encode()] = inode
        inode.place = (self, name.encode())
        if inode.is_directory:
            self.nlink += 1
        return inode

    def texts(self, **files: Callable[[], bytes]) -> None:
        """Add text files."""
        for name, text in files.items():
            self.add(name, ProcFile(self.fs, text))

    def lookup(self, name: bytes) -> Inode | None:
        """A fixed entry."""
        return self.names.get(name)

    def entries(self) -> list[tuple[bytes, int, int]]:
        """The fixed entries."""
        return [(name, inode.ino, inode.kind) for name, inode in self.names.items()]

    def holds(self, name: bytes, inode: Inode) -> bool:
        """What /proc shows is never deleted while it can be seen."""
        return True

    def refuse(self) -> Errno:
        """proc refuses creation as if the name could not exist (fs/proc/generic.c has no create)."""
        return Errno.ENOENT


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


class ProcRoot(ProcDirectory):
    """/proc itself: the machine's files and one directory per process."""

    __slots__ = ("processes", "tree")

    def __init__(self, tree: MountTree) -> None:
        super().__init__(tree.memory_fs("proc", PROC_SUPER_MAGIC))
        self.tree = tree
        self.processes: dict[int, ProcessDirectory] = {}
        system = self.system
        self.texts(
            meminfo=lambda: proctext.meminfo(system()),
            cpuinfo=lambda: proctext.cpuinfo(system()),
            version=lambda: proctext.version(system()),
            uptime=lambda: f"{system().uptime:.2f} 0.00\n".encode(),
            loadavg=lambda: f"0.00 0.00 0.00 1/{self._count()} {system().last_pid}\n".encode(),
            stat=lambda: proctext.system_stat(system(), self._count()),
            filesystems=lambda: b"nodev\ttmpfs\nnodev\tproc\nnodev\tdevtmpfs\nnodev\toverlay\nnodev\t9p\n",
            cmdline=lambda: b"\n",
        )
        self.add("self", ProcLink(self.fs, lambda caller: b"%d" % caller.pid))
        self.add("thread-self", ProcLink(self.fs, _thread_self))
        self.add("mounts", ProcLink(self.fs, lambda caller: b"self/mounts"))
        self._add_sys()

    def _add_sys(self) -> None:
        system = self.system
        fs = self.fs
        top = ProcDirectory(fs)
        self.add("sys", top)
        kernel = ProcDirectory(fs)
        top.add("kernel", kernel)
        kernel.texts(
            osrelease=lambda: system().release.encode() + b"\n",
            ostype=lambda: b"Linux\n",
            hostname=lambda: system().hostname.encode() + b"\n",
            version=lambda: system().version.encode() + b"\n",
            randomize_va_space=lambda: b"%d\n" % system().randomize_va_space,
            pid_max=lambda: b"32768\n",
            ngroups_max=lambda: b"65536\n",
            cap_last_cap=lambda: b"40\n",
        )
        random = ProcDirectory(fs)
        kernel.add("random", random)
        random.texts(boot_id=lambda: proctext.boot_id(system()), entropy_avail=lambda: b"256\n")
        memory = ProcDirectory(fs)
        top.add("vm", memory)
        memory.texts(
            overcommit_memory=lambda: b"0\n",
            overcommit_ratio=lambda: b"50\n",
            max_map_count=lambda: b"65530\n",
            mmap_min_addr=lambda: b"65536\n",
        )
        limits = ProcDirectory(fs)
        top.add("fs", limits)
        limits.texts(**{"file-max": lambda: b"1048576\n", "pipe-max-size": lambda: b"1048576\n"})

    def _count(self) -> int:
        return len(self.tree.proc.pids()) if self.tree.proc is not None else 1

    def system(self) -> SystemFacts:
        """The machine's facts; defaults before a kernel is there."""
        return self.tree.proc.system() if self.tree.proc is not None else SystemFacts()

    def _facts(self, pid: int, caller: Caller) -> ProcessFacts | None:
        if self.tree.proc is not None:
            return self.tree.proc.process(pid)
        if pid != caller.pid:
            return None
        facts = ProcessFacts(pid, b"", caller.files, caller.fs)
        facts.uid, facts.gid = caller.uid, caller.gid
        return facts

    def find(self, name: bytes, caller: Caller) -> Inode | None:
        """A fixed entry, or a process's directory."""
        fixed = self.names.get(name)
        if fixed is not None:
            return fixed
        if not name.isdigit() or name[:1] == b"0" or len(name) > 10:
            return None
        pid = int(name)
        if self._facts(pid, caller) is None:
            self.processes.pop(pid, None)
            return None
        found = self.processes.get(pid)
        if found is None:
            found = ProcessDirectory(self, pid, lambda: self._living(pid, caller))
            found.place = (self, name)
            self.processes[pid] = found
        return found

    def _living(self, pid: int, caller: Caller) -> ProcessFacts:
        facts = self._facts(pid, caller)
        if facts is None:
            raise SyscallError(Errno.ESRCH)
        return facts

    def list(self, caller: Caller) -> list[tuple[bytes, int, int]]:
        """The fixed entries, then every process."""
        pids = self.tree.proc.pids() if self.tree.proc is not None else (caller.pid,)
        found = []
        for pid in pids:
            inode = self.find(b"%d" % pid, caller)
            if inode is not None:
                found.append((b"%d" % pid, inode.ino, 4))
        return [*self.entries(), *found]


def _thread_self(caller: Caller) -> bytes:
    return b"%d/task/%d" % (caller.pid, getattr(caller, "tid", caller.pid) or caller.pid)

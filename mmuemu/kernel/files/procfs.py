"""/proc: a directory tree made on demand from what the kernel tells (:mod:`procsource`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.stat import PROC_SUPER_MAGIC
from mmuemu.kernel.files import proctext
from mmuemu.kernel.files.inode import Caller, Inode
from mmuemu.kernel.files.procnodes import ProcDirectory, ProcLink
from mmuemu.kernel.files.procpid import ProcessDirectory
from mmuemu.kernel.files.procsource import ProcessFacts, SystemFacts

if TYPE_CHECKING:
    from mmuemu.kernel.files.namespace import MountTree


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

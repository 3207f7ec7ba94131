"""/proc: a directory tree made on demand from what the kernel tells (:mod:`procsource`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.stat import PROC_SUPER_MAGIC
from mmuemu.kernel.files import proctext
from mmuemu.kernel.files.inode import Caller, Inode
from mmuemu.kernel.files.procnodes import CallerFile, ProcDirectory, ProcLink
from mmuemu.kernel.files.procpid import ProcessDirectory
from mmuemu.kernel.files.procsource import ProcessFacts, ProcessMemory, SystemFacts
from mmuemu.kernel.files.procsys import sys_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmuemu.kernel.files.namespace import MountTree

_MOST_KEPT: Final = 16
"""Directories of processes that are kept before dead ones are looked for."""


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
            version=self._version,
            uptime=lambda: f"{system().uptime:.2f} 0.00\n".encode(),
            loadavg=lambda: proctext.loadavg(system()),
            stat=lambda: proctext.system_stat(system()),
            **{name: lambda text=text: text for name, text in proctext.SYSTEM_CONSTANTS.items()},
        )
        self.add("kallsyms", CallerFile(self.fs, self._kallsyms))
        self.add("self", ProcLink(self.fs, lambda caller: b"%d" % caller.pid))
        self.add("thread-self", ProcLink(self.fs, _thread_self))
        self.add("mounts", ProcLink(self.fs, lambda caller: b"self/mounts"))
        self.add("sys", sys_tree(self))
        ipc = self.add("sysvipc", ProcDirectory(self.fs))
        ipc.texts(**{kind: lambda kind=kind: self._sysvipc(kind) for kind in ("shm", "sem", "msg")})

    def _kallsyms(self, caller: Caller) -> bytes:
        """The kernel's symbols; addresses are for root only (kptr_restrict 0, perf_event_paranoid 2)."""
        symbols = self.tree.proc.symbols() if self.tree.proc is not None else ()
        shown = caller.uid == 0
        return "".join(f"{at if shown else 0:016x} {kind} {name}\n" for at, kind, name in symbols).encode()

    def _version(self) -> bytes:
        if self.tree.proc is not None:
            self.tree.proc.banner_read()
        return proctext.version(self.system())

    def _sysvipc(self, kind: str) -> bytes:
        return self.tree.proc.sysvipc(kind) if self.tree.proc is not None else b""

    def random(self) -> bytes:
        """16 random bytes; zeros before a kernel is there."""
        return self.tree.proc.uuid() if self.tree.proc is not None else bytes(16)

    def memory(self, pid: int) -> ProcessMemory | None:
        """A process's memory, while it has one."""
        return None if self.tree.proc is None else self.tree.proc.memory(pid)

    def memory_text(self, pid: int, text: Callable[[ProcessMemory], bytes]) -> bytes:
        """A text about a process's memory; empty without one."""
        memory = self.memory(pid)
        return b"" if memory is None else text(memory)

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
            self._forget_the_dead()
            found = ProcessDirectory(self, pid, lambda: self._living(pid, caller))
            found.place = (self, name)
            self.processes[pid] = found
        return found

    def _forget_the_dead(self) -> None:
        """Directories that were looked at keep what they show alive: drop those of processes that are gone."""
        if len(self.processes) >= _MOST_KEPT and self.tree.proc is not None:
            live = set(self.tree.proc.pids())
            self.processes = {pid: found for pid, found in self.processes.items() if pid in live}

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

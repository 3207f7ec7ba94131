"""A process of a machine, as a script sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mmuemu.cpu.window import FS
from mmuemu.errors import UsageError
from mmuemu.kernel import registers as regs
from mmuemu.kernel.abi.errno import SyscallError
from mmuemu.kernel.maps import area_name, maps_text
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.mmu.state import Access

if TYPE_CHECKING:
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task
    from mmuemu.machine import Machine, Outcome
    from mmuemu.memory.page_table import PageTable
    from mmuemu.mmu.state import PageFault, Translation
    from mmuemu.view.regions import Region
    from mmuemu.view.tables import Table

_NAMES = {
    "rax": regs.AX, "rcx": regs.CX, "rdx": regs.DX, "rbx": regs.BX, "rsp": regs.SP, "rbp": regs.BP, "rsi": regs.SI,
    "rdi": regs.DI, "r8": regs.R8, "r9": regs.R9, "r10": regs.R10, "r11": regs.R11, "r12": regs.R12,
    "r13": regs.R13, "r14": regs.R14, "r15": regs.R15, "rip": regs.IP, "rflags": regs.FLAGS,
}  # fmt: skip


class Area(NamedTuple):
    """One area of an address space: ``[start, end)``, ``"rw-p"`` as in /proc/PID/maps, and its name."""

    start: int
    end: int
    permissions: str
    name: str


class Thread:
    """One thread: a number, a state, registers."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @property
    def tid(self) -> int:
        """Its number."""
        return self.task.tid

    @property
    def state(self) -> str:
        """``"R"`` ready, ``"S"`` sleeping, ``"T"`` stopped, ``"Z"`` ended."""
        return self.task.state.value

    @property
    def registers(self) -> dict[str, int]:
        """General registers, ``rip`` and ``rflags`` of its user code, by lower-case name."""
        task = self.task
        if task is task.kernel.current and task.kernel.cpu.cpl == 3:
            return task.kernel.cpu.registers()
        return {name: task.registers[index] for name, index in _NAMES.items()}

    @property
    def fs_base(self) -> int:
        """Where its thread-local storage is."""
        window = self.task.kernel.cpu.window
        if self.task is self.task.kernel.current:
            window.save()
        else:
            window.load(self.task.snapshot)
        return int(window.q[FS.base])

    def __repr__(self) -> str:
        return f"<Thread {self.tid} {self.state} {self.task.name!r}>"


class GuestProcess:
    """One process, from :meth:`Machine.spawn` or :attr:`Machine.processes`. It can be asked after its end, too."""

    def __init__(
        self, machine: Machine, process: Process, out: bytearray | None = None, err: bytearray | None = None
    ) -> None:
        self.machine = machine
        self.process = process
        leader = process.leader
        assert leader is not None
        self._leader = leader
        self._out = out
        self._err = err

    def __repr__(self) -> str:
        return f"<GuestProcess {self.pid} {self.process.exe!r}>"

    # -- life ----------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self.process.zombie

    def wait(self, timeout: float | None = None, *, max_instructions: int | None = None) -> Outcome:
        """Run the machine, with every process on it, until this one has ended; how it ended.

        With a limit (seconds of the host's time, or instructions of all guests) the outcome may say ``limit``:
        wait again to go on.
        """
        return self.machine.run_until(self.process, timeout=timeout, max_instructions=max_instructions)

    @property
    def exit_code(self) -> int | None:
        """As a shell tells it (128 + signal when one killed it); None while it lives."""
        process = self.process
        if not process.zombie:
            return None
        return process.death.exit_code if process.death is not None else process.exit_status

    @property
    def signal(self) -> int | None:
        """The signal that killed it."""
        return None if self.process.death is None else int(self.process.death.signal)

    def kill(self, signal: int = 9) -> None:
        """Send it a signal; it acts on it when it runs next."""
        if not self.ended:
            self.machine.kernel.send_signal(self.process, SigInfo(signal))

    @property
    def threads(self) -> list[Thread]:
        """Its live threads, oldest first."""
        return [Thread(task) for task in self.process.threads.values()]

    @property
    def children(self) -> list[GuestProcess]:
        """Its children that live or have not been waited for."""
        return [GuestProcess(self.machine, child) for child in self.process.children.values()]

    @property
    def stdout(self) -> bytes:
        """What it, and whoever inherited the descriptor, has written so far, if spawned with captured output."""
        return bytes(self._out or b"")

    @property
    def stderr(self) -> bytes:
        """As :attr:`stdout`."""
        return bytes(self._err or b"")

    # -- memory --------------------------------------------------------------------------------------------------

    @property
    def _task(self) -> Task:
        return next(iter(self.process.threads.values()), self._leader)

    @property
    def maps(self) -> str:
        """The text of /proc/PID/maps."""
        return maps_text(self._task.mm)

    @property
    def areas(self) -> list[Area]:
        """The same, as objects."""
        mm = self._task.mm
        return [Area(vma.start, vma.end, vma.permissions, area_name(mm, vma)) for vma in mm.vmas]

    @property
    def page_table(self) -> PageTable:
        """Its page tables, in guest RAM."""
        return self._task.mm.page_table

    def read(self, address: int, count: int) -> bytes:
        """Memory by linear address, whatever the protection, as a debugger reads it. UsageError where nothing is."""
        try:
            return self._task.memory.peek(address, count)
        except SyscallError:
            raise UsageError(f"process {self.pid} has nothing mapped in {address:#x}-{address + count:#x}") from None

    def write(self, address: int, data: bytes) -> None:
        """Store as a debugger does: private pages are copied first, so that nobody else sees it. UsageError."""
        try:
            self._task.memory.poke(address, data)
        except SyscallError:
            end = address + len(data)
            raise UsageError(f"process {self.pid} has nothing writable in {address:#x}-{end:#x}") from None

    def translate(self, address: int, access: str = "read", *, user: bool = True) -> Translation | PageFault:
        """What the MMU says of an access now: a translation, or the page fault with its error code.

        ``access`` is ``"read"``, ``"write"`` or ``"execute"``. With page-table isolation ``user`` goes by the tables
        that ring 3 runs on. Nothing is mapped on demand and no bit is set.
        """
        from mmuemu.view.walks import walk_of

        kinds = {"read": Access.READ, "write": Access.WRITE, "execute": Access.FETCH}
        if access not in kinds:
            raise UsageError(f"translate: access {access!r} is none of {', '.join(kinds)}")
        return walk_of(self.machine.kernel, self._task, address, kinds[access], user=user).result

    def memory_map(self, *, kernel_half: bool = True, gaps: bool = True) -> list[Region]:
        """The whole address space from 0 to 2^64: what lies where, how much of it is in memory, how far it was moved.

        Without ``kernel_half`` and ``gaps`` the same areas as :attr:`areas`. UsageError when its memory is gone.
        """
        from mmuemu.view.regions import memory_map

        self._alive()
        return memory_map(self.machine.kernel, self.process, self._task.mm, kernel_half=kernel_half, gaps=gaps)

    def page_tables(self, start: int = 0, end: int = 1 << 64, *, user_root: bool = False) -> Table:
        """Its page tables that translate ``[start, end)`` as a tree, equal neighbours merged into runs.

        ``user_root`` is the tree that ring 3 runs on, which is another one with page-table isolation only.
        UsageError when its memory is gone.
        """
        from mmuemu.view.tables import read_tables

        self._alive()
        table = self.page_table
        return read_tables(table, start, end, root=table.user_root if user_root else table.root)

    def _alive(self) -> None:
        if self.page_table not in self.machine.kernel.memory.half:
            raise UsageError(f"process {self.pid} has ended and its memory is gone")

    def facts(self) -> dict[str, Any]:
        """What there is to know, for a report."""
        return {
            "pid": self.pid,
            "program": self.process.exe,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "threads": [thread.tid for thread in self.threads],
        }


__all__ = ["Area", "GuestProcess", "Thread"]

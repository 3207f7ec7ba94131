"""The kernel's side of /proc: facts about its tasks and itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from mmuemu.kernel import registers as regs
from mmuemu.kernel import speculation_control
from mmuemu.kernel.abi.errno import SyscallError
from mmuemu.kernel.abi.signals import SIG_IGN
from mmuemu.kernel.accounting import process_cpu_time, thread_cpu_time
from mmuemu.kernel.clock import NANOSECONDS
from mmuemu.kernel.files.fdtable import FdTable
from mmuemu.kernel.files.procsource import ProcessFacts, SystemFacts
from mmuemu.kernel.maps import maps_text
from mmuemu.kernel.oom import score
from mmuemu.kernel.smaps import pagemap, rollup_text, shmem_bytes, smaps_text, table_bytes
from mmuemu.kernel.syscalls.system import DEFAULT_LIMITS, RELEASE, RLIM_INFINITY, RLIMIT_COUNT, VERSION
from mmuemu.kernel.task import State
from mmuemu.kernel.user_memory import UserMemory
from mmuemu.kernel.vma import VM_EXEC, VM_GROWSDOWN, VM_SHARED, VM_WRITE, Vma
from mmuemu.kernel.vulnerable import BANNER, BANNER_AT
from mmuemu.x86.features import linux_names
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE, SIZE_2M

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task

_ARGUMENTS: Final = (regs.DI, regs.SI, regs.DX, regs.R10, regs.R8, regs.R9)
_LONGEST_ARGUMENTS: Final = 1 << 21
TICK: Final = NANOSECONDS // 100
"""Nanoseconds in a tick of /proc's times."""
_BY_XSAVE: Final = frozenset({"xsave", "xsaveopt", "xsavec", "xgetbv1", "xsaves"})
_NO_CALL: Final = (1 << 64) - 1


def living_thread(process: Process) -> Task | None:
    """A thread whose memory and files are the process's; None for a zombie."""
    return next(iter(process.threads.values()), None)


class TaskFacts(ProcessFacts):
    """The facts of one task, worked out when they are read: most files under /proc need few of them.

    A leader that has ended before its threads shows their memory; a zombie has none.
    """

    def __init__(self, task: Task) -> None:
        process = task.process
        live = living_thread(process) if task.ended else task
        super().__init__(task.pid, os.fsencode(task.name), FdTable() if live is None else live.files, task.fs)
        self.task = task
        self.tid = task.tid
        self.threads = tuple(process.threads) or (process.pid,)
        self.ppid = task.ppid
        self.exe = None if task.exe_file is None or live is None else task.exe_file.inode
        self.arguments = task.arguments if live is not None else ()
        self.environment = task.environment if live is not None else ()
        self.auxv = task.auxv if live is not None else b""
        self.uid = task.uid
        self.gid = task.gid
        self.pgrp = task.pgid
        self.session = task.sid
        self.pending = process.signals.bits
        self.own_pending = task.signals.bits
        self.blocked = task.signal_mask
        self.oom_score_adj = process.oom_score_adj
        self.limits = {
            number: task.limits.get(number) or DEFAULT_LIMITS.get(number, (RLIM_INFINITY, RLIM_INFINITY))
            for number in range(RLIMIT_COUNT)
        }
        self.start_ticks = process.start_time * 100 // NANOSECONDS
        self.exit_code = process.wait_status if process.zombie else 0
        self.mm: AddressSpace | None = None if live is None else live.mm
        if self.mm is not None:
            self._measure(self.mm)

    @property
    def oom_score(self) -> int:  # type: ignore[override]
        """How likely it is to be killed for lack of memory."""
        return score(self.task.kernel, self.task.process)

    @property
    def user_ticks(self) -> int:  # type: ignore[override]
        """CPU time in hundredths of a second."""
        process = self.task.process
        return (thread_cpu_time(self.task) if self.tid != process.pid else process_cpu_time(process)) // TICK

    def _measure(self, mm: AddressSpace) -> None:
        self.virtual = self.peak = mm.total_vm
        self.resident = mm.resident * PAGE_SIZE
        self.highest = mm.peak * PAGE_SIZE
        self.shared = mm.file_pages * PAGE_SIZE
        self.locked = mm.locked_vm
        self.minor_faults = mm.minor_faults
        self.major_faults = mm.major_faults
        self.start_stack = mm.start_stack
        self.start_brk = mm.start_brk
        self.argument_range = self.task.stack_arguments

    @property
    def state(self) -> str:  # type: ignore[override]
        """The letter of proc(5)."""
        task = self.task
        if task.ended:
            return State.DEAD.value
        return State.RUNNABLE.value if task is task.kernel.current else task.state.value

    @property
    def store_bypass(self) -> str:  # type: ignore[override]
        """What status says of speculative store bypass."""
        return speculation_control.status_texts(self.task)[0]

    @property
    def indirect_branch(self) -> str:  # type: ignore[override]
        """What it says of indirect branch speculation."""
        return speculation_control.status_texts(self.task)[1]

    @property
    def syscall(self) -> tuple[int, ...]:  # type: ignore[override]
        """The call it is in."""
        task = self.task
        if task.ended:
            return ()
        registers = task.registers
        place = (registers[regs.SP], registers[regs.IP])
        number = registers[regs.ORIG_AX]
        if number == _NO_CALL:
            return (-1, *place) if task is not task.kernel.current else ()
        return (number, *(registers[index] for index in _ARGUMENTS), *place)

    def _string_area(self, start: int, end: int) -> bytes | None:
        """Bytes of the initial stack as they are now; None when they are gone."""
        if self.mm is None or not start < end <= start + _LONGEST_ARGUMENTS:
            return None
        try:
            return UserMemory(self.mm).peek(start, end - start)
        except SyscallError:
            return None

    @property
    def command_line(self) -> bytes:
        """The arguments as they are in memory: a program may have written a title over them (``get_mm_cmdline``)."""
        start, end, _, env_end = self.argument_range
        found = self._string_area(start, end)
        if found is None:
            return super().command_line
        if found[-1:] == b"\0":
            return found
        longer = self._string_area(start, env_end) or found
        return longer[: longer.find(b"\0") + 1] or longer

    @property
    def environ(self) -> bytes:
        """The environment as it is in memory."""
        found = self._string_area(*self.argument_range[2:])
        return super().environ if found is None else found

    def rename(self, name: bytes) -> None:
        """Another name."""
        self.task.name = os.fsdecode(name)

    def set_oom_score_adj(self, value: int) -> None:
        """Another adjustment."""
        self.task.process.oom_score_adj = value

    def _dispositions(self, wanted: Callable[[int], bool]) -> int:
        return sum(
            1 << (number - 1)
            for number, action in self.task.signal_actions.items()
            if wanted(int.from_bytes(action[:8], "little"))
        )

    def _bytes_of(self, wanted: Callable[[Vma], bool]) -> int:
        return sum(vma.end - vma.start for vma in self.mm.vmas if wanted(vma)) if self.mm is not None else 0

    @property
    def ignored(self) -> int:  # type: ignore[override]
        """Signals that are ignored."""
        return self._dispositions(lambda handler: handler == SIG_IGN)

    @property
    def caught(self) -> int:  # type: ignore[override]
        """Signals with a handler."""
        return self._dispositions(lambda handler: handler > SIG_IGN)

    @property
    def data(self) -> int:  # type: ignore[override]
        """Bytes of private writable areas but stacks (``is_data_mapping``)."""
        kind = VM_WRITE | VM_SHARED | VM_GROWSDOWN
        return self._bytes_of(lambda vma: vma.flags & kind == VM_WRITE)

    def _is_own(self, vma: Vma) -> bool:
        return vma.file is not None and vma.file.inode is self.exe

    @property
    def text(self) -> int:  # type: ignore[override]
        """Bytes of the program's executable areas."""
        return self._bytes_of(lambda vma: bool(vma.flags & VM_EXEC) and self._is_own(vma))

    @property
    def libraries(self) -> int:  # type: ignore[override]
        """Bytes of other executable areas."""
        return self._bytes_of(lambda vma: vma.flags & (VM_EXEC | VM_WRITE) == VM_EXEC and not self._is_own(vma))

    @property
    def stack(self) -> int:  # type: ignore[override]
        """Bytes of areas that grow down."""
        return self._bytes_of(lambda vma: bool(vma.flags & VM_GROWSDOWN))

    @property
    def shmem(self) -> int:  # type: ignore[override]
        """Bytes of shared memory without a file."""
        return 0 if self.mm is None else shmem_bytes(self.mm)

    @property
    def tables(self) -> int:  # type: ignore[override]
        """Bytes of page tables."""
        return 0 if self.mm is None else table_bytes(self.mm)

    def _code(self) -> list[Vma]:
        return [vma for vma in self.mm.vmas if vma.flags & VM_EXEC] if self.mm is not None else []

    @property
    def start_code(self) -> int:  # type: ignore[override]
        """Where the program's code begins."""
        return next((vma.start for vma in self._code()), 0)

    @property
    def end_code(self) -> int:  # type: ignore[override]
        """Where the program's code ends."""
        return next((vma.end for vma in self._code()), 0)


class SpaceMemory:
    """An address space as /proc/PID/{mem,pagemap,smaps} show it; empty once nobody lives in it."""

    def __init__(self, mm: AddressSpace) -> None:
        self.mm = mm

    def smaps(self) -> bytes:
        """The text of smaps."""
        return os.fsencode(smaps_text(self.mm)) if self.mm.users else b""

    def rollup(self) -> bytes:
        """The text of smaps_rollup."""
        return os.fsencode(rollup_text(self.mm)) if self.mm.users else b""

    def pagemap(self, offset: int, count: int, frames_shown: bool) -> bytes:
        """A part of pagemap."""
        return pagemap(self.mm, offset, count, frames_shown=frames_shown) if self.mm.users else b""

    def read(self, address: int, count: int) -> bytes:
        """Bytes up to a page that is not there."""
        memory = UserMemory(self.mm)
        parts = bytearray()
        while self.mm.users and len(parts) < count:
            at = address + len(parts)
            try:
                parts += memory.peek(at, min(PAGE_SIZE - (at & PAGE_MASK), count - len(parts)))
            except SyscallError:
                break
        return bytes(parts)

    def write(self, address: int, data: bytes) -> int:
        """Store up to a page where that cannot be."""
        memory = UserMemory(self.mm)
        done = 0
        while self.mm.users and done < len(data):
            at = address + done
            size = min(PAGE_SIZE - (at & PAGE_MASK), len(data) - done)
            try:
                memory.poke(at, data[done : done + size])
            except SyscallError:
                break
            done += size
        return done


class KernelProc:
    """What /proc reads."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def pids(self) -> Sequence[int]:
        """Every process, by number."""
        return sorted(self.kernel.processes)

    def _space(self, pid: int) -> AddressSpace | None:
        """The memory of a process, or of the process that has a thread of that number."""
        kernel = self.kernel
        process = kernel.processes.get(pid)
        task = kernel.tasks.get(pid) if process is None else living_thread(process)
        return None if task is None else task.mm

    def maps(self, pid: int) -> bytes:
        """The text of /proc/PID/maps; empty for a zombie."""
        space = self._space(pid)
        return b"" if space is None else os.fsencode(maps_text(space))

    def memory(self, pid: int) -> SpaceMemory | None:
        """The memory of a process; None of a zombie."""
        space = self._space(pid)
        return None if space is None else SpaceMemory(space)

    def process(self, pid: int) -> ProcessFacts | None:
        """A process, or a thread by its number (which /proc does not list, but finds); None without either."""
        process = self.kernel.processes.get(pid)
        task = self.kernel.tasks.get(pid) if process is None else process.leader
        return None if task is None else TaskFacts(task)

    def thread(self, pid: int, tid: int) -> ProcessFacts | None:
        """One live thread of a process."""
        process = self.kernel.processes.get(pid)
        task = None if process is None else process.threads.get(tid)
        return None if task is None else TaskFacts(task)

    def system(self) -> SystemFacts:
        """The machine."""
        kernel = self.kernel
        uptime = kernel.clock.monotonic() / NANOSECONDS
        facts = SystemFacts()
        facts.memory_total = kernel.frames.limit * PAGE_SIZE
        facts.memory_free = kernel.frames.free * PAGE_SIZE
        facts.uptime = uptime
        facts.boot_time = int(kernel.clock.realtime() / NANOSECONDS - uptime)
        facts.release = RELEASE
        facts.version = VERSION
        facts.hostname = kernel.hostname
        facts.thp = kernel.options.thp
        model = kernel.cpu.model
        if model is not None:
            facts.cpu_vendor, facts.cpu_model = model.vendor, model.brand
            unused = _BY_XSAVE if kernel.lazy_fpu else frozenset()
            used = model.features - unused | ({"ospke"} if kernel.protection_keys else set())
            facts.cpu_flags = linux_names(used, kernel.options.cpu_flags)
            facts.caches = model.caches
            if model.tsc_hz:
                facts.cpu_mhz = model.tsc_hz / 1e6
            facts.cpu_version = (model.family, model.model, model.stepping)
            facts.address_bits = (model.maxphyaddr, 48)
            facts.cpuid_level = model.last_leaf
        facts.cpu_bugs, facts.vulnerabilities = kernel.options.bugs, kernel.options.vulnerabilities
        facts.randomize_va_space = 2 if kernel.aslr is not None else 0
        facts.last_pid = kernel.last_pid
        self._count_tasks(facts)
        return facts

    def _count_tasks(self, facts: SystemFacts) -> None:
        kernel = self.kernel
        tasks = list(kernel.tasks.values())
        facts.context_switches = kernel.scheduler.switches
        facts.forks = kernel.last_pid
        facts.max_tasks = kernel.options.max_processes
        facts.tasks = len(tasks) or 1
        facts.runnable = sum(task.state is State.RUNNABLE for task in tasks) or 1
        spaces = {task.mm: None for task in tasks}
        facts.anonymous = sum(mm.anon_pages for mm in spaces) * PAGE_SIZE
        facts.huge = sum(len(mm.huge.whole()) * SIZE_2M for mm in spaces)
        facts.mapped = sum(mm.file_pages for mm in spaces) * PAGE_SIZE
        facts.shmem = sum(len(segment.pages.pages) for segment in kernel.ipc.shm.ids) * PAGE_SIZE
        facts.page_tables = sum(table_bytes(mm) for mm in spaces)
        facts.cpu_ticks = min(kernel.clock.cpu() * 100 // NANOSECONDS, int(facts.uptime * 100))

    def symbols(self) -> Sequence[tuple[int, str, str]]:
        """What the kernel half has names for."""
        memory = self.kernel.memory
        text, data = memory.layout.text, memory.data
        return (
            (text, "T", "_stext"),
            (text, "T", "_text"),
            (memory.entry, "T", "entry_SYSCALL_64"),
            (text + PAGE_SIZE, "T", "_etext"),
            (data, "D", "_sdata"),
            (data, "D", "gdt_page"),
            (memory.per_cpu, "D", "cpu_tss_rw"),
            *((place, "D", name) for name, place in memory.driver.data_symbols().items()),
            *((place, "t", name) for name, place in memory.driver.text_symbols().items() if memory.has_driver),
            (memory.driver.data + PAGE_SIZE, "D", "_edata"),
        )

    def banner_read(self) -> None:
        """/proc/version is being made: its format is read."""
        kernel = self.kernel
        if kernel.hidden is not None:
            kernel.hidden.touch(kernel.memory.data_frame + BANNER_AT, len(BANNER), False)

    def sysvipc(self, kind: str) -> bytes:
        """The text of /proc/sysvipc/``kind``."""
        ipc = self.kernel.ipc
        texts: dict[str, Callable[[], str]] = {"shm": ipc.shm.text, "sem": ipc.sem.text, "msg": ipc.msg.text}
        return texts[kind]().encode()

    def uuid(self) -> bytes:
        """16 bytes of the machine's randomness."""
        return self.kernel.random.randbytes(16)

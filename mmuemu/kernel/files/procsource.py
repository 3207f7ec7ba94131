"""What /proc needs to know of the kernel: facts, not text (the memory map's text excepted)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mmuemu.cpu.cpuid import DEFAULT_CACHES, Cache

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mmuemu.kernel.files.context import FsContext
    from mmuemu.kernel.files.fdtable import FdTable
    from mmuemu.kernel.files.inode import Inode


class ProcessFacts:
    """One process; set what is known. Sizes in bytes, times in 1/100 s, bit 0 of a signal set is signal 1."""

    tid: int = 0
    """The thread meant; 0 for the process as a whole."""
    ppid: int = 1
    exe: Inode | None = None
    arguments: Sequence[bytes] = ()
    environment: Sequence[bytes] = ()
    auxv: bytes = b""
    state: str = "R"
    uid: int = 1000
    gid: int = 1000
    pgrp: int = 0
    session: int = 0
    threads: Sequence[int] = ()
    """Thread ids; empty means one, the process id."""
    virtual: int = 0
    peak: int = 0
    resident: int = 0
    shared: int = 0
    data: int = 0
    stack: int = 0
    text: int = 0
    highest: int = 0
    """The most that was ever resident; 0: what is resident now."""
    shmem: int = 0
    """Of what is resident: shared memory without a file. ``shared`` has it too."""
    locked: int = 0
    libraries: int = 0
    """Bytes of executable areas that are not the program's own."""
    tables: int = 0
    """Bytes of page tables."""
    argument_range: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Where arguments begin and end in memory, and the environment."""
    oom_score: int = 0
    oom_score_adj: int = 0
    switches: tuple[int, int] = (0, 0)
    """Times it left the CPU by itself, and had to."""
    syscall: tuple[int, ...] = ()
    """Number of the call it is in, the six arguments, stack and instruction pointer; of a task that runs user code
    -1 and the two; empty: it is running."""
    minor_faults: int = 0
    major_faults: int = 0
    user_ticks: int = 0
    system_ticks: int = 0
    start_ticks: int = 0
    pending: int = 0
    """Signals sent to the whole process."""
    own_pending: int = 0
    """Signals sent to this thread."""
    exit_code: int = 0
    blocked: int = 0
    ignored: int = 0
    caught: int = 0
    start_code: int = 0
    end_code: int = 0
    start_stack: int = 0
    start_brk: int = 0
    store_bypass: str = "not vulnerable"
    """What status says of speculative store bypass."""
    indirect_branch: str = "not affected"
    """What it says of indirect branch speculation."""
    limits: Mapping[int, tuple[int, int]] = {}
    """Soft and hard limit by RLIMIT_* number; RLIM_INFINITY is 2**64 - 1."""

    def __init__(self, pid: int, name: bytes, files: FdTable, fs: FsContext) -> None:
        self.pid = pid
        self.name = name
        self.files = files
        self.fs = fs

    @property
    def command_line(self) -> bytes:
        """The arguments, each with a NUL; what the program has made of them in its memory, if that is known."""
        return b"".join(argument + b"\0" for argument in self.arguments)

    @property
    def environ(self) -> bytes:
        """The environment, each entry with a NUL."""
        return b"".join(entry + b"\0" for entry in self.environment)

    def rename(self, name: bytes) -> None:
        """Change what comm says (15 bytes at most)."""
        self.name = name

    def set_oom_score_adj(self, value: int) -> None:
        """Change what oom_score_adj says."""
        self.oom_score_adj = value


class SystemFacts:
    """The machine; set what is known. Sizes in bytes, times in seconds."""

    memory_total: int = 1 << 30
    memory_free: int = 1 << 30
    uptime: float = 0.0
    boot_time: int = 0
    release: str = "6.1.0"
    version: str = "#1 SMP PREEMPT_DYNAMIC"
    hostname: str = "mmuemu"
    randomize_va_space: int = 2
    last_pid: int = 1
    context_switches: int = 0
    forks: int = 0
    """Processes and threads ever made."""
    runnable: int = 1
    tasks: int = 1
    """Threads of all processes."""
    anonymous: int = 0
    huge: int = 0
    """Of that, in transparent huge pages."""
    thp: str = "always"
    """Of /sys/kernel/mm/transparent_hugepage/enabled."""
    mapped: int = 0
    shmem: int = 0
    page_tables: int = 0
    cpu_ticks: int = 0
    max_tasks: int = 32768
    cpu_vendor: str = "GenuineIntel"
    cpu_model: str = "mmuemu virtual CPU"
    cpu_mhz: float = 2100.0
    cpu_flags: Sequence[str] = ()
    cpu_version: tuple[int, int, int] = (6, 106, 6)
    """Family, model, stepping."""
    address_bits: tuple[int, int] = (40, 48)
    """Physical and linear."""
    cpuid_level: int = 13
    cpu_bugs: Sequence[str] = ()
    """Names as Linux's X86_BUG_*."""
    caches: Sequence[Cache] = DEFAULT_CACHES
    """The data cache first, then outwards."""
    vulnerabilities: Mapping[str, str] = {}
    """Texts of /sys/devices/system/cpu/vulnerabilities; a file that is not there says that it is not affected."""


class ProcessMemory(Protocol):
    """The memory of one process."""

    def smaps(self) -> bytes:
        """The text of /proc/PID/smaps."""

    def rollup(self) -> bytes:
        """The text of /proc/PID/smaps_rollup."""

    def pagemap(self, offset: int, count: int, frames_shown: bool) -> bytes:
        """A part of /proc/PID/pagemap; ``offset`` and ``count`` are multiples of 8."""

    def read(self, address: int, count: int) -> bytes:
        """Bytes of it whatever the protection, fewer before a page that is not there."""

    def write(self, address: int, data: bytes) -> int:
        """Store as a debugger does; how many bytes could be."""


class ProcSource(Protocol):
    """The kernel's side of /proc."""

    def pids(self) -> Sequence[int]:
        """Every process, by number."""

    def process(self, pid: int) -> ProcessFacts | None:
        """One process, or None when it is gone."""

    def maps(self, pid: int) -> bytes:
        """The text of /proc/PID/maps."""

    def thread(self, pid: int, tid: int) -> ProcessFacts | None:
        """One thread of a process, or None when it is gone."""

    def memory(self, pid: int) -> ProcessMemory | None:
        """The memory of a process; None of a zombie."""

    def system(self) -> SystemFacts:
        """The machine."""

    def symbols(self) -> Sequence[tuple[int, str, str]]:
        """The kernel's own: address, kind as nm(1) prints it, name."""

    def banner_read(self) -> None:
        """The format of /proc/version is read."""

    def sysvipc(self, kind: str) -> bytes:
        """The text of /proc/sysvipc/shm, sem or msg."""

    def uuid(self) -> bytes:
        """16 random bytes."""

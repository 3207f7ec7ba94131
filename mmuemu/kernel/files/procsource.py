"""What /proc needs to know of the kernel: facts, not text (the memory map's text excepted)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mmuemu.kernel.files.context import FsContext
    from mmuemu.kernel.files.fdtable import FdTable
    from mmuemu.kernel.files.inode import Inode


class ProcessFacts:
    """One process; set what is known. Sizes in bytes, times in 1/100 s, bit 0 of a signal set is signal 1."""

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
    minor_faults: int = 0
    major_faults: int = 0
    user_ticks: int = 0
    system_ticks: int = 0
    start_ticks: int = 0
    pending: int = 0
    blocked: int = 0
    ignored: int = 0
    caught: int = 0
    start_code: int = 0
    end_code: int = 0
    start_stack: int = 0
    start_brk: int = 0
    limits: Mapping[int, tuple[int, int]] = {}
    """Soft and hard limit by RLIMIT_* number; RLIM_INFINITY is 2**64 - 1."""

    def __init__(self, pid: int, name: bytes, files: FdTable, fs: FsContext) -> None:
        self.pid = pid
        self.name = name
        self.files = files
        self.fs = fs


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
    cpu_vendor: str = "GenuineIntel"
    cpu_model: str = "mmuemu virtual CPU"
    cpu_mhz: float = 2100.0
    cpu_flags: Sequence[str] = ()
    cpu_version: tuple[int, int, int] = (6, 106, 6)
    """Family, model, stepping."""
    address_bits: tuple[int, int] = (40, 48)
    """Physical and linear."""
    cpuid_level: int = 13


class ProcSource(Protocol):
    """The kernel's side of /proc."""

    def pids(self) -> Sequence[int]:
        """Every process, by number."""

    def process(self, pid: int) -> ProcessFacts | None:
        """One process, or None when it is gone."""

    def maps(self, pid: int) -> bytes:
        """The text of /proc/PID/maps."""

    def system(self) -> SystemFacts:
        """The machine."""

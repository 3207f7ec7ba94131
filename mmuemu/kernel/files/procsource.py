"""What /proc needs to know of the kernel: facts, not text (the memory map's text excepted)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmuemu.kernel.files.context import FsContext
    from mmuemu.kernel.files.fdtable import FdTable
    from mmuemu.kernel.files.inode import Inode


@dataclass
class ProcessFacts:
    """One process. Sizes in bytes, times in clock ticks of 1/100 s, signal sets as masks (bit 0: signal 1)."""

    pid: int
    ppid: int
    name: bytes
    files: FdTable
    fs: FsContext
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
    limits: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    """Soft and hard limit by Linux's name ("Max open files"); None is unlimited."""


@dataclass
class SystemFacts:
    """The machine. Sizes in bytes, times in seconds."""

    memory_total: int = 0
    memory_free: int = 0
    uptime: float = 0.0
    boot_time: int = 0
    release: str = "6.1.0"
    version: str = "#1 SMP"
    hostname: str = "mmuemu"
    randomize_va_space: int = 2
    last_pid: int = 1
    context_switches: int = 0


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

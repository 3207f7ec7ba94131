"""A task: one thread of one process, as Linux's ``task_struct`` sees it (memory, files, file-system context)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.files.context import FsContext
    from mmuemu.kernel.files.fdtable import FdTable
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.traps import Death
    from mmuemu.kernel.user_memory import UserMemory


@dataclass(slots=True, eq=False)
class Task:
    """What a system call may use; ``memory`` is ``copy_from_user`` and ``copy_to_user``."""

    kernel: Kernel
    pid: int
    mm: AddressSpace
    memory: UserMemory
    files: FdTable
    fs: FsContext
    tid: int = 0
    ppid: int = 1
    name: str = ""
    exe: str = ""
    arguments: tuple[bytes, ...] = ()
    environment: tuple[bytes, ...] = ()
    auxv: bytes = b""
    clear_child_tid: int = 0
    uid: int = 1000
    gid: int = 1000
    signal_actions: dict[int, bytes] = field(default_factory=dict)
    signal_mask: int = 0
    pending_signals: int = 0
    alternate_stack: tuple[int, int, int] = (0, 2, 0)
    robust_list: int = 0
    limits: dict[int, tuple[int, int]] = field(default_factory=dict)
    entry: int = 0
    stack_arguments: tuple[int, int, int, int] = (0, 0, 0, 0)
    exe_file: OpenFile | None = None
    exit_status: int | None = None
    death: Death | None = None
    ended: bool = False
    pgid: int = 0
    sid: int = 0
    call_state: object = None
    """What the system call being served keeps between being made and being made again."""
    scheduling: tuple[int, int] = (0, 0)
    """SCHED_* policy and real-time priority."""

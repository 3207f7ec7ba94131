"""Tasks without a CPU: address spaces with memory, and the calls by name, asleep or not."""

from __future__ import annotations

from typing import Any

import pytest

from mmuemu.kernel.abi.errno import SyscallError
from mmuemu.kernel.address_space import AddressSpace
from mmuemu.kernel.futex import FutexTable
from mmuemu.kernel.ipc.namespace import IpcNamespace
from mmuemu.kernel.syscalls import load_all
from mmuemu.kernel.syscalls.table import TABLE
from mmuemu.kernel.user_memory import UserMemory
from mmuemu.kernel.wait import Blocked
from mmuemu.memory.frames import FrameAllocator
from mmuemu.memory.kernel_half import KernelHalf
from mmuemu.memory.ram import GuestRam

load_all()
NUMBERS = {call.name: call for call in TABLE.values()}
ASLEEP = "asleep"
_MASK = (1 << 64) - 1


class Clock:
    def __init__(self) -> None:
        self.time = 5_000_000_000

    def now(self) -> int:
        return self.time

    def realtime(self) -> int:
        return self.time + 1_700_000_000_000_000_000


class Process:
    def __init__(self, pid: int) -> None:
        self.pid = pid


class Task:
    """One thread. ``call`` makes a system call: its result, a negative error number, or ASLEEP."""

    def __init__(self, system: System, mm: AddressSpace, uid: int) -> None:
        system.next += 1
        self.kernel: Any = system
        self.tid = self.pid = system.next
        self.uid = self.gid = uid
        self.mm = mm
        self.memory = UserMemory(mm)
        self.call_state: object = None
        self.ended = False
        self.robust_list = self.clear_child_tid = 0
        self.scheduling = (0, 0)
        self.process = Process(self.pid)
        self.woken = False
        self.queues: tuple[Any, ...] = ()
        self.made: tuple[str, tuple[int, ...]] = ("", ())
        system.tasks[self.tid] = self

    def wake(self) -> None:
        self.woken = True

    def call(self, name: str, *arguments: int) -> Any:
        assert not self.queues, "it sleeps in a call"
        self.call_state = None
        self.made = (name, tuple(argument & _MASK for argument in arguments))
        return self.again()

    def again(self) -> Any:
        """Make the call that sleeps again, as the kernel does after a wake-up."""
        for queue in self.queues:
            queue.remove(self)
        self.queues, self.woken = (), False
        self.kernel.current = self
        name, arguments = self.made
        try:
            call = NUMBERS[name]
            words = dict(zip((form[0] for form in call.forms), arguments + (0,) * 6, strict=False))
            result: Any = call.call(self, words, 0)
        except Blocked as blocked:
            self.queues = blocked.queues
            self.deadline = blocked.deadline
            self.restart = blocked.restart
            for queue in self.queues:
                queue.add(self)
            return ASLEEP
        except SyscallError as error:
            result = -error.errno
        self.call_state = None
        return result

    def interrupt(self) -> None:
        """A signal's handler ends the call."""
        for queue in self.queues:
            queue.remove(self)
        self.queues, self.call_state, self.woken = (), None, False

    def word(self, address: int) -> int:
        return self.memory.read_u32(address)


class System:
    """The kernel as these calls see it."""

    def __init__(self, frames: int = 4096) -> None:
        self.ram = GuestRam((frames + 1) << 12)
        self.frames = FrameAllocator(self.ram, 0x1000)
        self.half = KernelHalf(self.frames)
        self.clock = Clock()
        self.tasks: dict[int, Any] = {}
        self.current: Any = None
        self.futexes = FutexTable()
        self.next = 100
        self.ipc = IpcNamespace(self)  # type: ignore[arg-type]

    def process(self, uid: int = 1000) -> Task:
        return Task(self, AddressSpace(self.frames, self.half), uid)

    def thread(self, of: Task) -> Task:
        twin = Task(self, of.mm, of.uid)
        twin.process, twin.pid = of.process, of.pid
        return twin

    def fork(self, of: Task) -> Task:
        self.current = of
        return Task(self, of.mm.fork(), of.uid)


@pytest.fixture
def system() -> System:
    return System()

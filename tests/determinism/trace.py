"""The trace hash of a run: everything its guests can see, in order, in one digest.

In it: each system call with all user registers, its result and what it stored in the caller's memory; page faults with
address and error code; signals; who runs when, and for how many instructions; the memory of each process at its end,
its page-table bits and what is in it; output, exit status, and the clock.

Not in it, since no guest can see it and the engines do it differently: fills and flushes of the TLB, and on which
frame of guest memory a page lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmuemu.kernel import exec as program_start
from mmuemu.kernel import life
from mmuemu.kernel.maps import area_name
from mmuemu.kernel.user_memory import UserMemory
from mmuemu.machine import Machine
from mmuemu.x86.paging import ADDRESS_MASK, P

if TYPE_CHECKING:
    from mmuemu.guestprocess import GuestProcess
    from mmuemu.kernel.events import FaultEvent, SignalEvent, SwitchEvent
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.signals.pending import SigInfo
    from mmuemu.kernel.syscalls.table import Syscall
    from mmuemu.kernel.task import Task

_SHOWN = 32
"""Bytes that a line shows as they are; more are a digest."""


def digest(data: bytes | bytearray | memoryview) -> str:
    """A short name for ``data``."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _words(data: bytes | bytearray | memoryview) -> str:
    return bytes(data).hex() if len(data) <= _SHOWN else f"{len(data)}:{digest(data)}"


class Recorder:
    """Hashes what happens on a machine from now on, a line for each event; a tracer of its kernel's.

    ``log`` is given the lines, to find where two runs part.
    """

    def __init__(self, machine: Machine, log: Callable[[str], object] | None = None) -> None:
        self._hash = hashlib.blake2b(digest_size=20)
        self._log = log
        self._views: list[tuple[int, memoryview]] = []
        kernel = machine.kernel
        self._clock = kernel.clock
        kernel.tracer = self
        events = kernel.events
        events.fault.append(self._fault)
        events.signal.append(self._signal)
        events.switch.append(self._switch)
        events.slice.append(lambda task, count: self.note("slice", task.tid, count))
        events.fork.append(lambda parent, child: self.note("fork", parent.tid, child.tid, child.pid))
        events.exit.append(self._exit)

    def note(self, *what: object) -> None:
        """One more event."""
        # An IntEnum's str is its name in Python 3.10 and its number from 3.11 on.
        line = " ".join(str(int(one)) if isinstance(one, int) else str(one) for one in what)
        self._hash.update(line.encode() + b"\n")
        if self._log is not None:
            self._log(line)

    def hexdigest(self) -> str:
        """The hash so far."""
        return self._hash.hexdigest()

    # -- Tracer -------------------------------------------------------------------------------------------------------

    def enter(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...]) -> None:
        """A system call, with every user register: what led to it shows in them."""
        name = number if call is None else call.name
        self.note("call", task.tid, name, _registers(task), self._clock.now())

    def leave(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...], result: int) -> None:
        """Its result, after what it stored."""
        self._stored()
        self.note("result", task.tid, number, result)

    def sleeps(self, task: Task) -> None:
        """What it stored before it had to wait."""
        self._stored()
        self.note("sleeps", task.tid)

    def signal(self, task: Task, info: SigInfo) -> None:
        """A signal leaves its queue."""
        self.note("takes", task.tid, _words(info.pack()))

    def ignored(self, task: Task, info: SigInfo) -> None:
        """One is dropped."""
        self.note("drops", task.tid, _words(info.pack()))

    def ended(self, task: Task) -> None:
        """A thread ends."""
        self.note("ends", task.tid, task.process.exit_status, task.cpu_time)

    # -- memory -------------------------------------------------------------------------------------------------------

    def stores(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """The kernel stores ``data`` for a task."""
        self.note("stores", hex(address), _words(data))

    def fills(self, address: int, view: memoryview) -> None:
        """Somebody is about to fill ``view``, which is at ``address``: what is in it when the call is done counts."""
        self._views.append((address, view))

    def _stored(self) -> None:
        for address, view in self._views:
            self.note("fills", hex(address), _words(view))
        self._views.clear()

    # -- events -------------------------------------------------------------------------------------------------------

    def _fault(self, event: FaultEvent) -> None:
        # Which byte of its page a resolved access was to, the native engine does not tell; no program can know.
        where = event.address & ~0xFFF if event.resolved else event.address
        self.note("fault", event.task.tid, hex(where), event.error_code, event.signal, event.si_code, hex(event.ip))

    def _signal(self, event: SignalEvent) -> None:
        sender = None if event.sender is None else event.sender.tid
        info = None if event.info is None else _words(event.info.pack())
        self.note("signal", event.what, event.task.tid, info, sender, event.to_process, hex(event.handler))

    def _switch(self, event: SwitchEvent) -> None:
        previous = event.previous
        before = None if previous is None else previous.tid
        left = _registers(previous) if previous is not None and event.why == "slice" else ""
        self.note("switch", before, event.following.tid, event.why, left, self._clock.now())

    def _exit(self, process: Process, task: Task) -> None:
        self.note("exit", process.pid, process.exit_status, None if process.death is None else process.death.signal)
        for line in memory_lines(task):
            self.note("memory", line)


def _registers(task: Task) -> str:
    return ",".join(f"{word:x}" for word in task.registers.words())


def memory_lines(task: Task) -> Iterator[str]:
    """A process's memory: each area, and of each page that is there the bits of its entry and its content."""
    mm = task.mm
    ram = mm.frames.ram.bytes
    for vma in mm.vmas:
        yield f"{vma.start:x}-{vma.end:x} {vma.permissions} {area_name(mm, vma)}"
    bits, content = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
    pages = 0
    for address, entry, size in mm.page_table.iterate(0, mm.task_size):
        if entry & P:
            at = entry & ADDRESS_MASK
            bits.update(f"{address:x} {entry & ~ADDRESS_MASK:x} {size:x}\n".encode())
            content.update(ram[at : at + size])
            pages += size >> 12
    yield f"{pages} pages, entries {bits.hexdigest()}, content {content.hexdigest()}"


@contextmanager
def _watched_memory(recorder: Recorder) -> Iterator[None]:
    """Tell ``recorder`` of what the kernel stores for tasks that are made in the block."""

    class Watched(UserMemory):
        """A task's memory, with a witness."""

        told = False
        """The pieces that are asked for next belong to a store that is known."""

        def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
            recorder.stores(address, data)
            self.told = True
            try:
                super().write(address, data)
            finally:
                self.told = False

        def chunks(self, address: int, count: int, write: bool) -> Iterator[memoryview]:
            for piece in super().chunks(address, count, write):
                if write and not self.told:
                    recorder.fills(address, piece)
                    address += len(piece)
                yield piece

    modules: tuple[Any, ...] = (program_start, life)
    for module in modules:
        module.UserMemory = Watched
    try:
        yield
    finally:
        for module in modules:
            module.UserMemory = UserMemory


@dataclass(frozen=True)
class Traced:
    """What a traced run came to."""

    hash: str
    exit_code: int
    output: bytes
    """Both standard streams' bytes, standard output first."""


def trace_hash(
    machine: Machine,
    image: bytes,
    arguments: list[str],
    environment: Mapping[str, str],
    *,
    stdin: bytes = b"",
    max_instructions: int | None = None,
    log: Callable[[str], object] | None = None,
) -> Traced:
    """Run the ELF file ``image`` on a fresh ``machine`` to its end, and hash all that can be seen of it."""
    recorder = Recorder(machine, log)
    with _watched_memory(recorder):
        process: GuestProcess = machine.spawn(image, arguments, environment, stdin=stdin)
        outcome = machine.run(max_instructions=max_instructions)
    kernel = machine.kernel
    recorder.note("output", _words(process.stdout), _words(process.stderr))
    recorder.note("outcome", outcome.exit_code, outcome.signal, outcome.limit, machine.instructions, kernel.clock.now())
    counts = kernel.statistics
    recorder.note(
        "counts", counts.syscalls, sorted(counts.unknown.items()), kernel.page_faults, kernel.scheduler.switches,
        kernel.started, kernel.random.getrandbits(64),
    )  # fmt: skip
    if machine.speculation is not None:
        core = machine.speculation
        recorder.note("speculation", core.cycles, core.instructions, core.windows, core.mispredictions)
        recorder.note("caches", sorted(core.caches.l1.lines.items()), list(core.times._l1), list(core.times._l2))
    return Traced(recorder.hexdigest(), outcome.exit_code, bytes(process.stdout) + bytes(process.stderr))

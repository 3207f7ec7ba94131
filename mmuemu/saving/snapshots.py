"""Snapshots of a machine, kept in memory: everything that a program can notice, put back in place.

The records of Python objects are :mod:`mmuemu.saving.graph`'s; frames of guest memory are kept as bytes, shared by all
snapshots in which they are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mmuemu.errors import UsageError
from mmuemu.saving.graph import Graph, Record, Rules
from mmuemu.saving.pages import KeptPages, Pages
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu
    from mmuemu.kernel.files.inode import Quota
    from mmuemu.machine import Machine

CONSTANT: Final = (
    "mmuemu.cpu.",
    "mmuemu.x86.",
    "mmuemu.loader.",
    "mmuemu.errors.",
    "mmuemu.memory.ram.",
    "mmuemu.kernel.abi.",
    "mmuemu.kernel.events.Events.",
    "mmuemu.kernel.files.hostfd.",
    "mmuemu.kernel.options.Options.",
    "mmuemu.kernel.scheduler.Ticker.",
    "mmuemu.kernel.syscalls.table.Syscall.",
    "mmuemu.machine.Files.",
    "mmuemu.speculation.models.",
    "mmuemu.speculation.operands.",
    "mmuemu.speculation.ops.",
    "mmuemu.speculation.scoreboard.Segment.",
    "_thread.",
    "ctypes.",
    "os.",
    "re.",
    "threading.",
)
"""Modules and classes whose objects are the host's, or never change, or are looked after here."""
WITHOUT: Final = {
    "mmuemu.kernel.kernel.Kernel": (
        "events", "on_oom_kill", "on_stopped", "on_unknown_syscall", "options", "table", "tracer",
    ),
    "mmuemu.kernel.files.inode.Quota": ("era", "lost"),
    "mmuemu.machine.Machine": ("files", "made", "snapshots", "speculation_settings"),
    "mmuemu.memory.frames.FrameAllocator": ("_counts", "on_exhausted", "on_free", "ram"),
    "mmuemu.speculation.blocks.Block": (
        "address", "branch", "bypasses", "code", "end", "kind", "length", "meets", "ops", "pointers", "points",
        "repeated", "segments", "size", "slot", "slow", "special", "steps", "stores", "target", "watched",
    ),
    "mmuemu.speculation.pipeline.Pipeline": ("on_window", "trace"),
    "mmuemu.speculation.scoreboard.Scoreboard": ("_numbers", "_states"),
}  # fmt: skip
"""Attributes that are left alone: who listens is no state of the machine, nor is what was worked out once."""
_RULES: Final = Rules("mmuemu", CONSTANT, WITHOUT)
_CPU: Final = ("instructions", "pkrs", "_kicked", "_retired")
_ENGINE: Final = ("fills", "permitted", "refused", "looked")
"""Not the flushes: what was cached before one is told by their number."""
_RING_THREE: Final = ("emulated", "_attempt", "_attempts")


FEW_FRAMES: Final = 256
"""With no more in use, to compare them all is cheaper than to have the host tell which were written."""


Parts = list[tuple[Any, tuple[str, ...]]]
"""Objects, and the attributes of each that are a state."""


def cpu_parts(cpu: Cpu) -> Parts:
    """The CPU's own objects, and what of each is a state."""
    return [(cpu, _CPU), (cpu.engine, _ENGINE), (cpu.ring_three, _RING_THREE)]


def parts_state(parts: Parts) -> list[tuple[Any, str, Any]]:
    """The values of the attributes that are there."""
    return [(part, name, getattr(part, name)) for part, names in parts for name in names if hasattr(part, name)]


@dataclass(slots=True, eq=False)
class Snapshot:
    """A machine at one moment, to be given to :meth:`Machine.restore` any number of times."""

    keeper: Snapshots = field(repr=False)
    records: list[Record] = field(repr=False)
    pages: Pages = field(repr=False)
    """Of the frames in use."""
    references: tuple[bytes, frozenset[int]] = field(repr=False)
    """As :meth:`FrameAllocator.references` gives them."""
    window: bytes = field(repr=False)
    """The CPU's registers."""
    parts: list[tuple[Any, str, Any]] = field(repr=False)
    """Attributes of the CPU's own objects."""
    time: int
    """The monotonic clock, in nanoseconds."""
    era: tuple[Quota, int, tuple[tuple[int, int], ...]] | None = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of guest memory in use then; pages that other snapshots have, too, are held once."""
        return len(self.pages) * PAGE_SIZE


class Snapshots:
    """Takes snapshots of one machine and puts them back."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._graph = Graph([machine], _RULES)
        self._pages = KeptPages(machine.kernel.ram)
        self._end = 0

    def _check(self) -> None:
        if self.machine.kernel.running:
            raise UsageError("a snapshot is taken and restored between runs, not by a callback in one")

    def take(self) -> Snapshot:
        """The machine as it is now. Raises UsageError while it runs, and for what no snapshot can hold."""
        self._check()
        kernel, quota = self.machine.kernel, self.machine.quota
        cpu = kernel.cpu
        # Who goes on and who is restored both start with an empty TLB.
        cpu.engine.flush()
        records = self._graph.take()
        references = kernel.frames.references()
        cpu.window.save()
        parts = parts_state(cpu_parts(cpu))
        used = [number << 12 for number, count in enumerate(memoryview(references[0]).cast("I")) if count]
        pages = self._pages.take(used, self._memory_end())
        era = None if quota is None else (quota, *quota.next_era())
        return Snapshot(self, records, pages, references, cpu.window.snapshot(), parts, kernel.clock.now(), era)

    def _memory_end(self) -> int:
        """Above the highest frame that was ever in use."""
        frames = self.machine.kernel.frames
        self._end = max(self._end, frames.high)
        if frames.used > FEW_FRAMES:
            self._pages.track()
        return self._end

    def restore(self, snapshot: Snapshot) -> None:
        """Make the machine what it was. Raises UsageError while it runs, and for another machine's snapshot."""
        self._check()
        if snapshot.keeper is not self:
            raise UsageError("this snapshot is another machine's")
        kernel = self.machine.kernel
        cpu = kernel.cpu
        if snapshot.era is not None:
            quota, era, lost = snapshot.era
            quota.go_back(era, lost)
        executed = cpu.engine.executed_frames() | kernel.frames.executed
        end = self._memory_end()
        kernel.frames.put_references(*snapshot.references)
        changed = self._pages.put(snapshot.pages, end)
        kernel.ram.tables_gone += 1
        self._graph.put(snapshot.records)
        for frame in executed:
            if frame in changed or frame not in snapshot.pages:
                cpu.engine.forget_code(frame)
        cpu.window.load(snapshot.window)
        cpu.window.restore()
        for part, name, value in snapshot.parts:
            setattr(part, name, value)
        cpu.engine.flush()
        kernel.clock.set(snapshot.time)
        kernel.scheduler.resumed()

    def close(self) -> None:
        """Look no longer at what is written."""
        self._pages.close()

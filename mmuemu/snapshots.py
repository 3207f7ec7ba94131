"""Snapshots of a machine, kept in memory: everything that a program can notice, put back in place.

The records of Python objects are :mod:`mmuemu.statecopy`'s; frames of guest memory are kept as bytes, shared by all
snapshots in which they are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mmuemu.errors import UsageError
from mmuemu.memory.written import WrittenPages
from mmuemu.statecopy import Graph, Record, Rules
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


def cpu_parts(cpu: Cpu) -> list[tuple[Any, tuple[str, ...]]]:
    """The CPU's own objects, and what of each is a state."""
    return [(cpu, _CPU), (cpu.engine, _ENGINE), (cpu.ring_three, _RING_THREE)]


@dataclass(slots=True, eq=False)
class Snapshot:
    """A machine at one moment, to be given to :meth:`Machine.restore` any number of times."""

    keeper: Snapshots = field(repr=False)
    records: list[Record] = field(repr=False)
    pages: dict[int, bytes] = field(repr=False)
    """Physical address -> content of each frame in use."""
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
        self._pages: dict[int, bytes] = {}
        """What the last snapshot or restore held, by physical address."""
        self._tracker: WrittenPages | None = None
        """Tells what was written since; without it everything is compared."""
        self._few = True
        self._end = 0
        """Above the highest frame that was ever in use."""

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
        parts = [
            (part, name, getattr(part, name)) for part, names in cpu_parts(cpu) for name in names if hasattr(part, name)
        ]
        pages = self._take_pages(references[0])
        era = None if quota is None else (quota, *quota.next_era())
        return Snapshot(self, records, pages, references, cpu.window.snapshot(), parts, kernel.clock.now(), era)

    def _written(self) -> set[int] | None:
        """Frames that may differ from what the last snapshot or restore held; None: all may."""
        frames = self.machine.kernel.frames
        self._end = max(self._end, frames.high)
        if self._few and frames.used > FEW_FRAMES:
            self._few = False
            self._tracker = WrittenPages.of(frames.ram)
        if self._tracker is None:
            return None
        try:
            return self._tracker.take(self._end)
        except OSError:
            self.close()
            return None

    def _take_pages(self, counts: bytes) -> dict[int, bytes]:
        memory, last = self.machine.kernel.ram.bytes, self._pages
        written = self._written()
        pages: dict[int, bytes] = {}
        for number, count in enumerate(memoryview(counts).cast("I")):
            if count:
                frame = number << 12
                before = last.get(frame)
                if before is None or written is None or frame in written:
                    page = bytes(memory[frame : frame + PAGE_SIZE])
                    before = before if before == page else page
                pages[frame] = before
        self._pages = pages
        return pages

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
        written = self._written()
        kernel.frames.put_references(*snapshot.references)
        changed = self._put_pages(snapshot.pages, written)
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

    def _put_pages(self, pages: dict[int, bytes], written: set[int] | None) -> set[int]:
        """Put the content of frames back; those that had another."""
        memory, last = self.machine.kernel.ram.bytes, self._pages
        suspects: Iterable[int] = pages
        if written is not None and last is pages:
            suspects = pages.keys() & written
        elif written is not None:
            suspects = {frame for frame, page in pages.items() if frame in written or last.get(frame) is not page}
        changed = set()
        for frame in suspects:
            page = pages[frame]
            if memory[frame : frame + PAGE_SIZE].tobytes() != page:
                memory[frame : frame + PAGE_SIZE] = page
                changed.add(frame)
        self._pages = pages
        if changed:
            self._written()
        return changed

    def close(self) -> None:
        """Look no longer at what is written."""
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None

"""Recording a run for its report: events as they happen, and what memory looked like when each process ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mmuemu.view.machine_trace import MachineTracer, words_of
from mmuemu.view.regions import living
from mmuemu.view.report.calls import CallRecorder
from mmuemu.view.report.data import Budget, kernel_tables, process_facts, speculation_facts
from mmuemu.view.report.events import FAULT, FLUSH, LIFE, SIGNAL, SWITCH, WINDOW, EventLog

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task
    from mmuemu.speculation.core import Speculation
    from mmuemu.speculation.trace import Window
    from mmuemu.view.machine_trace import Record
    from mmuemu.view.regions import Region

MOST_PROCESSES: Final = 64
"""Processes whose memory is kept."""
MOST_WINDOWS: Final = 20_000
"""Transient windows that are events; all are counted."""
_WANTED: Final = ("faults", "tlb", "sched", "signals")
_KINDS: Final = {"fault": FAULT, "tlb": FLUSH, "sched": LIFE, "signal": SIGNAL}


class _Tracer(MachineTracer):
    """Without the events that come by the thousand and say little: fills of the TLB, time slices."""

    def __init__(self, kernel: Kernel, kinds: Collection[str], put: Callable[[Record], object]) -> None:
        self.former = kernel.cpu.engine.watcher
        """Who else is told of the TLB; of fills the engine tells all."""
        super().__init__(kernel, kinds, put)

    def flushed(self, cause: str) -> None:
        """All translations are dropped."""
        super().flushed(cause)
        if self.former is not None:
            self.former.flushed(cause)

    def grown(self, entries: int) -> None:
        """The engine's TLB grows."""
        super().grown(entries)
        if self.former is not None:
            self.former.grown(entries)

    def filled(self, page: int, access: int, frame: int, permissions: int, ring: int) -> None:
        """Not told."""

    def _slice(self, task: Task, instructions: int | None) -> None:
        """Not told."""


class Recording:
    """Records what ``kernel`` does until :meth:`close`; ``core`` is its model of speculation, None without one.

    With a ``log`` of None no events are kept, only what memory looks like when processes end.
    """

    def __init__(self, kernel: Kernel, core: Speculation | None, log: EventLog | None) -> None:
        self.log = EventLog(0) if log is None else log
        self.processes: dict[int, dict[str, Any]] = {}
        """What the memory of each process looked like in the end, by its number."""
        self.regions: dict[int, list[Region]] = {}
        """The memory maps themselves."""
        self.programs: dict[int, str] = {}
        self.kernel_tables: dict[str, Any] | None = None
        self.left_out = 0
        """Processes whose memory was not kept."""
        self._kernel = kernel
        self._core = core
        self._start = kernel.clock.now()
        self._budget = Budget()
        self._windows: Counter[tuple[str, str]] = Counter()
        self._on = True
        self._former_window: Callable[[Window], None] | None = None
        self._calls: CallRecorder | None = None
        self._undo: list[Callable[[], object]] = []
        if log is not None:
            self._begin()
        kernel.events.exit.append(self._exit)

    def _begin(self) -> None:
        """Put hooks where others may have theirs already, which are told as before."""
        kernel, core = self._kernel, self._core
        if kernel.current is not None:
            self.log.add(SWITCH, 0, kernel.current.pid, kernel.current.tid, "runs first")
            self.log.on_cpu(0, kernel.current.pid, kernel.current.tid)
        self._undo.append(_Tracer(kernel, _WANTED, self._put).close)
        calls = self._calls = CallRecorder(self.log, self.now, kernel.tracer)
        self._undo.append(partial(setattr, kernel, "tracer", kernel.tracer))
        kernel.tracer = calls
        if core is not None:
            self._former_window = core.on_window
            self._undo.append(partial(setattr, core, "on_window", core.on_window))
            core.on_window = self._window

    def now(self) -> int:
        """Nanoseconds of the guest's clock since the recording began."""
        return self._kernel.clock.now() - self._start

    def close(self) -> None:
        """End the recording: look at the processes that still live, and put the hooks back."""
        if not self._on:
            return
        self._on = False
        self._off(self.now())
        for undo in self._undo:
            undo()
        for process, task in living(self._kernel).items():
            if process.pid not in self.processes:
                self._look(process, task, "ended" if process.zombie else "alive when the run ended")

    def speculation(self) -> dict[str, Any] | None:
        """What is in caches and predictors, and the windows by flaw and reason; None without speculation."""
        return None if self._core is None else speculation_facts(self._core, self._windows)

    # -- what is told -------------------------------------------------------------------------------------------------

    def _put(self, record: Record) -> None:
        log = self.log
        kind = _KINDS[record["type"]]
        if record.get("what") == "switch":
            kind = SWITCH
            self._off(record["time"])
        if log.full:
            log.lost[kind] += 1
            return
        text = record["cause"] if record.get("what") == "flush" else words_of(record)
        log.add(kind, record["time"], record["pid"], record["tid"], text)
        if kind == SWITCH:
            log.on_cpu(record["time"], record["pid"], record["tid"])

    def _off(self, time: int) -> None:
        """Whoever was on the CPU left it: now, or when its call began to wait and nobody else could run."""
        if self._calls is not None:
            slept, self._calls.slept = self._calls.slept, None
            self.log.off_cpu(time if slept is None else slept)

    def _exit(self, process: Process, task: Task) -> None:
        if self._on:
            self._look(process, task, "when it ended")

    def _look(self, process: Process, task: Task, when: str) -> None:
        self.programs[process.pid] = process.exe
        if len(self.processes) >= MOST_PROCESSES or task.mm.page_table not in self._kernel.memory.half:
            self.left_out += 1
            return
        if self.kernel_tables is None:
            self.kernel_tables = kernel_tables(self._kernel, task.mm.page_table, self._budget)
        facts, regions = process_facts(self._kernel, process, task, self._budget)
        self.processes[process.pid] = {**facts, "when": when}
        self.regions[process.pid] = regions

    def _window(self, window: Window) -> None:
        if self._former_window is not None:
            self._former_window(window)
        self._windows[window.flaw, window.reason] += 1
        log = self.log
        if log.full or self._windows.total() > MOST_WINDOWS:
            log.lost[WINDOW] += 1
            return
        task = self._kernel.current
        pid, tid = (window.context, window.context) if task is None else (task.pid, task.tid)
        lines = len(window.fills)
        text = (
            f"window {window.number}: {window.flaw} at {window.opener:#x} in ring {window.ring}, "
            f"{len(window.steps)} instructions, {lines} line{'' if lines == 1 else 's'} filled, ends: {window.reason}"
        )
        log.add(WINDOW, self.now(), pid, tid, text)

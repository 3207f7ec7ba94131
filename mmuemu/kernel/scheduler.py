"""Who runs: the tasks that are ready, those that sleep, and when a running one is interrupted.

There is one CPU. A task leaves it when it sleeps or ends, and, unless scheduling is cooperative, when its time is
up: after a number of instructions drawn from the seed (then a run is repeatable to the instruction), or, without a
seed, after a tick of the host's clock (then nothing is counted and code runs at full speed).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.clock import INSTRUCTION_NS
from mmuemu.kernel.files.stream import host_poll
from mmuemu.kernel.task import State

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.task import Task
    from mmuemu.kernel.wait import Blocked

COOPERATIVE: Final = "coop"
SHORTEST: Final = 5_000
LONGEST: Final = 100_000
"""The bounds of a time slice, in instructions."""
LONGEST_WAIT: Final = 5_000_000
"""Instructions between two looks at the timers while only one task runs."""
TICK: Final = 0.01
"""Seconds of the host's time in a slice that is not counted (Linux's is 3 to 10 ms)."""
_LONELY: Final = 20
"""Ticks that nobody wanted before the thread sleeps."""
SLICE_NS: Final = 50_000_000
"""How long the machine sleeps at most before it looks whether it is to stop."""
_CALM: Final = 20
"""Counted slices with a single task before counting ends: going back throws all translations away."""


class Scheduler:
    """The ready queue (round robin) and the sleepers of one machine."""

    def __init__(self, kernel: Kernel, schedule: str | int | None) -> None:
        self.kernel = kernel
        self.ready: deque[Task] = deque()
        self.sleepers: dict[Task, Mapping[int, int]] = {}
        """Those that wait for host descriptors."""
        self.random = None if schedule is None or schedule == COOPERATIVE else Random(f"{schedule} schedule")
        self.ticker = Ticker(kernel) if schedule is None else None
        self.held: set[Task] = set()
        """Those that a debugger keeps from running."""
        self.counting = False
        self.switches = 0
        """Context switches so far."""
        self._calm = 0

    # -- sleeping and waking ---------------------------------------------------------------------------------------

    def add(self, task: Task) -> None:
        """A task that may run from now on."""
        task.state = State.RUNNABLE
        self.ready.append(task)
        self._crowd()

    def _crowd(self) -> None:
        """Somebody waits for the CPU: the one that has it must be interruptible."""
        if self.random is not None:
            if not self.counting and self.kernel.current is not None:
                self.counting = True
                self.kernel.cpu.kick()
        elif self.ticker is not None:
            self.ticker.start()

    def watch_time(self) -> None:
        """There is a deadline that the running task does not wait for itself: interrupt it in time."""
        self._crowd()

    def sleep(self, task: Task, blocked: Blocked) -> None:
        """``task`` waits for what ``blocked`` says."""
        task.state = State.SLEEPING
        task.blocked = blocked
        for queue in blocked.queues:
            queue.add(task)
        if blocked.host:
            self.sleepers[task] = blocked.host
            if self.ticker is not None:
                self.ticker.start()
        if blocked.deadline is not None:
            task.sleep_timer = self.kernel.timers.at(blocked.deadline, task.wake)

    def wake(self, task: Task) -> None:
        """A sleeping task becomes ready; others stay what they are."""
        if task.state is State.SLEEPING:
            self.forget(task)
            self.add(task)

    def forget(self, task: Task) -> None:
        """``task`` waits for nothing any more."""
        blocked, task.blocked = task.blocked, None
        if blocked is not None:
            for queue in blocked.queues:
                queue.remove(task)
        self.sleepers.pop(task, None)
        if task.sleep_timer is not None:
            task.sleep_timer.cancel()
            task.sleep_timer = None

    def remove(self, task: Task) -> None:
        """``task`` will not run again (it ended or was stopped)."""
        self.forget(task)
        if task in self.ready:
            self.ready.remove(task)

    # -- time ------------------------------------------------------------------------------------------------------

    def slice(self) -> int | None:
        """Instructions that the current task may run now; None: until something stops it."""
        if self.random is None:
            return None
        if self.ready:
            self._calm = 0
        elif self.counting:
            self._calm += 1
            if self._calm > _CALM and not self._awaited():
                self.counting = False
        elif self._awaited():
            self.counting = True
        if not self.counting:
            return None
        if self.ready:
            return self.random.randrange(SHORTEST, LONGEST)
        deadline = self.kernel.timers.next
        if deadline is None or not self.kernel.clock.virtual:
            return LONGEST_WAIT
        return min(max((deadline - self.kernel.clock.now()) // INSTRUCTION_NS, SHORTEST), LONGEST_WAIT)

    def _awaited(self) -> bool:
        """Whether a deadline or a host descriptor is waited for, which is looked at between two slices."""
        return self.kernel.timers.next is not None or bool(self.sleepers)

    def tick(self) -> None:
        """A slice is over: what is due happens, and somebody else may run."""
        self.check()
        if self.ready:
            self.kernel.reschedule = True

    def check(self) -> None:
        """Wake whose time has come or whose host descriptor is ready."""
        kernel = self.kernel
        deadline = kernel.timers.next
        if deadline is not None:
            kernel.timers.expire(kernel.clock.now())
        if self.sleepers:
            self._poll(0)

    def _poll(self, milliseconds: int) -> bool:
        """Wake who waits for a host descriptor that is ready within that time; whether anybody does."""
        wanted: dict[int, int] = {}
        for host in self.sleepers.values():
            for fd, events in host.items():
                wanted[fd] = wanted.get(fd, 0) | events
        found = {fd for fd, events in host_poll(wanted, milliseconds).items() if events}
        for task, host in list(self.sleepers.items()):
            if not found.isdisjoint(host):
                self.wake(task)
        return bool(found)

    def pick(self) -> Task | None:
        """The next task to run, waiting for one if need be; None when the machine is to stop."""
        kernel = self.kernel
        while not kernel.halting:
            if self.ready and not self.held:
                return self.ready.popleft()
            for task in self.ready:
                if task not in self.held:
                    self.ready.remove(task)
                    return task
            if kernel.cpu.interrupted or not kernel.tasks or (not self.held and kernel.abandoned()):
                return None
            self._idle()
        return None

    def _idle(self) -> None:
        """Nobody can run: let time pass until a deadline, or until the host has something."""
        kernel = self.kernel
        if kernel.on_stopped is not None and kernel.main is not None and kernel.main.stop_signal:
            kernel.on_stopped()
            return
        deadline = kernel.timers.next
        now = kernel.clock.now()
        left = SLICE_NS if deadline is None else max(deadline - now, 0)
        if self.sleepers:
            part = min(left, SLICE_NS)
            if not self._poll(-(-part // 1_000_000)) and deadline is not None:
                kernel.clock.passed(part)
        elif deadline is None:
            kernel.clock.wait(SLICE_NS)
        elif left:
            kernel.clock.sleep(left if kernel.clock.virtual else min(left, SLICE_NS))
        kernel.timers.expire(kernel.clock.now())

    def resumed(self) -> None:
        """The machine is another than a moment ago: tick if somebody waits for it."""
        if self.ticker is not None and (self.ready or self.sleepers or self.kernel.timers.glance() is not None):
            self.ticker.start()

    def close(self) -> None:
        """End the ticks."""
        if self.ticker is not None:
            self.ticker.close()


class Ticker:
    """The host's clock: it interrupts the CPU while somebody waits for it, a deadline or a host descriptor."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._wanted = threading.Event()
        self._ticking = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Tick from now on, until nobody has waited for a while: to wake the thread costs the host's scheduler."""
        if not self._ticking:
            self._ticking = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mmuemu ticks", daemon=True)
                self._thread.start()
            self._wanted.set()

    def _run(self) -> None:
        kernel = self.kernel
        idle = threading.Event()
        lonely = 0
        while not self._closed:
            scheduler = kernel.scheduler
            deadline = kernel.timers.glance()
            wanted = bool(scheduler.ready or scheduler.sleepers or deadline is not None)
            lonely = 0 if wanted else lonely + 1
            if lonely > _LONELY:
                self._wanted.clear()
                self._ticking = False
                lonely = 0
                # A wish that came before the flag fell is seen here, a later one sets the event.
                if scheduler.ready or scheduler.sleepers or kernel.timers.glance() is not None:
                    self._ticking = True
                    continue
                self._wanted.wait()
                continue
            left = TICK if deadline is None else min(max(deadline - kernel.clock.now(), 0) / 1e9, TICK)
            idle.wait(max(left, 0.0005))
            if wanted and not self._closed and kernel.running:
                kernel.cpu.kick()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

"""The programs of a machine as gdb sees them: processes, threads, breakpoints, signals before they are delivered.

Whenever gdb has its say, every task is in the kernel, its user registers in the pt_regs on its kernel stack: nobody
needs to know how it came there. See :mod:`mmuemu.kernel.switching`.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Final

from mmuemu.cpu.debug import DebugPlaces
from mmuemu.errors import OutOfFrames
from mmuemu.gdbstub import taskregisters
from mmuemu.gdbstub.calls import EXECVE, CallWatch
from mmuemu.gdbstub.description import PROCESS
from mmuemu.gdbstub.events import Action, Failed, StopEvent, ThreadId, Wishes
from mmuemu.gdbstub.objects import ProcessObjects
from mmuemu.gdbstub.packets import ALL
from mmuemu.gdbstub.registers import Refused
from mmuemu.gdbstub.signals import LINUX_SIGNALS, TRAP, to_gdb
from mmuemu.gdbstub.stepping import Stepper
from mmuemu.gdbstub.watchpoints import KINDS, LONGEST, Watchpoints
from mmuemu.kernel import switching
from mmuemu.kernel.abi.errno import SyscallError
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.half import HYPERCALL
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.kernel.signals.send import notify
from mmuemu.kernel.task import State

if TYPE_CHECKING:
    from mmuemu.kernel.events import FaultEvent
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task
    from mmuemu.machine import Machine

MOST_POINTS: Final = 4096


class ProcessTarget:
    """What is debugged of one machine: first the program that was loaded, then what gdb follows from there."""

    layout = PROCESS
    features: tuple[str, ...] = (
        "QCatchSyscalls+", "fork-events+", "vfork-events+", "exec-events+", "qXfer:auxv:read+", "qXfer:exec-file:read+",
        "qXfer:libraries-svr4:read+", "qXfer:siginfo:read+",
    )  # fmt: skip

    def __init__(self, machine: Machine) -> None:
        assert machine.task is not None
        self.machine = machine
        self.kernel = kernel = machine.kernel
        self.wishes = Wishes()
        self.debugged: dict[int, Process] = {machine.task.pid: machine.task.process}
        """Processes that gdb knows, by number; those that have ended stay until it has been told."""
        self.events: deque[StopEvent] = deque()
        self.last = StopEvent("signal", (machine.task.pid, machine.task.tid))
        """What gdb was told last."""
        self.points: dict[tuple[int, int], int] = {}
        """(process, address) of each breakpoint, and its kind."""
        self.held: dict[Task, SigInfo] = {}
        """Signals that gdb has been told of and that have not been delivered."""
        self._passed: dict[Task, int] = {}
        """The signal that a thread is to go on with."""
        self._entering: Task | None = None
        """The thread that is stopped right before its system call."""
        self._resumed: list[Action] = []
        self._vforks: set[Task] = set()
        self.places = DebugPlaces(kernel.cpu, self._reached)
        self.stepper = Stepper(self)
        self.hypercall = kernel.memory.resume - len(HYPERCALL)
        self.watchpoints = Watchpoints(self.places, self._physical, self._touched)
        self.objects = ProcessObjects(self)
        self._tracer = kernel.tracer
        kernel.tracer = CallWatch(self, kernel.tracer)
        kernel.debugger = self
        kernel.events.fork.append(self._forked)
        kernel.events.exit.append(self._ended)
        self.sync()

    # -- who there is ----------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether there is anything left to debug."""
        return any(not process.zombie for process in self.debugged.values()) or bool(self.events)

    def threads(self) -> list[ThreadId]:
        """All threads of the processes that are debugged."""
        return [(task.pid, task.tid) for task in self.tasks()]

    def tasks(self) -> list[Task]:
        """The same as tasks."""
        return [task for process in self.debugged.values() for task in process.threads.values()]

    def task(self, thread: ThreadId) -> Task:
        """One of them. Raises Failed."""
        process = self.debugged.get(thread[0])
        task = None if process is None else process.threads.get(thread[1])
        if task is None:
            raise Failed(errno.ESRCH)
        return task

    def thread_name(self, thread: ThreadId) -> str:
        """Its name and state."""
        task = self.task(thread)
        asleep = {State.SLEEPING: " (asleep)", State.STOPPED: " (stopped)"}.get(task.state, "")
        return f"{task.name}{asleep}"

    # -- registers and memory --------------------------------------------------------------------------------------

    def read_registers(self, thread: ThreadId) -> bytes:
        """The ``g`` packet of a thread."""
        return taskregisters.read(self.task(thread))

    def write_registers(self, thread: ThreadId, data: bytes) -> None:
        """Set them; EPERM for segments and control registers, EIO for a base outside of user space."""
        try:
            taskregisters.write(self.task(thread), data)
        except Refused:
            raise Failed(errno.EPERM) from None

    def read_memory(self, thread: ThreadId, address: int, count: int) -> bytes:
        """Memory whatever the protection, the kernel's half too; EFAULT."""
        task = self.task(thread)
        if address >= task.mm.task_size:
            out = self.kernel.cpu.read_linear(address, count)
        else:
            out = b""
            try:
                while len(out) < count:
                    here = address + len(out)
                    out += task.memory.peek(here, min(4096 - (here & 4095), count - len(out)))
            except (SyscallError, OutOfFrames):
                pass
        if not out:
            raise Failed(errno.EFAULT)
        return out

    def write_memory(self, thread: ThreadId, address: int, data: bytes) -> None:
        """Store whatever the protection, as ptrace does: nobody else's copy changes; EFAULT, also in the kernel."""
        try:
            self.task(thread).memory.poke(address, data)
        except SyscallError:
            raise Failed(errno.EFAULT) from None
        except OutOfFrames:
            raise Failed(errno.ENOMEM) from None

    # -- breakpoints and watchpoints -------------------------------------------------------------------------------

    def set_point(self, thread: ThreadId, kind: int, address: int, length: int) -> bool:
        """Insert one for the thread's process."""
        task = self.task(thread)
        if address >= task.mm.task_size or address + length > task.mm.task_size:
            raise Failed(errno.EFAULT)
        if kind in KINDS:
            if not 0 < length <= LONGEST:
                raise Failed(errno.EINVAL)
            self._own_page(task, kind, address, length)
            self.watchpoints.add(task.pid, kind, address, length)
        elif kind > 1:
            return False
        elif len(self.points) >= MOST_POINTS:
            raise Failed(errno.ENOSPC)
        else:
            self.points[task.pid, address] = kind
        return True

    def remove_point(self, thread: ThreadId, kind: int, address: int, length: int) -> bool:
        """Remove one of its process."""
        task = self.task(thread)
        if kind in KINDS:
            self.watchpoints.remove(task.pid, kind, address, length)
        elif kind > 1:
            return False
        else:
            self.points.pop((task.pid, address), None)
        return True

    def _own_page(self, task: Task, kind: int, address: int, length: int) -> None:
        """Have the watched bytes in memory, so that it is known where."""
        at = address
        while at < address + length:
            size = min(4096 - (at & 4095), address + length - at)
            try:
                task.memory.peek(at, size)
            except (SyscallError, OutOfFrames):
                return
            at += size

    def _physical(self, pid: Hashable, address: int) -> int | None:
        process = self.debugged.get(pid) if isinstance(pid, int) else None
        if process is None:
            return None
        for task in process.threads.values():
            found = task.mm.page_table.lookup(address)
            return None if found is None else found.physical | address & (found.size - 1)
        return None

    def _reached(self, address: int) -> None:
        """Before the instruction at one of our places."""
        task = self.kernel.current
        if task is None or self.stepper.reached(task, address):
            return
        if address == self.hypercall:
            entering, self._entering = self._entering, None
            if self.wishes.catching and task.pid in self.debugged and entering is not task:
                self._caught("syscall_entry", task, task.registers[taskregisters.ORIG_AX] & 0xFFFF_FFFF, before=True)
            return
        kind = self.points.get((task.pid, address))
        if kind is not None and not self.stepper.quiet and task.pid in self.debugged:
            self._tell("hwbreak" if kind else "swbreak", task)
            self.kernel.cpu.stop_before()

    def _touched(self, pid: Hashable, name: str, address: int) -> None:
        """In the middle of an instruction that touches watched bytes."""
        task = self.kernel.current
        cpu = self.kernel.cpu
        if task is None or task.pid != pid or cpu.window.live_d[taskregisters.D_HFLAGS] & 3 != 3:
            return
        if not any(event.kind == name for event in self.events):
            self._tell(name, task, b"%x" % address)
        cpu.stop_soon()

    def sync(self) -> None:
        """Have the hooks that are wanted."""
        wanted = {address for _, address in self.points} | set(self.stepper.exits)
        self.places.set_code(wanted | {self.hypercall} if self.wishes.catching else wanted)
        self.watchpoints.sync()
        told = self._fault in self.kernel.events.fault
        if bool(self.watchpoints) is not told:
            (self.kernel.events.fault.remove if told else self.kernel.events.fault.append)(self._fault)

    def _fault(self, event: FaultEvent) -> None:
        if event.resolved:
            self.watchpoints.refresh()

    # -- what happens ----------------------------------------------------------------------------------------------

    def _tell(self, kind: str, task: Task, detail: bytes = b"", signal: int = TRAP) -> None:
        self.events.append(StopEvent(kind, (task.pid, task.tid), signal, detail))

    def _caught(self, kind: str, task: Task, number: int, *, before: bool = False) -> None:
        if self.wishes.caught and number not in self.wishes.caught:
            return
        self._tell(kind, task, b"%x" % number)
        if before:
            self._entering = task
            self.kernel.cpu.stop_before()
        else:
            self.kernel.halt()

    def holds(self, task: Task, info: SigInfo) -> bool:
        """A signal is about to be delivered: gdb hears of it first, unless it wants not to, or said how to go on."""
        passed = self._passed.pop(task, None)
        if task.pid not in self.debugged or passed == info.signal or to_gdb(info.signal) in self.wishes.passed:
            return False
        if task is self.stepper.calling:
            # The step over the system call is told first, as by ptrace; the signal is there when the task goes on.
            task.signals.add(info)
            self._tell("signal", task)
            self.kernel.halt()
            return True
        self.held[task] = info
        self._tell("signal", task, signal=to_gdb(info.signal))
        self.kernel.halt()
        return True

    def _forked(self, parent: Task, child: Task) -> None:
        if parent.pid not in self.debugged or child.pid == parent.pid:
            if child.pid in self.debugged and not any(
                action.covers((child.pid, child.tid)) for action in self._resumed
            ):
                self.kernel.scheduler.held.add(child)
            return
        if not (self.wishes.fork or self.wishes.vfork):
            return
        self.debugged[child.pid] = child.process
        self.kernel.scheduler.held.add(child)
        for (pid, address), kind in list(self.points.items()):
            if pid == parent.pid:
                self.points[child.pid, address] = kind
        self._tell("fork", parent, b"p%x.%x" % (child.pid, child.tid))
        self.kernel.halt()

    def _ended(self, process: Process, task: Task) -> None:
        if process.pid not in self.debugged:
            return
        death = process.death
        kind, value = ("exited", process.exit_status or 0) if death is None else ("killed", to_gdb(death.signal))
        self.events.append(StopEvent(kind, (process.pid, task.tid), value))
        self.kernel.halt()

    def call_left(self, task: Task, number: int, result: int) -> None:
        """A system call has ended (also one that does not return)."""
        if task.pid not in self.debugged:
            return
        if self.watchpoints:
            self.watchpoints.refresh()
        if task.ended:
            self._none_left(task)
            return
        if number in EXECVE and result == 0:
            self._forget_points(task.pid)
            if self.wishes.exec:
                self._tell("exec", task, task.exe.encode("utf-8", "surrogateescape").hex().encode())
                self.kernel.halt()
        if task in self._vforks:
            self._vforks.discard(task)
            self._tell("vforkdone", task)
            self.kernel.halt()
        elif self.wishes.catching:
            self._caught("syscall_return", task, number)

    def _none_left(self, task: Task) -> None:
        """A thread has ended: perhaps it was the last that was to run, and the others wait for gdb."""
        process = task.process
        if not self.wishes.no_resumed or not process.threads or process.group_exit:
            return
        if all(other in self.kernel.scheduler.held for other in self.tasks()):
            self.events.append(StopEvent("none", (task.pid, task.tid)))
            self.kernel.halt()

    def _forget_points(self, pid: int) -> None:
        for key in [key for key in self.points if key[0] == pid]:
            del self.points[key]
        self.watchpoints.forget(pid)

    # -- running ---------------------------------------------------------------------------------------------------

    def resume(self, actions: Sequence[Action], interrupted: Callable[[], bool]) -> StopEvent:
        """Run until there is something to tell."""
        if not self.events:
            self._run(list(actions), interrupted)
        event = self.last = self.events.popleft()
        if event.kind in ("exited", "killed"):
            self._forget_points(event.thread[0])
            del self.debugged[event.thread[0]]
        elif event.kind == "fork":
            self._name_fork(event)
        return event

    def _name_fork(self, event: StopEvent) -> None:
        """Whether it was a vfork is known once the call has been made."""
        child = self.debugged.get(int(event.detail[1:].partition(b".")[0], 16))
        waiter = None if child is None else child.vfork_waiter
        if waiter is not None:
            event.kind = "vfork"
            self._vforks.add(waiter)

    def _run(self, actions: list[Action], interrupted: Callable[[], bool]) -> None:
        kernel = self.kernel
        if not any(action.covers(thread) for action in actions for thread in self.threads()):
            raise Failed(errno.ESRCH)
        self._resumed = actions
        kernel.halting = False
        stepping: tuple[Task, Action] | None = None
        kernel.scheduler.held.clear()
        for task in self.tasks():
            action = next((action for action in actions if action.covers((task.pid, task.tid))), None)
            if action is None:
                kernel.scheduler.held.add(task)
                continue
            self._inject(task, action.signal)
            taskregisters.go_on(task)
            if action.step and stepping is None:
                stepping = task, action
        self.sync()
        current = kernel.current
        if current is not None and current in kernel.scheduler.held:
            kernel.reschedule = kernel.attention = True
        try:
            if stepping is not None:
                self.stepper.step(*stepping, interrupted)
            while not self.events and self.alive:
                self.go(interrupted)
        finally:
            self.settle()

    def go(self, interrupted: Callable[[], bool]) -> None:
        """Run until something stops the machine."""
        kernel = self.kernel
        kernel.run()
        if not self.events and kernel.cpu.interrupted:
            self.interrupted(interrupted)

    def interrupted(self, interrupted: Callable[[], bool]) -> None:
        """The run was interrupted, by gdb."""
        self.kernel.cpu.forget_interrupt()
        if not interrupted():
            return  # one that came late; the keyboard's is raised by Python
        current = self.kernel.current
        tasks = self.tasks()
        held = self.kernel.scheduler.held
        task = current if current in tasks else min(tasks, key=held.__contains__, default=None)
        if task is not None:
            self._tell("signal", task, signal=to_gdb(Signal.SIGINT))

    def settle(self) -> None:
        """Have every task in the kernel, with its registers on its stack."""
        kernel = self.kernel
        while (task := kernel.current) is not None and not task.ended:
            kernel.attention = True
            if kernel.cpu.cpl == 3:
                switching.enter_from_user(kernel, task)
            elif kernel.cpu.rip == self.hypercall or switching.stopped_in_kernel(kernel, task):
                pass
            else:
                # On its way in: its registers are not yet on the stack.
                kernel.halt()
                kernel.run()
                continue
            return

    def _inject(self, task: Task, signal: int) -> None:
        """gdb has said with which signal (its number, 0 for none) a thread goes on."""
        info = self.held.pop(task, None)
        if not signal:
            return
        number = LINUX_SIGNALS.get(signal)
        if number is None:
            raise Failed(errno.EINVAL)
        if info is None or info.signal != number:
            info = SigInfo(number)
        self._passed[task] = number
        task.signals.add(info)
        self.kernel.attention = True
        notify(task)

    # -- what else gdb asks ----------------------------------------------------------------------------------------

    def transfer(self, thread: ThreadId, what: str, annex: str) -> bytes:
        """An object of ``qXfer``."""
        return self.objects.transfer(thread, what, annex)

    def open_file(self, path: bytes) -> tuple[Callable[[int, int], bytes], bytes]:
        """A file as the guest sees it."""
        return self.objects.open_file(path)

    def read_link(self, path: bytes) -> bytes:
        """Where a symbolic link of the guest's leads."""
        return self.objects.read_link(path)

    def monitor(self, thread: ThreadId, command: list[str]) -> str:
        """The text of a ``monitor`` command."""
        from mmuemu.gdbstub.monitor import process_command

        return process_command(self.task(thread), command)

    # -- endings ---------------------------------------------------------------------------------------------------

    def detach(self, pid: int) -> None:
        """Let processes go on without us."""
        if pid != ALL and pid not in self.debugged:
            raise Failed(errno.ESRCH)
        for one in list(self.debugged) if pid == ALL else [pid]:
            process = self.debugged.pop(one)
            self._forget_points(one)
            for task in process.threads.values():
                self.kernel.scheduler.held.discard(task)
                self.held.pop(task, None)
            self.events = deque(event for event in self.events if event.thread[0] != one)

    def kill(self, pid: int) -> None:
        """End processes by SIGKILL, when the machine runs next."""
        processes = [process for number, process in self.debugged.items() if pid in (ALL, number)]
        if not processes:
            raise Failed(errno.ESRCH)
        self.detach(pid)
        for process in processes:
            self.kernel.send_signal(process, SigInfo(Signal.SIGKILL))

    def finish(self) -> None:
        """Be debugged no more."""
        kernel = self.kernel
        self.debugged.clear()
        self.points.clear()
        self.events.clear()
        self.wishes = Wishes()
        self.watchpoints.clear()
        self.sync()
        self.places.set_code(set())
        kernel.scheduler.held.clear()
        kernel.events.fork.remove(self._forked)
        kernel.events.exit.remove(self._ended)
        kernel.tracer = self._tracer
        kernel.debugger = None
        kernel.halting = False
        kernel.attention = True

"""One instruction of one thread: over system calls, faults, other threads' turns and signal handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mmuemu.cpu.cpu import Stop
from mmuemu.cpu.window import Q_RIP, REGISTERS
from mmuemu.gdbstub.events import Action
from mmuemu.kernel.registers import IP

if TYPE_CHECKING:
    from mmuemu.gdbstub.processes import ProcessTarget
    from mmuemu.kernel.task import Task

_EXITS: Final = (b"\x48\x0f\x07", b"\x48\xcf")
"""``sysretq`` and ``iretq``."""
_MOST_OUT: Final = 64
"""Instructions between such a place and ring 3, with much to spare."""
_TURN: Final = 64
"""Steps after which other threads have their turn."""
_REPEAT_PREFIXES: Final = frozenset({0xF2, 0xF3})
_PREFIXES: Final = frozenset({0x66, 0x67, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65, *range(0x40, 0x50)})
_STRINGS: Final = frozenset({0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF})


def exits(read: Callable[[int, int], bytes], ways: list[range]) -> set[int]:
    """Addresses of the instructions that return to ring 3 in the kernel's code at ``ways``."""
    found = set()
    for way in ways:
        code = read(way.start, len(way))
        for pattern in _EXITS:
            at = code.find(pattern)
            while at >= 0:
                found.add(way.start + at)
                at = code.find(pattern, at + 1)
    return found


def repeats(code: bytes) -> bool:
    """Whether ``code`` begins with a string instruction that has a REP prefix."""
    repeated = False
    for byte in code:
        if byte in _REPEAT_PREFIXES:
            repeated = True
        elif byte not in _PREFIXES:
            return repeated and byte in _STRINGS
    return False


class Stepper:
    """Steps the threads of one target."""

    def __init__(self, target: ProcessTarget) -> None:
        self.target = target
        kernel = target.kernel
        self.exits = exits(kernel.cpu.read_linear, kernel.memory.ways_out)
        self.quiet = False
        """An instruction is executed that may have a breakpoint."""
        self.calling: Task | None = None
        """The task whose step is a system call that has not returned yet."""
        self._returning: Task | None = None
        self._arrived = False
        self._steps = 0

    def reached(self, task: Task, address: int) -> bool:
        """Called before each instruction at a place; True when it is one of ours."""
        if address not in self.exits:
            return False
        if task is self._returning:
            self._arrived = True
            self.target.kernel.cpu.stop_before()
        return True

    def step(self, task: Task, action: Action, interrupted: Callable[[], bool]) -> None:
        """Execute one instruction of ``task`` (or all within the action's range), and tell so unless something else
        has happened before.
        """
        target, cpu = self.target, self.target.kernel.cpu
        start = task.registers[IP]
        self._first(task)
        if not self._to_user(task, interrupted):
            return
        first, end = action.range
        # A signal handler has been entered: its first instruction is where the step ends.
        done = bool(action.signal) and cpu.rip != start
        while not done:
            self.quiet = True
            try:
                self._one(task, interrupted)
            finally:
                self.quiet = False
            if target.events:
                return
            if not self._in_user(task):
                self.calling = task
                try:
                    if not self._to_user(task, interrupted):
                        return
                finally:
                    self.calling = None
            rip = cpu.window.q[Q_RIP]
            done = not first <= rip < end or (task.pid, rip) in target.points
        self._steps += 1
        if self._steps % _TURN == 0:
            target.kernel.scheduler.tick()
        target._tell("signal", task)

    def _first(self, task: Task) -> None:
        """Have ``task`` run before the others that are ready."""
        kernel = self.target.kernel
        if task in kernel.scheduler.ready:
            kernel.scheduler.ready.remove(task)
            kernel.scheduler.ready.appendleft(task)
            kernel.reschedule = kernel.attention = True

    def _in_user(self, task: Task) -> bool:
        return self.target.kernel.current is task and self.target.kernel.cpu.cpl == 3

    def _to_user(self, task: Task, interrupted: Callable[[], bool]) -> bool:
        """Run until ``task`` is in ring 3; False when something else happened, or it has ended."""
        target = self.target
        cpu = target.kernel.cpu
        while not self._in_user(task):
            self._returning, self._arrived = task, False
            try:
                while not self._arrived:
                    target.go(interrupted)
                    if target.events or task.ended:
                        return False
            finally:
                self._returning = None
            for _ in range(_MOST_OUT):
                self._one(task, interrupted)
                if target.events:
                    return False
                if target.kernel.current is not task or cpu.cpl == 3:
                    break
        return True

    def _one(self, task: Task, interrupted: Callable[[], bool]) -> None:
        """One instruction of whoever has the CPU, a REP's last look at an empty RCX included."""
        cpu = self.target.kernel.cpu
        cpu.window.save()
        before = cpu.window.q[Q_RIP]
        while True:
            stop = cpu.run(max_instructions=1)
            if stop is Stop.KICKED:
                continue
            if stop is Stop.INTERRUPTED:
                self.target.interrupted(interrupted)
                if self.target.events:
                    return
                continue
            cpu.window.save()
            q = cpu.window.q
            if stop is not Stop.LIMIT or q[Q_RIP] != before or q[REGISTERS["rcx"]]:
                return
            if not repeats(cpu.peek.sync().available(before, 15)):
                return

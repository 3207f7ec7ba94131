"""Running a machine to an event that a person names: ``main``, ``exit``, ``syscall:write:2``, ``address:0x401000``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mmuemu.errors import Exit, MmuemuError, UsageError, printable
from mmuemu.kernel.kernel import Kernel
from mmuemu.view.places import find_address, find_symbol
from mmuemu.view.regions import AT_ENTRY, auxiliary

if TYPE_CHECKING:
    from mmuemu.kernel.events import SyscallEvent
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task
    from mmuemu.machine import Machine

EVENTS: Final = "entry, main, exit, syscall:NAME[:N], instruction:N, address:SYMBOL|0x..."


class NotReached(MmuemuError):
    """The run ended before the event came."""


class OutOfTime(NotReached):
    """A limit of the run came first."""

    exit_code = Exit.LIMIT


class _Reached(BaseException):
    """Ends a run in the middle of what the kernel does; nobody on the way may take it for an error."""

    def __init__(self, task: Task) -> None:
        self.task = task


class _Runner:
    """One run to one event."""

    def __init__(self, machine: Machine, event: str, timeout: float | None, max_instructions: int | None) -> None:
        if machine.task is None:
            raise UsageError("no program is loaded: call Machine.load or Machine.spawn first")
        self.machine = machine
        self.kernel: Kernel = machine.kernel
        self.task: Task = machine.task
        self.process: Process = machine.task.process
        self.event = event
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.left = max_instructions

    def bad(self, why: str) -> UsageError:
        return UsageError(f"--at {printable(self.event)}: {why}")

    def number(self, text: str) -> int:
        try:
            value = int(text, 0)
        except ValueError:
            value = 0
        if value <= 0:
            raise self.bad(f"{printable(text)!r} is no positive number")
        return value

    def run(self, *, address: int | None = None, instructions: int | None = None) -> str | None:
        """Run the machine; what stopped it (:attr:`Outcome.limit`)."""
        left = None if self.deadline is None else max(self.deadline - time.monotonic(), 0.001)
        wanted = [count for count in (instructions, self.left) if count is not None]
        before = self.kernel.cpu.instructions
        limit = self.machine.run_until(
            self.process, timeout=left, max_instructions=min(wanted, default=None), address=address
        ).limit
        if self.left is not None:
            self.left = max(self.left - (self.kernel.cpu.instructions - before), 0)
        return limit

    def failed(self, limit: str | None) -> NotReached:
        if limit is not None:
            option = "--timeout" if limit == "timeout" else "--max-instructions"
            return OutOfTime(f"--at {printable(self.event)}: not reached within the limit ({option})")
        process = self.process
        how = f"signal {int(process.death.signal)}" if process.death else f"exit code {process.exit_status}"
        return NotReached(f"--at {printable(self.event)}: the program ended before that ({how})")

    def to_address(self, address: int) -> Task:
        limit = self.run(address=address)
        if limit != "address" or self.kernel.current is None:
            raise self.failed(limit)
        return self.kernel.current

    def to_place(self, text: str) -> Task:
        """To a symbol or a number; symbols of libraries are known once the dynamic linker has loaded them."""
        try:
            address = find_address(self.kernel, self.task.mm, text)
        except UsageError as error:
            first = auxiliary(self.process, AT_ENTRY)
            if first is None or first == self.task.entry:
                raise self.bad(str(error)) from None
            self.to_address(first)
            try:
                address = find_address(self.kernel, self.task.mm, text)
            except UsageError as again:
                raise self.bad(str(again)) from None
        return self.to_address(address)

    def to_main(self) -> Task:
        address = find_symbol(self.kernel, self.task.mm, "main")
        if address is None:
            raise self.bad("the program has no symbol main (is it stripped?)")
        return self.to_address(address)

    def to_callback(self) -> Task:
        """Until a callback raises :class:`_Reached`."""
        try:
            limit = self.run()
        except _Reached as reached:
            return reached.task
        raise self.failed(limit)

    def to_exit(self) -> Task:
        def ended(process: Process, task: Task) -> None:
            if process is self.process:
                raise _Reached(task)

        self.kernel.events.exit.append(ended)
        return self.to_callback()

    def to_syscall(self, text: str) -> Task:
        name, colon, count = text.partition(":")
        wanted = self.number(count) if colon else 1
        seen = 0

        def called(event: SyscallEvent) -> None:
            nonlocal seen
            seen += 1
            if seen == wanted:
                raise _Reached(event.task)

        try:
            self.machine.on_syscall(name)(called)
        except UsageError:
            raise self.bad(f"there is no system call {printable(name)!r} here") from None
        return self.to_callback()

    def to_instruction(self, text: str) -> Task:
        count = self.number(text)
        if self.left is not None and self.left < count:
            count = self.left
            self.run(instructions=count)
            raise self.failed("instructions")
        limit = self.run(instructions=count)
        if limit != "instructions":
            raise self.failed(limit)
        return self.kernel.current or self.task

    def __call__(self) -> Task:
        kind, colon, rest = self.event.partition(":")
        plain: dict[str, Callable[[], Task]] = {"entry": lambda: self.task, "main": self.to_main, "exit": self.to_exit}
        told: dict[str, Callable[[str], Task]] = {
            "syscall": self.to_syscall,
            "instruction": self.to_instruction,
            "address": self.to_place,
        }
        if not colon and kind in plain:
            return plain[kind]()
        if colon and rest and kind in told:
            return told[kind](rest)
        raise self.bad(f"choose from {EVENTS}")


def run_to(machine: Machine, event: str, *, timeout: float | None = None, max_instructions: int | None = None) -> Task:
    """Run the loaded program until ``event``, one of :data:`EVENTS`; the task that came to it.

    ``entry`` runs nothing: it is where the program (or its dynamic linker) begins. ``exit`` and ``syscall`` stop inside
    the kernel, before memory goes and before the call is made: look at the machine then, do not run it on. An address
    may be reached by any process. Raises UsageError for an event nobody knows, :class:`NotReached` when the program
    ends first or a limit (seconds, instructions) comes first.
    """
    return _Runner(machine, event, timeout, max_instructions)()


__all__ = ["EVENTS", "NotReached", "OutOfTime", "run_to"]

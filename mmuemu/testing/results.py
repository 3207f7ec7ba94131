"""What a run left, for assertions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.signals import Signal
from mmuemu.testing.faults import Fault, fatal
from mmuemu.testing.space import Space, of_process

if TYPE_CHECKING:
    from mmuemu.guestprocess import Area, GuestProcess
    from mmuemu.machine import Machine, Outcome
    from mmuemu.testing.programs import Program
    from mmuemu.testing.recorder import Call, Fill, Recorder
    from mmuemu.view.report.events import EventLog


class Result:
    """How a program ran. It can be asked as long as its machine is open: to the end of the test."""

    def __init__(self, program: Program, process: GuestProcess, outcome: Outcome, recorder: Recorder) -> None:
        self.program = program
        self.process = process
        self.outcome = outcome
        self._recorder = recorder
        self._fault = fatal(process)

    def __repr__(self) -> str:
        how = f"stopped at the limit ({self.limit})" if self.limit else f"exit code {self.exit_code}"
        name = "" if self.signal is None else f", {self.signal.name}"
        fault = self.fault
        return f"<Result of {self.program.name}: {how}{name}{'' if fault is None else f', {fault}'}>"

    def log(self) -> EventLog:
        """The run's system calls and refused page faults, as a report shows them."""
        return self._recorder.log()

    @property
    def machine(self) -> Machine:
        """The machine it ran on."""
        return self.process.machine

    @property
    def exit_code(self) -> int:
        """As a shell tells it: 128 + signal when one killed it, 124 when a limit was reached."""
        return int(self.outcome.exit_code)

    @property
    def signal(self) -> Signal | None:
        """The signal that killed it (it compares equal to its number)."""
        return None if self.outcome.signal is None else Signal(self.outcome.signal)

    @property
    def limit(self) -> str | None:
        """``"timeout"`` or ``"instructions"`` when it has not ended."""
        return self.outcome.limit

    @property
    def fault(self) -> Fault | None:
        """The exception that killed it."""
        if self._fault is None:
            self._fault = fatal(self.process)
        return self._fault

    @property
    def faults(self) -> list[Fault]:
        """Every page fault that was refused (the last 1000), those that a handler of the program's took as well."""
        return list(self._recorder.faults)

    @property
    def stdout(self) -> bytes:
        """What it wrote to descriptor 1."""
        return self.process.stdout

    @property
    def stderr(self) -> bytes:
        """What it wrote to descriptor 2."""
        return self.process.stderr

    @property
    def maps(self) -> str:
        """The text of /proc/PID/maps, as it was at the end."""
        return self.process.maps

    @property
    def areas(self) -> list[Area]:
        """The same as objects."""
        return self.process.areas

    @property
    def syscalls(self) -> list[Call]:
        """The system calls (the last 100,000) of all processes in the order of their returns."""
        return list(self._recorder.calls)

    @property
    def leaked(self) -> dict[str, tuple[Fill, ...]]:
        """Cache lines that were fetched in transient windows, by the chain of flaws: ``"v1"``, ``"v1 > meltdown"``.

        Empty without a CPU model. A line here need not tell a secret: see ``guest.leaks``.
        """
        found: dict[str, list[Fill]] = {}
        for fill in self._recorder.fills:
            found.setdefault(" > ".join(fill.causes), []).append(fill)
        return {cause: tuple(fills) for cause, fills in found.items()}

    @property
    def space(self) -> Space:
        """Its address space."""
        return of_process(self.process)


__all__ = ["Result"]

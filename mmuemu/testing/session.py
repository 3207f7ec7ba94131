"""The fixtures' work: machines with the options of one test, programs run on them, what is left at its end."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from mmuemu.machine import Machine
from mmuemu.testing import programs
from mmuemu.testing.options import DEFAULT_TIMEOUT, LIMITS, OPTIONS
from mmuemu.testing.programs import Program
from mmuemu.testing.recorder import Recorder
from mmuemu.testing.results import Result

if TYPE_CHECKING:
    from mmuemu.guestprocess import GuestProcess
    from mmuemu.leaks import LeakReport
    from mmuemu.testing.bare import BareResult

_KEPT_RUNS: Final = 8
_FOR_LEAKS: Final = ("cpu", "mitigations", "seed", "timeout")


class Session:
    """One test's machines and runs."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)
        self.machines: list[Machine] = []
        self.closers: list[Any] = []
        self.runs: deque[Result] = deque(maxlen=_KEPT_RUNS)
        """The last ones."""
        self.bare_runs: deque[BareResult] = deque(maxlen=_KEPT_RUNS)

    def machine(self, **options: Any) -> Machine:
        """A machine with the test's options, overridden by ``options``; it is closed when the test has ended."""
        wanted = {name: value for name, value in {**self.options, **options}.items() if name not in LIMITS}
        made = Machine(**wanted)
        self.machines.append(made)
        self.closers.append(made.close)
        return made

    def close(self) -> None:
        """Close every machine, the last first."""
        while self.closers:
            with suppress(OSError):
                self.closers.pop()()


class Guest:
    """The ``guest`` fixture: make programs, run them, each on a new machine."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # -- programs ------------------------------------------------------------------------------------------------

    def asm(self, source: str, name: str = "guest") -> Program:
        """A program of assembly text, Intel or AT&T syntax. Raises BadImage."""
        return programs.from_assembly(source, name)

    def c(self, source: str, name: str = "guest") -> Program:
        """A static program of C text; skips the test where there is no compiler. Raises BadImage."""
        try:
            return programs.from_c(source, name)
        except programs.NoCompiler:
            _skip()

    def program(self, path: str | os.PathLike[str]) -> Program:
        """A program of the host, or a source file; skips the test where that needs a compiler and there is none.

        Raises BadImage, and UsageError where no file is.
        """
        try:
            return programs.from_file(path)
        except programs.NoCompiler:
            _skip()

    # -- runs ----------------------------------------------------------------------------------------------------

    def start(
        self,
        program: Program | str | os.PathLike[str],
        args: Sequence[str | bytes] = (),
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        machine: Machine | None = None,
        **options: Any,
    ) -> GuestProcess:
        """A process that has not run yet, on ``machine`` or one of its own.

        ``args`` are without the program's name; ``env`` is the whole environment (None: an empty one); ``options`` are
        the marker's. Raises what Machine and ``spawn`` raise.
        """
        chosen = program if isinstance(program, Program) else self.program(program)
        if machine is None:
            machine = self._session.machine(**options)
        elif options:
            raise TypeError(f"start: machine= is made already: {', '.join(options)} cannot be given")
        return machine.spawn(chosen.image, [chosen.name, *args], env or {}, stdin=stdin)

    def run(
        self,
        program: Program | str | os.PathLike[str],
        args: Sequence[str | bytes] = (),
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Result:
        """Run a program to its end, or to ``timeout`` (seconds of host time, 60) or ``max_instructions``; see
        :meth:`start`.
        """
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise TypeError(f"run: no option {unknown[0]!r}: choose from {', '.join(OPTIONS)}")
        chosen = program if isinstance(program, Program) else self.program(program)
        limits = {name: {**self._session.options, **options}.get(name) for name in LIMITS}
        machine = self._session.machine(**options)
        recorder = Recorder(machine)
        process = self.start(chosen, args, stdin=stdin, env=env, machine=machine)
        timeout = DEFAULT_TIMEOUT if limits["timeout"] is None else limits["timeout"]
        outcome = process.wait(timeout, max_instructions=limits["max_instructions"])
        result = Result(chosen, process, outcome, recorder)
        self._session.runs.append(result)
        return result

    def leaks(
        self, program: Program | str | os.PathLike[str], secret: str | int, first: bytes, second: bytes, **options: Any
    ) -> LeakReport:
        """Whether transient accesses tell two secrets apart (:func:`mmuemu.leaks.leaks`, whose options these are).

        CPU, mitigations, seed and timeout are the test's.
        """
        from mmuemu.leaks import leaks

        chosen = program if isinstance(program, Program) else self.program(program)
        ours = {
            name: value for name, value in self._session.options.items() if name in _FOR_LEAKS and value is not None
        }
        return leaks(chosen.source or chosen.image, secret, first, second, **{**ours, **options})


def _skip() -> NoReturn:
    import pytest

    pytest.skip("no C compiler that targets x86-64 Linux: install gcc, or pip install 'mmuemu[cc]'")


__all__ = ["Guest", "Session"]

"""A machine that is used for one input after the other, and always is what it was at first."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from mmuemu.machine import Files, Machine

_GUESTS: Final = Path(__file__).parent / "guest"


class Kept:
    """``with kept as machine``: the machine as it was when this was made. It is restored on the way in."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._start = machine.snapshot()
        self._used = False

    def __enter__(self) -> Machine:
        if self._used:
            self.machine.restore(self._start)
        self._used = True
        return self.machine

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        return None


def build(name: str) -> bytes:
    """The program of ``guest/NAME.c``, static."""
    with tempfile.TemporaryDirectory(prefix="mmuemu-fuzz-") as scratch:
        target = Path(scratch) / name
        command = ["gcc", "-O1", "-w", "-static", "-Wl,-z,norelro", str(_GUESTS / f"{name}.c"), "-o", str(target)]
        subprocess.run(command, check=True, timeout=60)
        return target.read_bytes()


def waiting(name: str, stdin: bytes = b"", **options: Any) -> Machine:
    """A machine in which the program of ``guest/NAME.c`` has just called ``sched_yield`` for the first time."""
    machine = Machine(seed=1, aslr=False, files=Files(isolate=True, cwd="/"), **options)
    reached = False

    @machine.on_syscall("sched_yield")
    def pause(_event: Any) -> None:
        nonlocal reached
        if not reached:
            reached = True
            machine.pause()

    machine.spawn(build(name), [name], {}, stdin=stdin)
    outcome = machine.run(timeout=60)
    assert outcome.limit == "pause", outcome
    return machine

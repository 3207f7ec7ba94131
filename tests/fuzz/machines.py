"""A machine that is used for one input after the other, and always is what it was at first."""

from __future__ import annotations

from types import TracebackType

from mmuemu.machine import Machine


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

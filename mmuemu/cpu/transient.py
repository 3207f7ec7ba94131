"""What a CPU asks of whoever models its transient execution (:mod:`mmuemu.speculation`)."""

from __future__ import annotations

from typing import Protocol

from mmuemu.cpu.traps import Trap


class Transient(Protocol):
    """Told of every stretch of emulation, and of faults; counts instructions in the engine's place."""

    instructions: int
    """Instructions that retired."""

    def begin(self, limit: int | None) -> None:
        """Emulation starts; it is to end at the first block behind ``limit`` instructions."""

    def ended(self, rip: int) -> bool:
        """Emulation has ended at ``rip``; True: in a transient window, which is undone, so that it is to go on."""

    def abort(self) -> bool:
        """From a hook: what comes now must not happen transiently; True: a window was open and is undone."""

    def fault(self, trap: Trap) -> None:
        """``trap`` is about to be delivered."""

"""Why a run of the CPU ended."""

from __future__ import annotations

from enum import Enum


class Stop(Enum):
    """Why a run ended."""

    REQUESTED = "requested"
    """Somebody called :meth:`Cpu.stop`."""
    HALTED = "halted"
    """``hlt`` in ring 0."""
    LIMIT = "limit"
    """The instruction limit."""
    INTERRUPTED = "interrupted"
    """:meth:`Cpu.interrupt`, from another thread."""
    KICKED = "kicked"
    """:meth:`Cpu.kick`: somebody wants to look at the state between two instructions."""
    UNTIL = "until"
    """The address given as ``until``."""

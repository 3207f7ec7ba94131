"""What happened in transient windows, as records for people and tests."""

from __future__ import annotations

from dataclasses import dataclass, field

NEVER = 1 << 60
"""A time that does not come: the operand was not there before the window closed."""


@dataclass(slots=True)
class Fill:
    """A line that a transient access brought nearer: ``level`` is where it was found (1 to 3, 4: memory)."""

    line: int
    """Physical address."""
    linear: int
    address: int
    """Of the instruction."""
    level: int
    cycle: int
    arrives: int
    causes: tuple[str, ...]
    """The chain of flaws that led there, the outermost first: ``("v1",)``, ``("v1", "meltdown")``."""


@dataclass(slots=True)
class Step:
    """One instruction of a window: when its operands were there (of a load, its address), when its result was (NEVER:
    not in time)."""

    address: int
    code: bytes
    start: int
    done: int
    waits_for: tuple[int, ...] = ()
    """Addresses of earlier instructions (of the window or before it) whose results it waited for."""
    note: str = ""
    """``load L1 0x...``, ``forwarded meltdown``, ``nested v1``..."""
    linear: int | None = None
    """Linear address of its load or store, where it has one and it is known."""
    level: int = 0
    """Where its load found the line (1 to 3, 4: memory); 0 when it loads nothing."""


@dataclass(slots=True)
class Window:
    """One stretch of transient execution."""

    number: int
    flaw: str
    """What opened it: ``v1``, ``v2``, ``rsb``, ``v4``, ``meltdown``... or ``fault`` when nothing was forwarded."""
    opener: int
    """Address of the branch, load or faulting instruction."""
    start: int
    """Address of the first transient instruction."""
    resumed: int
    """Where architectural execution went on."""
    context: int
    """The process (its pid) in whose context it ran."""
    ring: int
    opened: int
    closes: int
    """Cycle by which the opener is resolved and everything younger is gone."""
    reason: str = ""
    """Why it ended: ``resolved``, ``reorder buffer full``, ``lfence``, ``no prediction``, ``page fault``..."""
    waited_for: tuple[int, ...] = ()
    """Addresses of the instructions whose results the opener waited for."""
    before: list[Step] = field(default_factory=list)
    """Older instructions still under way when it opened that the opener waited for, themselves or through others."""
    steps: list[Step] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    nested: list[tuple[int, str]] = field(default_factory=list)
    """Predictions that were followed inside: address and flaw."""

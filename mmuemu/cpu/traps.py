"""Traps: what the CPU hands to whoever rules the machine, a Python kernel or the guest's own IDT."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from mmuemu.x86.exceptions import Vector, vector_name
from mmuemu.x86.paging import FaultBits

TRAPS: Final = frozenset({Vector.DB, Vector.BP, Vector.OF})
"""Exceptions reported after the instruction (SDM volume 3, table 6-1)."""
_FETCH: Final = int(FaultBits.I)
LONGEST_INSTRUCTION: Final = 15


class Trap(NamedTuple):
    """One exception or software interrupt, as the hardware would describe it to a handler.

    ``rip`` is the faulting instruction for faults and the next one for traps (``int3``, ``int n``);
    ``address`` is CR2 and means something for #PF only; ``error_code`` is 0 where the vector has none;
    ``software`` is whether an ``int`` instruction raised it; ``cpl`` is the ring it came from.
    """

    vector: int
    error_code: int
    rip: int
    address: int
    cpl: int
    software: bool = False

    @property
    def is_fault(self) -> bool:
        """Whether the instruction at ``rip`` had no effect and would be executed again (SDM volume 3, 6.5)."""
        return not self.software and self.vector not in TRAPS

    @property
    def is_fetch(self) -> bool:
        """Whether the instruction itself could not be fetched (without NX and SMEP, no error-code bit tells)."""
        if self.vector != Vector.PF:
            return False
        return bool(self.error_code & _FETCH) or 0 <= self.address - self.rip < LONGEST_INSTRUCTION

    def __str__(self) -> str:
        text = f"{vector_name(self.vector)} at {self.rip:#x} in ring {self.cpl}, error code {self.error_code:#x}"
        return f"{text}, CR2 {self.address:#x}" if self.vector == Vector.PF else text


class TrapHandler(Protocol):
    """Who is asked when the guest cannot go on by itself.

    ``page_fault``, ``syscall``, ``port_in`` and ``port_out`` run inside emulation and must be quick;
    ``trap`` runs between two stretches of it and may change any state.
    """

    def page_fault(self, page: int, error_code: int) -> int:
        """Resolve a #PF in place: ``page`` is the linear address of the 4 KiB page.

        0: it cannot be resolved; 1: walk again; else the entry the page has now, accessed and dirty bits set as the
        access sets them, under upper entries that allow user code everything: no walk is needed.
        """

    def trap(self, trap: Trap) -> None:
        """Take an exception that nothing resolved: change the state, or call ``Cpu.stop``."""

    def syscall(self) -> None:
        """The guest executed ``syscall``; ``Cpu.enter_kernel`` does what the instruction does."""

    def port_in(self, port: int, size: int) -> int:
        """The value that an ``in`` of ``size`` bytes reads."""

    def port_out(self, port: int, size: int, value: int) -> None:
        """An ``out`` of ``size`` bytes."""


class NoHandler:
    """The handler of a machine without a kernel: nothing is resolved, the first trap stops the run."""

    def __init__(self) -> None:
        self.last: Trap | None = None

    def page_fault(self, page: int, error_code: int) -> int:
        return 0

    def trap(self, trap: Trap) -> None:
        self.last = trap

    def syscall(self) -> None:
        return None

    def port_in(self, port: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def port_out(self, port: int, size: int, value: int) -> None:
        return None

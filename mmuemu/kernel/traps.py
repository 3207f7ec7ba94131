"""From an exception to the signal Linux sends for it (arch/x86/kernel/traps.c, arch/x86/mm/fault.c)."""

from __future__ import annotations

from typing import Final, NamedTuple

from mmuemu.cpu.fpstate import FpState
from mmuemu.cpu.traps import Trap
from mmuemu.kernel.abi.signals import (
    BUS_ADRALN,
    DUMPS_CORE,
    FPE_FLTDIV,
    FPE_FLTINV,
    FPE_FLTOVF,
    FPE_FLTRES,
    FPE_FLTUND,
    FPE_INTDIV,
    ILL_ILLOPN,
    SI_KERNEL,
    TRAP_TRACE,
    Signal,
)
from mmuemu.x86.exceptions import Vector


class Death(NamedTuple):
    """Why a process died of a signal: its number, code and address, and the trap behind it, if one was."""

    signal: int
    code: int = 0
    address: int = 0
    trap: Trap | None = None
    reason: str = ""

    @property
    def core(self) -> bool:
        """Whether the signal's default action dumps core (signal(7)); wait(2) tells so, no file is written."""
        return self.signal in DUMPS_CORE

    @property
    def exit_code(self) -> int:
        """What a shell reports: 128 + signal."""
        return 128 + self.signal


_BY_VECTOR: Final[dict[int, tuple[Signal, int, bool]]] = {
    Vector.DE: (Signal.SIGFPE, FPE_INTDIV, True),
    Vector.DB: (Signal.SIGTRAP, TRAP_TRACE, True),
    Vector.BP: (Signal.SIGTRAP, SI_KERNEL, False),
    Vector.OF: (Signal.SIGSEGV, SI_KERNEL, False),
    Vector.BR: (Signal.SIGSEGV, SI_KERNEL, False),
    Vector.UD: (Signal.SIGILL, ILL_ILLOPN, True),
    Vector.NM: (Signal.SIGSEGV, SI_KERNEL, False),
    Vector.TS: (Signal.SIGSEGV, SI_KERNEL, False),
    Vector.NP: (Signal.SIGBUS, SI_KERNEL, False),
    Vector.SS: (Signal.SIGBUS, SI_KERNEL, False),
    Vector.GP: (Signal.SIGSEGV, SI_KERNEL, False),
    Vector.MF: (Signal.SIGFPE, FPE_FLTINV, True),
    Vector.AC: (Signal.SIGBUS, BUS_ADRALN, False),
    Vector.XM: (Signal.SIGFPE, FPE_FLTINV, True),
}
"""Vector -> (signal, si_code, whether si_addr is the instruction's address; it is 0 otherwise)."""

FLOATING_POINT: Final = frozenset({Vector.MF, Vector.XM})
_FPE_CODES: Final = ((1, FPE_FLTINV), (4, FPE_FLTDIV), (8, FPE_FLTOVF), (0x12, FPE_FLTUND), (0x20, FPE_FLTRES))
"""Exception bits of the x87 status word and MXCSR, in the order that they are looked at (fpu__exception_code)."""

_USER_GATES: Final = frozenset({Vector.BP, Vector.OF})
"""Software interrupts that ring 3 may raise (DPL 3 in Linux's IDT); others are #GP(vector * 8 + 2)."""


def as_delivered(trap: Trap) -> Trap:
    """The trap after the gate's DPL check: ``int n`` on a ring-0 gate is #GP at the instruction (SDM 6.12.1.1)."""
    if not trap.software or trap.vector in _USER_GATES:
        return trap
    return Trap(Vector.GP, trap.vector * 8 + 2, trap.rip - 2, 0, trap.cpl)


def signal_of(trap: Trap) -> Death:
    """The signal for any exception but #PF, which the address space judges."""
    signal, code, at_instruction = _BY_VECTOR.get(trap.vector, (Signal.SIGSEGV, SI_KERNEL, False))
    return Death(signal, code, trap.rip if at_instruction else 0, trap)


def floating_point_code(trap: Trap, fp: FpState) -> int:
    """The si_code of an #MF or #XM, from the saved registers; 0: nothing is wrong, go on (``math_error``)."""
    exceptions = fp.x87_exceptions if trap.vector == Vector.MF else fp.sse_exceptions
    return next((code for bits, code in _FPE_CODES if exceptions & bits), 0)

"""Signals by gdb's own numbers (include/gdb/signals.def), which are not Linux's from 7 on."""

from __future__ import annotations

from typing import Final

from mmuemu.kernel.abi.signals import Signal
from mmuemu.x86.exceptions import Vector

GDB_SIGNALS: Final[dict[int, int]] = {
    Signal.SIGHUP: 1, Signal.SIGINT: 2, Signal.SIGQUIT: 3, Signal.SIGILL: 4, Signal.SIGTRAP: 5, Signal.SIGABRT: 6,
    Signal.SIGFPE: 8, Signal.SIGKILL: 9, Signal.SIGBUS: 10, Signal.SIGSEGV: 11, Signal.SIGSYS: 12, Signal.SIGPIPE: 13,
    Signal.SIGALRM: 14, Signal.SIGTERM: 15, Signal.SIGURG: 16, Signal.SIGSTOP: 17, Signal.SIGTSTP: 18,
    Signal.SIGCONT: 19, Signal.SIGCHLD: 20, Signal.SIGTTIN: 21, Signal.SIGTTOU: 22, Signal.SIGIO: 23,
    Signal.SIGXCPU: 24, Signal.SIGXFSZ: 25, Signal.SIGVTALRM: 26, Signal.SIGPROF: 27, Signal.SIGWINCH: 28,
    Signal.SIGUSR1: 30, Signal.SIGUSR2: 31, Signal.SIGPWR: 32,
    32: 77, 64: 78, **{number: number + 12 for number in range(33, 64)},
}  # fmt: skip
"""Linux's number -> gdb's."""
UNKNOWN: Final = 143
LINUX_SIGNALS: Final = {gdb: linux for linux, gdb in GDB_SIGNALS.items()}
TRAP: Final = 5
INT: Final = 2

EXCEPTION_SIGNALS: Final[dict[int, int]] = {
    Vector.DE: 8, Vector.DB: TRAP, Vector.BP: TRAP, Vector.OF: 11, Vector.BR: 11, Vector.UD: 4, Vector.DF: 11,
    Vector.TS: 10, Vector.NP: 10, Vector.SS: 10, Vector.GP: 11, Vector.PF: 11, Vector.MF: 8, Vector.AC: 10,
    Vector.XM: 8,
}  # fmt: skip
"""Exceptions of a bare machine that gdb is told of, as gdb's numbers; #NM is how kernels switch FPU state."""


def to_gdb(signal: int) -> int:
    """gdb's number of one of Linux's."""
    return GDB_SIGNALS.get(signal, UNKNOWN)

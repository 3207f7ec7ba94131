"""Signal numbers, codes and default actions (Linux include/uapi/asm-generic/signal.h and siginfo.h; signal(7))."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Signal(IntEnum):
    """Signal numbers of x86-64 Linux."""

    SIGHUP = 1
    SIGINT = 2
    SIGQUIT = 3
    SIGILL = 4
    SIGTRAP = 5
    SIGABRT = 6
    SIGBUS = 7
    SIGFPE = 8
    SIGKILL = 9
    SIGUSR1 = 10
    SIGSEGV = 11
    SIGUSR2 = 12
    SIGPIPE = 13
    SIGALRM = 14
    SIGTERM = 15
    SIGSTKFLT = 16
    SIGCHLD = 17
    SIGCONT = 18
    SIGSTOP = 19
    SIGTSTP = 20
    SIGTTIN = 21
    SIGTTOU = 22
    SIGURG = 23
    SIGXCPU = 24
    SIGXFSZ = 25
    SIGVTALRM = 26
    SIGPROF = 27
    SIGWINCH = 28
    SIGIO = 29
    SIGPWR = 30
    SIGSYS = 31


LAST_SIGNAL: Final = 64
SIG_DFL: Final = 0
SIG_IGN: Final = 1

IGNORED_BY_DEFAULT: Final = frozenset({Signal.SIGCHLD, Signal.SIGCONT, Signal.SIGURG, Signal.SIGWINCH})
STOPS_BY_DEFAULT: Final = frozenset({Signal.SIGSTOP, Signal.SIGTSTP, Signal.SIGTTIN, Signal.SIGTTOU})
DUMPS_CORE: Final = frozenset(
    {
        Signal.SIGQUIT, Signal.SIGILL, Signal.SIGTRAP, Signal.SIGABRT, Signal.SIGBUS, Signal.SIGFPE,
        Signal.SIGSEGV, Signal.SIGXCPU, Signal.SIGXFSZ, Signal.SIGSYS,
    }
)  # fmt: skip

SI_KERNEL: Final = 0x80
SEGV_MAPERR: Final = 1
SEGV_ACCERR: Final = 2
BUS_ADRALN: Final = 1
BUS_ADRERR: Final = 2
FPE_INTDIV: Final = 1
FPE_FLTINV: Final = 7
ILL_ILLOPN: Final = 2
TRAP_BRKPT: Final = 1
TRAP_TRACE: Final = 2

CODE_NAMES: Final[dict[tuple[int, int], str]] = {
    (Signal.SIGSEGV, SEGV_MAPERR): "SEGV_MAPERR",
    (Signal.SIGSEGV, SEGV_ACCERR): "SEGV_ACCERR",
    (Signal.SIGBUS, BUS_ADRALN): "BUS_ADRALN",
    (Signal.SIGBUS, BUS_ADRERR): "BUS_ADRERR",
    (Signal.SIGFPE, FPE_INTDIV): "FPE_INTDIV",
    (Signal.SIGFPE, FPE_FLTINV): "FPE_FLTINV",
    (Signal.SIGILL, ILL_ILLOPN): "ILL_ILLOPN",
    (Signal.SIGTRAP, TRAP_BRKPT): "TRAP_BRKPT",
    (Signal.SIGTRAP, TRAP_TRACE): "TRAP_TRACE",
}


def signal_name(number: int) -> str:
    """``"SIGSEGV"`` for 11; real-time signals as ``"SIGRT_n"``."""
    try:
        return Signal(number).name
    except ValueError:
        return f"SIGRT_{number - 32}"

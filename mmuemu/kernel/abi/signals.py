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

SYNCHRONOUS: Final = sum(
    1 << (signal - 1)
    for signal in (Signal.SIGSEGV, Signal.SIGBUS, Signal.SIGILL, Signal.SIGTRAP, Signal.SIGFPE, Signal.SIGSYS)
)
"""Bits of the signals that an instruction causes; they are delivered first (kernel/signal.c, SYNCHRONOUS_MASK)."""
UNBLOCKABLE: Final = 1 << (Signal.SIGKILL - 1) | 1 << (Signal.SIGSTOP - 1)
"""Bits of the signals that no mask holds."""
STOPPING: Final = sum(1 << (signal - 1) for signal in STOPS_BY_DEFAULT)

SA_NOCLDSTOP: Final = 1
SA_NOCLDWAIT: Final = 2
SA_SIGINFO: Final = 4
SA_EXPOSE_TAGBITS: Final = 0x800
SA_RESTORER: Final = 0x0400_0000
SA_ONSTACK: Final = 0x0800_0000
SA_RESTART: Final = 0x1000_0000
SA_NODEFER: Final = 0x4000_0000
SA_RESETHAND: Final = 0x8000_0000
SA_KNOWN: Final = (
    SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_RESTORER | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESETHAND
    | SA_EXPOSE_TAGBITS
)  # fmt: skip
"""Flags that sigaction keeps; the others read back as 0, which is how a program asks for them (sigaction(2))."""

SS_ONSTACK: Final = 1
SS_DISABLE: Final = 2
SS_AUTODISARM: Final = 1 << 31
MINSIGSTKSZ: Final = 2048

SI_USER: Final = 0
SI_QUEUE: Final = -1
SI_TIMER: Final = -2
SI_TKILL: Final = -6
SI_DETHREAD: Final = -7
SI_ASYNCNL: Final = -60
SI_KERNEL: Final = 0x80
SEGV_MAPERR: Final = 1
SEGV_ACCERR: Final = 2
SEGV_PKUERR: Final = 4
BUS_ADRALN: Final = 1
BUS_ADRERR: Final = 2
FPE_INTDIV: Final = 1
FPE_FLTDIV: Final = 3
FPE_FLTOVF: Final = 4
FPE_FLTUND: Final = 5
FPE_FLTRES: Final = 6
FPE_FLTINV: Final = 7
ILL_ILLOPN: Final = 2
TRAP_BRKPT: Final = 1
TRAP_TRACE: Final = 2
CLD_EXITED: Final = 1
CLD_KILLED: Final = 2
CLD_DUMPED: Final = 3
CLD_STOPPED: Final = 5
CLD_CONTINUED: Final = 6

CODE_NAMES: Final[dict[tuple[int, int], str]] = {
    (Signal.SIGSEGV, SEGV_MAPERR): "SEGV_MAPERR",
    (Signal.SIGSEGV, SEGV_ACCERR): "SEGV_ACCERR",
    (Signal.SIGSEGV, SEGV_PKUERR): "SEGV_PKUERR",
    (Signal.SIGBUS, BUS_ADRALN): "BUS_ADRALN",
    (Signal.SIGBUS, BUS_ADRERR): "BUS_ADRERR",
    (Signal.SIGFPE, FPE_INTDIV): "FPE_INTDIV",
    (Signal.SIGFPE, FPE_FLTDIV): "FPE_FLTDIV",
    (Signal.SIGFPE, FPE_FLTOVF): "FPE_FLTOVF",
    (Signal.SIGFPE, FPE_FLTUND): "FPE_FLTUND",
    (Signal.SIGFPE, FPE_FLTRES): "FPE_FLTRES",
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

"""The ``siginfo_t`` of each origin of a signal (include/uapi/asm-generic/siginfo.h; sigaction(2))."""

from __future__ import annotations

import struct
from typing import Final

from mmuemu.kernel.abi.signals import (
    CLD_CONTINUED,
    SI_ASYNCNL,
    SI_DETHREAD,
    SI_KERNEL,
    SI_TIMER,
    SI_USER,
    TRAP_TRACE,
    Signal,
)
from mmuemu.kernel.signals.pending import SigInfo

SIGINFO_BYTES: Final = 128
KEPT_BYTES: Final = 48
"""What the kernel keeps of a user's siginfo (``struct kernel_siginfo``)."""
_HEAD: Final = struct.Struct("<iii4x")
_CODES: Final[dict[int, int]] = {
    Signal.SIGILL: 11, Signal.SIGFPE: 15, Signal.SIGSEGV: 10, Signal.SIGBUS: 5, Signal.SIGTRAP: TRAP_TRACE + 4,
    Signal.SIGCHLD: CLD_CONTINUED, Signal.SIGIO: 6, Signal.SIGSYS: 2,
}  # fmt: skip
"""Highest positive si_code with a meaning, by signal (``sig_sicodes``)."""
_POLL_CODES: Final = 6


def by_kernel(signal: int) -> SigInfo:
    """SEND_SIG_PRIV: from the kernel itself, without a cause to name."""
    return SigInfo(signal, SI_KERNEL)


def by_process(signal: int, pid: int, uid: int, code: int = SI_USER) -> SigInfo:
    """kill(2); with ``code`` SI_TKILL, tkill(2) and tgkill(2)."""
    return SigInfo(signal, code, struct.pack("<iI", pid, uid))


def by_fault(signal: int, code: int, address: int, extra: bytes = b"") -> SigInfo:
    """An exception: ``address`` is si_addr."""
    return SigInfo(signal, code, struct.pack("<Q", address) + extra)


def by_timer(signal: int, timer: int, overrun: int, value: bytes) -> SigInfo:
    """A timer of timer_create(2); ``value`` is its 8-byte ``sigval``."""
    return SigInfo(signal, SI_TIMER, struct.pack("<ii", timer, overrun) + value)


def by_child(
    code: int, pid: int, uid: int, status: int, utime: int = 0, stime: int = 0, signal: int = Signal.SIGCHLD
) -> SigInfo:
    """A child's ending, stop or continuation: ``code`` is CLD_*, times in clock ticks (100 a second)."""
    return SigInfo(signal, code, struct.pack("<iIi4xqq", pid, uid, status, utime, stime))


def by_queue(signal: int, data: bytes) -> SigInfo | None:
    """rt_sigqueueinfo(2) with the caller's 128 bytes; None where they use room that has no meaning (E2BIG)."""
    _, errno, code = _HEAD.unpack_from(data)
    if not _known(signal, code) and any(data[KEPT_BYTES:SIGINFO_BYTES]):
        return None
    return SigInfo(signal, code, data[16:KEPT_BYTES], errno)


def _known(signal: int, code: int) -> bool:
    """Whether the union's layout follows from these two (``known_siginfo_layout``)."""
    if code > SI_USER:
        return code == SI_KERNEL or code <= max(_CODES.get(signal, 0), _POLL_CODES)
    return code >= SI_DETHREAD or code == SI_ASYNCNL

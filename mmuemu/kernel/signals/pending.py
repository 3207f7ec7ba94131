"""Signals that wait to be delivered, to one thread or to a whole process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.signals import SYNCHRONOUS

if TYPE_CHECKING:
    from mmuemu.kernel.traps import Death

from mmuemu.kernel.wait import WaitQueue

FIRST_REALTIME: Final = 32
"""From here on (SIGRTMIN as the kernel counts) every sending is kept, not the first only (signal(7))."""


_SIGINFO: Final = Struct("<iii4x112s")


@dataclass(frozen=True, slots=True)
class SigInfo:
    """What ``siginfo_t`` says: ``payload`` are the bytes of its union, which begin 16 bytes into it."""

    signal: int
    code: int = 0
    payload: bytes = b""
    errno: int = 0
    cause: Death | None = field(default=None, compare=False)
    """The exception behind it, for the message when it kills."""
    taken: Callable[[SigInfo], SigInfo] | None = field(default=None, compare=False)
    """Called when it is taken from the queue; what it gives is delivered (timers start anew, count overruns)."""

    def pack(self) -> bytes:
        """The 128 bytes of a ``siginfo_t`` (include/uapi/asm-generic/siginfo.h)."""
        return _SIGINFO.pack(self.signal, self.errno, self.code, self.payload)


class Pending:
    """A queue of signals; of each standard signal one at a time. ``bits`` has bit ``signal - 1`` for each."""

    __slots__ = ("_queue", "arrived", "bits")

    def __init__(self) -> None:
        self._queue: list[SigInfo] = []
        self.bits = 0
        self.arrived = WaitQueue()
        """Woken by every signal kept: signalfd(2) and sigtimedwait(2) wait here."""

    def add(self, info: SigInfo) -> bool:
        """Keep ``info``; False when it is a standard signal that is pending already."""
        bit = 1 << (info.signal - 1)
        if self.bits & bit and info.signal < FIRST_REALTIME:
            return False
        self.bits |= bit
        self._queue.append(info)
        self.arrived.wake()
        return True

    def take(self, wanted: int) -> SigInfo | None:
        """Remove the lowest-numbered signal among the bits ``wanted``, the oldest of its number.

        Signals that an instruction causes come before the others.
        """
        ready = self.bits & wanted
        if not ready:
            return None
        ready = ready & SYNCHRONOUS or ready
        number = (ready & -ready).bit_length()
        same = [info for info in self._queue if info.signal == number]
        self._queue.remove(same[0])
        if len(same) == 1:
            self.bits &= ~(1 << (number - 1))
        taken = same[0].taken
        return same[0] if taken is None else taken(same[0])

    def discard(self, unwanted: int) -> None:
        """Forget the signals among the bits ``unwanted``."""
        if self.bits & unwanted:
            self.bits &= ~unwanted
            self._queue = [info for info in self._queue if not unwanted >> (info.signal - 1) & 1]

    def __len__(self) -> int:
        return len(self._queue)

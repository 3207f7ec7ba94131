"""``struct sigaction`` as rt_sigaction(2) takes it, and what a disposition comes to."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from mmuemu.kernel.abi.signals import IGNORED_BY_DEFAULT, SA_KNOWN, SIG_DFL, SIG_IGN, UNBLOCKABLE

SIGACTION_BYTES: Final = 32
_LAYOUT: Final = struct.Struct("<4Q")


class Action(NamedTuple):
    """One disposition: the handler's address or SIG_DFL or SIG_IGN, SA_* flags, the restorer, the mask."""

    handler: int = SIG_DFL
    flags: int = 0
    restorer: int = 0
    mask: int = 0

    def pack(self) -> bytes:
        """The 32 bytes of it."""
        return _LAYOUT.pack(*self)


DEFAULT: Final = Action()
IGNORE: Final = Action(SIG_IGN)


def unpack_action(data: bytes) -> Action:
    """A program's 32 bytes, without the flags and mask bits that Linux clears."""
    handler, flags, restorer, mask = _LAYOUT.unpack(data)
    return Action(handler, flags & SA_KNOWN, restorer, mask & ~UNBLOCKABLE)


def is_ignored(action: Action, signal: int) -> bool:
    """Whether a signal under this disposition does nothing."""
    return action.handler == SIG_IGN or (action.handler == SIG_DFL and signal in IGNORED_BY_DEFAULT)

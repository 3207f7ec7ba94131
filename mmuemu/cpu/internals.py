"""Two facts that Unicorn keeps in ``struct uc_struct`` and offers no call for.

``emu_counter`` is how many instructions a counted run has executed; ``invalid_addr`` is the exact address of an
access that the fill hook refused (the hook itself sees the page only). Offsets are those of Unicorn 2.1.4; each
read is checked against something known, and ``None`` says that it did not match.
"""

from __future__ import annotations

import ctypes
from typing import Final

from mmuemu.x86.paging import PAGE_MASK

_EMU_COUNTER: Final = 1368
_EMU_COUNT: Final = 1376
_INVALID_ADDRESS: Final = 1416
_CPU: Final = 440
"""Where ``struct uc_struct`` points to the ``CPUState``."""
_STATE: Final = 35408
"""Where in that the registers begin, RAX first: what ``uc_context_save`` copies."""


def state_address(handle: ctypes.c_void_p) -> int:
    """Host address of the engine's registers; 0 while it has none."""
    cpu: int = ctypes.c_uint64.from_address((handle.value or 0) + _CPU).value
    return cpu + _STATE if cpu else 0


class Internals:
    """Views of those fields of one engine."""

    def __init__(self, handle: ctypes.c_void_p) -> None:
        base = handle.value or 0
        self._counter = ctypes.c_uint64.from_address(base + _EMU_COUNTER)
        self._count = ctypes.c_uint64.from_address(base + _EMU_COUNT)
        self._invalid = ctypes.c_uint64.from_address(base + _INVALID_ADDRESS)

    def fault_address(self, page: int) -> int | None:
        """The exact address of the access just refused on ``page``."""
        address = self._invalid.value
        return address if address & ~PAGE_MASK == page else None

    def uncount(self) -> None:
        """Take back one instruction: it was counted, faulted, and will be executed again."""
        if self._counter.value:
            self._counter.value -= 1

    @property
    def counter(self) -> int:
        """Instructions begun by the counted run that is on."""
        return self._counter.value

    @counter.setter
    def counter(self, value: int) -> None:
        self._counter.value = value

    def cut_short(self) -> None:
        """Let the counted run that is on end after the instruction it is executing.

        One that has just reached its limit has counted an instruction more, and stays as it is.
        """
        self._count.value = min(self._counter.value, self._count.value)

    def is_cut(self, count: int) -> bool:
        """Whether the last run, which was started with a limit of ``count``, was :meth:`cut_short`."""
        return self._count.value != count

    def executed(self, count: int) -> int | None:
        """Instructions begun by the last run, which was started with a limit of ``count``."""
        limit = self._count.value
        return min(self._counter.value, limit) if limit <= count else None

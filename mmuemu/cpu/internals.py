"""What Unicorn keeps in ``struct uc_struct`` and ``CPUState`` and offers no call for.

``emu_counter`` is how many instructions a counted run has executed; ``invalid_addr`` is the exact address of an
access that the fill hook refused (the hook itself sees the page only). Offsets are those of Unicorn 2.1.4; each
read is checked against something known, and ``None`` says that it did not match.
"""

from __future__ import annotations

import ctypes
from typing import Final

from unicorn.unicorn_py3.unicorn import uclib

from mmuemu.x86.paging import PAGE_MASK

_EMU_COUNTER: Final = 1368
_EMU_COUNT: Final = 1376
_STOP_REQUEST: Final = 1389
_INVALID_ADDRESS: Final = 1416
_INVALID_ERROR: Final = 1424
_CONTEXT_SIZE: Final = 2016
_CONTEXT_HEADER: Final = 40
"""Bytes of ``struct uc_context`` before the registers."""
_NO_EXIT_REQUEST: Final = 2034
_CPU: Final = 440
"""Where ``struct uc_struct`` points to the ``CPUState``."""
_STATE: Final = 35408
"""Where in that the registers begin, RAX first: what ``uc_context_save`` copies."""
_EXIT_REQUEST: Final = 21
_CFLAGS_NEXT_TB: Final = 24
"""All ones while nothing is to be translated in a way of its own."""
_DECREMENTER: Final = -14
"""Where the upper half of ``icount_decr`` is, from the registers on."""


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


class ExitFields:
    """The fields by which the engine is told to leave translated code."""

    def __init__(self, handle: ctypes.c_void_p) -> None:
        self._handle = handle
        base, state = handle.value or 0, state_address(handle)
        self.error = ctypes.c_int.from_address(base + _INVALID_ERROR)
        """What ``uc_emu_start`` is to return; unless 0, the run ends once translated code is left."""
        self.request = ctypes.c_uint8.from_address(state - _STATE + _EXIT_REQUEST)
        """Unless 0, the loop that looks for the next block is left."""
        self.decrementer = ctypes.c_uint16.from_address(state + _DECREMENTER)
        """With its sign bit set, each block leaves translated code before its first instruction."""
        self.unlooked = ctypes.c_uint8.from_address(base + _NO_EXIT_REQUEST)
        """Unless 0, code is translated that looks at ``decrementer`` nowhere else."""
        self._next = ctypes.c_uint32.from_address(state - _STATE + _CFLAGS_NEXT_TB)
        self._stop = ctypes.c_uint8.from_address(base + _STOP_REQUEST)
        self._context = ctypes.c_size_t.from_address(base + _CONTEXT_SIZE)

    def plausible(self) -> bool:
        """Whether they are where they should be, in an engine that has not run yet: what is known stands around them,
        and ``uc_emu_stop`` changes those that it should."""
        fields = (self.request, self.decrementer, self._stop)
        quiet = self.error.value == self.unlooked.value == 0
        before = [field.value for field in fields]
        uclib.uc_emu_stop(self._handle)
        told = [field.value for field in fields]
        for field, value in zip(fields, before, strict=True):
            field.value = value
        return (
            quiet
            and (before, told) == ([0, 0, 0], [1, 0xFFFF, 1])
            and self._next.value == 0xFFFF_FFFF
            and uclib.uc_context_size(self._handle) == self._context.value + _CONTEXT_HEADER
        )

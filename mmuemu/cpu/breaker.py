"""Ending a run from another thread, or from the middle of a hook, exactly between two instructions.

``uc_emu_stop`` there leaves RIP where it was last stored, so that going on executes instructions twice: on the way out
of a block the engine does not take RIP from the block when ``stop_request`` is set (``cpu_tb_exec``), and translated
code looks for a request behind each access to memory, too, in the middle of its instruction.

Two means end runs at the start of a block and nowhere else. :class:`ExitRequest` has code translated without the looks
behind accesses (``no_exit_request``, which Unicorn has for ARM's IT blocks) and asks the engine for an exit with an
error that only we know in place of ``stop_request``: what runs is faster for it. :class:`HookedStop` has every block
call hooks, for a sixth more time: where the engine is laid out otherwise, and where hooks on blocks and on code must be
able to end a run or to lead it elsewhere at once, which they do by those looks.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final, Protocol

from unicorn import Uc, unicorn_const
from unicorn.unicorn_py3.unicorn import uclib

from mmuemu.cpu import library
from mmuemu.cpu.internals import ExitFields, state_address
from mmuemu.errors import MmuemuError

EVERYWHERE: Final = 1
"""As the begin of a range that ends at 0: every address."""
NOWHERE: Final = 0
"""Address 0 alone, where no program has code."""
ENDED: Final = 0x6D6D75
"""What ``uc_emu_start`` returns when :class:`ExitRequest` has ended the run: no ``uc_err``."""
_BEGIN: Final = 24
_CALLBACK: Final = 40
"""Offsets in ``struct hook`` (include/uc_priv.h), which a hook's handle is the address of."""


class Breaker(Protocol):
    """What ends the runs of one engine, which has a CPU and has not run yet."""

    @property
    def armed(self) -> bool:
        """Whether runs end at once."""

    def arm(self) -> None:
        """End the run at the next block's start."""

    def disarm(self) -> None:
        """Let runs go on."""

    def count(self, counted: bool) -> None:
        """Code that is translated from now on is for runs that are counted, or for others again."""

    def close(self) -> None:
        """Leave the engine as it was."""


def new_breaker(uc: Uc, *, hooked: bool = False) -> Breaker:
    """The better means that ``uc`` has; ``hooked``: there will be hooks on blocks or on code that end runs."""
    handle = library.handle(uc)
    known = sys.platform == "linux" and os.uname().machine == "x86_64" and state_address(handle)
    if known and not hooked:
        fields = ExitFields(handle)
        if fields.plausible():
            return ExitRequest(fields)
    return HookedStop(uc)


class ExitRequest:
    """Asks the engine itself. A request before it has begun to run is lost."""

    def __init__(self, fields: ExitFields) -> None:
        self.armed = False
        self._fields = fields
        fields.unlooked.value = 1

    def arm(self) -> None:
        """End the run at the next block's start."""
        self.armed = True
        fields = self._fields
        # The engine lets go of the last first, and looks for the first last.
        fields.error.value = ENDED
        fields.request.value = 1
        fields.decrementer.value = 0xFFFF

    def disarm(self) -> None:
        """Let runs go on: what the engine has not taken up by the next start makes no difference then."""
        self.armed = False

    def count(self, counted: bool) -> None:
        """The hook that counts ends a run by the looks."""
        self._fields.unlooked.value = not counted

    def close(self) -> None:
        """Have looks translated again."""
        self._fields.unlooked.value = 0


class HookedStop:
    """Two hooks on each block: one that does nothing, so that blocks call hooks, and ``uc_emu_stop`` for a range."""

    def __init__(self, uc: Uc) -> None:
        self._hooks = library.Hooks(uc)
        for function in (uclib.uc_arch_supported, uclib.uc_emu_stop):
            hook, _ = self._hooks.add(unicorn_const.UC_HOOK_BLOCK, lambda function: function, function)
        self._range = ctypes.c_uint64.from_address(hook.value + _BEGIN)
        callback = ctypes.c_uint64.from_address(hook.value + _CALLBACK).value
        if self._range.value != EVERYWHERE or callback != ctypes.cast(uclib.uc_emu_stop, ctypes.c_void_p).value:
            raise MmuemuError("this Unicorn keeps its hooks otherwise than 2.1.4: install unicorn>=2.1.4,<2.2")
        self.disarm()

    def arm(self) -> None:
        """End the run at the next block's start."""
        self._range.value = EVERYWHERE

    def disarm(self) -> None:
        """Let runs go on."""
        self._range.value = NOWHERE

    @property
    def armed(self) -> bool:
        """Whether runs end at once."""
        return self._range.value == EVERYWHERE

    def count(self, counted: bool) -> None:
        """Blocks call their hooks in either case."""

    def close(self) -> None:
        """Remove the hooks."""
        self._hooks.close()

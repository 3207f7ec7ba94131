"""Ending a run from another thread, or from the middle of a hook, exactly between two instructions.

``uc_emu_stop`` there leaves RIP where it was last stored, so that going on executes instructions twice: on the way out
of a block the engine does not take RIP from the block when ``stop_request`` is set (``cpu_tb_exec``), and inside one
memory accesses look for the request, too. In a block hook it is exact. So every block calls one that does nothing,
which has the engine put the call there, and, once the range of another says so, ``uc_emu_stop`` itself. No Python and
no code of ours runs; a block costs a tenth more, where counting instructions doubles the time.
"""

from __future__ import annotations

import ctypes
from typing import Final

from unicorn import Uc, unicorn_const
from unicorn.unicorn_py3.unicorn import uclib

from mmuemu.cpu import library
from mmuemu.errors import MmuemuError

_BEGIN: Final = 24
_CALLBACK: Final = 40
"""Offsets in ``struct hook`` (include/uc_priv.h), which a hook's handle is the address of."""
EVERYWHERE: Final = 1
"""As the begin of a range that ends at 0: every address."""
NOWHERE: Final = 0
"""Address 0 alone, where no program has code."""


class Breaker:
    """The two hooks of one engine, which must not have run yet."""

    def __init__(self, uc: Uc) -> None:
        self._add(uc, uclib.uc_arch_supported)
        hook = self._add(uc, uclib.uc_emu_stop)
        self._begin = ctypes.c_uint64.from_address(hook + _BEGIN)
        callback = ctypes.c_uint64.from_address(hook + _CALLBACK).value
        if self._begin.value != EVERYWHERE or callback != ctypes.cast(uclib.uc_emu_stop, ctypes.c_void_p).value:
            raise MmuemuError("this Unicorn keeps its hooks otherwise than 2.1.4: install unicorn>=2.1.4,<2.2")
        self._begin.value = NOWHERE

    def _add(self, uc: Uc, function: object) -> int:
        out = ctypes.c_size_t()
        address = ctypes.cast(function, ctypes.c_void_p)  # type: ignore[arg-type]
        library.check(
            uclib.uc_hook_add(
                library.handle(uc),
                ctypes.byref(out),
                unicorn_const.UC_HOOK_BLOCK,
                address,
                None,
                ctypes.c_uint64(EVERYWHERE),
                ctypes.c_uint64(NOWHERE),
            )
        )
        return out.value

    def arm(self) -> None:
        """End the run at the next block's start."""
        self._begin.value = EVERYWHERE

    def disarm(self) -> None:
        """Let runs go on."""
        self._begin.value = NOWHERE

    @property
    def armed(self) -> bool:
        """Whether runs end at once."""
        return self._begin.value == EVERYWHERE

"""Ending a run from another thread, or from the middle of a hook, exactly between two instructions.

``uc_emu_stop`` there leaves RIP where it was last stored, so that going on executes instructions twice: on the way out
of a block the engine does not take RIP from the block when ``stop_request`` is set (``cpu_tb_exec``), and inside one
memory accesses look for the request, too. In a block hook it is exact. So every block calls a hook that stops when told
to. No Python runs there: it is a few bytes of machine code, which translated code calls directly, for a twentieth more
time. Where there can be no such code, two hooks that the engine has anyway do the same for a sixth more.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
from functools import cache
from typing import Final

from unicorn import Uc, unicorn_const
from unicorn.unicorn_py3.unicorn import uclib

from mmuemu.cpu import library
from mmuemu.errors import MmuemuError

EVERYWHERE: Final = 1
"""As the begin of a range that ends at 0: every address."""
NOWHERE: Final = 0
"""Address 0 alone, where no program has code."""
_BEGIN: Final = 24
_CALLBACK: Final = 40
"""Offsets in ``struct hook`` (include/uc_priv.h), which a hook's handle is the address of."""
_STUB: Final = bytes.fromhex("80 39 00  75 01  c3  48 b8")
"""``cmpb $0, (%rcx); jne 1f; ret; 1: movabs $..., %rax``: a hook's fourth argument is its own datum (System V ABI)."""
_JUMP: Final = bytes.fromhex("ff e0")
"""``jmp *%rax``"""
_kept: Final[list[mmap.mmap]] = []
"""Engines may call what is there until the process ends."""


class Breaker:
    """What ends the runs of one engine, which must not have run yet."""

    def __init__(self, uc: Uc) -> None:
        stub = _stub()
        if stub:
            self._switch: ctypes.c_uint8 | ctypes.c_uint64 = ctypes.c_uint8(0)
            self._on, self._off = 1, 0
            _add(uc, stub, ctypes.addressof(self._switch))
        else:
            self._switch, self._on, self._off = _range_of_stop(uc), EVERYWHERE, NOWHERE
            self.disarm()

    def arm(self) -> None:
        """End the run at the next block's start."""
        self._switch.value = self._on

    def disarm(self) -> None:
        """Let runs go on."""
        self._switch.value = self._off

    @property
    def armed(self) -> bool:
        """Whether runs end at once."""
        return self._switch.value == self._on


def _range_of_stop(uc: Uc) -> ctypes.c_uint64:
    """Have blocks call what does nothing, so that they call hooks; the begin of the range of ``uc_emu_stop`` as one."""
    _add(uc, _address(uclib.uc_arch_supported))
    hook = _add(uc, _address(uclib.uc_emu_stop))
    begin = ctypes.c_uint64.from_address(hook + _BEGIN)
    callback = ctypes.c_uint64.from_address(hook + _CALLBACK).value
    if begin.value != EVERYWHERE or callback != _address(uclib.uc_emu_stop):
        raise MmuemuError("this Unicorn keeps its hooks otherwise than 2.1.4: install unicorn>=2.1.4,<2.2")
    return begin


@cache
def _stub() -> int:
    """Where the machine code is; 0 where there can be none: another processor or system, or the host forbids it."""
    if platform.machine() not in ("x86_64", "AMD64") or sys.platform == "win32" or sys.maxsize < 1 << 32:
        return 0
    try:
        area = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return 0
    area.write(_STUB + struct.pack("<Q", _address(uclib.uc_emu_stop)) + _JUMP)
    _kept.append(area)
    return ctypes.addressof(ctypes.c_char.from_buffer(area))


def _address(function: object) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


def _add(uc: Uc, callback: int, datum: int = 0) -> int:
    """A hook on every block; its handle."""
    out = ctypes.c_size_t()
    library.check(
        uclib.uc_hook_add(
            library.handle(uc),
            ctypes.byref(out),
            unicorn_const.UC_HOOK_BLOCK,
            ctypes.c_void_p(callback),
            ctypes.c_void_p(datum),
            ctypes.c_uint64(EVERYWHERE),
            ctypes.c_uint64(NOWHERE),
        )
    )
    return out.value

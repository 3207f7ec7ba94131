"""An exception of our own: what a fill hook that refuses cannot say to Unicorn, which would just end the run.

``cpu_exec`` reports the exception in ``CPUState.exception_index`` to the hooks on exceptions before it looks whether
the run is to end. So a fill hook that puts one there, and refuses, has it reported with RIP exact; the hook may take
back that the run ends. Offsets are those of Unicorn 2.1.4, and :func:`works` tries them once.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final

from unicorn import Uc, UcError, unicorn_const
from unicorn import x86_const as x86

from mmuemu.cpu import library
from mmuemu.cpu.internals import state_address

_INVALID_ERROR: Final = 1424
"""Where in ``struct uc_struct`` the error is that ends a run."""
_EXCEPTION_INDEX: Final = -2224
_EXIT_REQUEST: Final = -35387
_LEAVE_BLOCKS: Final = -14
"""Where these are from the registers on; the last (the high half of ``icount_decr``) is what blocks of code look at."""
_CODE, _DATA = 0x1000, 0x9123
_FAULT: Final = 14


class Raising:
    """Those fields of one engine."""

    def __init__(self, handle: ctypes.c_void_p) -> None:
        state = state_address(handle)
        self._error = ctypes.c_int32.from_address((handle.value or 0) + _INVALID_ERROR)
        self._exception = ctypes.c_int32.from_address(state + _EXCEPTION_INDEX)
        self._exit = ctypes.c_uint8.from_address(state + _EXIT_REQUEST)
        self._leave = ctypes.c_uint16.from_address(state + _LEAVE_BLOCKS)

    @property
    def idle(self) -> bool:
        """Whether nothing is raised."""
        return self._exception.value == -1 and not (self._exit.value or self._leave.value or self._error.value)

    def page_fault(self) -> None:
        """From a fill hook that refuses next: have a #PF reported."""
        self._exception.value = _FAULT

    def go_on(self) -> None:
        """From the hook it was reported to: the run does not end."""
        self._exit.value = self._leave.value = self._error.value = 0


@cache
def works() -> bool:
    """Whether the loaded Unicorn does it: a load that is refused is stepped over by a hook, and the run ends well."""
    uc = Uc(unicorn_const.UC_ARCH_X86, unicorn_const.UC_MODE_64)
    uc.mem_map(_CODE, 0x1000)
    uc.mem_write(_CODE, bytes.fromhex("90 48 8b 07 90 90"))  # nop; mov rax, [rdi]; nop; nop
    uc.ctl_set_tlb_mode(unicorn_const.UC_TLB_VIRTUAL)
    raising = Raising(library.handle(uc))
    seen = []

    def fill(uc: Uc, page: int, access: int, entry: Any, _data: object) -> bool:
        entry.paddr, entry.perms = page, 7
        if page == _DATA & -0x1000:
            raising.page_fault()
        return page == _CODE

    def reported(uc: Uc, vector: int, _data: object) -> None:
        seen.append((vector, uc.reg_read(x86.UC_X86_REG_RIP)))
        uc.reg_write(x86.UC_X86_REG_RIP, _CODE + 4)
        raising.go_on()

    uc.hook_add(unicorn_const.UC_HOOK_TLB_FILL, fill)
    uc.hook_add(unicorn_const.UC_HOOK_INTR, reported)
    uc.reg_write(x86.UC_X86_REG_RDI, _DATA)
    idle = raising.idle
    try:
        uc.emu_start(_CODE, _CODE + 6)
    except UcError:
        return False
    return idle and seen == [(_FAULT, _CODE + 1)] and uc.reg_read(x86.UC_X86_REG_RIP) == _CODE + 6

"""Following every block, chosen instructions and every memory access of one engine, and leading it elsewhere.

Callbacks are raw: they must not raise. Instructions are watched in a range of addresses that one store changes: a
second hook, which calls a function of Unicorn's that does nothing, has the engine put the call behind every
instruction. Writing RIP from a block or code hook ends the translated block and goes on there, without leaving
``emu_start`` (``quit_request`` in Unicorn's ``cpus.c``).
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from unicorn import unicorn_const
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

from mmuemu.cpu import library
from mmuemu.cpu.breaker import EVERYWHERE, NOWHERE
from mmuemu.cpu.window import Q_RFLAGS, Q_RIP, StateWindow
from mmuemu.errors import MmuemuError
from mmuemu.x86.paging import PAGE_SIZE
from mmuemu.x86.registers import RFLAGS_ARITHMETIC, RFLAGS_DF

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

_BEGIN: Final = 24
_END: Final = 32
"""Offsets in ``struct hook`` (include/uc_priv.h)."""
_BLOCK: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32)
_CODE: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64)
_READ: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64)
_WRITE: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int)
SCRATCH: Final = 0xF_0000_0000_0000
"""Physical address of a page behind all RAM that no guest table names."""


class Observer:
    """The hooks of one CPU, which must not have run yet.

    ``block(_, linear, bytes)`` is called before a block runs, ``code(_, linear)`` before an instruction of the
    watched range, ``read(_, _, physical)`` and ``write(_, _, physical, bytes)`` before an access.
    """

    def __init__(
        self,
        cpu: Cpu,
        *,
        block: Callable[[int, int, int], None],
        code: Callable[[int, int], None],
        read: Callable[[int, int, int], None],
        write: Callable[[int, int, int, int], None],
    ) -> None:
        self._handle = cpu.handle
        if cpu.breaker is not None:
            cpu.make_breakable(hooked=True)
        hooks = cpu.hooks
        hooks.add(unicorn_const.UC_HOOK_BLOCK, _BLOCK, block)
        hooks.add(unicorn_const.UC_HOOK_CODE, lambda function: function, uclib.uc_arch_supported)
        watched, _ = hooks.add(unicorn_const.UC_HOOK_CODE, _CODE, code)
        hooks.add(unicorn_const.UC_HOOK_MEM_READ, _READ, read)
        hooks.add(unicorn_const.UC_HOOK_MEM_WRITE, _WRITE, write)
        self._begin = ctypes.c_uint64.from_address(watched.value + _BEGIN)
        self._end = ctypes.c_uint64.from_address(watched.value + _END)
        if (self._begin.value, self._end.value) != (EVERYWHERE, NOWHERE):
            raise MmuemuError("this Unicorn keeps its hooks otherwise than 2.1.4: install unicorn>=2.1.4,<2.2")
        self.watch_nothing()
        self._live_q = cpu.window.live_q
        self._rip = ctypes.c_uint64()
        self._rip_pointer = ctypes.byref(self._rip)
        self.checkpoint = StateWindow(cpu.uc)
        """The state that :meth:`restore` puts back."""
        self._page = mmap.mmap(-1, PAGE_SIZE)
        self.scratch = memoryview(self._page)
        """The bytes of the page at :data:`SCRATCH`."""
        pointer = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        library.check(uclib.uc_mem_map_ptr(self._handle, SCRATCH, PAGE_SIZE, unicorn_const.UC_PROT_ALL, pointer))

    def watch(self, first: int, last: int) -> None:
        """Call ``code`` before the instructions at ``first`` to ``last``."""
        self._begin.value = first
        self._end.value = last

    def watch_everything(self) -> None:
        """Call ``code`` before every instruction."""
        self._begin.value = EVERYWHERE
        self._end.value = NOWHERE

    def watch_nothing(self) -> None:
        """Call ``code`` no more."""
        self._begin.value = NOWHERE
        self._end.value = NOWHERE

    def redirect(self, rip: int) -> None:
        """From a block or code hook: go on at ``rip`` instead."""
        self._rip.value = rip
        library.reg_write(self._handle, x86.UC_X86_REG_RIP, self._rip_pointer)

    def save(self, rip: int) -> None:
        """Keep the state, with ``rip`` as its RIP."""
        checkpoint = self.checkpoint
        checkpoint.save()
        checkpoint.q[Q_RIP] = rip

    def restore(self) -> None:
        """Put the kept state back, but for RIP in a hook (:meth:`redirect`)."""
        self.checkpoint.restore()

    def restore_stopped(self) -> None:
        """Put back a state that was kept in a hook, while nothing runs: the engine has all flags in RFLAGS then
        (``x86_cpu_exec_enter`` in qemu/target/i386/cpu.c)."""
        checkpoint = self.checkpoint
        checkpoint.q[Q_RFLAGS] &= ~(RFLAGS_ARITHMETIC | RFLAGS_DF)
        checkpoint.restore()
        library.check(library.reg_read(self._handle, x86.UC_X86_REG_RFLAGS, self._rip_pointer))
        self._live_q[Q_RFLAGS] = self._rip.value

    def start(self, rip: int) -> None:
        """Run from ``rip`` until something stops it (outside of hooks only)."""
        library.emu_start(self._handle, rip, 0, 0, 0)

    def stop(self) -> None:
        """From a block or code hook: end the run before what it was called for."""
        library.emu_stop(self._handle)

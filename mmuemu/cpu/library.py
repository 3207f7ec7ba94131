"""The few C functions of Unicorn that sit on hot paths, called without the binding's overhead.

State save and restore, register reads and flushes never call back into Python, so they run with the
interpreter lock held (``PyDLL``), which halves their cost. ``uc_emu_start`` releases it (``CDLL``), so that
another thread can stop a run.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

from unicorn import Uc, UcError, unicorn_const
from unicorn.unicorn_py3.unicorn import uclib

_held: Final = ctypes.PyDLL(uclib._name)

context_save: Final = _held["uc_context_save"]
context_restore: Final = _held["uc_context_restore"]
reg_read: Final = _held["uc_reg_read"]
reg_write: Final = _held["uc_reg_write"]
ctl: Final = _held["uc_ctl"]
emu_stop: Final = _held["uc_emu_stop"]

_released: Final = ctypes.CDLL(uclib._name)
emu_start: Final = _released["uc_emu_start"]
emu_start.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t]

CTL_TLB_FLUSH: Final = unicorn_const.UC_CTL_TLB_FLUSH | unicorn_const.UC_CTL_IO_WRITE << 30


def handle(uc: Uc) -> ctypes.c_void_p:
    """The C handle of a ``Uc``, as a ctypes argument."""
    raw = uc._uch
    return ctypes.c_void_p(getattr(raw, "value", raw))


def check(status: int) -> None:
    """Raise Unicorn's own error for a status that is not UC_ERR_OK."""
    if status:
        raise UcError(status)


Hook = tuple[ctypes.c_size_t, Any]
"""A registered callback: Unicorn's handle of it, and what keeps it alive."""


class Hooks:
    """Raw callbacks registered with one engine; keeps them alive, removes them on :meth:`close`.

    A raw callback costs a fifth of one through the binding. It must not raise: an exception in a ctypes
    callback is printed and lost.
    """

    def __init__(self, uc: Uc) -> None:
        self._handle = handle(uc)
        self._kept: list[Hook] = []
        self._io: list[Any] = []

    def add(self, kind: int, prototype: Any, function: Callable[..., Any], *extra: int) -> Hook:
        """Register ``function`` for hook ``kind`` everywhere; ``extra`` is the instruction id of UC_HOOK_INSN."""
        return self._add(kind, prototype(function), 1, 0, *extra)

    def add_at(self, kind: int, prototype: Any, function: Callable[..., Any], address: int) -> None:
        """Register ``function`` for hook ``kind`` at one linear address."""
        self._add(kind, prototype(function), address, address)

    def add_range(self, kind: int, prototype: Any, function: Callable[..., Any], first: int, last: int) -> Hook:
        """Register ``function`` for hook ``kind`` at addresses ``first`` to ``last``."""
        return self._add(kind, prototype(function), first, last)

    def _add(self, kind: int, callback: Any, begin: int, end: int, *extra: int) -> Hook:
        hook = ctypes.c_size_t()
        status = uclib.uc_hook_add(
            self._handle,
            ctypes.byref(hook),
            kind,
            ctypes.cast(callback, ctypes.c_void_p),
            None,
            ctypes.c_uint64(begin),
            ctypes.c_uint64(end),
            *[ctypes.c_int(value) for value in extra],
        )
        check(status)
        added = (hook, callback)
        self._kept.append(added)
        return added

    def remove(self, hook: Hook) -> None:
        """Remove one hook, while nothing runs."""
        check(uclib.uc_hook_del(self._handle, hook[0]))
        self._kept = [kept for kept in self._kept if kept is not hook]

    def map_io(self, start: int, size: int, read: Callable[..., int], write: Callable[..., None]) -> None:
        """Memory-mapped I/O at physical ``start``: ``read(uc, offset, bytes)``, ``write(uc, offset, bytes, value)``."""
        callbacks = IO_READ(read), IO_WRITE(write)
        pointers = [ctypes.cast(callback, ctypes.c_void_p) for callback in callbacks]
        check(uclib.uc_mmio_map(self._handle, start, size, pointers[0], None, pointers[1], None))
        self._io.append(callbacks)

    def close(self) -> None:
        """Remove every hook."""
        for hook, _ in self._kept:
            uclib.uc_hook_del(self._handle, hook)
        self._kept.clear()


VOID: Final = ctypes.CFUNCTYPE(None)
"""A callback that looks at none of its arguments (the C side passes them; nothing is converted)."""
BOOL: Final = ctypes.CFUNCTYPE(ctypes.c_bool)
INTR: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32)
FILL: Final = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.c_void_p)
MEMORY: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_int)
IO_READ: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint)
IO_WRITE: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint, ctypes.c_uint64)
PORT_IN: Final = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int)
PORT_OUT: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32)

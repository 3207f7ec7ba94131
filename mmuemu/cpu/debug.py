"""Places where a debugger is called: before chosen instructions, and at accesses to chosen bytes.

Nothing is stored in the guest's memory: the engine calls a hook whose range of addresses is a place. A hook on code is
never removed (the engine would look up all that it translated for it); its range is set to nowhere, and it is used
again. Runs must be counted while there are any: then the engine has a call behind every instruction and looks at the
ranges when it gets there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from unicorn import unicorn_const

from mmuemu.cpu import library
from mmuemu.cpu.breaker import NOWHERE

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

_BEGIN: Final = 24
_END: Final = 32
"""Offsets in ``struct hook`` (include/uc_priv.h)."""
_CODE: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64)
READS: Final = unicorn_const.UC_HOOK_MEM_READ
WRITES: Final = unicorn_const.UC_HOOK_MEM_WRITE


class Place:
    """One hook and the addresses it is called at."""

    __slots__ = ("_begin", "_end", "hook")

    def __init__(self, hook: library.Hook) -> None:
        self.hook = hook
        self._begin = ctypes.c_uint64.from_address((hook[0].value or 0) + _BEGIN)
        self._end = ctypes.c_uint64.from_address((hook[0].value or 0) + _END)

    def move(self, first: int, last: int) -> None:
        """Be called at ``first`` to ``last`` from now on."""
        self._begin.value = first
        self._end.value = last

    def leave(self) -> None:
        """Be called nowhere."""
        self.move(NOWHERE, NOWHERE)


class DebugPlaces:
    """The places of one CPU. Callbacks must not raise; they may call :meth:`Cpu.stop_before` and ``stop_soon``."""

    def __init__(self, cpu: Cpu, on_code: Callable[[int], None]) -> None:
        """``on_code(linear)`` is called before an instruction at a code place."""
        self.cpu = cpu

        def reached(_uc: int, address: int) -> None:
            try:
                on_code(address)
            except BaseException as error:
                cpu.fail(error)

        self._reached = reached
        self._code: dict[int, Place] = {}
        self._free: list[Place] = []

    def set_code(self, addresses: set[int]) -> None:
        """Be called before the instructions at these linear addresses and no others (while nothing runs)."""
        for address in set(self._code) - addresses:
            place = self._code.pop(address)
            place.leave()
            self._free.append(place)
        added = False
        for address in addresses - set(self._code):
            if self._free:
                place = self._free.pop()
                place.move(address, address)
            else:
                place = Place(
                    self.cpu.hooks.add_range(unicorn_const.UC_HOOK_CODE, _CODE, self._reached, address, address)
                )
                added = True
            self._code[address] = place
        if added or not self.cpu.engine.counted:
            self.cpu.uc.ctl_flush_tb()

    def watch(self, kinds: int, on_access: Callable[[], None]) -> Place:
        """A place for accesses, of ``kinds`` READS, WRITES or both, that is nowhere yet.

        Its addresses are physical; ``on_access`` is called in the middle of the instruction.
        """

        def touched(_uc: int, _kind: int, _address: int, _size: int) -> None:
            try:
                on_access()
            except BaseException as error:
                self.cpu.fail(error)

        place = Place(self.cpu.hooks.add_range(kinds, library.MEMORY, touched, NOWHERE, NOWHERE))
        # Whether an access asks for hooks is decided when its code is translated.
        self.cpu.uc.ctl_flush_tb()
        return place

    def unwatch(self, place: Place) -> None:
        """Remove a place of :meth:`watch`."""
        self.cpu.hooks.remove(place.hook)
        self.cpu.uc.ctl_flush_tb()


__all__ = ["READS", "WRITES", "DebugPlaces", "Place"]

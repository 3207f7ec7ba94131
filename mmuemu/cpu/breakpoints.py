"""Data breakpoints: what DR0 to DR3 watch by DR7's R/W fields 01 and 11 (SDM volume 3, section 17.2).

The engine has instruction breakpoints only. Watched bytes get memory hooks at their physical address; a hit ends the
run behind the instruction, as #DB with its DR6 bits (a trap). I/O breakpoints (R/W 10) do not exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from unicorn import unicorn_const

from mmuemu.cpu import library
from mmuemu.cpu.traps import Trap
from mmuemu.cpu.window import D_HFLAGS, Q_DR0, Q_RIP
from mmuemu.x86.exceptions import Vector

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

_WRITES: Final = 1
_ACCESSES: Final = 3
_LENGTHS: Final = (1, 2, 8, 4)
"""Bytes watched, by DR7's LEN field."""


class DataBreakpoints:
    """The data breakpoints of one CPU that has its privileged instructions watched."""

    def __init__(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self.changed = False
        """Set when a debug register, or where an address leads, may have changed: :meth:`refresh` before going on."""
        self._hits = 0
        self._active: dict[tuple[int, int, int, int], list[library.Hook]] = {}

    def _wanted(self) -> set[tuple[int, int, int, int]]:
        """(breakpoint, physical address, bytes, R/W) of every one that is enabled and mapped."""
        state = self.cpu.window
        state.save()
        dr7 = state.q[Q_DR0 + 7]
        found = set()
        for number in range(4):
            kind = dr7 >> 16 + 4 * number & 3
            if dr7 >> 2 * number & 3 and kind in (_WRITES, _ACCESSES):
                length = _LENGTHS[dr7 >> 18 + 4 * number & 3]
                physical = self.cpu.peek.sync().physical(state.q[Q_DR0 + number] & -length)
                if physical is not None:
                    found.add((number, physical, length, kind))
        return found

    def refresh(self) -> None:
        """Watch what the registers say now (between two stretches of emulation)."""
        self.changed = False
        wanted = self._wanted()
        if wanted == set(self._active):
            return
        for key in set(self._active) - wanted:
            for hook in self._active.pop(key):
                self.cpu.hooks.remove(hook)
        for key in wanted - set(self._active):
            self._active[key] = self._watch(*key)
        # Whether an access asks for hooks is decided when its code is translated.
        self.cpu.uc.ctl_flush_tb()

    def _watch(self, number: int, physical: int, length: int, kind: int) -> list[library.Hook]:
        def touched(_uc: int, _kind: int, _address: int, _size: int) -> None:
            self._hits |= 1 << number
            self.cpu.pause()

        hooked = [unicorn_const.UC_HOOK_MEM_WRITE]
        if kind == _ACCESSES:
            hooked.append(unicorn_const.UC_HOOK_MEM_READ)
        add = self.cpu.hooks.add_range
        return [add(what, library.MEMORY, touched, physical, physical + length - 1) for what in hooked]

    @property
    def active(self) -> bool:
        """Whether anything is watched."""
        return bool(self._active)

    def take(self) -> Trap | None:
        """The #DB of a hit, once, with DR6 told which."""
        hits, self._hits = self._hits, 0
        if not hits:
            return None
        state = self.cpu.window
        state.save()
        state.q[Q_DR0 + 6] |= hits
        state.restore()
        return Trap(Vector.DB, 0, state.q[Q_RIP], 0, state.d[D_HFLAGS] & 3)

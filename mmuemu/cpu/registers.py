"""An engine's registers by name, and its privilege level."""

from __future__ import annotations

import ctypes

from unicorn import x86_const as x86

from mmuemu.cpu import library, window
from mmuemu.cpu.rings import SELECTORS, put_ring
from mmuemu.cpu.window import StateWindow
from mmuemu.errors import UsageError


class Registers:
    """What a :class:`Cpu` offers of its registers; they are those of the last stop, or of now inside a hook."""

    def __init__(self, handle: ctypes.c_void_p, state: StateWindow) -> None:
        self.handle = handle
        self.window = state
        self._rip = ctypes.c_uint64()
        self._rip_pointer = ctypes.byref(self._rip)
        self._rip_id = ctypes.c_int(x86.UC_X86_REG_RIP)
        self._flags_id = ctypes.c_int(x86.UC_X86_REG_EFLAGS)

    @property
    def rip(self) -> int:
        library.reg_read(self.handle, self._rip_id, self._rip_pointer)
        return self._rip.value

    @rip.setter
    def rip(self, value: int) -> None:
        self.set_registers(rip=value)

    def jump(self, address: int) -> None:
        """From a code hook: go on at ``address`` instead of the instruction there."""
        self._rip.value = address
        library.reg_write(self.handle, self._rip_id, self._rip_pointer)

    @property
    def rflags(self) -> int:
        """RFLAGS, arithmetic flags included."""
        library.reg_read(self.handle, self._flags_id, self._rip_pointer)
        return self._rip.value & 0xFFFF_FFFF  # EFLAGS is written as 32 bits

    @property
    def cpl(self) -> int:
        """The current privilege level."""
        self.window.save()
        return self.window.d[window.D_HFLAGS] & 3

    def registers(self) -> dict[str, int]:
        """General registers, RIP and RFLAGS by lower-case name."""
        flags = self.rflags
        self.window.save()
        return {name: self.window.q[index] for name, index in window.REGISTERS.items()} | {"rflags": flags}

    def set_registers(self, **values: int) -> None:
        """Set general registers, ``rip`` and ``rflags`` by lower-case name.

        In a hook on code the arithmetic flags stay as the block that runs knows them: set those between runs.
        """
        state = self.window
        state.save()
        for name, value in values.items():
            if name == "rflags":
                state.set_rflags(value)
            elif name in window.REGISTERS:
                state.q[window.REGISTERS[name]] = value & 0xFFFF_FFFF_FFFF_FFFF
            else:
                raise UsageError(f"no register {name!r}: {', '.join(window.REGISTERS)}, rflags")
        state.restore()

    def set_ring(self, ring: int) -> None:
        """Put the CPU into ring 0 or 3 of 64-bit mode: CS, SS and the privilege level the engine goes by."""
        state = self.window
        state.save()
        put_ring(state, ring, *SELECTORS[ring])
        state.restore()

    def set_bases(self, *, fs: int | None = None, gs: int | None = None, kernel_gs: int | None = None) -> None:
        """Set the FS and GS bases and what ``swapgs`` exchanges."""
        state = self.window
        state.save()
        for index, value in ((window.FS.base, fs), (window.GS.base, gs), (window.Q_KERNEL_GS_BASE, kernel_gs)):
            if value is not None:
                state.q[index] = value
        state.restore()

    def bases(self) -> tuple[int, int]:
        """The FS and GS bases."""
        self.window.save()
        return self.window.q[window.FS.base], self.window.q[window.GS.base]

    def user_bases(self) -> tuple[int, int]:
        """The user's FS and GS bases while the kernel runs (``swapgs`` has put the latter aside)."""
        self.window.save()
        return self.window.q[window.FS.base], self.window.q[window.Q_KERNEL_GS_BASE]

    def set_gdt(self, base: int, limit: int) -> None:
        """What ``lgdt`` does."""
        self._set_table(window.GDT, base, limit)

    def set_idt(self, base: int, limit: int) -> None:
        """What ``lidt`` does."""
        self._set_table(window.IDT, base, limit)

    def set_tr(self, selector: int, base: int, limit: int) -> None:
        """What ``ltr`` loads: the task state segment (a busy 64-bit TSS)."""
        self._set_table(window.TR, base, limit)
        self.window.d[window.TR.selector], self.window.d[window.TR.flags] = selector, 0x8B00
        self.window.restore()

    def _set_table(self, table: window.Segment, base: int, limit: int) -> None:
        state = self.window
        state.save()
        state.q[table.base], state.d[table.limit] = base, limit
        state.restore()

"""I/O: ``in`` and ``out`` reach the handler, or raise #GP(0) in ring 3 (SDM volume 1, 19.5); MMIO reaches functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from unicorn import unicorn_const
from unicorn import x86_const as x86

from mmuemu.cpu import library, window
from mmuemu.cpu.traps import Trap
from mmuemu.x86.exceptions import Vector

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu


def install_ports(cpu: Cpu) -> None:
    """Hook both instructions of ``cpu``."""
    state, hflags = cpu.window, window.D_HFLAGS
    live_q, live_d = state.live_q, state.live_d

    def refused(cpl: int) -> bool:
        """Whether CPL > IOPL; the engine checks neither that nor the TSS's permission bitmap (there is none)."""
        if cpl <= live_q[window.Q_RFLAGS] >> 12 & 3:
            return False
        state.save()
        cpu.raise_trap(Trap(Vector.GP, 0, state.q[window.Q_RIP], 0, cpl), state.snapshot())
        return True

    def port_out(_uc: int, port: int, size: int, value: int) -> None:
        try:
            cpl = live_d[hflags] & 3
            if not cpl or not refused(cpl):
                cpu.handler.port_out(port, size, value)
        except BaseException as error:
            cpu.fail(error)

    def port_in(_uc: int, port: int, size: int) -> int:
        try:
            return 0 if refused(live_d[hflags] & 3) else cpu.handler.port_in(port, size) & 0xFFFF_FFFF
        except BaseException as error:
            cpu.fail(error)
            return 0

    cpu.hooks.add(unicorn_const.UC_HOOK_INSN, library.PORT_OUT, port_out, x86.UC_X86_INS_OUT)
    cpu.hooks.add(unicorn_const.UC_HOOK_INSN, library.PORT_IN, port_in, x86.UC_X86_INS_IN)


def map_io(
    cpu: Cpu, start: int, size: int, read: Callable[[int, int], int], write: Callable[[int, int, int], None]
) -> None:
    """Have accesses to ``[start, start + size)`` of physical space call ``read(offset, bytes)`` and ``write(...)``."""

    def on_read(_uc: int, offset: int, width: int) -> int:
        try:
            return read(offset, width) & (1 << 64) - 1
        except BaseException as error:
            cpu.fail(error)
            return 0

    def on_write(_uc: int, offset: int, width: int, value: int) -> None:
        try:
            write(offset, width, value)
        except BaseException as error:
            cpu.fail(error)

    cpu.hooks.map_io(start, size, on_read, on_write)

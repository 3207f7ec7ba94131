"""Instructions that the engine asks about: CPUID, RDTSC, RDTSCP and SYSENTER."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unicorn import unicorn_const
from unicorn import x86_const as x86

from mmuemu.cpu import library, window
from mmuemu.cpu.traps import Trap
from mmuemu.x86.exceptions import Vector

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu


def install_instructions(cpu: Cpu) -> None:
    """Hook them on ``cpu``: the model answers CPUID, :attr:`Cpu.tsc` the time stamp, the handler takes SYSENTER."""
    state = cpu.window

    def cpuid() -> bool:
        try:
            if cpu.cpuid is None:
                return False
            cpu.cpuid.execute()
            return True
        except BaseException as error:
            cpu.fail(error)
            return False

    def read_tsc(auxiliary: bool) -> bool:
        """False lets the engine read the host's counter."""
        try:
            if cpu.tsc is None:
                return False
            value = cpu.tsc()
            live = state.live_q
            live[window.Q_RAX] = value & 0xFFFF_FFFF
            live[window.Q_RDX] = value >> 32 & 0xFFFF_FFFF
            if auxiliary:
                live[window.Q_RCX] = live[window.Q_TSC_AUX] & 0xFFFF_FFFF
            return True
        except BaseException as error:
            cpu.fail(error)
            return False

    def sysenter() -> None:
        """Whoever rules the machine enters its kernel; where nobody does, IA32_SYSENTER_CS is null: #GP(0)."""
        try:
            enter = getattr(cpu.handler, "sysenter", None)
            if enter is not None:
                enter()
                return
            state.save()
            trap = Trap(Vector.GP, 0, state.q[window.Q_RIP], 0, state.d[window.D_HFLAGS] & 3)
            cpu.raise_trap(trap, state.snapshot())
        except BaseException as error:
            cpu.fail(error)

    hooks = cpu.hooks
    hooks.add(unicorn_const.UC_HOOK_INSN, library.BOOL, cpuid, x86.UC_X86_INS_CPUID)
    hooks.add(unicorn_const.UC_HOOK_INSN, library.BOOL, lambda: read_tsc(False), x86.UC_X86_INS_RDTSC)
    hooks.add(unicorn_const.UC_HOOK_INSN, library.BOOL, lambda: read_tsc(True), x86.UC_X86_INS_RDTSCP)
    hooks.add(unicorn_const.UC_HOOK_INSN, library.VOID, sysenter, x86.UC_X86_INS_SYSENTER)

"""Privilege levels and the segments that carry them, written into a saved state window.

Setting CS and SS through Unicorn's interface changes no privilege: the hidden flags and segment caches do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu import window
from mmuemu.cpu.traps import Trap
from mmuemu.cpu.window import StateWindow
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.registers import RFLAGS_ARITHMETIC, RFLAGS_DF
from mmuemu.x86.segments import KERNEL_CS, KERNEL_SS, USER_CS, USER_SS

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

_CODE_FLAGS: Final = {0: 0x00AF_9B00, 3: 0x00AF_FB00}
_STACK_FLAGS: Final = {0: 0x00CF_9300, 3: 0x00CF_F300}
_CODE_32: Final = 0x00CF_9B00
SELECTORS: Final = {0: (KERNEL_CS, KERNEL_SS), 3: (USER_CS, USER_SS)}
"""(CS, SS) that :meth:`Cpu.set_ring` loads."""


def put_ring(state: StateWindow, ring: int, code: int, stack: int) -> None:
    """Write 64-bit code and stack segments of ``ring`` into a saved window (SDM volume 3, section 5.8.8)."""
    d, q = state.d, state.q
    for segment, selector, flags in (
        (window.CS, code, _CODE_FLAGS[ring]),
        (window.SS, stack, _STACK_FLAGS[ring]),
    ):
        d[segment.selector] = selector
        q[segment.base] = 0
        d[segment.limit] = 0xFFFF_FFFF
        d[segment.flags] = flags
    d[window.D_HFLAGS] = (
        (d[window.D_HFLAGS] & ~window.HFLAG_CPL)
        | ring
        | window.HFLAG_CS32
        | window.HFLAG_SS32
        | window.HFLAG_CS64
        | window.HFLAG_LMA
    )


def put_protected_ring(state: StateWindow, code: int, stack: int) -> None:
    """Flat 32-bit code and stack segments of ring 0 in a saved window (what SYSENTER loads outside IA-32e mode)."""
    d, q = state.d, state.q
    for segment, selector, flags in ((window.CS, code, 0x00CF_9B00), (window.SS, stack, 0x00CF_9300)):
        d[segment.selector] = selector
        q[segment.base] = 0
        d[segment.limit] = 0xFFFF_FFFF
        d[segment.flags] = flags
    hidden = d[window.D_HFLAGS] & ~(window.HFLAG_CPL | window.HFLAG_CS64)
    d[window.D_HFLAGS] = hidden | window.HFLAG_CS32 | window.HFLAG_SS32


def enter_kernel(cpu: Cpu) -> None:
    """What ``syscall`` does (SDM volume 2, SYSCALL), from the syscall hook: RCX, R11, RFLAGS, CS, SS, RIP."""
    flags = cpu.rflags
    state = cpu.window
    q, d = state.live_q, state.live_d
    rip = q[window.Q_RIP]
    if not d[window.D_HFLAGS] & window.HFLAG_CS64:
        # Compatibility mode: Intel processors have SYSCALL in 64-bit code only.
        state.save()
        cpu.raise_trap(Trap(Vector.UD, 0, rip, 0, d[window.D_HFLAGS] & 3), state.snapshot())
        return
    place = cpu.syscall_places.get(rip)
    if place is not None and cpu.ram_bytes[place] == 0x0F:
        length = 2
    else:
        state.save()
        length = cpu.fast_calls.length(rip)
    q[window.Q_RCX] = rip + length
    q[window.Q_R11] = flags
    q[window.Q_RIP] = q[window.Q_LSTAR] - length
    kept = flags & ~q[window.Q_FMASK]
    q[window.Q_RFLAGS] = kept & ~(RFLAGS_ARITHMETIC | RFLAGS_DF) | 2
    q[window.Q_CC_SRC] = kept & RFLAGS_ARITHMETIC
    d[window.D_CC_OP] = window.CC_OP_EFLAGS
    d[window.D_DF] = 0xFFFF_FFFF if kept & RFLAGS_DF else 1
    code = q[window.Q_STAR] >> 32 & 0xFFFC
    d[window.CS.selector] = code
    d[window.CS.flags] = 0x00AF_9B00
    d[window.SS.selector] = code + 8
    d[window.SS.flags] = 0x00CF_9300
    d[window.D_HFLAGS] &= ~window.HFLAG_CPL


def put_flat_protected(state: StateWindow, cr0: int) -> None:
    """32-bit protected mode in ring 0 with flat segments, paging off, outside IA-32e mode."""
    d, q = state.d, state.q
    q[window.Q_CR0], q[window.Q_CR3], q[window.Q_CR4], q[window.Q_EFER] = cr0, 0, 0, 0
    for segment in (window.CS, window.SS, window.DS, window.ES, window.FS, window.GS):
        code = segment is window.CS
        d[segment.selector] = 0x8 if code else 0x10
        q[segment.base] = 0
        d[segment.limit] = 0xFFFF_FFFF
        d[segment.flags] = _CODE_32 if code else _STACK_FLAGS[0]
    d[window.D_HFLAGS] = window.HFLAG_PE | window.HFLAG_CS32 | window.HFLAG_SS32

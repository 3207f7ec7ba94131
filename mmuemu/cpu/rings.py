"""Privilege levels and the segments that carry them, written into a saved state window.

Setting CS and SS through Unicorn's interface changes no privilege: the hidden flags and segment caches do.
"""

from __future__ import annotations

from collections.abc import Callable
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


def kernel_entry(cpu: Cpu) -> Callable[[], None]:
    """What ``syscall`` does on ``cpu`` (SDM volume 2, SYSCALL), for its hook: RCX, R11, RFLAGS, CS, SS, RIP."""
    state, places, ram = cpu.window, cpu.fast_calls.places, cpu.ram_bytes
    q, d = state.live_q, state.live_d
    rip_at, rflags_at, star_at, lstar_at, fmask_at = (
        window.Q_RIP, window.Q_RFLAGS, window.Q_STAR, window.Q_LSTAR, window.Q_FMASK,
    )  # fmt: skip
    rcx_at, r11_at = window.Q_RCX, window.Q_R11
    cc_src_at, cc_op_at, df_at, hflags_at = window.Q_CC_SRC, window.D_CC_OP, window.D_DF, window.D_HFLAGS
    cs, cs_flags, ss, ss_flags = window.CS.selector, window.CS.flags, window.SS.selector, window.SS.flags
    code_flags, stack_flags = _CODE_FLAGS[0], _STACK_FLAGS[0]
    lazily = ~(RFLAGS_ARITHMETIC | RFLAGS_DF)

    def enter() -> None:
        rip, hidden = q[rip_at], d[hflags_at]
        if not hidden & window.HFLAG_CS64:
            # Compatibility mode: Intel processors have SYSCALL in 64-bit code only.
            state.save()
            cpu.raise_trap(Trap(Vector.UD, 0, rip, 0, hidden & 3), state.snapshot())
            return
        flags = cpu.rflags
        place = places.get(rip)
        if place is not None and ram[place] == 0x0F:
            length = 2
        else:
            state.save()
            length = cpu.fast_calls.length(rip)
        q[rcx_at] = rip + length
        q[r11_at] = flags
        q[rip_at] = q[lstar_at] - length
        kept = flags & ~q[fmask_at]
        q[rflags_at] = kept & lazily | 2
        q[cc_src_at] = kept & RFLAGS_ARITHMETIC
        d[cc_op_at] = window.CC_OP_EFLAGS
        d[df_at] = 0xFFFF_FFFF if kept & RFLAGS_DF else 1
        code = q[star_at] >> 32 & 0xFFFC
        d[cs] = code
        d[cs_flags] = code_flags
        d[ss] = code + 8
        d[ss_flags] = stack_flags
        d[hflags_at] = hidden & ~3

    return enter


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

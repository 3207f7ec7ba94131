"""The signal frame on the user's stack: ``struct rt_sigframe`` (arch/x86/kernel/signal_64.c, fpu/signal.c).

From high to low addresses: the red zone, the floating-point area (64-byte aligned), ``siginfo_t``, ``ucontext_t`` and
the return address, so that the handler starts with RSP + 8 a multiple of 16.
"""

from __future__ import annotations

import struct
from operator import itemgetter
from typing import Final, NamedTuple

from mmuemu.cpu.fpstate import FXSAVE_BYTES, LEGACY_AREA, MXCSR_MASK, PKRU, SSE, X87, FpState, xsave_size
from mmuemu.kernel import registers as pt
from mmuemu.kernel.abi.signals import SS_AUTODISARM, SS_DISABLE, SS_ONSTACK
from mmuemu.x86.registers import (
    RFLAGS_AC,
    RFLAGS_ARITHMETIC,
    RFLAGS_DF,
    RFLAGS_RF,
    RFLAGS_TF,
)
from mmuemu.x86.segments import USER_CS, USER_SS

UC_FP_XSTATE: Final = 1
UC_SIGCONTEXT_SS: Final = 2
UC_STRICT_RESTORE_SS: Final = 4
RED_ZONE: Final = 128
FIX_EFLAGS: Final = RFLAGS_AC | RFLAGS_DF | RFLAGS_TF | RFLAGS_RF | RFLAGS_ARITHMETIC
"""RFLAGS bits that a frame decides."""
_LOADED: Final = FIX_EFLAGS & ~RFLAGS_RF
"""Of those, what is loaded: the processor would clear RF with the first instruction, the engine never does."""
FP_XSTATE_MAGIC1: Final = 0x4650_5853
FP_XSTATE_MAGIC2: Final = 0x4650_5845

_FRAME: Final = struct.Struct("<QQQ QiIQ 18Q 4H 4Q Q 64x Q")
FRAME_BYTES: Final = _FRAME.size + 128
_CONTEXT: Final = struct.Struct("<QQ QiIQ 18Q 4H 4Q Q 64x Q")
_GENERAL: Final = (
    pt.R8, pt.R9, pt.R10, pt.R11, pt.R12, pt.R13, pt.R14, pt.R15,
    pt.DI, pt.SI, pt.BP, pt.BX, pt.DX, pt.AX, pt.CX, pt.SP, pt.IP,
)  # fmt: skip
"""pt_regs indices in the order of ``struct sigcontext``."""
_SOFTWARE: Final = struct.Struct("<IIQI28x")
"""``struct _fpx_sw_bytes``: magic, length with the end mark, features, length."""
_ORDER: Final = itemgetter(*_GENERAL, pt.FLAGS)
_BACK: Final = itemgetter(*(_GENERAL.index(register) for register in range(pt.ORIG_AX)))
_IP, _SP = _GENERAL.index(pt.IP), _GENERAL.index(pt.SP)
_FLAGS: Final = UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
_XSAVE_FLAGS: Final = _FLAGS | UC_FP_XSTATE
_END: Final = FP_XSTATE_MAGIC2.to_bytes(4, "little")
_SOFTWARE_AT: Final = 464
_HEADER: Final = struct.Struct("<QQ48x")
_TOP: Final = (1 << 64) - 1

AltStack = tuple[int, int, int]
"""sigaltstack(2): address, flags as they were set, size."""
NO_ALTSTACK: Final[AltStack] = (0, SS_DISABLE, 0)


class TrapState(NamedTuple):
    """What a thread's last exception left for the frames of all later signals (``thread_struct``)."""

    number: int = 0
    error_code: int = 0
    cr2: int = 0


NO_TRAP: Final = TrapState()


class Context(NamedTuple):
    """What ``rt_sigreturn`` finds in a frame."""

    uc_flags: int
    altstack: AltStack
    general: tuple[int, ...]
    flags: int
    cs: int
    ss: int
    fpstate: int
    mask: int


# -- where it goes -----------------------------------------------------------------------------------------------


def within(sp: int, altstack: AltStack) -> bool:
    """Whether ``sp`` lies on the alternate stack."""
    return 0 < sp - altstack[0] <= altstack[2]


def on_altstack(sp: int, altstack: AltStack) -> bool:
    """Whether a thread with this stack pointer counts as running on it: with SS_AUTODISARM never."""
    return not altstack[1] & SS_AUTODISARM and within(sp, altstack)


def altstack_state(sp: int, altstack: AltStack) -> int:
    """SS_DISABLE, SS_ONSTACK or 0 (``sas_ss_flags``)."""
    if not altstack[2]:
        return SS_DISABLE
    return SS_ONSTACK if on_altstack(sp, altstack) else 0


def fp_bytes(xcr0: int) -> int:
    """The length of the floating-point area, 64-byte aligned in front: 512 without XSAVE, else with its end mark."""
    return xsave_size(xcr0) + 4 if xcr0 & ~X87 else FXSAVE_BYTES


def frame_place(sp: int, altstack: AltStack, use_altstack: bool, area: int) -> tuple[int, int]:
    """(address of the frame, of the floating-point area); the frame's is 2**64 - 1 when the alternate stack is full."""
    nested = on_altstack(sp, altstack)
    entering = False
    sp = sp - RED_ZONE & _TOP
    if use_altstack and altstack_state(sp, altstack) == 0:
        sp = altstack[0] + altstack[2] & _TOP
        entering = True
    floats = sp - area & _TOP & ~63
    frame = ((floats - FRAME_BYTES & _TOP & ~15) - 8) & _TOP
    if (nested or entering) and not within(frame, altstack):
        return _TOP, floats
    return frame, floats


# -- what it says ------------------------------------------------------------------------------------------------


def build_frame(
    words: list[int],
    info: bytes,
    restorer: int,
    mask: int,
    altstack: AltStack,
    trap: TrapState,
    floats: int,
    xsave: bool,
) -> bytes:
    """The frame of a task with the pt_regs ``words``; ``info`` is its 128-byte siginfo, ``floats`` from frame_place."""
    address, flags, size = altstack
    return _FRAME.pack(
        restorer,
        _XSAVE_FLAGS if xsave else _FLAGS, 0,
        address, flags - (flags >> 31 << 32), 0, size,
        *_ORDER(words),
        words[pt.CS] & 0xFFFF, 0, 0, words[pt.SS] & 0xFFFF,
        trap.error_code, trap.number, mask, trap.cr2, floats, mask,
    ) + info  # fmt: skip


def fp_area(fp: FpState) -> tuple[bytes, bytes]:
    """The floating-point area of a saved window: its beginning, and what stands at PKRU_OFFSET if that is in use."""
    key = (fp.fxsave(), fp.xcr0, fp.pkru)
    if key != fp.last_key:
        fp.last_key, fp.last_area = key, _fp_area(*key)
    return fp.last_area


def _fp_area(image: bytes, xcr0: int, pkru: int) -> tuple[bytes, bytes]:
    if not xcr0 & ~X87:
        return image, b""
    size = xsave_size(xcr0)
    software = _SOFTWARE.pack(FP_XSTATE_MAGIC1, size + 4, xcr0, size)
    if not xcr0 & PKRU:
        return image[:_SOFTWARE_AT] + software + _HEADER.pack(X87 | SSE, 0) + _END, b""
    head = image[:_SOFTWARE_AT] + software + _HEADER.pack(X87 | SSE | (PKRU if pkru else 0), 0)
    return head, pkru.to_bytes(8, "little") + _END


# -- and back ----------------------------------------------------------------------------------------------------


def read_context(data: bytes) -> Context:
    """The ``ucontext_t`` of a frame: the ``CONTEXT_BYTES`` that follow its return address."""
    fields = _CONTEXT.unpack(data)
    flags, _, stack, stack_flags, _, stack_size = fields[:6]
    general, rflags = fields[6:23], fields[23]
    cs, _, _, ss = fields[24:28]
    return Context(
        flags, (stack, stack_flags & 0xFFFF_FFFF, stack_size), general, rflags, cs, ss, fields[32], fields[33]
    )


CONTEXT_BYTES: Final = _CONTEXT.size


def restored_registers(words: list[int], context: Context) -> list[int]:
    """The pt_regs of a frame, in place of ``words``: ring 3 and no flags but harmless ones, whatever it says."""
    general, code, stack = context.general, context.cs | 3, context.ss | 3
    if not context.uc_flags & UC_STRICT_RESTORE_SS and code == USER_CS:
        stack = USER_SS
    flags = words[pt.FLAGS] & ~FIX_EFLAGS | context.flags & _LOADED
    return [*_BACK(general), _TOP, general[_IP], code, flags, general[_SP], stack]


class BadFpState(Exception):
    """The floating-point area of a frame cannot be loaded; nothing was."""


def end_mark_place(image: bytes, xcr0: int) -> int | None:
    """The offset of the end mark, None when the software bytes promise no XSAVE area (check_xstate_in_sigframe)."""
    magic, extended, _, size = _SOFTWARE.unpack_from(image, _SOFTWARE_AT)
    good = magic == FP_XSTATE_MAGIC1 and LEGACY_AREA <= size <= min(xsave_size(xcr0), extended)
    return size if good else None


def promised_features(image: bytes) -> int:
    """The features that the software bytes say are in the area."""
    features: int = _SOFTWARE.unpack_from(image, _SOFTWARE_AT)[2]
    return features


def load_fp(fp: FpState, image: bytes, features: int | None, header: bytes, pkru: int) -> int | None:
    """Load a frame's area into a saved window, as FXRSTOR (``features`` None) or XRSTOR would.

    Gives the PKRU to load, None to leave it as it is.

    Raises BadFpState where the instruction would raise #GP (SDM volume 1, 13.8): reserved MXCSR bits, a bad header.
    """
    if (features is None or features & SSE) and int.from_bytes(image[24:28], "little") & ~MXCSR_MASK:
        raise BadFpState
    if features is None:
        fp.fxrstor(image)
        return None
    present, compacted = _HEADER.unpack(header)
    if compacted or present & ~fp.xcr0 or any(header[16:24]):
        raise BadFpState
    load = features & present
    fp.reset((features | X87 | SSE) & ~load)
    fp.fxrstor(image, load)
    if features & SSE and not load & SSE:
        fp.set_mxcsr(int.from_bytes(image[24:28], "little"))
    return pkru if load & PKRU else 0 if features & PKRU else None

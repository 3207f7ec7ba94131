"""The state window: every register of the engine, the hidden ones too, as one block of memory.

``uc_context_save`` copies the engine's ``CPUX86State`` (QEMU 5.0, ``target/i386/cpu.h``) byte for byte. One
save, a few reads and writes through a memoryview and one restore cost less than a single ``reg_read``, and reach
what the API hides: the privilege level, segment caches, the pending-exception bookkeeping. The layout belongs to
one Unicorn release, so :func:`check_layout` proves it at start-up and refuses to run on another.
"""

from __future__ import annotations

import ctypes
import time
from typing import Final, NamedTuple

from unicorn import Uc, unicorn_const
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

from mmuemu.cpu import library
from mmuemu.cpu.internals import state_address
from mmuemu.cpu.tlbsize import TlbSize
from mmuemu.errors import MmuemuError
from mmuemu.x86.registers import RFLAGS_ARITHMETIC, RFLAGS_DF

STATE_OFFSET: Final = 40
"""Bytes of ``struct uc_context`` before the state."""
_STATE_BYTES: Final = 5568

# Indices of 64-bit words (Q_), 32-bit words (D_) and bytes (B_) of the state.
Q_RAX, Q_RCX, Q_RDX, Q_RBX, Q_RSP, Q_RBP, Q_RSI, Q_RDI = range(8)
Q_R8, Q_R9, Q_R10, Q_R11, Q_R12, Q_R13, Q_R14, Q_R15 = range(8, 16)
Q_RIP: Final = 16
Q_RFLAGS: Final = 17
Q_CC_SRC: Final = 19
D_CC_OP: Final = 42
D_DF: Final = 43
D_HFLAGS: Final = 44
Q_CR0: Final = 53
Q_CR2: Final = 55
Q_CR3: Final = 56
Q_CR4: Final = 57
Q_EFER: Final = 74
# x87 and SSE: top of stack, status (low half) and control word, tags, last opcode and pointers, softfloat's modes.
D_FPSTT: Final = 151
D_FPUS: Final = 152
D_FPTAGS: Final = 153
B_FPREGS: Final = 624
D_FPOP: Final = 188
Q_FPIP: Final = 95
Q_FPDP: Final = 96
B_X87_ROUNDING: Final = 777
B_X87_PRECISION: Final = 779
B_FTZ: Final = 780
B_SSE_ROUNDING: Final = 809
B_SSE_DAZ: Final = 813
D_MXCSR: Final = 204
B_XMM: Final = 824
"""XMM0; the next is 64 bytes further."""
FLOATS: Final = slice(4 * D_FPSTT, B_XMM + 16 * 64)
"""Bytes with all of x87 and SSE."""
Q_STAR: Final = 603
Q_LSTAR: Final = 605
Q_FMASK: Final = 607
Q_KERNEL_GS_BASE: Final = 608
Q_TSC_AUX: Final = 612
Q_XCR0: Final = 613
D_ERROR_CODE: Final = 1346
D_IS_INT: Final = 1347
"""Whether an INT n is what raised the last exception."""
Q_DR0: Final = 675
D_OLD_EXCEPTION: Final = 1374
BREAKPOINT_POINTERS: Final = slice(683, 687)
"""Of the 64-bit words: where the engine keeps what it made of DR0 to DR3, addresses of the host."""
Q_PKRU: Final = 663

_ROUNDINGS: Final = 4
_PRECISIONS: Final = (32, 64, 80)

_REGISTERS: Final = (
    (0, 8 * Q_CR4 + 8),
    (8 * Q_EFER, 8 * Q_EFER + 8),
    (FLOATS.start, FLOATS.stop),
    (8 * Q_STAR, 8 * Q_XCR0 + 8),
    (8 * Q_PKRU, 8 * Q_PKRU + 8),
    (4 * D_ERROR_CODE, 8 * Q_DR0 + 64),
    (4 * D_OLD_EXCEPTION, 4 * D_OLD_EXCEPTION + 4),
)
"""Bytes of the state that the guest's instructions and traps change, as far as they mean something to it."""

HFLAG_CPL: Final = 3
HFLAG_INHIBIT_IRQ: Final = 1 << 3
HFLAG_CS32: Final = 1 << 4
HFLAG_SS32: Final = 1 << 5
HFLAG_PE: Final = 1 << 7
HFLAG_TS: Final = 1 << 11
HFLAG_LMA: Final = 1 << 14
HFLAG_CS64: Final = 1 << 15
HFLAG_SMAP: Final = 1 << 23

CC_OP_EFLAGS: Final = 1
_ELSEWHERE: Final = RFLAGS_ARITHMETIC | RFLAGS_DF
NO_EXCEPTION: Final = 0xFFFF_FFFF
"""-1 in ``old_exception``: nothing is being delivered."""

REGISTERS: Final[dict[str, int]] = {
    name: index
    for index, name in enumerate(
        [
            "rax",
            "rcx",
            "rdx",
            "rbx",
            "rsp",
            "rbp",
            "rsi",
            "rdi",
            "r8",
            "r9",
            "r10",
            "r11",
            "r12",
            "r13",
            "r14",
            "r15",
            "rip",
        ]
    )
}


class Segment(NamedTuple):
    """A segment register's place in the state: indices of its selector, base, limit and flags."""

    selector: int
    base: int
    limit: int
    flags: int


def _segment(position: int) -> Segment:
    offset = 184 + 24 * position
    return Segment(offset // 4, (offset + 8) // 8, (offset + 16) // 4, (offset + 20) // 4)


ES, CS, SS, DS, FS, GS, LDT, TR, GDT, IDT = (_segment(position) for position in range(10))


class StateWindow:
    """One preallocated copy of an engine's state; ``save`` fills it, ``restore`` makes it the engine's.

    ``q`` and ``d`` view it as 64-bit and 32-bit words, by the indices of this module. The arithmetic flags of
    RFLAGS are evaluated lazily by the engine: read them with :meth:`Cpu.rflags`, write with :meth:`set_rflags`.
    """

    def __init__(self, uc: Uc) -> None:
        self._uc = library.handle(uc)
        self.context = ctypes.c_void_p()
        library.check(uclib.uc_context_alloc(self._uc, ctypes.byref(self.context)))
        size = uclib.uc_context_size(self._uc)
        if size < STATE_OFFSET + _STATE_BYTES or not self.context.value:
            raise MmuemuError(f"this Unicorn's CPU state is {size} bytes; mmuemu knows that of Unicorn 2.1.4")
        self.raw = memoryview((ctypes.c_char * size).from_address(self.context.value)).cast("B")
        state = self.raw[STATE_OFFSET : STATE_OFFSET + _STATE_BYTES]
        self.q = state.cast("Q")
        self.d = state.cast("I")
        live = (ctypes.c_char * _STATE_BYTES).from_address(state_address(self._uc))
        self.live_q = memoryview(live).cast("B").cast("Q")
        """The engine's own state, by the same indices, for hooks: there what is read is true and what is written
        counts at once, as with :meth:`save` and :meth:`restore`, which copy all of it."""
        self.live_d = memoryview(live).cast("B").cast("I")

    def save(self) -> None:
        """Copy the engine's state into the window."""
        library.context_save(self._uc, self.context)

    def restore(self) -> None:
        """Make the window the engine's state; inside a hook this takes effect at once."""
        library.context_restore(self._uc, self.context)

    def set_rflags(self, value: int) -> None:
        """Put a whole RFLAGS value into the window (the engine keeps its arithmetic part and DF elsewhere)."""
        put_rflags(self.q, self.d, value)

    def gather_flags(self) -> None:
        """Between runs, window just saved: one that begins takes all flags from RFLAGS, so what :meth:`set_rflags` put
        elsewhere goes there."""
        q, d = self.q, self.d
        if d[D_CC_OP] == CC_OP_EFLAGS:
            flags = q[Q_RFLAGS] & ~_ELSEWHERE | q[Q_CC_SRC] & RFLAGS_ARITHMETIC | d[D_DF] & RFLAGS_DF
            if flags != q[Q_RFLAGS]:
                q[Q_RFLAGS] = self.live_q[Q_RFLAGS] = flags

    def snapshot(self) -> bytes:
        """The window's bytes, to be put back with :meth:`load`."""
        return bytes(self.raw)

    def load(self, snapshot: bytes) -> None:
        """Fill the window from :meth:`snapshot`."""
        self.raw[:] = snapshot

    def close(self) -> None:
        """Give the context back; the views must not be used afterwards."""
        if self.context.value:
            self.q.release()
            self.d.release()
            self.live_q.release()
            self.live_d.release()
            uclib.uc_context_free(self.context)
            self.context = ctypes.c_void_p()


def put_rflags(q: memoryview, d: memoryview, value: int) -> None:
    """Put a whole RFLAGS value into a state, given as its 64-bit and 32-bit words."""
    q[Q_RFLAGS] = (value & ~(RFLAGS_ARITHMETIC | RFLAGS_DF)) | 2
    q[Q_CC_SRC] = value & RFLAGS_ARITHMETIC
    d[D_CC_OP] = CC_OP_EFLAGS
    d[D_DF] = 0xFFFF_FFFF if value & RFLAGS_DF else 1


def check_floats(raw: bytes | memoryview) -> None:
    """Raises ValueError for a :data:`FLOATS` that the engine, which checks nothing, must not get: it would abort, or
    reach beyond its registers."""
    state = bytes(FLOATS.start) + raw
    if (
        len(state) != FLOATS.stop
        or int.from_bytes(state[4 * D_FPSTT : 4 * D_FPSTT + 4], "little") > 7
        or max(state[B_X87_ROUNDING], state[B_SSE_ROUNDING]) >= _ROUNDINGS
        or state[B_X87_PRECISION] not in _PRECISIONS
    ):
        raise ValueError("the CPU's state")


def carried(own: bytes, other: bytes) -> bytes:
    """The state ``own`` with the registers of ``other``, which may be of an engine in another process or forged.

    Both are as :meth:`StateWindow.snapshot` gives them. What else there is in a state (pointers into the host's memory,
    bounds of the engine's tables) stays. Raises ValueError as :func:`check_floats`.
    """
    state = memoryview(other)[STATE_OFFSET:]
    if len(other) != len(own):
        raise ValueError("the CPU's state")
    check_floats(state[FLOATS])
    out = bytearray(own)
    for start, stop in _REGISTERS:
        out[STATE_OFFSET + start : STATE_OFFSET + stop] = state[start:stop]
    return bytes(out)


_checked = False


def check_layout() -> None:
    """Prove once that the loaded Unicorn keeps its registers where this module says; raises MmuemuError if not."""
    global _checked
    if _checked:
        return
    uc = Uc(unicorn_const.UC_ARCH_X86, unicorn_const.UC_MODE_64)
    wrong = _misplaced(uc)
    if wrong:
        version = ".".join(str(part) for part in _version())
        raise MmuemuError(
            f"Unicorn {version} keeps {', '.join(wrong)} elsewhere than Unicorn 2.1.4 does: install unicorn>=2.1.4,<2.2"
        )
    _checked = True


def _version() -> tuple[int, int, int]:
    combined = uclib.uc_version(None, None)
    return combined >> 24, combined >> 16 & 0xFF, combined >> 8 & 0xFF


def _misplaced(uc: Uc) -> list[str]:
    """Names of the registers that do not show up where the window expects them."""
    sentinel = 0x1122_3344_5566_0000
    words = {
        "RAX": (x86.UC_X86_REG_RAX, Q_RAX),
        "RSP": (x86.UC_X86_REG_RSP, Q_RSP),
        "RDI": (x86.UC_X86_REG_RDI, Q_RDI),
        "R15": (x86.UC_X86_REG_R15, Q_R15),
        "RIP": (x86.UC_X86_REG_RIP, Q_RIP),
        "FS base": (x86.UC_X86_REG_FS_BASE, FS.base),
        "GS base": (x86.UC_X86_REG_GS_BASE, GS.base),
        "CR2": (x86.UC_X86_REG_CR2, Q_CR2),
        "CR3": (x86.UC_X86_REG_CR3, Q_CR3),
        "DR0": (x86.UC_X86_REG_DR0, Q_DR0),
    }
    msrs = {
        "STAR": (0xC0000081, Q_STAR),
        "LSTAR": (0xC0000082, Q_LSTAR),
        "KERNEL_GS_BASE": (0xC0000102, Q_KERNEL_GS_BASE),
        "TSC_AUX": (0xC0000103, Q_TSC_AUX),
    }
    for number, (register, index) in enumerate(words.values()):
        uc.reg_write(register, sentinel + (index << 4) + number)
    for number, (msr, index) in enumerate(msrs.values()):
        uc.msr_write(msr, sentinel + (index << 4) + number)
    window = StateWindow(uc)
    window.save()
    wrong = [
        name
        for group in (words, msrs)
        for number, (name, (_, index)) in enumerate(group.items())
        if window.q[index] != sentinel + (index << 4) + number
    ]
    if window.d[D_HFLAGS] & (HFLAG_CS64 | HFLAG_LMA | HFLAG_CPL) != HFLAG_CS64 | HFLAG_LMA and not (
        window.d[D_HFLAGS] & HFLAG_CS64
    ):
        wrong.append("hflags")
    if window.live_q[:Q_RIP].tolist() != window.q[:Q_RIP].tolist() or window.live_q[Q_STAR] != window.q[Q_STAR]:
        wrong.append("the state itself")
    if not window.q[Q_XCR0] & 1 or window.q[Q_XCR0] >> 10:
        wrong.append("XCR0")
    if window.d[D_OLD_EXCEPTION] != NO_EXCEPTION:
        wrong.append("old_exception")
    size = TlbSize(library.handle(uc))
    if not size.plausible(time.time_ns()):
        wrong.append("its TLB")
    size.close()
    wrong += _misplaced_floats(uc, window)
    window.close()
    return wrong


def _misplaced_floats(uc: Uc, window: StateWindow) -> list[str]:
    """The same for the x87 and SSE registers, whose sentinels must be values that they can hold."""
    uc.reg_write(x86.UC_X86_REG_FPCW, 0x0E7E)
    uc.reg_write(x86.UC_X86_REG_FPSW, 0x1842)
    uc.reg_write(x86.UC_X86_REG_FPTAG, 0xFF3F)
    uc.reg_write(x86.UC_X86_REG_MXCSR, 0xFFC1)
    uc.reg_write(x86.UC_X86_REG_FIP, 0x1234_5678)
    uc.reg_write(x86.UC_X86_REG_FDP, 0x2345_6789)
    uc.reg_write(x86.UC_X86_REG_FOP, 0x0765)
    uc.reg_write(x86.UC_X86_REG_FP7, (0x1122_3344_5566_7788, 0x3FFE))
    uc.reg_write(x86.UC_X86_REG_XMM0, 0x1111)
    uc.reg_write(x86.UC_X86_REG_XMM15, 0x2222 << 64 | 0x3333)
    window.save()
    d, q, raw = window.d, window.q, window.raw[STATE_OFFSET:]
    fp7, xmm15 = B_FPREGS // 8 + 14, B_XMM // 8 + 15 * 8
    checks = {
        "FPSW": d[D_FPSTT] == 3 and d[D_FPUS] & 0xFFFF == 0x42,
        "FPCW": d[D_FPUS] >> 16 == 0x0E7E and raw[B_X87_ROUNDING] == 3 and raw[B_X87_PRECISION] == 64,
        "FPTAG": (d[D_FPTAGS], d[D_FPTAGS + 1]) == (0x0001_0101, 0x0101_0101),
        "FIP": q[Q_FPIP] == 0x1234_5678 and q[Q_FPDP] == 0x2345_6789 and d[D_FPOP] & 0xFFFF == 0x0765,
        "MXCSR": d[D_MXCSR] == 0xFFC1 and raw[B_SSE_ROUNDING] == 3 and raw[B_SSE_DAZ] == 1 and raw[B_FTZ] == 1,
        "FP7": q[fp7] == 0x1122_3344_5566_7788 and q[fp7 + 1] & 0xFFFF == 0x3FFE,
        "XMM": q[B_XMM // 8] == 0x1111 and (q[xmm15], q[xmm15 + 1]) == (0x3333, 0x2222),
    }
    return [name for name, right in checks.items() if not right]

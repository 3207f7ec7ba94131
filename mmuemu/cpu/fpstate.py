"""The x87, MMX and SSE registers of a state window, as FXSAVE and XSAVE lay them out in memory.

Formats: SDM volume 1, 10.5.1 (FXSAVE64) and 13.4 (XSAVE, standard form). The engine's MXCSR has no exception flags but
those that were loaded into it, and its flush-to-zero bit acts on the x87 (QEMU 5.0, ``update_mxcsr_status``).
"""

from __future__ import annotations

import struct
from typing import Final

from mmuemu.cpu import window
from mmuemu.cpu.window import StateWindow

FXSAVE_BYTES: Final = 512
XSAVE_HEADER: Final = 64
LEGACY_AREA: Final = FXSAVE_BYTES + XSAVE_HEADER
MXCSR_MASK: Final = 0xFFFF
"""MXCSR bits that may be set; another one in memory is #GP for FXRSTOR and XRSTOR."""
INITIAL_FCW: Final = 0x37F
INITIAL_MXCSR: Final = 0x1F80
X87: Final = 1
SSE: Final = 2
PKRU: Final = 1 << 9
PKRU_OFFSET: Final = 0xA80

_TOP: Final = 0x3800
_ES_AND_B: Final = 0x8080
_HEAD: Final = struct.Struct("<HHBBHQQII")
_PRECISIONS: Final = (32, 80, 64, 80)
"""Significand widths by the control word's PC field, as the engine names them; the reserved 1 is extended."""
_TAGS: Final = tuple(sum((~mask >> n & 1) << 8 * n for n in range(8)) for mask in range(256))
"""Abridged tag byte (bit set: register in use) -> the engine's eight tag bytes (1: empty)."""
_USED: Final = 416
"""Bytes of an image that stand for registers."""
_ABRIDGED: Final = {tags: mask for mask, tags in enumerate(_TAGS)}


class FpState:
    """Reads and writes the floating-point registers of one saved :class:`StateWindow`.

    The window must have been saved before, and be restored after a change.
    """

    __slots__ = (
        "_all", "_d", "_high", "_initial_raw", "_known_image", "_known_raw", "_low", "_out", "_out_high", "_out_low",
        "_q", "_raw", "_st", "last_area", "last_key",
    )  # fmt: skip

    def __init__(self, state: StateWindow) -> None:
        self._q, self._d = state.q, state.d
        at = window.STATE_OFFSET
        self._raw = state.raw[at : at + window.B_XMM]
        self._all = state.raw[at:][window.FLOATS]
        self._known_raw = self._known_image = self._initial_raw = b""
        self.last_key: object = None
        self.last_area = (b"", b"")
        """The last area that was built for a signal frame, and what it was built from; for whoever builds them."""
        self._st = self._raw[window.B_FPREGS : window.B_FPREGS + 128]
        first = window.B_XMM // 8
        self._low = state.q[first : first + 128 : 8]
        self._high = state.q[first + 1 : first + 128 : 8]
        self._out = bytearray(FXSAVE_BYTES)
        words = memoryview(self._out).cast("Q")
        self._out_low, self._out_high = words[20:52:2], words[21:52:2]

    @property
    def raw(self) -> bytes:
        """All of it as the engine keeps it, to be put back into a window as it was."""
        return bytes(self._all)

    @raw.setter
    def raw(self, value: bytes) -> None:
        self._all[:] = value

    def fxsave(self) -> bytes:
        """The 512 bytes that FXSAVE64 writes; bytes 464 to 511 are 0."""
        # The same bytes of the engine make the same image, and the other way round: signal handlers and context
        # switches mostly see few of them.
        raw = bytes(self._all)
        if raw != self._known_raw:
            self._known_image = self._fxsave()
            self._known_raw = raw
        return self._known_image

    def _fxsave(self) -> bytes:
        out, raw = self._out, self._raw
        q, d = self._q, self._d
        top = d[window.D_FPSTT] & 7
        control = d[window.D_FPUS]
        status = control & 0xFFFF & ~_TOP | top << 11
        tags = _ABRIDGED[d[window.D_FPTAGS] | d[window.D_FPTAGS + 1] << 32]
        _HEAD.pack_into(
            out, 0, control >> 16, status, tags, 0, d[window.D_FPOP] & 0x7FF, q[window.Q_FPIP], q[window.Q_FPDP],
            d[window.D_MXCSR], MXCSR_MASK,
        )  # fmt: skip
        start = window.B_FPREGS
        if top:
            split = start + 16 * top
            out[32:160] = bytes(raw[split : start + 128]) + bytes(raw[start:split])
        else:
            out[32:160] = self._st
        self._out_low[:] = self._low
        self._out_high[:] = self._high
        return bytes(out)

    def fxrstor(self, image: bytes, features: int = X87 | SSE) -> None:
        """Load ``features`` of a 512-byte FXSAVE64 image; MXCSR goes with SSE and must have no reserved bit set."""
        if features == X87 | SSE and self._known_raw and image[:_USED] == self._known_image[:_USED]:
            self._all[:] = self._known_raw
            return
        if features & X87:
            self._load_x87(image)
        if features & SSE:
            self.set_mxcsr(int.from_bytes(image[24:28], "little"))
            words = memoryview(image)[160:416].cast("Q")
            self._low[:] = words[::2]
            self._high[:] = words[1::2]

    def reset(self, features: int = X87 | SSE) -> None:
        """The initial configuration of ``features`` (SDM volume 1, 13.6)."""
        if features != X87 | SSE:
            self.fxrstor(_INITIAL, features)
            return
        if not self._initial_raw:
            self.fxrstor(_INITIAL)
            self._initial_raw = bytes(self._all)
        self._all[:] = self._initial_raw

    def _load_x87(self, image: bytes) -> None:
        control, status, tags, _, opcode, ip, dp, _, _ = _HEAD.unpack_from(image)
        d, q, raw = self._d, self._q, self._raw
        top = status >> 11 & 7
        # The error summary and busy bits follow from the flags and masks, whatever memory says.
        status &= ~(_TOP | _ES_AND_B)
        control |= 0x40
        if status & ~control & 0x3F:
            status |= _ES_AND_B
        d[window.D_FPSTT] = top
        d[window.D_FPUS] = control << 16 | status
        wide = _TAGS[tags]
        d[window.D_FPTAGS], d[window.D_FPTAGS + 1] = wide & 0xFFFF_FFFF, wide >> 32
        d[window.D_FPOP] = d[window.D_FPOP] & ~0xFFFF | opcode & 0x7FF
        q[window.Q_FPIP], q[window.Q_FPDP] = ip, dp
        raw[window.B_X87_ROUNDING] = control >> 10 & 3
        raw[window.B_X87_PRECISION] = _PRECISIONS[control >> 8 & 3]
        split = 128 - 16 * top
        stack = image[32:160]
        self._st[:] = stack[split:] + stack[:split]

    def set_mxcsr(self, value: int) -> None:
        """Load MXCSR, which must have no reserved bit set."""
        self._d[window.D_MXCSR] = value
        raw = self._raw
        raw[window.B_SSE_ROUNDING] = value >> 13 & 3
        raw[window.B_SSE_DAZ] = value >> 6 & 1
        raw[window.B_FTZ] = value >> 15 & 1

    @property
    def xcr0(self) -> int:
        """The features that XSAVE saves."""
        return self._q[window.Q_XCR0]

    @property
    def mxcsr(self) -> int:
        """The SSE control and status register."""
        return self._d[window.D_MXCSR]

    @property
    def x87_exceptions(self) -> int:
        """Unmasked exceptions that the x87 status word reports: IE 1, DE 2, ZE 4, OE 8, UE 16, PE 32."""
        both = self._d[window.D_FPUS]
        return both & ~(both >> 16) & 0x3F

    @property
    def sse_exceptions(self) -> int:
        """Unmasked exceptions that MXCSR reports, with the same bits."""
        value = self._d[window.D_MXCSR]
        return value & ~(value >> 7) & 0x3F

    @property
    def pkru(self) -> int:
        """The protection-key rights of user pages."""
        return self._q[window.Q_PKRU] & 0xFFFF_FFFF

    @pkru.setter
    def pkru(self, value: int) -> None:
        self._q[window.Q_PKRU] = value & 0xFFFF_FFFF


_INITIAL: Final = (
    INITIAL_FCW.to_bytes(2, "little") + bytes(22) + INITIAL_MXCSR.to_bytes(4, "little") + bytes(FXSAVE_BYTES - 28)
)


def xsave_size(xcr0: int) -> int:
    """Bytes of an XSAVE area in standard form with the features ``xcr0``."""
    return PKRU_OFFSET + 8 if xcr0 & PKRU else LEGACY_AREA

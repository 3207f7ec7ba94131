"""From a CPU's saved state window to the bytes of gdb's ``g`` packet, and back."""

from __future__ import annotations

from typing import Final

from mmuemu.cpu import window
from mmuemu.cpu.cpu import Cpu
from mmuemu.cpu.fpstate import MXCSR_MASK
from mmuemu.gdbstub.description import CONTROL, GENERAL, SEGMENTS, X87_CONTROL, Layout

_SEGMENTS: Final = dict(zip(SEGMENTS, (window.CS, window.SS, window.DS, window.ES, window.FS, window.GS), strict=True))
_CONTROLS: Final = {
    "cr0": window.Q_CR0, "cr2": window.Q_CR2, "cr3": window.Q_CR3, "cr4": window.Q_CR4, "efer": window.Q_EFER,
}  # fmt: skip
GENERAL_NAMES: Final = (*GENERAL, "rip", "eflags")
FLAGS_WRITABLE: Final = 0x5_4DD5
"""RFLAGS that a debugger may set in ring 3 (``FLAG_MASK`` in arch/x86/kernel/ptrace.c)."""
_CANNOT_BE_SET: Final = {*SEGMENTS, *CONTROL} - {"cr2"}
"""CR2 can: gdb puts registers back after it has called a function, which may have faulted."""


class Refused(Exception):
    """A register that cannot be set, or not to that value."""


def values(cpu: Cpu) -> dict[str, int]:
    """General registers but RFLAGS, segments, bases and control registers of the saved window, by gdb's names."""
    q, d = cpu.window.q, cpu.window.d
    out = {name: q[window.REGISTERS[name]] for name in (*GENERAL, "rip")}
    out |= {name: d[segment.selector] & 0xFFFF for name, segment in _SEGMENTS.items()}
    out |= {name: q[index] for name, index in _CONTROLS.items()}
    out |= {"fs_base": q[window.FS.base], "gs_base": q[window.GS.base], "cr8": 0}
    return out


def _full_tags(image: bytes) -> int:
    """The tag word of FSAVE (2 bits each: 0 valid, 1 zero, 2 special, 3 empty) from an FXSAVE image."""
    top = image[3] >> 3 & 7
    tags = 0
    for physical in range(8):
        tag = 3
        if image[4] >> physical & 1:
            at = 32 + 16 * (physical - top & 7)
            exponent = int.from_bytes(image[at + 8 : at + 10], "little") & 0x7FFF
            significand = int.from_bytes(image[at : at + 8], "little")
            normal = exponent != 0x7FFF and significand >> 63
            tag = 0 if normal else 1 if not exponent and not significand else 2
        tags |= tag << 2 * physical
    return tags


def _x87(image: bytes) -> dict[str, int]:
    def word(at: int, size: int) -> int:
        return int.from_bytes(image[at : at + size], "little")

    found = (
        word(0, 2), word(2, 2), _full_tags(image), word(12, 4) & 0xFFFF, word(8, 4), word(20, 4) & 0xFFFF, word(16, 4),
        word(6, 2),
    )  # fmt: skip
    return dict(zip(X87_CONTROL, found, strict=True))


def pack(cpu: Cpu, layout: Layout, known: dict[str, int]) -> bytes:
    """The ``g`` packet's bytes: integers from ``known``, x87 and SSE registers from the saved window."""
    image = cpu.fp.fxsave()
    known = known | _x87(image) | {"mxcsr": cpu.fp.mxcsr}
    out = bytearray()
    for name, bits, _, _ in layout.registers:
        if name.startswith("xmm"):
            at = 160 + 16 * int(name[3:])
            out += image[at : at + 16]
        elif name.startswith("st"):
            at = 32 + 16 * int(name[2:])
            out += image[at : at + 10]
        else:
            out += (known[name] & (1 << bits) - 1).to_bytes(bits // 8, "little")
    return bytes(out)


def changes(layout: Layout, old: bytes, new: bytes) -> dict[str, bytes]:
    """The registers that differ, with their new bytes. Raises Refused for segment selectors and control registers."""
    out = {}
    for index, register in enumerate(layout.registers):
        place = layout.place(index)
        if old[place] != new[place]:
            if register.name in _CANNOT_BE_SET:
                raise Refused(register.name)
            out[register.name] = new[place]
    return out


def set_floats(cpu: Cpu, changed: dict[str, bytes]) -> None:
    """Put x87 and SSE registers into the saved window."""
    image = bytearray(cpu.fp.fxsave())
    for name, data in changed.items():
        if name.startswith("xmm"):
            at = 160 + 16 * int(name[3:])
            image[at : at + 16] = data
        elif name.startswith("st"):
            at = 32 + 16 * int(name[2:])
            image[at : at + 10] = data
        elif name == "mxcsr":
            image[24:28] = (int.from_bytes(data, "little") & MXCSR_MASK).to_bytes(4, "little")
        elif name == "ftag":
            tags = int.from_bytes(data, "little")
            image[4] = sum((tags >> 2 * n & 3 != 3) << n for n in range(8))
        elif name in _X87_AT:
            at, size = _X87_AT[name]
            image[at : at + size] = data[:size]
    cpu.fp.fxrstor(bytes(image))


_X87_AT: Final = {
    "fctrl": (0, 2), "fstat": (2, 2), "fop": (6, 2), "fioff": (8, 4), "fiseg": (12, 2), "fooff": (16, 4),
    "foseg": (20, 2),
}  # fmt: skip


def is_float(name: str) -> bool:
    """Whether :func:`set_floats` knows the register."""
    return name.startswith(("xmm", "st")) or name in ("mxcsr", "ftag") or name in _X87_AT

"""Exception vectors, names and kinds (Intel SDM volume 3, table 6-1)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Vector(IntEnum):
    """Architectural exception vectors, by the SDM's mnemonics."""

    DE = 0
    DB = 1
    NMI = 2
    BP = 3
    OF = 4
    BR = 5
    UD = 6
    NM = 7
    DF = 8
    TS = 10
    NP = 11
    SS = 12
    GP = 13
    PF = 14
    MF = 16
    AC = 17
    MC = 18
    XM = 19
    VE = 20
    CP = 21


TITLES: Final[dict[int, str]] = {
    Vector.DE: "divide error",
    Vector.DB: "debug exception",
    Vector.NMI: "non-maskable interrupt",
    Vector.BP: "breakpoint",
    Vector.OF: "overflow",
    Vector.BR: "BOUND range exceeded",
    Vector.UD: "invalid opcode",
    Vector.NM: "device not available",
    Vector.DF: "double fault",
    Vector.TS: "invalid TSS",
    Vector.NP: "segment not present",
    Vector.SS: "stack-segment fault",
    Vector.GP: "general protection",
    Vector.PF: "page fault",
    Vector.MF: "x87 floating-point error",
    Vector.AC: "alignment check",
    Vector.MC: "machine check",
    Vector.XM: "SIMD floating-point exception",
    Vector.VE: "virtualization exception",
    Vector.CP: "control protection exception",
}

WITH_ERROR_CODE: Final = frozenset(
    {Vector.DF, Vector.TS, Vector.NP, Vector.SS, Vector.GP, Vector.PF, Vector.AC, Vector.CP}
)


def vector_name(vector: int) -> str:
    """``"#PF"`` for 14, ``"int 0x80"`` for a vector that is no architectural exception."""
    try:
        return f"#{Vector(vector).name}"
    except ValueError:
        return f"int {vector:#x}"

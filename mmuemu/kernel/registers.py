"""A task's user registers while it is in the kernel: Linux's ``struct pt_regs`` on its kernel stack.

Whatever brought a task into the kernel (a system call, a trap, the end of its time), its user registers are here,
in guest RAM, until it returns to ring 3. Order and names: arch/x86/include/asm/ptrace.h.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

NAMES: Final = (
    "r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di",
    "orig_ax", "ip", "cs", "flags", "sp", "ss",
)  # fmt: skip
R15, R14, R13, R12, BP, BX, R11, R10, R9, R8, AX, CX, DX, SI, DI, ORIG_AX, IP, CS, FLAGS, SP, SS = range(21)
WORDS: Final = len(NAMES)
_MASK: Final = (1 << 64) - 1
_LAYOUT: Final = Struct(f"<{WORDS}Q")
argument_words: Final = Struct("<56x3Q16x3Q").unpack_from
"""r10, r9, r8, dx, si and di of the pt_regs at a byte of guest RAM: what a system call is given."""


class UserRegisters:
    """The pt_regs at qword ``base`` of guest RAM, by the indices of this module."""

    __slots__ = ("_q", "base")

    def __init__(self, qwords: memoryview, base: int) -> None:
        self._q = qwords
        self.base = base

    def __getitem__(self, index: int) -> int:
        value: int = self._q[self.base + index]
        return value

    def __setitem__(self, index: int, value: int) -> None:
        self._q[self.base + index] = value & _MASK

    def words(self) -> list[int]:
        """All of them, in memory order."""
        return list(_LAYOUT.unpack_from(self._q, self.base * 8))

    def load(self, words: list[int]) -> None:
        """Replace all of them; each must be of 64 bits, unsigned."""
        _LAYOUT.pack_into(self._q, self.base * 8, *words)

"""What mitigations change in the kernel's ring-0 code, once, when the kernel half is built.

Linux does the same with its ALTERNATIVE sections (arch/x86/kernel/alternative.c). Code that no mitigation touches has
no place kept free in it: VERW moves the end of a way out into bytes that nobody executes, and the return stack buffer
is filled behind a jump that replaces an instruction of the same length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

VERW_SELECTOR: Final = 0x30
"""Where in the per-CPU page the selector lies that VERW is given (Linux's mds_verw_sel)."""
NEW_TASK: Final = 0x38
"""Where in the per-CPU page it says that another task was put on the CPU."""
_VERW: Final = bytes.fromhex("650f002c2530000000")
_PADDING: Final = b"\xcc" * len(_VERW)
_SWAPGS: Final = bytes.fromhex("0f01f8")
WAYS_OUT: Final = (_SWAPGS + bytes.fromhex("480f07"), _SWAPGS + bytes.fromhex("48cf"))
"""``swapgs; sysretq`` and ``swapgs; iretq``."""
_RELOAD: Final = bytes.fromhex("488b4c2458")
"""``mov rcx, [rsp + 0x58]``, the instruction behind the hypercall."""
_SWITCHED: Final = bytes.fromhex("65803c253800000000")
"""``cmp byte ptr gs:[0x38], 0``, the first instruction of ``switched``."""
_JUMP_THROUGH: Final = bytes.fromhex("65ff2425")
"""The first bytes of ``jmp gs:[word]``; four more name the word."""
_NONE: Final[Mapping[int, int]] = {}
_MARK: Final = bytes.fromhex("0f1f8400")
_LFENCE: Final = bytes.fromhex("0faee8")
_MASK_INDEX: Final = bytes.fromhex("4c39ce4819c04821c6")
"""``cmp rsi, r9; sbb rax, rax; and rsi, rax``: 0 for an index that is too large (array_index_mask_nospec)."""
_NOP_6: Final = bytes.fromhex("660f1f440000")


def mark(code: bytes, letters: str) -> int:
    """Where in ``code`` the instruction behind the mark ``letters`` stands. Raises ValueError without such a mark."""
    sought = _MARK + letters.encode("ascii")
    return code.index(sought) + len(sought)


def _jump(opcode: int, at: int, target: int) -> bytes:
    return bytes([opcode]) + (target - at - 5).to_bytes(4, "little", signed=True)


def _replaced(code: bytes, at: int, new: bytes) -> bytes:
    return code[:at] + new + code[at + len(new) :]


def _direct_jumps(code: bytes, base: int, per_cpu: Mapping[int, int]) -> bytes:
    """``jmp gs:[word]`` replaced by jumps to where that leads: what is not indirect needs no retpoline."""
    for word, target in per_cpu.items():
        sought = _JUMP_THROUGH + word.to_bytes(4, "little")
        while sought in code:
            at = code.index(sought)
            code = _replaced(code, at, _jump(0xE9, base + at, target) + b"\xcc" * 3)
    return code


def harden_entry(code: bytes, mitigations: Collection[str], base: int = 0, per_cpu: Mapping[int, int] = _NONE) -> bytes:
    """``syscall_entry.s`` or ``trampoline.s``, built, as ``verw``, ``rsb-fill`` and ``retpoline`` change it.

    It will lie at linear address ``base``; ``per_cpu`` are words of the per-CPU page, by their offset.
    """
    if "retpoline" in mitigations:
        code = _direct_jumps(code, base, per_cpu)
    if "verw" in mitigations:
        for way in WAYS_OUT:
            code = code.replace(way + _PADDING, _VERW + way)
    if "rsb-fill" in mitigations and _SWITCHED in code:
        at = code.index(_RELOAD)
        code = _replaced(code, at, _jump(0xE9, at, code.index(_SWITCHED)))
    return code


def harden_vulnerable(code: bytes, mitigations: Collection[str]) -> bytes:
    """``vulnerable.s``, built, with what ``lfence``, ``nospec`` and ``retpoline`` change in it.

    With both ``lfence`` and ``nospec`` the fence is used: nothing transient would reach the mask.
    """
    if "lfence" in mitigations:
        code = _replaced(code, mark(code, "BNDS"), _LFENCE + _NOP_6)
    elif "nospec" in mitigations:
        code = _replaced(code, mark(code, "BNDS"), _MASK_INDEX)
    if "retpoline" in mitigations:
        at = mark(code, "CALL")
        code = _replaced(code, at, _jump(0xE8, at, mark(code, "THNK")))
    return code

"""The arithmetic flags of an instruction that faulted under a code hook.

Unicorn computes all flags before it calls a code hook when the instruction before has changed them (``sync_eflags`` in
qemu/target/i386/translate.c): then cc_src holds flags. A fault of the hooked instruction puts back the cc_op of before
that, by which cc_src is something else, and so are the flags that the engine keeps while it does not run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu.window import CC_OP_EFLAGS, D_CC_OP, Q_CC_SRC, Q_RFLAGS
from mmuemu.speculation.operands import FLAGS
from mmuemu.speculation.ops import Op
from mmuemu.x86.registers import RFLAGS_ARITHMETIC

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu
    from mmuemu.speculation.blocks import Block

_OTHER_FLAGS: Final = frozenset({"cld", "std", "cli", "sti", "stac", "clac"})
_SHIFTS: Final = frozenset({"shl", "shr", "sal", "sar", "rol", "ror", "shld", "shrd"})
_COUNTED_BY_CL: Final = frozenset({0xD2, 0xD3, 0xA5, 0xAD})
"""Opcodes of shifts whose flags the translation does not know: a count of 0 leaves them alone."""


_ALSO: Final = frozenset({"xadd", "cmpxchg", "test"})
"""Instructions whose flags Capstone forgets."""


def _changes(op: Op) -> bool:
    name = op.mnemonic.rpartition(" ")[2]
    return (FLAGS in op.destinations and name not in _OTHER_FLAGS) or name in _ALSO


def _by_cl(op: Op) -> bool:
    return op.mnemonic in _SHIFTS and not _COUNTED_BY_CL.isdisjoint(op.code[:4])


def repair_flags(cpu: Cpu, block: Block, rip: int) -> None:
    """Emulation ended at ``rip`` inside ``block``, all of whose instructions are hooked: say where the flags are.

    The CPU's window has just been saved, and is changed, too.
    """
    live = cpu.window.live_d
    if live[D_CC_OP] <= CC_OP_EFLAGS:
        return
    before = [op for op in block.described if op.address < rip]
    if not before or not _changes(before[-1]):
        return
    if not _by_cl(before[-1]) or any(_changes(op) for op in before[:-1]):
        for words, parts in ((cpu.window.live_q, live), (cpu.window.q, cpu.window.d)):
            parts[D_CC_OP] = CC_OP_EFLAGS
            words[Q_RFLAGS] = words[Q_RFLAGS] & ~RFLAGS_ARITHMETIC | words[Q_CC_SRC] & RFLAGS_ARITHMETIC

"""Repeated string instructions, a page at a time: the engine would report every iteration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu.window import D_DF, REGISTERS
from mmuemu.speculation.caches import LINE_SHIFT
from mmuemu.speculation.translations import READ, WRITE
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.speculation.ops import Op
    from mmuemu.speculation.pipeline import Pipeline

_WIDTHS: Final = {"b": 1, "w": 2, "d": 4, "q": 8}
_RAX, _RCX, _RSI, _RDI = (REGISTERS[name] for name in ("rax", "rcx", "rsi", "rdi"))
_MASK: Final = (1 << 64) - 1


def repeat(core: Pipeline, op: Op) -> list[int]:
    """Execute iterations of a REP MOVS or REP STOS up to the end of a page; the lines they touched, none if not done.

    Only where nothing can happen on the way: forwards, both pages usable with accessed and dirty bits set, no code
    there, no overlap that copies what was just stored.
    """
    words = op.mnemonic.split()
    name, width = words[-1][:-1], _WIDTHS.get(words[-1][-1:], 0)
    window = core.cpu.window
    if words[0] != "rep" or name not in ("movs", "stos") or not width or window.live_d[D_DF] != 1 or len(op.code) > 3:
        return []
    q = window.live_q
    target = q[_RDI]
    count = min(q[_RCX], (PAGE_SIZE - (target & PAGE_MASK)) // width)
    found = core.translations.page(target, WRITE)
    if count < 2 or found < 0 or core.translations.owed or core.is_code(found):
        return []
    ram = core.cpu.ram_bytes
    if name == "movs":
        source = q[_RSI]
        count = min(count, (PAGE_SIZE - (source & PAGE_MASK)) // width)
        origin = core.translations.page(source, READ)
        if count < 2 or origin < 0 or core.translations.owed:
            return []
        size = count * width
        start, begin = origin & ~PAGE_MASK | source & PAGE_MASK, found & ~PAGE_MASK | target & PAGE_MASK
        if start < begin < start + size:
            return []
        ram[begin : begin + size] = bytes(ram[start : start + size])
        q[_RSI] = source + size & _MASK
        lines = _lines(start, size) + _lines(begin, size)
    else:
        size = count * width
        begin = found & ~PAGE_MASK | target & PAGE_MASK
        ram[begin : begin + size] = (q[_RAX] & (1 << 8 * width) - 1).to_bytes(width, "little") * count
        lines = _lines(begin, size)
    q[_RDI] = target + size & _MASK
    q[_RCX] -= count
    core.instructions += 1
    return lines


def _lines(physical: int, size: int) -> list[int]:
    return list(range(physical >> LINE_SHIFT, (physical + size - 1 >> LINE_SHIFT) + 1))

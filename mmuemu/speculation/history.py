"""What was under way when a window opened, for its record: which older instructions its opener waited for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mmuemu.speculation.caches import LINE_SHIFT, MEMORY
from mmuemu.speculation.trace import Step
from mmuemu.speculation.translations import READ

if TYPE_CHECKING:
    from mmuemu.speculation.core import Speculation
    from mmuemu.speculation.ops import Op

_MOST: Final = 16


def writers(core: Speculation, registers: Iterable[int], now: int) -> list[int]:
    """Those of ``registers`` that are not ready at ``now`` (in slots), where it is known who writes them."""
    board = core.board
    return [register for register in registers if board.ready[register] > now and board.writer[register]]


def under_way(core: Speculation, registers: Iterable[int], now: int) -> list[Step]:
    """The instructions that ``registers`` wait for at ``now``, themselves or through others, producers first.

    Those that have begun before ``now`` begin there: when is not kept.
    """
    board = core.board
    found: dict[int, Step] = {}
    queue = writers(core, registers, now)
    while queue and len(found) < _MOST:
        register = queue.pop()
        address = board.writer[register]
        op = None if address in found else core.code.op(address)
        if op is None:
            continue
        sources = (*op.sources, *(op.memory.registers if op.memory is not None else ()))
        waiting = [one for one in writers(core, sources, now) if board.writer[one] != address]
        linear = _missing(core, op, now)
        began = max([now, *(board.ready[one] for one in waiting)])
        found[address] = Step(
            address, op.code, began // board.width, board.ready[register] // board.width,
            tuple(sorted({board.writer[one] for one in waiting})), linear=linear,
            level=MEMORY if linear is not None and board.ready[register] - now > core.caches.l3.latency else 0,
        )  # fmt: skip
        queue += waiting
    return sorted(found.values(), key=lambda step: step.done)


def _missing(core: Speculation, op: Op, now: int) -> int | None:
    """Where ``op`` loads from, if that line is on its way: by the registers as they are, so not where it wrote them."""
    memory = op.memory
    if memory is None or not op.loads or set(memory.registers) & set(op.destinations):
        return None
    linear = core.linear(memory)
    physical = core.translations.physical(linear, READ)
    if physical < 0 or core.caches.arrivals.get(physical >> LINE_SHIFT, 0) <= now:
        return None
    return linear

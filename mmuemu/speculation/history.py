"""What was under way when a window opened, for its record: which older instructions its opener waited for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mmuemu.speculation.caches import LINE_SHIFT, MEMORY
from mmuemu.speculation.trace import Step
from mmuemu.speculation.translations import READ

if TYPE_CHECKING:
    from mmuemu.speculation.ops import Op
    from mmuemu.speculation.pipeline import Pipeline

_MOST: Final = 16


def _unready(core: Pipeline, registers: Iterable[int], now: int) -> list[tuple[int, int]]:
    """Those of ``registers`` that are not ready at ``now`` (in slots), and the address of who writes each.

    The scoreboard keeps writers from the first question on.
    """
    board = core.board
    writer = board.writer
    if writer is None:
        board.writer = [0] * len(board.ready)
        return []
    return [(register, writer[register]) for register in registers if board.ready[register] > now and writer[register]]


def writers_of(core: Pipeline, registers: Iterable[int], now: int) -> tuple[int, ...]:
    """Addresses of the instructions whose results ``registers`` wait for at ``now``."""
    return tuple(sorted({address for _, address in _unready(core, registers, now)}))


def under_way(core: Pipeline, registers: Iterable[int], now: int) -> list[Step]:
    """The instructions that ``registers`` wait for at ``now``, themselves or through others, producers first.

    Those that have begun before ``now`` begin there: when is not kept. What is there in the first quarter of the wait
    is left out.
    """
    board = core.board
    found: dict[int, Step] = {}
    queue = _unready(core, registers, now)
    early = now + (max([now, *(board.ready[register] for register, _ in queue)]) - now) // 4
    queue = [one for one in queue if board.ready[one[0]] > early]
    while queue and len(found) < _MOST:
        register, address = queue.pop()
        op = None if address in found else core.code.op(address)
        if op is None:
            continue
        sources = (*op.sources, *(op.memory.registers if op.memory is not None else ()))
        # A register that is ready only later has been written again since.
        waiting = [one for one in _unready(core, sources, early) if board.ready[one[0]] < board.ready[register]]
        linear = _missing(core, op, now)
        began = max([now, *(board.ready[one] for one, _ in waiting)])
        far = linear is not None and board.ready[register] - now > core.caches.l3.latency
        found[address] = Step(
            address, op.code, began // board.width, board.ready[register] // board.width,
            tuple(sorted({writer for _, writer in waiting})), linear=linear, level=MEMORY if far else 0,
        )  # fmt: skip
        queue += waiting
    return sorted(found.values(), key=lambda step: step.done)


def _missing(core: Pipeline, op: Op, now: int) -> int | None:
    """Where ``op`` loads from, if that line is on its way: by the registers as they are, so not where it wrote them."""
    memory = op.memory
    if memory is None or not op.loads or set(memory.registers) & set(op.destinations):
        return None
    linear = core.linear(memory)
    physical = core.translations.physical(linear, READ)
    if physical < 0 or core.caches.arrivals.get(physical >> LINE_SHIFT, 0) <= now:
        return None
    return linear

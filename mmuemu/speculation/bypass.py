"""Memory disambiguation: whether a load may pass older stores whose addresses are not known (speculative store bypass).

A load may when it has not met such a store the last ``disambiguation_threshold`` times (US patents 7590825, 8549263).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.speculation.blocks import Block
from mmuemu.speculation.ops import Op
from mmuemu.speculation.scoreboard import Scoreboard, Store
from mmuemu.speculation.translations import READ

if TYPE_CHECKING:
    from mmuemu.speculation.pipeline import Pipeline


class Disambiguator:
    """The predictor of one core."""

    def __init__(self, core: Pipeline) -> None:
        self.core = core
        self.threshold = core.spec.disambiguation_threshold

    def predicts_none(self, block: Block, op: Op) -> bool:
        """Whether the load ``op`` of ``block`` is predicted to meet no older store."""
        if self.core.ssbd or not self.threshold:
            return False
        return block.count - block.reset.get(op.address, 0) >= self.threshold

    def load(self, block: Block, op: Op, linear: int) -> int:
        """The load is about to be executed while addresses of older stores are not known.

        Opens a window when it passes one that it should not have passed, and returns -1; else the slots that it waits.
        """
        core, board = self.core, self.core.board
        time = board.now
        for register in op.memory.registers if op.memory is not None else ():
            time = max(time, board.ready[register])
        if time + board.pending >= board.unknown_until:
            return 0
        if not self.predicts_none(block, op):
            return board.unknown_until - time
        physical = core.translations.physical(linear, READ)
        if physical < 0:
            return 0
        met = self._met(board, physical, op.memory.size if op.memory is not None else 8, time)
        if not met:
            return 0
        block.reset[op.address] = block.count + 1
        closes = max(store.address_ready for store in met) + core.squash_latency
        if not core.open_bypass(op, [(store.address, store.old) for store in met], time, closes):
            return board.unknown_until - time
        return -1

    @staticmethod
    def _met(board: Scoreboard, physical: int, size: int, time: int) -> list[Store]:
        """Stores of unknown address that the load overlaps, the youngest first."""
        return [
            store
            for store in reversed(board.queue)
            if store.address_ready > time
            and store.old
            and store.address < physical + size
            and physical < store.address + len(store.old)
        ]

"""Predictors: of conditional branches, of indirect ones, of returns, and of loads that meet older stores.

All are shared by everybody who runs on the CPU, unless a mitigation tags, clears or stuffs them.
"""

from __future__ import annotations

from typing import Final

from mmuemu.speculation.models import CpuSpec

TAKEN: Final = 2
"""A two-bit counter from here on predicts taken."""
STRONGEST: Final = 3
_FIRST: Final = 1
"""Counters begin at weakly not taken."""


class PatternHistory:
    """Two-bit counters by the low bits of a branch's address (bimodal)."""

    __slots__ = ("counters", "mask")

    def __init__(self, spec: CpuSpec) -> None:
        entries = 1 << max(spec.pattern_entries, 1).bit_length() - 1
        self.mask = entries - 1
        self.counters = bytearray([_FIRST]) * entries

    def predicts_taken(self, address: int) -> bool:
        """Whether the branch at ``address`` is predicted to be taken."""
        return self.counters[address & self.mask] >= TAKEN


class BranchTargets:
    """The branch target buffer: low bits of an indirect branch's address (and a tag) -> low bits of where it went last.

    The other bits of a target are the branch's own (Horn, "Reading privileged memory with a side-channel", Project Zero
    2018). ``tag`` is what a mitigation adds to the address: the ring (IBRS), the process (STIBP).
    """

    __slots__ = ("entries", "limit", "low", "mask", "tag")

    def __init__(self, spec: CpuSpec) -> None:
        self.mask = (1 << spec.btb_address_bits) - 1
        self.low = (1 << spec.btb_target_bits) - 1
        self.limit = spec.btb_entries
        self.entries: dict[int, int] = {}
        self.tag = 0

    def predict(self, address: int) -> int | None:
        """The predicted target, or None: there is no prediction."""
        target = self.entries.get(address & self.mask | self.tag << 64)
        return None if target is None else address & ~self.low | target

    def learn(self, address: int, target: int) -> None:
        """The branch went to ``target``."""
        key = address & self.mask | self.tag << 64
        entries = self.entries
        entries.pop(key, None)
        entries[key] = target & self.low
        if len(entries) > self.limit:
            del entries[next(iter(entries))]

    def clear(self) -> None:
        """The indirect branch prediction barrier (IBPB)."""
        self.entries.clear()


class ReturnStack:
    """The return stack buffer: a ring without valid bits, so that popping too much finds what was there before.

    Maisuradze and Rossow, "ret2spec" (CCS 2018), section 3.2.
    """

    __slots__ = ("depth", "entries", "size", "top", "underflow")

    def __init__(self, spec: CpuSpec) -> None:
        self.size = max(spec.rsb_entries, 1)
        self.entries = [0] * self.size
        self.top = 0
        self.depth = 0
        """Calls that are still in it."""
        self.underflow = spec.rsb_underflow

    def push(self, address: int) -> None:
        """A call, which returns to ``address``."""
        self.top = top = (self.top + 1) % self.size
        self.entries[top] = address
        if self.depth < self.size:
            self.depth += 1

    def pop(self) -> int | None:
        """Where a return is predicted to go; None without a prediction (0: ask the BTB)."""
        top = self.top
        address = self.entries[top]
        self.top = (top - 1) % self.size
        if self.depth:
            self.depth -= 1
        elif self.underflow == "none":
            return None
        elif self.underflow == "btb":
            return 0
        return address or None

    def save(self) -> tuple[list[int], int, int]:
        """What :meth:`restore` puts back after a window."""
        return self.entries.copy(), self.top, self.depth

    def restore(self, saved: tuple[list[int], int, int]) -> None:
        """Undo what a window did."""
        entries, self.top, self.depth = saved
        self.entries = entries.copy()

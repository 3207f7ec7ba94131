"""When things happen: a scoreboard of ready times, in-order retirement, and the clock that RDTSC reads.

Time is counted in slots: ``issue_width`` of them are a cycle, and an instruction takes one to be issued. Code whose
loads all hit L1 goes by without a look at its registers (:meth:`Scoreboard.skip`); behind a miss every instruction is
given its times, until the miss has been waited for.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from mmuemu.speculation.buffers import LeakyBuffers
from mmuemu.speculation.caches import LINE_SHIFT, Hierarchy
from mmuemu.speculation.models import CpuSpec
from mmuemu.speculation.ops import REGISTER_COUNT, Kind, Op

_PENDING_CYCLES: Final = 20
"""What is ready within so many cycles counts as ready: code goes by without a look at its registers."""
_GRANULE: Final = 3
"""Stores and loads meet by 8-byte granules."""


class Store(NamedTuple):
    """An entry of the store queue: physical address, when address and data are known, when it retires."""

    address: int
    address_ready: int
    data_ready: int
    retires: int
    old: bytes
    """What was there before, if anybody asked."""
    by: int
    """Address of the instruction."""


class Scoreboard:
    """The clock and what waits for what."""

    __slots__ = (
        "branch_done", "buffers", "caches", "forward", "granules", "now", "pending", "queue", "ready", "retired", "rob",
        "rob_size", "start", "unknown_until", "width", "writer",
    )  # fmt: skip

    def __init__(self, spec: CpuSpec, caches: Hierarchy, buffers: LeakyBuffers) -> None:
        self.caches = caches
        self.buffers = buffers
        self.width = spec.issue_width
        self.rob_size = spec.reorder_buffer
        self.forward = spec.forward_latency * self.width
        self.pending = _PENDING_CYCLES * self.width
        self.now = 0
        """When the next instruction is issued."""
        self.retired = 0
        """When everything so far has retired."""
        self.ready = [0] * REGISTER_COUNT
        self.writer = [0] * REGISTER_COUNT
        """Address of the instruction that each register waits for."""
        self.rob: deque[int] = deque()
        self.queue: deque[Store] = deque(maxlen=spec.store_queue)
        self.granules: dict[int, Store] = {}
        self.unknown_until = 0
        """When the addresses of all stores so far are known."""
        self.branch_done = 0
        self.start = 0
        """When the last instruction began to execute."""

    @property
    def cycles(self) -> int:
        """The time-stamp counter."""
        return self.now // self.width

    @property
    def busy(self) -> bool:
        """Whether something is waited for."""
        return self.retired > self.now + self.pending

    def skip(self, slots: int) -> None:
        """Time for code that waits for nothing."""
        self.now += slots
        if self.rob:
            self.rob.clear()
            self.granules.clear()

    def execute(self, op: Op, reads: list[int], writes: list[int], old: list[bytes], extra: int = 0) -> int:
        """Give one instruction its times; when it is done.

        ``reads`` and ``writes`` are physical addresses; ``old`` is what the writes replaced, if anybody asked;
        ``extra`` is what its translation takes.
        """
        now = self.now
        rob = self.rob
        if len(rob) >= self.rob_size:
            now = max(now, rob.popleft())
        ready = self.ready
        kind = op.kind
        if op.drains or kind in (Kind.LFENCE, Kind.MFENCE, Kind.RDTSCP):
            start = max(now, self.retired)
        else:
            start = now
            for register in op.sources:
                if ready[register] > start:
                    start = ready[register]
        address_ready = now
        if op.memory is not None and (reads or writes):
            for register in op.memory.registers:
                if ready[register] > address_ready:
                    address_ready = ready[register]
            for address in reads:
                start = max(start, self._load(address, address_ready + extra))
        self.start = start
        done = start + op.latency * self.width
        for register in op.destinations:
            ready[register] = done
            self.writer[register] = op.address
        if writes:
            self._stored(op, writes, old, address_ready, done)
        self.branch_done = done
        if done > self.retired:
            self.retired = done
        rob.append(self.retired)
        if kind == Kind.LFENCE or kind == Kind.MFENCE or op.drains:
            now = max(now, done)
        elif kind == Kind.RDTSCP:
            # Its microcode waits as LFENCE does: nothing younger is issued meanwhile.
            now = start
        self.now = now + 1
        return done

    def _load(self, address: int, time: int) -> int:
        """When the data of a load is there."""
        store = self.granules.get(address >> _GRANULE)
        if store is not None and store.retires > time:
            return max(time, store.address_ready, store.data_ready) + self.forward
        latency, level = self.caches.access(address >> LINE_SHIFT, time)
        if level > 1:
            self.buffers.filled(address >> LINE_SHIFT)
        return time + latency

    def _stored(self, op: Op, writes: list[int], old: list[bytes], address_ready: int, done: int) -> None:
        retires = max(self.retired, done)
        for number, address in enumerate(writes):
            was = old[number] if number < len(old) else b""
            store = Store(address, address_ready, done, retires, was, op.address)
            self.queue.append(store)
            self.granules[address >> _GRANULE] = store
            self.caches.access(address >> LINE_SHIFT, retires)
        if address_ready > self.unknown_until:
            self.unknown_until = address_ready

    def wait(self, until: int) -> None:
        """Nothing is issued before ``until``."""
        if until > self.now:
            self.now = until

    def drain(self) -> None:
        """Everything so far is waited for."""
        self.wait(self.retired)

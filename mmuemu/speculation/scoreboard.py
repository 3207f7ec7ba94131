"""When things happen: a scoreboard of ready times, in-order retirement, and the clock that RDTSC reads.

Time is counted in slots: ``issue_width`` of them are a cycle, and an instruction takes one to be issued. Code whose
loads all hit L1 goes by without a look at its registers (:meth:`Scoreboard.settle`); behind a miss every instruction is
given its times, until the miss has been waited for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from mmuemu.speculation.buffers import LeakyBuffers
from mmuemu.speculation.caches import LINE_SHIFT, Hierarchy
from mmuemu.speculation.models import CpuSpec
from mmuemu.speculation.noise import Noise
from mmuemu.speculation.operands import REGISTER_COUNT
from mmuemu.speculation.ops import Kind, Op

_PENDING_CYCLES: Final = 20
"""What is ready within so many cycles counts as ready: code goes by without a look at its registers."""
_LONG_CYCLES: Final = 10
"""What takes longer is waited for like a miss."""
_MANY_ARRIVALS: Final = 256
_FEW: Final = 32
"""So many instructions that have not retired are told apart."""
_MANY_STORES: Final = 512
_GONE: Final = (0, 0)
_MOST_STATES: Final = 4096
"""Kinds of waiting that are told apart."""


OpTimes = tuple[int, tuple[int, ...], tuple[int, ...], int, tuple[int, ...], int, int, int]
"""What the scoreboard needs of an instruction: order (WAITS, DRAINS, STALLS), registers read, those of the address,
latency in slots, registers written, accesses that are reported as reads and as writes, address."""
READS: Final = 5
WRITES: Final = 6
WAITS: Final = 1
"""It begins when everything before it is done."""
DRAINS: Final = 2
"""Nothing younger is issued before it is done."""
STALLS: Final = 4
"""Nothing younger is issued before it begins."""


def op_times(op: Op, width: int) -> OpTimes:
    """The times of ``op`` on a CPU that issues ``width`` instructions a cycle."""
    order = 0
    if op.kind in (Kind.LFENCE, Kind.MFENCE) or op.drains:
        order = WAITS | DRAINS
    elif op.kind == Kind.RDTSCP:
        order = WAITS | STALLS
    registers = op.memory.registers if op.memory is not None else ()
    return (
        order, op.sources, registers, op.latency * width, op.destinations, op.read_events, op.write_events, op.address,
    )  # fmt: skip


class Outcome(NamedTuple):
    """What a segment did to the scoreboard, relative to the time when it began; ``state`` is what it left."""

    now: int
    retired: int
    done: int
    unknown: int
    busy: int
    state: int
    ready: tuple[tuple[int, int], ...]
    stores: tuple[tuple[int, int], ...]
    arrivals: tuple[int, ...]
    """When the lines that were missing in L1 are there."""


class Segment:
    """A stretch of a block that gets its times at once.

    Where no line that it reads is on its way already, they depend on what is waited for when it begins, on which
    accesses meet, and on the caches that the lines are in: ``outcomes`` has them by that.
    """

    __slots__ = ("destinations", "last", "outcomes", "reads", "steps", "writes")

    def __init__(self, steps: list[OpTimes], last: int) -> None:
        self.steps = steps
        self.last = last
        """Number of the first instruction behind it."""
        self.reads = sum(step[READS] for step in steps)
        self.writes = sum(step[WRITES] for step in steps)
        self.destinations = tuple({register for step in steps for register in step[4]})
        self.outcomes: dict[tuple[int, ...], Outcome] = {}


class Store(NamedTuple):
    """A store whose address may be unknown to a load behind it."""

    address: int
    """Physical."""
    address_ready: int
    old: bytes
    """What was there before."""


class Scoreboard:
    """The clock and what waits for what."""

    __slots__ = (
        "_numbers",
        "_seen",
        "_state",
        "_states",
        "branch_done",
        "buffers",
        "busy_until",
        "caches",
        "forward",
        "granules",
        "long",
        "noise",
        "now",
        "pending",
        "queue",
        "ready",
        "retired",
        "rob",
        "rob_size",
        "unknown_until",
        "width",
        "writer",
    )

    def __init__(self, spec: CpuSpec, caches: Hierarchy, buffers: LeakyBuffers, noise: Noise | None = None) -> None:
        self.caches = caches
        self.buffers = buffers
        self.noise = noise
        self.width = spec.issue_width
        self.rob_size = spec.reorder_buffer
        self.forward = spec.forward_latency * self.width
        self.pending = _PENDING_CYCLES * self.width
        self.now = 0
        """When the next instruction is issued."""
        self.retired = 0
        """When everything so far has retired."""
        self.ready = [0] * REGISTER_COUNT
        self.writer: list[int] | None = None
        """Address of the instruction that each register waits for, when somebody wants to know."""
        self.rob: deque[int] = deque()
        self.queue: deque[Store] = deque(maxlen=spec.store_queue)
        self.granules: dict[int, tuple[int, int]] = {}
        """8 bytes of memory -> when a store to them leaves the queue, and when its data can be forwarded."""
        self.unknown_until = 0
        """When the addresses of all stores so far are known."""
        self.busy_until = 0
        """Until when something is waited for: a miss, or a long computation."""
        self.long = _LONG_CYCLES * self.width
        self.branch_done = 0
        self._state = 0
        """Number of what is waited for, relative to ``now``, if that is still as ``_seen``; 0: nothing."""
        self._seen = (0, 0)
        self._states: list[tuple[int, ...]] = [()]
        """What the reorder buffer waits for, by number."""
        self._numbers: dict[tuple[tuple[int, ...], ...], int] = {}

    @property
    def cycles(self) -> int:
        """The time-stamp counter."""
        return self.now // self.width

    def settle(self) -> None:
        """Nothing is waited for any more.

        Chains of short latencies are over when the misses are: they bind as much as what follows.
        """
        self.now = max(self.now, self.retired - self.pending)
        self._seen = (-1, -1)
        self.rob.clear()
        self.granules.clear()

    def play(self, segment: Segment, reads: list[int], writes: list[int], old: list[bytes], extra: int) -> None:
        """:meth:`run`, or what it did the last time if it would do the same."""
        now, retired = self.now, self.retired
        state = 0 if retired <= now else self._state if self._seen == (now, retired) else -1
        told = len(reads) == segment.reads and len(writes) == segment.writes
        if state < 0 or not told or extra or self.writer is not None:
            self.run(segment.steps, reads, writes, old, extra)
            self._rejoin()
            return
        if not reads and not writes:
            found = segment.outcomes.get((state,))
            if found is not None:
                self._apply(found, now)
                return
        caches, granules = self.caches, self.granules
        lines, arrivals = caches.l1.lines, caches.arrivals
        if not state and granules:
            granules.clear()
        met: dict[int, int] = {}
        key = [state]
        missing: list[int] = []
        for physical in reads:
            line = physical >> LINE_SHIFT
            granule = physical >> 3
            if granules.get(granule, _GONE)[0] > now or arrivals.get(line, 0) > now or line in missing:
                self.run(segment.steps, reads, writes, old, extra)
                self._rejoin()
                return
            key.append(met.setdefault(granule, len(met)))
            if line not in lines:
                missing.append(line)
                key.append(-2 if line in caches.l2.lines else -3 if line in caches.l3.lines else -4)
        for physical in writes:
            key.append(met.setdefault(physical >> 3, len(met)))
        if missing and self.noise is not None:
            self.run(segment.steps, reads, writes, old, extra)
            self._rejoin()
            return
        found = segment.outcomes.get(tuple(key))
        if found is None:
            segment.outcomes[tuple(key)] = self._learn(segment, reads, writes, old, missing)
            return
        if old and found.unknown > found.now + self.pending:
            # A load may pass one of these stores: it will ask what they replaced.
            self.run(segment.steps, reads, writes, old, extra)
            self._rejoin()
            return
        for physical in reads:
            line = physical >> LINE_SHIFT
            if line in lines:
                caches.tick += 1
                lines[line] = caches.tick
                if arrivals:
                    arrivals.pop(line, None)
        for line, time in zip(missing, found.arrivals, strict=True):
            caches.fetch(line, now + time)
            self.buffers.filled(line)
        for physical, (leaves, data) in zip(writes, found.stores, strict=False):
            granules[physical >> 3] = (now + leaves, now + data)
            if physical >> LINE_SHIFT not in lines:
                caches.access(physical >> LINE_SHIFT, now + leaves)
        self._apply(found, now)

    def _apply(self, found: Outcome, now: int) -> None:
        """Registers, retirement and the clock, as the segment left them that began at ``now``."""
        ready = self.ready
        for register, time in found.ready:
            ready[register] = now + time
        self.branch_done = now + found.done
        if now + found.unknown > self.unknown_until:
            self.unknown_until = now + found.unknown
        if now + found.busy > self.busy_until:
            self.busy_until = now + found.busy
        self.now = later = now + found.now
        self.retired = now + found.retired
        self.rob.clear()
        if found.state > 0:
            self.rob.extend([later + time for time in self._states[found.state]])
        self._state = found.state
        self._seen = (later, self.retired)

    def _rejoin(self) -> None:
        """If little is waited for, what runs next may have been seen before."""
        rob, now = self.rob, self.now
        if self.retired > now and (len(rob) < _FEW or rob[-_FEW] <= now):
            self._state = self._number()
            self._seen = (now, self.retired)
        if len(self.granules) > _MANY_STORES:
            self.granules = {granule: times for granule, times in self.granules.items() if times[0] > now}

    def _learn(
        self, segment: Segment, reads: list[int], writes: list[int], old: list[bytes], missing: list[int]
    ) -> Outcome:
        """Run the segment, and say what it did."""
        began, unknown, busy = self.now, self.unknown_until, self.busy_until
        self.unknown_until = self.busy_until = 0
        self.run(segment.steps, reads, writes, old, 0)
        outcome = Outcome(
            self.now - began, self.retired - began, self.branch_done - began,
            self.unknown_until - began, self.busy_until - began, self._number(),
            tuple((register, self.ready[register] - began) for register in segment.destinations),
            tuple((times[0] - began, times[1] - began) for times in [self.granules[p >> 3] for p in writes]),
            tuple(self.caches.arrivals.get(line, began) - began for line in missing),
        )  # fmt: skip
        self.unknown_until = max(unknown, self.unknown_until)
        self.busy_until = max(busy, self.busy_until)
        self._state = outcome.state
        self._seen = (self.now, self.retired)
        return outcome

    def _number(self) -> int:
        """The number of the state as it is; -1: there are too many."""
        now = self.now
        if self.retired <= now:
            return 0
        waiting = tuple([time - now for time in self.rob if time > now])
        late = tuple([(register << 32) + time - now for register, time in enumerate(self.ready) if time > now])
        found = self._numbers.get((waiting, late))
        if found is None:
            if len(self._states) >= _MOST_STATES:
                return -1
            found = self._numbers[waiting, late] = len(self._states)
            self._states.append(waiting)
        return found

    def run(self, steps: Sequence[OpTimes], reads: list[int], writes: list[int], old: list[bytes], extra: int) -> None:
        """Give instructions their times, one after the other.

        ``reads`` and ``writes`` are physical addresses in the order of the accesses; ``old`` is what the writes
        replaced, if anybody asked; ``extra`` is what the first instruction's translation takes.
        """
        now, retired, ready, rob, size = self.now, self.retired, self.ready, self.rob, self.rob_size
        lines, arrivals, hit = self.caches.l1.lines, self.caches.arrivals, self.caches.l1.latency
        granules, writer, long = self.granules, self.writer, self.long
        free = size - len(rob)
        exact = True
        if reads or writes:
            exact = len(reads) == sum([step[READS] for step in steps])
            exact = exact and len(writes) == sum([step[WRITES] for step in steps])
        first = second = 0
        read_count, write_count = len(reads), len(writes)
        start = done = now
        for order, sources, registers, latency, destinations, loads, stores, address in steps:
            if free > 0:
                free -= 1
            elif (oldest := rob.popleft()) > now:
                now = oldest
            if order & WAITS:
                start = retired if retired > now else now
            else:
                start = now
                for register in sources:
                    if ready[register] > start:
                        start = ready[register]
            if loads or stores:
                known = now + extra
                for register in registers:
                    if ready[register] > known:
                        known = ready[register]
                if loads and first < read_count:
                    last = first + loads if exact else read_count
                    for physical in reads[first:last]:
                        store = granules.get(physical >> 3) if granules else None
                        line = physical >> LINE_SHIFT
                        if store is not None and store[0] > known:
                            there = (known if known > store[1] else store[1]) + self.forward
                        elif line in lines and line not in arrivals:
                            self.caches.tick += 1
                            lines[line] = self.caches.tick
                            there = known + hit
                        else:
                            there = self._load(line, known)
                        if there > start:
                            start = there
                    first = last
                done = start + latency
                if stores and second < write_count:
                    last = second + stores if exact else write_count
                    mine = writes[second:last]
                    leaves = done if done > retired else retired
                    for physical in mine:
                        granules[physical >> 3] = (leaves, done if done > known else known)
                        line = physical >> LINE_SHIFT
                        if line not in lines:
                            self.caches.access(line, leaves)
                    if old:
                        self.queue.extend(
                            Store(physical, known, was) for physical, was in zip(mine, old[second:last], strict=False)
                        )
                    if known > self.unknown_until:
                        self.unknown_until = known
                    second = last
            else:
                done = start + latency
            extra = 0
            for register in destinations:
                ready[register] = done
            if writer is not None:
                for register in destinations:
                    writer[register] = address
            if latency > long and done - self.pending > self.busy_until:
                self.busy_until = done - self.pending
            if done > retired:
                retired = done
            rob.append(retired)
            if order:
                if order & DRAINS and done > now:
                    now = done
                elif order & STALLS:
                    # Its microcode waits as LFENCE does: nothing younger is issued meanwhile.
                    now = start
            now += 1
        self.branch_done, self.now, self.retired = done, now, retired
        if len(arrivals) > _MANY_ARRIVALS:
            self.caches.arrivals = {line: time for line, time in arrivals.items() if time > now}

    def _load(self, line: int, time: int) -> int:
        """When the data of a load that is no plain hit is there."""
        latency, level = self.caches.access(line, time)
        if level > 1:
            self.buffers.filled(line)
            if time + latency - self.pending > self.busy_until:
                self.busy_until = time + latency - self.pending
            if self.noise is not None:
                self.noise.missed(self.caches, line, time)
        return time + latency

    def wait(self, until: int) -> None:
        """Nothing is issued before ``until``."""
        if until > self.now:
            self.now = until

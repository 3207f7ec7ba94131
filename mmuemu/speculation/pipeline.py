"""What has run: the engine reports blocks and accesses, and caches, predictors and the clock move.

Blocks whose loads hit L1 are only counted. Behind a miss each instruction gets its times from the scoreboard when its
block has run. Blocks with fences, flushes or time stamps, and those where a load may pass a store, are stopped in
before such instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mmuemu.cpu.observe import Observer
from mmuemu.cpu.window import REGISTERS
from mmuemu.speculation.blocks import Block
from mmuemu.speculation.bypass import Disambiguator
from mmuemu.speculation.caches import LINE_SHIFT
from mmuemu.speculation.flags import repair_flags
from mmuemu.speculation.models import CpuSpec
from mmuemu.speculation.ops import Kind, Op
from mmuemu.speculation.parts import Parts
from mmuemu.speculation.predictors import STRONGEST, TAKEN
from mmuemu.speculation.strings import repeat
from mmuemu.speculation.trace import Window
from mmuemu.speculation.transient import Transient
from mmuemu.speculation.translations import READ
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

NO_LIMIT: Final = 1 << 62
_SHORT_CYCLES: Final = 24
"""Windows up to this long have an opener that waited for no miss."""
_STRING_LEAST: Final = 8
_RCX: Final = REGISTERS["rcx"]
_CONDITIONAL: Final = int(Kind.CONDITIONAL)
_JUMP: Final = int(Kind.JUMP)
_CALL: Final = int(Kind.CALL)

OnAccess = Callable[[list[int], list[int]], None]


class Pipeline(Parts):
    """Follows one CPU block by block."""

    def __init__(
        self, cpu: Cpu, spec: CpuSpec, flaws: frozenset[str], mitigations: frozenset[str], noise: int | None
    ) -> None:
        super().__init__(cpu, spec, flaws, mitigations, noise)
        self.squash_latency = spec.squash_latency * self.width
        self.short_window = _SHORT_CYCLES * self.width
        self.exhaustive = False
        """Whether every window is run, those too that never brought anything before."""
        self.contract = "predictors"
        """``always-mispredict``: every conditional branch is taken the wrong way first, whatever the predictor says."""
        self.trace: list[Window] | None = None
        """Windows that have closed, when it is a list."""
        self.on_window: Callable[[Window], None] | None = None
        """Called with every window that has closed."""
        self.windows = 0
        self.mispredictions = 0
        self.instructions = 0
        """Instructions that retired."""
        self.limit = NO_LIMIT
        self.opener_sources: tuple[int, ...] = ()
        """Registers that whoever opens a window waited for."""
        self.detailed = False
        """Whether the block that runs is stopped in."""
        self._changed = False
        """Whether code was stored to."""
        self._passing = False
        """Whether loads of the block may pass its stores, so that what these replace is kept."""
        self._on_access: OnAccess | None = None
        self._keen = False
        """Whether every store is asked about before it happens."""
        self._careful = False
        """Whether the block that runs needs more than :meth:`_skim`."""
        self._bypass = "v4" in self.flaws
        self._previous: Block | None = None
        self._points: list[Op] = []
        """Instructions of it to stop before, the next one last; ``_left`` are to come."""
        self._left = 0
        self._done = 0
        """How many of its instructions have their times."""
        self._extra = 0
        self._reads: list[int] = []
        self._writes: list[int] = []
        self._old: list[bytes] = []
        self._reading = 0
        """How many of its RDTSC and RDTSCP have run."""
        self._fast_resolve = (spec.l1d.latency + 2) * self.width
        self._penalty = (spec.mispredict_penalty - spec.squash_latency) * self.width
        self._frames = self.code.frames
        self.disambiguator = Disambiguator(self)
        self.observer = Observer(
            cpu, block=self._on_block, code=self._on_code, read=self._on_read, write=self._on_write
        )
        self.transient = Transient(self)

    @property
    def on_access(self) -> OnAccess | None:
        """Called with the physical addresses that retired instructions read and wrote, a block (or part) at a time."""
        return self._on_access

    @on_access.setter
    def on_access(self, callback: OnAccess | None) -> None:
        self._on_access = callback
        self._careful = callback is not None

    def read_tsc(self) -> int:
        """RDTSC or RDTSCP is about to run: the cycle in which it is issued."""
        block, board = self._previous, self.board
        slots = board.now
        if block is not None and self._reading < len(block.clocks()):
            op = block.clocks()[self._reading]
            self._reading += 1
            self._account(block, op.address)
            slots = board.now
            if op.kind == Kind.RDTSCP and board.retired > slots:
                slots = board.retired
        value = slots // self.width
        return value if self.noise is None else value + self.noise.jitter()

    # -- hooks ---------------------------------------------------------------------------------------------------

    def _on_read(self, _uc: int, _kind: int, physical: int) -> None:
        self._reads.append(physical)

    def _on_write(self, _uc: int, _kind: int, physical: int, size: int) -> None:
        self._writes.append(physical)
        if self._keen or physical >> 12 in self._frames:
            self._written(physical, size)

    def _written(self, physical: int, size: int) -> None:
        """A store that somebody asks about, or into a frame that has code."""
        try:
            if self.transient.active:
                self.transient.stored(physical, size)
                return
            if self._passing:
                size = min(size, PAGE_SIZE - (physical & PAGE_MASK))
                self._old.append(bytes(self.cpu.ram_bytes[physical : physical + size]))
            if physical >> 12 in self._frames:
                self.code.written(physical >> 12)
                self._changed = True
        except BaseException as error:
            self.cpu.fail(error)

    def _on_code(self, _uc: int, address: int) -> None:
        try:
            if self.transient.active:
                self.transient.step(address)
            else:
                self._look(address)
        except BaseException as error:
            self.cpu.fail(error)

    def _on_block(self, _uc: int, address: int, size: int) -> None:
        """A block is about to run: the one before it has retired. The hottest function there is."""
        try:
            if self.transient.active:
                return
            board = self.board
            previous = self._previous
            if self._changed:
                self._changed = False
                previous = self._unchanged_part(previous, address)
            if previous is not None:
                previous.count += 1
                self.instructions += previous.length
                if self._careful or previous.slow or board.busy_until > board.now or not self._skim(previous):
                    self._account(previous, previous.end)
                    accounted = True
                else:
                    accounted = False
                kind = previous.kind
                if kind == _CONDITIONAL:
                    counters, slot = self.pattern.counters, previous.slot
                    counter = counters[slot]
                    if address == previous.target:
                        if counter < STRONGEST:
                            counters[slot] = counter + 1
                        right = counter >= TAKEN
                    else:
                        if counter:
                            counters[slot] = counter - 1
                        right = counter < TAKEN
                    if (not right or self.contract != "predictors") and self._wrong_way(previous, address, accounted):
                        self._previous = None
                        return
                elif kind == _CALL:
                    self.rsb.push(previous.end)
                elif kind and kind != _JUMP and self._indirect(previous, address, accounted):
                    self._previous = None
                    return
            block = self.code.blocks.get(address)
            if block is None or block.size != size or block.generation != self.engine.flushes:
                block = self.code.block(address, size)
            if self.instructions >= self.limit:
                self._previous = None
                self.observer.stop()
                return
            self._previous = block
            if block.special:
                if block.repeated and self._live_q[_RCX] > _STRING_LEAST and self._string(block):
                    return
                busy = board.busy_until > board.now
                passing = self._bypass and (busy or (block.bypasses and not self._at_hand(block)))
                if block.watched or passing:
                    self._follow(block, passing)
                    return
            elif block.meets and self._bypass and board.busy_until > board.now:
                self._follow(block, True)
                return
            if self.detailed:
                self.unfollow()
        except BaseException as error:
            self.cpu.fail(error)

    def _unchanged_part(self, block: Block | None, address: int) -> Block | None:
        """Code was stored to while ``block`` ran. If it is its own, the engine goes on at the store with new code:
        None, once what ran of it is accounted for."""
        if block is None or not block.address <= address < block.end or address == block.target:
            return block
        if address > block.address:
            repair_flags(self.cpu, block, address)
            self._account(block, address)
            self._done = 0
            self.instructions += sum(op.address < address for op in block.described)
        self.clear_log()
        return None

    # -- what has run --------------------------------------------------------------------------------------------

    def _skim(self, block: Block) -> bool:
        """Account for a block that waits for nothing, if its loads hit; False: it has to be looked at closely."""
        caches = self.caches
        lines = caches.l1.lines
        reads, writes = self._reads, self._writes
        caches.tick = tick = caches.tick + 1
        if reads:
            arrivals = caches.arrivals
            for address in reads:
                line = address >> LINE_SHIFT
                if line not in lines or (line in arrivals and arrivals[line] > self.board.now):
                    return False
                lines[line] = tick
            if self.leaky:
                self.buffers.loads.extend(reads[-2:])
            reads.clear()
        if writes:
            for address in writes:
                line = address >> LINE_SHIFT
                if line in lines:
                    lines[line] = tick
                else:
                    caches.access(line, self.board.now)
            if self.leaky:
                self.buffers.stores.extend(writes)
            writes.clear()
        board = self.board
        if board.rob:
            board.settle()
        board.now += block.length
        return True

    def _account(self, block: Block, end: int) -> None:
        """Give the instructions of ``block`` below ``end`` that have no times yet theirs: their accesses are known."""
        reads, writes = self._reads, self._writes
        if self.leaky:
            if writes:
                self.buffers.stores.extend(writes)
            if reads:
                self.buffers.loads.extend(reads[-2:])
        if self._on_access is not None:
            self._on_access(reads, writes)
        segment = block.segment(self._done, end, self.width)
        self._done = segment.last if end < block.end else 0
        extra, self._extra = self._extra, 0
        self.board.play(segment, reads, writes, self._old, extra)
        if reads:
            reads.clear()
        if writes:
            writes.clear()
            if self._old:
                self._old = []

    def _wrong_way(self, block: Block, successor: int, accounted: bool) -> bool:
        """A conditional branch was (or by the contract, is taken to have been) predicted wrong."""
        if successor == block.target:
            predicted = block.end
        elif successor == block.end:
            predicted = block.target
        else:
            return False
        return predicted != successor and self._mispredicted(block, "v1", predicted, successor, accounted)

    def _indirect(self, block: Block, successor: int, accounted: bool, *, may_open: bool = True) -> bool:
        """A return or an indirect branch went to ``successor``; True: a window was opened."""
        if block.kind == Kind.RETURN:
            target, flaw = self.return_target(block.branch)
        else:
            target, flaw = self.branch_target(block.branch), "v2"
            self.targets.learn(block.branch, successor)
            if block.kind == Kind.INDIRECT_CALL:
                self.rsb.push(block.end)
        if target == successor or not may_open:
            return False
        return self._mispredicted(block, flaw, target, successor, accounted)

    def _mispredicted(self, block: Block, flaw: str, predicted: int | None, successor: int, accounted: bool) -> bool:
        """Open the window of a wrong prediction, if it has one, and wait for the branch; True: one was opened."""
        board = self.board
        self.mispredictions += 1
        opened = board.now
        resolved = max(board.branch_done, opened) if accounted else opened + self._fast_resolve
        closes = resolved + self.squash_latency
        open_now = False
        if predicted is not None and flaw in self.flaws:
            if self.trace is not None or self.on_window is not None:
                last = block.described[-1]
                self.opener_sources = last.sources + (last.memory.registers if last.memory is not None else ())
            open_now = self.transient.open(flaw, block.branch, predicted, successor, opened, closes)
        board.wait(closes + self._penalty)
        return open_now

    def predict(self, op: Op) -> tuple[int | None, str]:
        """Where a branch inside a window is predicted to go, and the flaw of following it."""
        kind = op.kind
        if kind == Kind.CONDITIONAL:
            return (op.target if self.pattern.predicts_taken(op.address) else op.end), "v1"
        if kind == Kind.RETURN:
            return self.return_target(op.address)
        if kind == Kind.CALL:
            return None, "v2"
        return self.branch_target(op.address), "v2"

    def clear_log(self) -> None:
        """Forget accesses that belong to nothing."""
        self._done = self._extra = 0
        self._reads.clear()
        self._writes.clear()
        self._old.clear()

    # -- blocks that are stopped in ------------------------------------------------------------------------------

    def watch_stores(self, on: bool) -> None:
        """Whether somebody wants to know of every store before it happens."""
        self._keen = on

    def _at_hand(self, block: Block) -> bool:
        """Whether L1 has what ``block`` loads to know where its stores go: no load can pass one of them."""
        lines, arrivals = self.caches.l1.lines, self.caches.arrivals
        pointers = block.store_addresses()
        for memory in pointers:
            line = self.translations.physical(self.linear(memory), READ) >> LINE_SHIFT
            if line not in lines or arrivals.get(line, 0) > self.board.now:
                return False
        return bool(pointers)

    def _follow(self, block: Block, passing: bool) -> None:
        """Stop before those instructions of ``block`` that must be looked at: :meth:`Block.stops`."""
        self._points = points = block.stops(passing)
        if not points and not block.watched:
            if self.detailed:
                self.unfollow()
            return
        self._passing = passing and bool(points)
        self.detailed = self._careful = True
        self._keen = self._passing
        self._done = self._reading = 0
        self._left = len(points)
        self._next_point()

    def unfollow(self) -> None:
        """Stop no more in blocks."""
        self.detailed = self._passing = self._keen = False
        self._careful = self._on_access is not None
        self.observer.watch_nothing()

    def _next_point(self) -> None:
        if self._left:
            address = self._points[self._left - 1].address
            self.observer.watch(address, address)
        else:
            self.observer.watch_nothing()

    def _look(self, address: int) -> None:
        """A point of the block that is followed has been reached."""
        block = self._previous
        if block is None or not self._left or self._points[self._left - 1].address != address:
            return
        self._left -= 1
        op = self._points[self._left]
        self._next_point()
        board = self.board
        kind = op.kind
        if kind == Kind.FLUSH and not self._reads and op.memory is not None:
            self._flush(self.linear(op.memory))
            return
        self._account(block, address)
        if kind == Kind.PLAIN:
            if board.unknown_until > board.now + board.pending and op.memory is not None:
                wait = self.disambiguator.load(block, op, self.linear(op.memory))
                if wait > 0:
                    self._extra += wait
        elif kind == Kind.VERW:
            self.verw()
        elif op.memory is not None:
            linear = self.linear(op.memory)
            if kind == Kind.PREFETCH:
                self._prefetch(linear)
            elif kind == Kind.FLUSH:
                self._flush(linear)

    def _flush(self, linear: int) -> None:
        """CLFLUSH, CLFLUSHOPT: longer for what a cache holds (Gruss et al., "Flush+Flush", DIMVA 2016)."""
        physical = self.translations.physical(linear, READ)
        if physical >= 0 and self.caches.flush(physical >> LINE_SHIFT):
            board = self.board
            board.retired = max(board.retired, board.now) + self.caches.l1.latency

    def _prefetch(self, linear: int) -> None:
        """PREFETCHh: no fault, but a walk, whose time shows; it fetches what may be read.

        Gruss et al., "Prefetch Side-Channel Attacks" (CCS 2016): supervisor pages are translated, too.
        """
        page = linear >> 12
        board = self.board
        delay = self.times.hit(page)
        found, trace = self.translations.entries(linear, READ)
        if delay < 0:
            delay = self.times.walk(trace, board.now)
            if found >= 0 or -1 - found & 1:
                self.times.insert(page)
        if found >= 0:
            self.caches.access((found & ~PAGE_MASK | linear & PAGE_MASK) >> LINE_SHIFT, board.now + delay)
        board.retired = max(board.retired, board.now) + delay

    def open_bypass(self, op: Op, old: list[tuple[int, bytes]], opened: int, closes: int) -> bool:
        """``op`` reads what was there before the stores ``old`` (the youngest first): open the window at it."""
        ram = self.cpu.ram_bytes
        new = [(address, bytes(ram[address : address + len(data)])) for address, data in reversed(old)]
        self.opener_sources = op.memory.registers if op.memory is not None else ()
        if not self.transient.open("v4", op.address, op.address, op.address, opened, closes, in_place=True):
            return False
        for address, data in old:
            ram[address : address + len(data)] = data
        self.transient.undo.extend(new)
        self._previous = None
        self.board.wait(closes + self._penalty)
        self.transient.step(op.address)
        return True

    def is_code(self, physical: int) -> bool:
        """Whether a store there would change code that is translated."""
        return physical >> 12 in self._frames or physical & ~PAGE_MASK in self.engine._executed

    def _string(self, block: Block) -> bool:
        """Do a page of a repeated MOVS or STOS at once; True when execution was led back to it."""
        lines = repeat(self, block.described[0])
        if not lines:
            return False
        for line in lines:
            self.caches.access(line, self.board.now)
        self.board.now += len(lines) * 2
        self._previous = None
        self.observer.redirect(block.address)
        return True

"""The speculating CPU: what the engine's hooks report moves caches, predictors and the clock, and opens windows.

Blocks whose loads hit L1 are only counted. Behind a miss each instruction gets its times from the scoreboard when its
block has run. Blocks with fences, flushes or time stamps, and those where a load may pass a store, are followed
instruction by instruction while they run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mmuemu.cpu.engines import FETCH, MEM_READ, PythonEngine
from mmuemu.cpu.observe import SCRATCH, Observer
from mmuemu.cpu.window import D_HFLAGS, FS, GS, Q_CR0, Q_CR4
from mmuemu.errors import UsageError
from mmuemu.mmu.walk import WRITABLE
from mmuemu.speculation.blocks import Block, BlockCache
from mmuemu.speculation.buffers import LeakyBuffers
from mmuemu.speculation.bypass import Disambiguator
from mmuemu.speculation.caches import LINE_SHIFT, Hierarchy
from mmuemu.speculation.forwarding import Forwarded
from mmuemu.speculation.models import CpuSpec
from mmuemu.speculation.ops import Kind, Memory, Op
from mmuemu.speculation.predictors import STRONGEST, TAKEN, BranchTargets, PatternHistory, ReturnStack
from mmuemu.speculation.scoreboard import Scoreboard
from mmuemu.speculation.trace import Window
from mmuemu.speculation.transient import Transient
from mmuemu.speculation.translations import READ, Translations, TranslationTimes
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import PAGE_MASK

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu
    from mmuemu.cpu.traps import Trap

NO_LIMIT: Final = 1 << 62
_SHORT_CYCLES: Final = 24
"""Windows up to this long have an opener that waited for no miss."""
_HFLAG_TS: Final = 1 << 11
_CR0_TS: Final = 8
_CR4_LA57: Final = 1 << 12
_MANY_ARRIVALS: Final = 256
_STRING_LEAST: Final = 8


class Speculation:
    """One core, attached to ``cpu`` before it runs. ``flaws`` are those in force."""

    def __init__(self, cpu: Cpu, spec: CpuSpec, flaws: frozenset[str], mitigations: frozenset[str] = frozenset()) -> None:
        engine = cpu.engine
        if not isinstance(engine, PythonEngine):
            raise UsageError("speculation follows every translation in Python: use the python engine (--mmu python)")
        self.cpu = cpu
        self.spec = spec
        self.flaws = flaws if spec.speculates else frozenset()
        self.mitigations = mitigations
        self.width = spec.issue_width
        self.caches = Hierarchy(spec)
        self.times = TranslationTimes(spec, self.caches)
        self.translations = Translations(cpu)
        self.buffers = LeakyBuffers(spec, cpu.ram_bytes)
        self.board = Scoreboard(spec, self.caches, self.buffers)
        self.pattern = PatternHistory(spec)
        self.targets = BranchTargets(spec)
        self.rsb = ReturnStack(spec)
        self.code = BlockCache(cpu, self.translations, spec.pattern_entries)
        self.disambiguator = Disambiguator(self)
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
        self.limited = False
        self.context = 0
        """The process that runs."""
        self.jitter: Callable[[], int] | None = None
        """Cycles that each reading of the clock is off."""
        self.opener_sources: tuple[int, ...] = ()
        self._reads: list[int] = []
        self._writes: list[int] = []
        self._old: list[bytes] = []
        self._previous: Block | None = None
        self.detailed = False
        """Whether the block that runs is followed instruction by instruction."""
        self._ops: dict[int, Op] = {}
        self._op: Op | None = None
        self._extra = 0
        self._tsc = 0
        self._engine = engine
        self._fill_normally = engine._fill
        self._leaky = bool(flaws & {"msbds", "mlpds"})
        self._bypass = "v4" in self.flaws
        self._tagged = bool(mitigations & {"ibrs", "eibrs"})
        self._per_process = "stibp" in mitigations
        self._fast_resolve = (spec.l1d.latency + 2) * self.width
        self._penalty = (spec.mispredict_penalty - spec.squash_latency) * self.width
        self.observer = Observer(cpu, block=self._on_block, code=self._on_code, read=self._on_read, write=self._on_write)
        self.transient = Transient(self)
        if "ssbd" in mitigations:
            self.disambiguator.disabled = True
        engine.serve(self._fill)
        cpu.tsc = self.read_tsc
        cpu.transient = self

    # -- the clock -----------------------------------------------------------------------------------------------

    @property
    def cycles(self) -> int:
        """Cycles since the start."""
        return self.board.cycles

    @property
    def ring(self) -> int:
        """The current privilege level."""
        return self.cpu.window.live_d[D_HFLAGS] & 3

    @property
    def five_levels(self) -> bool:
        """Whether page tables have five levels."""
        return bool(self.cpu.window.live_q[Q_CR4] & _CR4_LA57)

    def read_tsc(self) -> int:
        """What RDTSC and RDTSCP read: the cycle in which they are issued."""
        value = self._tsc // self.width
        return value + self.jitter() if self.jitter is not None else value

    # -- hooks ---------------------------------------------------------------------------------------------------

    def _on_read(self, _uc: int, _kind: int, physical: int) -> None:
        self._reads.append(physical)

    def _on_write(self, _uc: int, _kind: int, physical: int, size: int) -> None:
        try:
            if self.transient.active:
                self.transient.undo.append((physical, bytes(self.cpu.ram_bytes[physical : physical + size])))
                return
            self._writes.append(physical)
            if self.detailed:
                self._old.append(bytes(self.cpu.ram_bytes[physical : physical + size]))
            if physical >> 12 in self.code.frames:
                self.code.written(physical >> 12)
        except BaseException as error:
            self.cpu.fail(error)

    def _on_code(self, _uc: int, address: int) -> None:
        try:
            if self.transient.active:
                self.transient.step(address)
            else:
                self._detail(address)
        except BaseException as error:
            self.cpu.fail(error)

    def _on_block(self, _uc: int, address: int, size: int) -> None:
        try:
            if self.transient.active:
                return
            previous = self._previous
            if previous is not None and self._retire(previous, address, True):
                self._previous = None
                return
            block = self.code.blocks.get(address)
            if block is None or block.size != size or block.generation != self._engine.flushes:
                block = self.code.block(address, size)
            if self.instructions >= self.limit:
                self._previous = None
                self.limited = True
                self.observer.stop()
                return
            if block.repeated and self.cpu.window.live_q[1] > _STRING_LEAST and self._string(block):
                return
            self._previous = block
            if block.watched or (self._bypass and (block.bypasses or (block.stores and block.loads and self.board.busy))):
                self.detailed = True
                self._op = None
                self._ops = {op.address: op for op in block.described}
                self.observer.watch(address, block.end - 1)
            elif self.detailed:
                self.detailed = False
                self.observer.watch_nothing()
        except BaseException as error:
            self.cpu.fail(error)

    def _fill(self, uc: int, page: int, kind: int, result: int) -> bool:
        """Serve a miss of the engine's TLB: by the tables as ever, or for a window, without a trace."""
        if not self.transient.active:
            served = self._fill_normally(uc, page, kind, result)
            if served and kind - MEM_READ != FETCH:
                self.times.insert(page >> 12)
            return served
        try:
            return self._fill_transiently(page, kind - MEM_READ, result)
        except BaseException as error:
            self.cpu.fail(error)
            return False

    def _fill_transiently(self, page: int, access: int, result: int) -> bool:
        engine, transient = self._engine, self.transient
        found = transient.forged.get(page)
        if found is not None:
            transient.dirty = True
        else:
            found = self.translations.page(page, access)
            if found < 0:
                if access == FETCH:
                    return False
                found = SCRATCH | 7
                transient.dirty = True
            else:
                transient.dirty = transient.dirty or self.translations.owed
                if access == FETCH or (access == READ and found & WRITABLE):
                    found = engine.exclusive(page, found, access)
        engine.answer(result, found & ~PAGE_MASK, found & 7)
        return True

    # -- what has run --------------------------------------------------------------------------------------------

    def _retire(self, block: Block, successor: int, may_open: bool) -> bool:
        """``block`` has run and goes on at ``successor``: time, caches, predictors. True: a window was opened."""
        board = self.board
        block.count += 1
        self.instructions += block.length
        accounted = True
        if self.detailed:
            self._finish()
        elif block.slow or board.retired > board.now + board.pending:
            self._account(block, block.end)
        else:
            accounted = self._skim(block)
        kind = block.kind
        if not kind:
            return False
        if kind == Kind.JUMP:
            return False
        if kind == Kind.CALL:
            self.rsb.push(block.end)
            return False
        if kind == Kind.CONDITIONAL:
            counters, slot = self.pattern.counters, block.slot
            counter = counters[slot]
            if successor == block.target:
                if counter < STRONGEST:
                    counters[slot] = counter + 1
                predicted = block.target if counter >= TAKEN else block.end
            elif successor == block.end:
                if counter:
                    counters[slot] = counter - 1
                predicted = block.target if counter >= TAKEN else block.end
            else:
                return False
            if predicted == successor:
                if self.contract == "predictors" or block.target == block.end:
                    return False
                predicted = block.end if successor == block.target else block.target
            return self._mispredicted(block, "v1", predicted, successor, accounted, may_open)
        if kind == Kind.RETURN:
            target, flaw = self._return_target(block.branch)
        else:
            target, flaw = self.targets.predict(block.branch), "v2"
            self.targets.learn(block.branch, successor)
            if kind == Kind.INDIRECT_CALL:
                self.rsb.push(block.end)
        if target == successor:
            return False
        return self._mispredicted(block, flaw, target, successor, accounted, may_open)

    def _skim(self, block: Block) -> bool:
        """Account for a block that waits for nothing, if its loads hit; whether it had to be looked at closely."""
        caches = self.caches
        lines = caches.l1.lines
        reads, writes = self._reads, self._writes
        caches.tick = tick = caches.tick + 1
        if reads:
            arrivals = caches.arrivals
            for address in reads:
                line = address >> LINE_SHIFT
                if line not in lines or (line in arrivals and arrivals[line] > self.board.now):
                    self._account(block, block.end)
                    return True
                lines[line] = tick
        if self._leaky:
            self.buffers.stores.extend(writes)
            self.buffers.loads.extend(reads[-2:])
        if writes:
            for address in writes:
                line = address >> LINE_SHIFT
                if line in lines:
                    lines[line] = tick
                else:
                    caches.access(line, self.board.now)
            writes.clear()
        reads.clear()
        self.board.skip(block.length)
        return False

    def _account(self, block: Block, end: int) -> None:
        """Give every instruction of ``block`` below ``end`` its times, now that its accesses are known."""
        reads, writes = self._reads, self._writes
        if self._leaky:
            self.buffers.stores.extend(writes)
            self.buffers.loads.extend(reads[-2:])
        board = self.board
        none: list[int] = []
        old: list[bytes] = []
        first = second = 0
        ops = [op for op in block.described if op.address < end]
        exact = sum(op.read_events for op in ops) == len(reads) and sum(op.write_events for op in ops) == len(writes)
        for op in ops:
            mine = theirs = none
            if op.loads and first < len(reads):
                last = first + op.read_events if exact else len(reads)
                mine = reads[first:last]
                first = last
            if op.stores and second < len(writes):
                last = second + op.write_events if exact else len(writes)
                theirs = writes[second:last]
                second = last
            board.execute(op, mine, theirs, old)
        reads.clear()
        writes.clear()
        if len(self.caches.arrivals) > _MANY_ARRIVALS:
            now = board.now
            self.caches.arrivals = {line: time for line, time in self.caches.arrivals.items() if time > now}

    def _return_target(self, address: int) -> tuple[int | None, str]:
        target = self.rsb.pop()
        if target == 0:
            return self.targets.predict(address), "v2"
        return target, "rsb"

    def predict(self, op: Op) -> tuple[int | None, str]:
        """Where a branch inside a window is predicted to go, and the flaw of following it."""
        kind = op.kind
        if kind == Kind.CONDITIONAL:
            return (op.target if self.pattern.predicts_taken(op.address) else op.end), "v1"
        if kind == Kind.RETURN:
            return self._return_target(op.address)
        return self.targets.predict(op.address), "v2"

    def _mispredicted(
        self, block: Block, flaw: str, predicted: int | None, successor: int, accounted: bool, may_open: bool
    ) -> bool:
        board = self.board
        self.mispredictions += 1
        opened = board.now
        resolved = max(board.branch_done, opened) if accounted else opened + self._fast_resolve
        closes = resolved + self.squash_latency
        opened_window = False
        if may_open and predicted is not None and flaw in self.flaws:
            if self.contract != "predictors":
                closes = max(closes, opened + board.rob_size)
            self.opener_sources = block.described[-1].sources if self.trace is not None or self.on_window else ()
            opened_window = self.transient.open(flaw, block.branch, predicted, successor, opened, closes)
        board.wait(closes + self._penalty)
        return opened_window

    def clear_log(self) -> None:
        """Forget accesses that belong to nothing."""
        self._reads.clear()
        self._writes.clear()
        self._old.clear()

    # -- instruction by instruction ------------------------------------------------------------------------------

    def _detail(self, address: int) -> None:
        """The instruction at ``address`` of a followed block is about to run."""
        self._finish()
        op = self._ops.get(address)
        self._op = op
        if op is None:
            return
        kind = op.kind
        board = self.board
        memory = op.memory
        if memory is not None:
            linear = self.linear(memory)
            if kind == Kind.FLUSH:
                physical = self.translations.physical(linear, READ)
                if physical >= 0 and self.caches.flush(physical >> LINE_SHIFT):
                    self._extra = self.caches.l1.latency
            elif kind == Kind.PREFETCH:
                self._prefetch(linear)
            elif op.loads:
                page = linear >> 12
                self._extra = max(self.times.hit(page), 0)
                if self._bypass and board.unknown_until > board.now and self._previous is not None:
                    wait = self.disambiguator.load(self._previous, op, linear)
                    if wait < 0:
                        return
                    self._extra += wait
        if kind == Kind.RDTSC:
            self._tsc = board.now
        elif kind == Kind.RDTSCP:
            self._tsc = max(board.now, board.retired)
        elif kind == Kind.VERW and "md_clear" in self.spec.microcode:
            self.buffers.clear()

    def _finish(self) -> None:
        """The followed instruction has run."""
        op = self._op
        if op is None:
            return
        self._op = None
        reads, writes = self._reads, self._writes
        if self._leaky:
            self.buffers.stores.extend(writes)
            self.buffers.loads.extend(reads[-2:])
        board = self.board
        extra, self._extra = self._extra, 0
        board.execute(op, reads, writes, self._old, extra)
        if op.kind in (Kind.FLUSH, Kind.PREFETCH):
            board.retired += extra
        if reads:
            reads.clear()
        if writes:
            writes.clear()
            self._old = []

    def _prefetch(self, linear: int) -> None:
        """PREFETCHh: no fault, but a walk, whose time shows; it fetches what may be read."""
        page = linear >> 12
        delay = self.times.hit(page)
        found, trace = self.translations.entries(linear, READ)
        if delay < 0:
            delay = self.times.walk(trace, self.board.now)
            if found >= 0 or -1 - found & 1:
                self.times.insert(page)
        if found >= 0:
            self.caches.access((found & ~PAGE_MASK | linear & PAGE_MASK) >> LINE_SHIFT, self.board.now + delay)
        self._extra = delay

    def linear(self, memory: Memory) -> int:
        """The linear address of a memory operand, by the registers as they are."""
        q = self.cpu.window.live_q
        address = memory.displacement
        if memory.base >= 0:
            address += q[memory.base]
        if memory.index >= 0:
            address += q[memory.index] * memory.scale
        address &= memory.mask
        if memory.segment:
            address += q[(FS if memory.segment == "fs" else GS).base]
        return address & 0xFFFF_FFFF_FFFF_FFFF

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
        self.detailed = False
        self._op = None
        self._previous = None
        self.board.wait(closes + self._penalty)
        self.transient.step(op.address)
        return True

    def is_code(self, physical: int) -> bool:
        """Whether a store there would change code that is translated."""
        frame = physical & ~PAGE_MASK
        return physical >> 12 in self.code.frames or frame in self._engine._executed

    def forget_page(self, linear: int) -> None:
        """A window translates that page otherwise than the tables do: nothing that is kept may say so."""
        self.cpu.engine.flush()

    # -- string instructions -------------------------------------------------------------------------------------

    def _string(self, block: Block) -> bool:
        """Do a page of a repeated MOVS or STOS at once; True when execution was led back to it."""
        from mmuemu.speculation.strings import repeat

        lines = repeat(self, block.described[0])
        if not lines:
            return False
        for line in lines:
            self.caches.access(line, self.board.now)
        self.board.now += len(lines) * 2
        self._previous = None
        self.observer.redirect(block.address)
        return True

    # -- stretches of emulation, and traps (cpu.Transient) -------------------------------------------------------

    def begin(self, limit: int | None) -> None:
        """Emulation starts; at most about ``limit`` instructions are to run."""
        self.limited = False
        self.limit = NO_LIMIT if limit is None else self.instructions + limit
        self._previous = None
        self.detailed = False
        self.observer.watch_nothing()
        self.clear_log()

    def ended(self, rip: int) -> bool:
        """Emulation has ended with RIP at ``rip``; True when a window ended it, which is undone: go on."""
        if self.transient.active:
            self.transient.squash("page fault on fetch")
            self.observer.restore()
            self._engine.take_fault()
            return True
        block, self._previous = self._previous, None
        if block is None or rip == block.address:
            self.clear_log()
            return False
        if block.address < rip < block.end:
            op = self._op
            if self.detailed:
                if op is not None and op.address != rip:
                    self._finish()
            else:
                self._account(block, rip)
            self.instructions += sum(op.address < rip for op in block.described)
        else:
            self._retire(block, rip, False)
        self._op = None
        self.clear_log()
        return False

    def abort(self) -> bool:
        """From a hook: an exception or an instruction that a window must not reach; True when one was open."""
        if not self.transient.active:
            return False
        self.transient.squash("exception")
        return True

    def fault(self, trap: Trap) -> None:
        """``trap`` is about to be delivered: run what follows the faulting instruction until it retires."""
        if not self.spec.speculates or not trap.is_fault or trap.is_fetch:
            return
        op = self.code.op(trap.rip)
        if op is None or op.kind in (Kind.UNKNOWN,):
            return
        board = self.board
        forced = None if trap.vector in (Vector.PF, Vector.GP, Vector.SS) and op.memory is not None else self._forced(trap, op)
        opened = board.now
        done = max(board.retired, opened)
        for register in op.memory.registers if op.memory is not None else op.sources:
            done = max(done, board.ready[register])
        closes = done + (self.spec.l1d.latency + self.spec.fault_window) * self.width
        self.opener_sources = ()
        flaw = forced.flaw if forced is not None else "fault"
        if self.transient.open(flaw, trap.rip, trap.rip, trap.rip, opened, closes, outer=True, forced=forced):
            if trap.vector == Vector.NM and forced is not None and forced.ready:
                live = self.cpu.window
                live.live_d[D_HFLAGS] &= ~_HFLAG_TS
                live.live_q[Q_CR0] &= ~_CR0_TS
            self.observer.start(trap.rip)
            if self.transient.active:
                self.transient.squash("page fault on fetch")
                self._engine.take_fault()
            self.observer.restore()
        board.wait(closes + self._penalty)

    def _forced(self, trap: Trap, op: Op) -> Forwarded:
        """How the faulting instruction itself goes on when the fault is not one of memory."""
        flaw = {Vector.NM: "meltdown-nm", Vector.DE: "meltdown-de", Vector.AC: "meltdown-ac"}.get(Vector(trap.vector))
        if flaw is not None and flaw in self.flaws:
            return Forwarded(flaw, op=op, ready=True, note=f"forwarded {flaw}", vector_only=True)
        return Forwarded("fault", op=op, note="faults, forwards nothing", vector_only=True)

    # -- what the kernel does to hidden state (kernel.hardening.HiddenState) ------------------------------------

    def touch(self, physical: int, size: int, write: bool) -> None:
        """The kernel read or wrote guest RAM."""
        now = self.board.now
        for line in range(physical >> LINE_SHIFT, (physical + max(size, 1) - 1 >> LINE_SHIFT) + 1):
            _, level = self.caches.access(line, now)
            self.caches.arrivals.pop(line, None)
            if level > 1:
                self.buffers.filled(line)
            if write and self._leaky:
                self.buffers.stores.append(line << LINE_SHIFT)

    def ibpb(self) -> None:
        """Write IA32_PRED_CMD.IBPB."""
        self.targets.clear()

    def fill_return_stack(self) -> None:
        """Overwrite the return stack with harmless entries."""
        self.rsb.stuff(0)

    def verw(self) -> None:
        """VERW: with the microcode for it, stale bytes are overwritten."""
        if "md_clear" in self.spec.microcode:
            self.buffers.clear()

    def flush_l1d(self) -> None:
        """Write IA32_FLUSH_CMD.L1D_FLUSH."""
        self.caches.flush_l1d()

    def set_ssbd(self, on: bool) -> None:
        """IA32_SPEC_CTRL.SSBD."""
        self.disambiguator.disabled = on

    def switch(self, context: int) -> None:
        """Another process runs from now on."""
        if context != self.context:
            self.context = context
            self.code.enter(context)
            self.times.flush()
            if self._per_process:
                self.targets.tag = context

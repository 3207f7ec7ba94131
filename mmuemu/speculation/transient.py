"""Transient windows: the wrong path runs for real, on a checkpoint, and is squashed.

Each instruction is given its times before the engine executes it. What its operands do not reach in time moves no
cache; what would fault forwards data where the CPU has the flaw, or its dependents never wake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu.observe import SCRATCH
from mmuemu.cpu.window import Q_RDI, Q_RSP
from mmuemu.speculation.caches import LINE, LINE_SHIFT
from mmuemu.speculation.forwarding import Forwarded, Forwarding
from mmuemu.speculation.history import under_way, writers_of
from mmuemu.speculation.operands import Memory
from mmuemu.speculation.ops import ENDS_WINDOW, Kind, Op
from mmuemu.speculation.trace import NEVER, Fill, Step, Window
from mmuemu.speculation.translations import READ, WRITE
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.speculation.pipeline import Pipeline

_PATIENCE: Final = 16
"""Short windows from one place that brought nothing before only every so many-th is run."""
_MASK: Final = (1 << 64) - 1
_STACK: Final = frozenset({Kind.CALL, Kind.INDIRECT_CALL, Kind.RETURN})


class Transient:
    """The window that is open, and how it runs."""

    def __init__(self, core: Pipeline) -> None:
        self.core = core
        self.observer = core.observer
        self.board = core.board
        self.forwarding = Forwarding(core)
        self.active = False
        self.outer = False
        """Whether it runs in an ``emu_start`` of its own."""
        self.forged: dict[int, int] = {}
        """Linear page -> physical page and permissions that this window alone translates it to."""
        self.dirty = False
        """Whether the engine's TLB holds what only the window may use."""
        self.undo: list[tuple[int, bytes]] = []
        self._spoilt: set[int] = set()
        """Frames of code that it has stored to after all: by an operand that the model does not see."""
        self._barren: dict[int, int] = {}
        self._q = core.cpu.window.live_q
        self._untimed = False
        """Whether everything is there at once, and only the reorder buffer ends the window (a contract, not a CPU)."""
        self._closes = 0
        self._time = 0
        self._room = 0
        """Free entries of the reorder buffer; ``_older`` is when those that hold older instructions retire."""
        self._older: list[int] = []
        self._resume = 0
        self._causes: tuple[str, ...] = ()
        self._ready: list[int] = []
        self._ops = core.code.ops
        self._width = core.width
        self._written: dict[int, int] = {}
        self._previous: Op | None = None
        self._current: Op | None = None
        self._previous_done = 0
        self._filled = 0
        self._site = 0
        self._short = False
        self._rsb: tuple[list[int], int, int] = ([], 0, 0)
        self._record: Window | None = None
        self._accessed: tuple[int | None, int] = (None, 0)
        """The linear address of the instruction's access and the level that it was found in (0: not looked for)."""
        self._forced: Forwarded | None = None

    # -- opening and closing -------------------------------------------------------------------------------------

    def open(
        self, flaw: str, opener: int, start: int, resume: int, opened: int, closes: int, *, outer: bool = False,
        forced: Forwarded | None = None, in_place: bool = False,
    ) -> bool:  # fmt: skip
        """Begin a window at ``start`` in a block or code hook; False: nothing can be fetched there, or it is not
        worth it. Execution resumes at ``resume``. ``in_place``: the engine is at ``start`` already."""
        core = self.core
        self._short = closes - opened < core.short_window
        if self._short and not core.exhaustive and not outer and not in_place:
            barren = self._barren.get(opener, 0)
            if barren >= _PATIENCE:
                self._barren[opener] = barren + 1
                if barren % _PATIENCE:
                    return False
        if core.code.op(start) is None or core.code.deadly():
            return False
        observer = self.observer
        observer.save(resume)
        self.active = True
        self.outer = outer
        self._site = opener
        self._causes = (flaw,)
        self._untimed = core.contract != "predictors"
        self._closes = NEVER if self._untimed else closes
        self._time = opened + 1
        self._resume = resume
        self._ready = self.board.ready.copy()
        self._older = [time for time in self.board.rob if time > opened]
        self._older.reverse()
        self._room = self.board.rob_size - len(self._older)
        self._rsb = core.rsb.save()
        self._previous = None
        self._filled = 0
        self._forced = forced
        core.windows += 1
        self._record = None
        if core.trace is not None or core.on_window is not None:
            self._record = Window(
                core.windows, flaw, opener, start, resume, core.context, core.ring, opened // self.board.width,
                closes // self.board.width, waited_for=writers_of(core, core.opener_sources, opened),
                before=under_way(core, core.opener_sources, opened),
            )  # fmt: skip
        core.clear_log()
        core.watch_stores(True)
        observer.watch_everything()
        if not outer and not in_place:
            observer.redirect(start)
        return True

    def squash(self, reason: str) -> None:
        """Everything that the window did to registers and memory is undone; execution goes on where it began."""
        core, observer = self.core, self.observer
        ram = core.cpu.ram_bytes
        for address, old in reversed(self.undo):
            ram[address : address + len(old)] = old
        self.undo.clear()
        self.active = False
        for frame in self._spoilt:
            core.engine.forget_code(frame)
        self._spoilt.clear()
        self.forged.clear()
        self._written.clear()
        core.rsb.restore(self._rsb)
        core.clear_log()
        if self._short:
            self._barren[self._site] = 0 if self._filled else self._barren.get(self._site, 0) + 1
        core.unfollow()
        observer.restore()
        if self.dirty:
            self.dirty = False
            core.cpu.engine.flush("window")
        if self.outer:
            observer.stop()
        else:
            observer.redirect(self._resume)
        record = self._record
        if record is not None:
            record.reason = reason
            if core.trace is not None:
                core.trace.append(record)
            if core.on_window is not None:
                core.on_window(record)

    # -- one instruction -----------------------------------------------------------------------------------------

    def step(self, address: int) -> None:
        """The engine is about to execute the instruction at ``address``."""
        core = self.core
        if self._spoilt:
            self.squash("store to code")
            return
        previous = self._previous
        if previous is not None and previous.kind and not self._follow(previous, address):
            return
        self._previous = None
        op = self._ops.get(address) or core.code.op(address)
        if op is None:
            self.squash("page fault on fetch")
            return
        kind = op.kind
        if kind in ENDS_WINDOW and not (self._forced is not None and self._forced.op is op):
            self._note(op, self._time, NEVER, ENDS_WINDOW[kind])
            self.squash(ENDS_WINDOW[kind])
            return
        self._room -= 1
        if self._room < 0:
            if not self._older:
                self.squash("reorder buffer full")
                return
            self._room = 0
            self._time = max(self._time, self._older.pop())
        time = self._time
        if time >= self._closes:
            self.squash("resolved")
            return
        self._time = time + 1
        self._current = op
        if kind or op.memory is not None or self._record is not None or self._forced is not None:
            self._execute(op, time)
            return
        ready = self._ready
        for register in op.sources:
            if ready[register] > time:
                time = ready[register]
        time = time + op.latency * self._width if time < NEVER else NEVER
        for register in op.destinations:
            ready[register] = time

    def _execute(self, op: Op, time: int) -> None:
        """Give ``op`` its times; let the engine execute it, or pass over it."""
        ready = self._ready
        start = time
        for register in op.sources:
            if ready[register] > start:
                start = ready[register]
        note = ""
        memory = op.memory
        alive = True
        began = start
        if memory is not None:
            address_ready = time
            for register in memory.registers:
                if ready[register] > address_ready:
                    address_ready = ready[register]
            if address_ready >= self._closes:
                start, alive = NEVER, op.stores and not op.loads and not op.pushes
                alive = False
                note = "address not ready"
            else:
                available, alive, note = self._access(op, memory, address_ready)
                if not self.active:
                    return
                began = address_ready if op.loads else start
                start = max(start, available)
        forced = self._forced
        if forced is not None and forced.op is op:
            self._forced = None
            if forced.vector_only:
                alive, start, note = forced.ready, (time if forced.ready else NEVER), forced.note
                alive = alive and not forced.passed
        done = start + op.latency * self._width if start < NEVER else NEVER
        for register in op.destinations:
            ready[register] = done
        self._previous = op
        self._previous_done = done
        if self._record is not None:
            self._note(op, began if start < NEVER else NEVER, done, note)
        if not alive:
            self._pass_over(op)

    def _pass_over(self, op: Op) -> None:
        """The engine is not to execute ``op``: what it would load is not there in time, or nowhere."""
        if op.kind in _STACK or op.kind in (Kind.INDIRECT_JUMP,):
            # Where it goes is not known in time: as predicted, or nowhere.
            self._predicted_only(op)
            return
        if op.pushes:
            self._q[Q_RSP] = self._q[Q_RSP] - op.memory.size & _MASK if op.memory is not None else 0
        elif op.pops:
            self._q[Q_RSP] = self._q[Q_RSP] + 8 & _MASK
        self._previous = None
        self.observer.redirect(op.end)

    def _predicted_only(self, op: Op) -> None:
        core = self.core
        target, flaw = core.predict(op)
        if target is None or flaw not in core.flaws:
            self.squash("no prediction")
            return
        if op.kind == Kind.RETURN:
            self._q[Q_RSP] = self._q[Q_RSP] + 8 & _MASK
        self._nest(op, flaw)
        self._previous = None
        self.observer.redirect(target)

    def _access(self, op: Op, memory: Memory, time: int) -> tuple[int, bool, str]:
        """The memory side of ``op`` at ``time``: (when its data is there, whether the engine executes it, a note)."""
        core = self.core
        linear = core.linear(memory)
        self._accessed = linear, 0
        kind = op.kind
        if kind == Kind.FLUSH:
            return time, True, "acts at retirement"
        write = op.stores
        found = core.translations.page(linear, WRITE if write else READ)
        if kind == Kind.PREFETCH:
            if found >= 0:
                self._touch(op, linear, found & ~PAGE_MASK | linear & PAGE_MASK, time)
            return time, True, ""
        if found < 0:
            return self._faulting(op, linear, write, time)
        physical = found & ~PAGE_MASK | linear & PAGE_MASK
        if write and core.is_code(physical):
            self.squash("store to code")
            return time, True, ""
        if not write:
            delay = self._translate(linear, time)
            return self._touch(op, linear, physical, time + delay)[0], True, ""
        available = time
        if op.loads:
            available = self._touch(op, linear, physical, time)[0]
        self._written[physical >> 3] = max(available, self._data_ready(op, time))
        return available, True, ""

    def _data_ready(self, op: Op, time: int) -> int:
        return max([time, *(self._ready[register] for register in op.sources)])

    def _translate(self, linear: int, time: int) -> int:
        """Slots that the translation takes."""
        core = self.core
        delay = core.times.hit(linear >> 12)
        if delay < 0:
            _, trace = core.translations.entries(linear, READ)
            delay = core.times.walk(trace, time)
            core.times.insert(linear >> 12)
        return delay

    def _touch(self, op: Op, linear: int, physical: int, time: int) -> tuple[int, int]:
        """Load a line, or take it from a store of the window: (when the data is there, the level it came from)."""
        written = self._written.get(physical >> 3)
        if written is not None:
            return max(time, written) + self.board.forward, 0
        core = self.core
        line = physical >> LINE_SHIFT
        latency, level = core.caches.access(line, time)
        self._accessed = linear, level
        if level > 1 or self._untimed:
            self._filled += 1
            core.buffers.filled(line)
            record = self._record
            if record is not None:
                width = self.board.width
                record.fills.append(
                    Fill(
                        line << LINE_SHIFT, linear & ~(LINE - 1), op.address, level, time // width,
                        (time + latency) // width, self._causes,
                    )
                )  # fmt: skip
        size = op.memory.size if op.memory is not None else 1
        if (physical & LINE - 1) + size > LINE and (linear & PAGE_MASK) + size <= PAGE_MASK + 1:
            more, _ = core.caches.access(line + 1, time)
            latency = max(latency, more)
        return time + (1 if self._untimed else latency), level

    def _faulting(self, op: Op, linear: int, write: bool, time: int) -> tuple[int, bool, str]:
        """The access would fault: what it forwards, by the CPU's flaws."""
        forwarded = self.forwarding.of(linear, WRITE if write else READ, time, op.memory.size if op.memory else 8)
        page = linear & ~PAGE_MASK
        if forwarded is None:
            return NEVER, False, "faults, forwards nothing"
        if write and self.core.is_code(forwarded.page):
            self.squash("store to code")
            return time, True, ""
        self._causes = (*self._causes, forwarded.flaw) if self._causes[-1] != forwarded.flaw else self._causes
        if self._record is not None and self._record.flaw == "fault":
            self._record.flaw = forwarded.flaw
        if self._causes[0] == "fault":
            self._causes = self._causes[1:]
        self.forged[page] = forwarded.page | 7
        self.dirty = True
        # Nothing that is kept may say how the tables translate it.
        self.core.engine.flush("window")
        if write:
            self._written[(forwarded.page & ~PAGE_MASK | linear & PAGE_MASK) >> 3] = self._data_ready(op, time)
            return time, True, f"forwarded {forwarded.flaw}"
        return time + forwarded.latency, True, f"forwarded {forwarded.flaw}"

    def stored(self, physical: int, size: int) -> None:
        """A store is about to happen: keep what is there. One across two pages is reported once, by its first byte."""
        ram = self.core.cpu.ram_bytes
        inside = min(size, PAGE_SIZE - (physical & PAGE_MASK))
        self.undo.append((physical, bytes(ram[physical : physical + inside])))
        if self.core.is_code(physical):
            self._spoilt.add(physical & ~PAGE_MASK)
        if inside == size:
            return
        for linear in self._store_addresses():
            first = self._stores_to(linear)
            if first & ~PAGE_MASK == physical & ~PAGE_MASK and first <= physical:
                second = self._stores_to((linear | PAGE_MASK) + 1)
                if second < SCRATCH:
                    self.undo.append((second, bytes(ram[second : second + size - inside])))
                    if self.core.is_code(second):
                        self._spoilt.add(second & ~PAGE_MASK)
                return

    def _stores_to(self, linear: int) -> int:
        """The physical address that the window's store at ``linear`` changes."""
        forged = self.forged.get(linear & ~PAGE_MASK)
        if forged is None:
            found = self.core.translations.physical(linear, WRITE)
            return found if found >= 0 else SCRATCH | linear & PAGE_MASK
        return forged & ~PAGE_MASK | linear & PAGE_MASK

    def _store_addresses(self) -> list[int]:
        """Where the instruction that runs may store: its operand, the stack, what RDI points to."""
        op = self._current
        found = [self._q[Q_RSP] - 8 & _MASK, self._q[Q_RSP] - 2 & _MASK]
        if op is not None and op.memory is not None:
            found.insert(0, self.core.linear(op.memory))
        found.append(self._q[Q_RDI])
        return found

    # -- predictions inside --------------------------------------------------------------------------------------

    def _follow(self, op: Op, actual: int) -> bool:
        """The branch ``op`` was executed and goes to ``actual``: whether that is where the window goes on."""
        core = self.core
        kind = op.kind
        if kind in (Kind.JUMP, Kind.STRING, Kind.PAUSE, Kind.SFENCE, Kind.FLUSH, Kind.PREFETCH):
            return True
        if kind == Kind.CALL:
            core.rsb.push(op.end)
            return True
        predicted, flaw = core.predict(op)
        done = self._previous_done
        if kind == Kind.INDIRECT_CALL:
            core.rsb.push(op.end)
        if predicted == actual:
            return True
        if done <= self._time + self.board.pending:
            # Resolved at once: the right way is taken, a little later.
            self._time = max(self._time, done + core.squash_latency)
            return True
        if predicted is None or flaw not in core.flaws:
            if done >= self._closes:
                self.squash("no prediction")
                return False
            self._time = done
            return True
        self._nest(op, flaw)
        self._previous = None
        self.observer.redirect(predicted)
        return False

    def _nest(self, op: Op, flaw: str) -> None:
        """A prediction was followed inside."""
        self._causes = (*self._causes, flaw)
        if self._record is not None:
            self._record.nested.append((op.address, flaw))

    # -- records -------------------------------------------------------------------------------------------------

    def _note(self, op: Op, start: int, done: int, note: str) -> None:
        record = self._record
        if record is None:
            return
        width = self.board.width
        begins = start // width if start < NEVER else NEVER
        ends = done // width if done < NEVER else NEVER
        linear, level = self._accessed
        self._accessed = None, 0
        record.steps.append(Step(op.address, op.code, begins, ends, (), note, linear, level))

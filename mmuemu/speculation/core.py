"""The speculating CPU: a pipeline attached to an engine, its misses, its faults, its stretches of emulation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu.engines import FETCH, MEM_READ
from mmuemu.cpu.observe import SCRATCH
from mmuemu.cpu.window import D_HFLAGS, Q_CR0
from mmuemu.mmu.walk import EXECUTABLE, WRITABLE
from mmuemu.speculation.blocks import Block
from mmuemu.speculation.flags import repair_flags
from mmuemu.speculation.forwarding import Forwarded
from mmuemu.speculation.models import CpuSpec
from mmuemu.speculation.ops import Kind, Op
from mmuemu.speculation.pipeline import NO_LIMIT, Pipeline
from mmuemu.speculation.translations import READ
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import PAGE_MASK

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu
    from mmuemu.cpu.traps import Trap

_RAX: Final = 0
_RDX: Final = 2
_WORD: Final = (1 << 64) - 1
_PREFIXES: Final = bytes([0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF2, 0xF3, *range(0x40, 0x50)])
_DIVIDE_BYTES: Final = 0xF6
_HFLAG_TS: Final = 1 << 11
_CR0_TS: Final = 8


class Speculation(Pipeline):
    """One core, attached to ``cpu`` before it runs. ``flaws`` are those in force."""

    def __init__(
        self,
        cpu: Cpu,
        spec: CpuSpec,
        flaws: frozenset[str],
        mitigations: frozenset[str] = frozenset(),
        noise: int | None = None,
    ) -> None:
        super().__init__(cpu, spec, flaws, mitigations, noise)
        self._fill_normally = self.engine._fill
        self.engine.serve(self._fill)
        cpu.tsc = self.read_tsc
        cpu.transient = self

    # -- misses of the engine's TLB ------------------------------------------------------------------------------

    def _fill(self, uc: int, page: int, kind: int, result: int) -> bool:
        """Serve a miss of the engine's TLB: by the tables as ever, or for a window, without a trace."""
        if not self.transient.active:
            served = self._fill_normally(uc, page, kind, result)
            if served:
                frame, permissions = self.engine.answered(result)
                if permissions & EXECUTABLE:
                    self.code.fetched(frame >> 12)
                if kind - MEM_READ != FETCH:
                    self.times.insert(page >> 12)
            return served
        try:
            return self._fill_transiently(page, kind - MEM_READ, result)
        except BaseException as error:
            self.cpu.fail(error)
            return False

    def _fill_transiently(self, page: int, access: int, result: int) -> bool:
        engine, transient = self.engine, self.transient
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
                if found & EXECUTABLE and self.code.fetched(found >> 12) and access == FETCH:
                    return False
                if access == FETCH or (access == READ and found & WRITABLE):
                    found = engine.exclusive(page, found, access)
        engine.answer(result, found & ~PAGE_MASK, found & 7)
        return True

    # -- stretches of emulation, and traps (cpu.Transient) -------------------------------------------------------

    def begin(self, limit: int | None) -> None:
        """Emulation starts; at most about ``limit`` instructions are to run."""
        self.limit = NO_LIMIT if limit is None else self.instructions + limit
        self._previous = None
        self.unfollow()
        self.clear_log()

    def ended(self, rip: int) -> bool:
        """Emulation has ended with RIP at ``rip``; True when a window ended it, which is undone: go on."""
        if self.transient.active:
            self.transient.squash("page fault on fetch")
            self.observer.restore_stopped()
            self.engine.take_fault()
            return True
        block, self._previous = self._previous, None
        if block is None or rip == block.address:
            self.clear_log()
            return False
        if block.address < rip < block.end:
            repair_flags(self.cpu, block, rip)
            self._account(block, rip)
            self._done = 0
            self.instructions += sum(op.address < rip for op in block.described)
        else:
            self._ended_block(block, rip)
        self.clear_log()
        return False

    def _ended_block(self, block: Block, successor: int) -> None:
        """``block`` has run to its end, and the next one was not reached."""
        block.count += 1
        self.instructions += block.length
        self._account(block, block.end)
        if block.kind == Kind.CALL:
            self.rsb.push(block.end)
        elif block.kind in (Kind.RETURN, Kind.INDIRECT_CALL, Kind.INDIRECT_JUMP):
            self._indirect(block, successor, True, may_open=False)

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
        forced = (
            None
            if trap.vector in (Vector.PF, Vector.GP, Vector.SS) and op.memory is not None
            else self._forced(trap, op)
        )
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
            if forced is not None and forced.passed:
                self._divided(op)
            self.observer.start(trap.rip)
            if self.transient.active:
                self.transient.squash("page fault on fetch")
                self.engine.take_fault()
            self.observer.restore()
        board.wait(closes + self._penalty)

    def _divided(self, op: Op) -> None:
        """What DIV and IDIV by zero leave: quotient 0, and the dividend's low part as the remainder."""
        q = self.cpu.window.live_q
        opcode = op.code.lstrip(_PREFIXES)[0]
        if opcode == _DIVIDE_BYTES:
            q[_RAX] = q[_RAX] & ~0xFFFF | (q[_RAX] & 0xFF) << 8
            return
        wide = any(0x48 <= byte < 0x50 for byte in op.code[: op.code.index(opcode)])
        mask = _WORD if wide else 0xFFFF if 0x66 in op.code[:2] else 0xFFFF_FFFF
        kept = 0 if mask != 0xFFFF else _WORD & ~mask
        q[_RDX] = q[_RDX] & kept | q[_RAX] & mask
        q[_RAX] &= kept

    def _forced(self, trap: Trap, op: Op) -> Forwarded:
        """How the faulting instruction itself goes on when the fault is not one of memory."""
        flaw = {Vector.NM: "meltdown-nm", Vector.DE: "meltdown-de", Vector.AC: "meltdown-ac"}.get(Vector(trap.vector))
        if flaw is not None and flaw in self.flaws:
            passed = trap.vector == Vector.DE
            return Forwarded(flaw, op=op, ready=True, note=f"forwarded {flaw}", vector_only=True, passed=passed)
        return Forwarded("fault", op=op, note="faults, forwards nothing", vector_only=True)

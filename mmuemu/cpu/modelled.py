"""The TLB model in the ``python`` engine: misses of the engine's own TLB ask the model before they walk.

The engine's TLB stands in front of the model, a faster cache of the same translations: it never holds one that the
guest has invalidated in the model. So hits and misses count what the engine's TLB asked for, and a translation that the
model gave up for lack of room may live on in the engine's until the next flush, as in a larger TLB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mmuemu.cpu.engines import FETCH, MEM_READ, PythonEngine
from mmuemu.cpu.window import D_HFLAGS, Q_CR0, Q_CR3, Q_CR4, Q_EFER, Q_PKRU, Q_RFLAGS
from mmuemu.errors import UsageError
from mmuemu.mmu.cached import CachedTranslator, Rules, StaleUse
from mmuemu.mmu.state import Access, PagingState
from mmuemu.mmu.tlb import Tlb
from mmuemu.mmu.walk import NON_CANONICAL, WRITABLE, PageWalker, Trace, Updates
from mmuemu.x86.msrs import MSR_MTRR_DEF_TYPE, MSR_MTRR_PHYSBASE0
from mmuemu.x86.paging import PAGE_MASK
from mmuemu.x86.registers import CR4_PCIDE, RFLAGS_AC

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

_FIRST_MTRR, _LAST_MTRR, _PAT = MSR_MTRR_PHYSBASE0, MSR_MTRR_DEF_TYPE, 0x277


class ModelledTlb:
    """The model of one CPU's TLB: what its translations go through, and what the guest's invalidations reach.

    With ``on_stale`` it is strict: the callback gets every use of a stale translation. To notice uses that the engine's
    TLB would serve, a page that holds tables is kept in it for writing only as long as nothing else is filled.
    """

    def __init__(self, cpu: Cpu, engine: PythonEngine, tlb: Tlb, on_stale: Callable[[StaleUse], None] | None) -> None:
        self.cpu = cpu
        self.tlb = tlb
        self.translator = CachedTranslator(cpu.ram.qwords, tlb, on_stale, page_1g=cpu.page_1g)
        self._engine = engine
        self._strict = on_stale is not None
        self._held: set[int] = set()
        self._seen_flushes = 0
        self._tables_known = 0
        self._table_open = False

    # -- misses of the engine's TLB ------------------------------------------------------------------------

    def fill(self, _uc: int, page: int, kind: int, result: int) -> bool:
        """Serve one miss (a UC_HOOK_TLB_FILL callback)."""
        engine = self._engine
        try:
            if engine.probing:
                engine.answer_probe(result, page)
                return True
            if self._table_open:
                self._flush_engine()
            cpu = self.cpu
            access = kind - MEM_READ
            state = cpu.window
            state.save()
            q, d = state.q, state.d
            user = d[D_HFLAGS] & 3 == 3
            ac = not user and q[Q_RFLAGS] & RFLAGS_AC != 0
            if engine.permitted is not None and engine.permits(page, access):
                user = ac = False
            rules = self.translator.rules((q[Q_CR0], q[Q_CR4], q[Q_EFER], q[Q_PKRU] & 0xFFFF_FFFF, cpu.pkrs))
            found = self._translate(rules, q[Q_CR3], page, access, user, ac)
            if found < 0:
                if engine.refused is None:
                    engine.refused = (page, found, access)
                return False
            if self._strict:
                found = self._guard_tables(found, access)
            if access == FETCH or found & WRITABLE:
                found = engine.exclusive(page, found, access)
            engine.answer(result, found & ~PAGE_MASK, found & 7)
            engine.count_fill()
            self._hold(page)
            return True
        except BaseException as error:
            self.cpu.fail(error)
            return False

    def _translate(self, rules: Rules, cr3: int, page: int, access: int, user: bool, ac: bool) -> int:
        """Through the model; the handler is asked to map a page that is refused."""
        updates: list[tuple[int, int]] = []
        while True:
            found = self.translator.translate(rules, cr3, page, access, user, ac, updates)
            if updates:
                self._engine.commit(updates)
            if found >= 0:
                return found
            if self._engine.flushes == self._seen_flushes and (page in self._held or self.tlb.saw_large):
                self._flush_engine()
            if found == NON_CANONICAL or not self.cpu.handler.page_fault(page, -1 - found):
                return found

    def walker(self, state: PagingState) -> PageWalker:
        """What stands in for a walk under ``state``, for accesses that the CPU makes without the engine."""
        rules = self._rules(state)

        def through_model(
            cr3: int, linear: int, access: int, user: bool, ac: bool, updates: Updates, _trace: Trace | None
        ) -> int:
            found = self.translator.translate(rules, cr3, linear, access, user, ac, updates)
            if found < 0:
                self._engine.flush()
            return found

        return through_model

    def looker(self, state: PagingState) -> PageWalker:
        """A walk that sees what the TLB holds and changes nothing, for a look at memory as the CPU would see it."""
        rules = self._rules(state)

        def look(
            cr3: int, linear: int, access: int, user: bool, ac: bool, updates: Updates, trace: Trace | None
        ) -> int:
            return self.translator.look(rules, cr3, linear, access, user, ac, updates, trace)

        return look

    def _rules(self, state: PagingState) -> Rules:
        return self.translator.rules((state.cr0, state.cr4, state.efer, state.pkru, state.pkrs))

    def _hold(self, page: int) -> None:
        """Note that the engine's TLB holds ``page``."""
        if self._engine.flushes != self._seen_flushes:
            self._seen_flushes = self._engine.flushes
            self._held.clear()
        self._held.add(page)

    def _flush_engine(self) -> None:
        self._table_open = False
        self._engine.flush()

    def _guard_tables(self, found: int, access: int) -> int:
        """Strict: after a store to a table, nothing that was filled before it is left in the engine's TLB."""
        tables = self.translator.tables
        if len(tables) != self._tables_known:
            # The engine may hold one of these frames for writing, from before it was a table.
            self._tables_known = len(tables)
            self._flush_engine()
        if found & ~PAGE_MASK not in tables:
            return found
        if access != Access.WRITE:
            return found & ~WRITABLE
        self._flush_engine()
        self._table_open = True
        return found

    # -- what the guest and the host do to the TLB -----------------------------------------------------------

    def observe(self, what: str, old: int, new: int) -> None:
        """An event of :class:`mmuemu.cpu.privileged.Privileged`, told before the instruction takes effect."""
        tlb, q = self.tlb, self.cpu.window.q
        pcide = bool(q[Q_CR4] & CR4_PCIDE)
        pcid = q[Q_CR3] & 0xFFF if pcide else 0
        if what == "cr3":
            tlb.mov_cr3(new, pcide=pcide)
        elif what == "cr4":
            tlb.mov_cr4(old, new, pcid)
        elif what == "cr0":
            tlb.mov_cr0(old, new)
        elif what == "invpcid":
            tlb.invpcid(old >> 12, old & 0xFFF, new)
        elif what == "invlpg":
            # The engine drops 4 KiB by itself, and may hold more of a large page.
            if tlb.saw_large:
                self._flush_engine()
            tlb.invlpg(old, pcid)
        elif what.startswith("msr ") and _FIRST_MTRR <= int(what[4:], 16) <= _LAST_MTRR and int(what[4:], 16) != _PAT:
            tlb.flush("mtrr")
            self._flush_engine()

    def flush(self, cause: str = "host") -> None:
        """Drop every translation, global ones too: the host has changed tables or registers behind the guest."""
        self.tlb.flush(cause)

    def statistics(self) -> dict[str, int]:
        """``hits``, ``misses``, ``evictions``, and flushes by cause as ``flush: CAUSE``."""
        tlb = self.tlb
        causes = {f"flush: {cause}": count for cause, count in sorted(tlb.flushes.items())}
        return {"hits": tlb.hits, "misses": tlb.misses, "evictions": tlb.evictions} | causes


def model_tlb(cpu: Cpu, tlb: Tlb | None = None, *, on_stale: Callable[[StaleUse], None] | None = None) -> ModelledTlb:
    """Put ``tlb`` (a new one by default) between the guest and its page tables; kept in ``cpu.tlb``.

    ``on_stale`` is called with every use of a translation that the tables no longer give. Raises UsageError without the
    ``python`` engine, or without :class:`~mmuemu.cpu.privileged.Privileged` (a bare machine has it): nobody would see
    the guest's invalidations. Call it before the guest runs, and once.
    """
    engine = cpu.engine
    if not isinstance(engine, PythonEngine):
        raise UsageError(f"the TLB model needs the python MMU engine, not {engine.name}")
    if cpu.privileged is None:
        raise UsageError("the TLB model needs a CPU whose privileged instructions are watched (BareMetal)")
    if cpu.tlb is not None:
        raise UsageError("this CPU has a TLB model already")
    model = cpu.tlb = ModelledTlb(cpu, engine, tlb if tlb is not None else Tlb(), on_stale)
    engine.serve(model.fill)
    engine.flush()
    cpu.privileged.observers.append(model.observe)
    return model

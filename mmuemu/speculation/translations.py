"""Linear addresses without side effects: the walk for transient accesses, and how long a walk takes.

A walk here sets no accessed or dirty bit and maps no page: whatever runs transiently leaves no trace in the tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu.window import D_HFLAGS, HFLAG_CPL, Q_CR0, Q_CR3, Q_CR4, Q_EFER, Q_PKRU, Q_RFLAGS
from mmuemu.speculation.caches import LINE_SHIFT, Hierarchy
from mmuemu.speculation.models import CpuSpec
from mmuemu.x86.paging import ADDRESS_MASK, PAGE_MASK
from mmuemu.x86.registers import RFLAGS_AC

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu
    from mmuemu.cpu.engines import PythonEngine

READ: Final = 0
WRITE: Final = 1
FETCH: Final = 2
PAGE_SHIFT: Final = 12


class Translations:
    """Walks of one CPU, by the engine's live state; good ones are kept until the next flush or a change of the entry.

    Not every change flushes: a page copied on write while its miss is served is replaced in the engine's TLB alone.
    """

    def __init__(self, cpu: Cpu, engine: PythonEngine) -> None:
        self.cpu = cpu
        self._engine = engine
        self._q, self._d = cpu.window.live_q, cpu.window.live_d
        self._words = cpu.ram.qwords
        self._kept: dict[tuple[int, int, int], tuple[int, int, int]] = {}
        self._generation = -1
        self.owed = False
        """Whether the last look-up would have had to set an accessed or dirty bit."""

    def page(self, linear: int, access: int) -> int:
        """The physical page and permissions of ``linear``, or the walk's refusal (negative)."""
        cpu, q = self.cpu, self._q
        engine = cpu.engine
        if engine.flushes != self._generation:
            self._generation = engine.flushes
            self._kept.clear()
        cpl = self._d[D_HFLAGS] & HFLAG_CPL
        key = (linear >> PAGE_SHIFT, q[Q_CR3], cpl << 2 | access)
        kept = self._kept.get(key)
        if kept is not None and self._words[kept[1]] == kept[2]:
            self.owed = False
            return kept[0]
        found, updates, trace = self._walk(linear & ~PAGE_MASK, access, cpl == 3)
        self.owed = bool(updates)
        if found >= 0 and trace and not updates:
            _, index, entry = trace[-1]
            self._kept[key] = found, index, entry
        return found

    def physical(self, linear: int, access: int) -> int:
        """The physical address of ``linear``, or the walk's refusal (negative)."""
        found = self.page(linear, access)
        return found if found < 0 else found & ~PAGE_MASK | linear & PAGE_MASK

    def entries(self, linear: int, access: int) -> tuple[int, list[tuple[int, int, int]]]:
        """The walk's result and the entries it read: (level, index of the qword, entry)."""
        found, _, trace = self._walk(linear & ~PAGE_MASK, access, self._d[D_HFLAGS] & HFLAG_CPL == 3)
        return found, trace

    def _walk(
        self, page: int, access: int, user: bool
    ) -> tuple[int, list[tuple[int, int]], list[tuple[int, int, int]]]:
        q, cpu = self._q, self.cpu
        engine = self._engine
        key = (q[Q_CR0], q[Q_CR4], q[Q_EFER], q[Q_PKRU] & 0xFFFF_FFFF, cpu.pkrs)
        walk = engine.walkers.get(key) or engine.walker(key)
        updates: list[tuple[int, int]] = []
        trace: list[tuple[int, int, int]] = []
        ac = not user and q[Q_RFLAGS] & RFLAGS_AC != 0
        found = walk(q[Q_CR3], page, access, user, ac, updates, trace)
        return found, updates, trace


def frame_of(entry: int) -> int:
    """The physical address in the frame-number bits of an entry, present or not."""
    return entry & ADDRESS_MASK


class TranslationTimes:
    """The data TLB as a clock: first level, second level, or a walk whose reads go through the caches."""

    def __init__(self, spec: CpuSpec, caches: Hierarchy) -> None:
        self.spec = spec
        self.caches = caches
        self._second = spec.stlb_latency * spec.issue_width
        self._l1: dict[int, None] = {}
        self._l2: dict[int, None] = {}

    def hit(self, page: int) -> int:
        """Slots that the first two levels take for ``page`` (linear address >> 12); -1: neither has it."""
        l1 = self._l1
        if page in l1:
            del l1[page]
            l1[page] = None
            return 0
        if page in self._l2:
            self._keep(page)
            return self._second
        return -1

    def walk(self, trace: list[tuple[int, int, int]], time: int) -> int:
        """Slots of a walk that reads those entries, one after the other."""
        start = time
        for _, index, _ in trace:
            latency, _ = self.caches.access(index << 3 >> LINE_SHIFT, time)
            time += latency
        return time - start

    def insert(self, page: int) -> None:
        """A translation has been made."""
        self._l2.pop(page, None)
        self._l2[page] = None
        if len(self._l2) > self.spec.stlb_entries:
            del self._l2[next(iter(self._l2))]
        self._keep(page)

    def _keep(self, page: int) -> None:
        l1 = self._l1
        l1.pop(page, None)
        l1[page] = None
        if len(l1) > self.spec.tlb_entries:
            del l1[next(iter(l1))]

    def flush(self, keep: int = 1 << 51) -> None:
        """Another address space: what is not global goes (pages from ``keep`` on, the kernel half, are)."""
        self._l1 = {page: None for page in self._l1 if page >= keep}
        self._l2 = {page: None for page in self._l2 if page >= keep}

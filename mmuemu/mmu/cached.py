"""Translation through a TLB: a cached translation is used as it is, by the rights in force now; else there is a walk.

SDM volume 3, section 4.10.2: a translation is cached when a walk has succeeded, never a fault. R/W, U/S, XD and the
protection key are cached; CR0, CR4, EFER, PKRU, IA32_PKRS and EFLAGS.AC decide at each use what they allow. A cached
translation that refuses an access gives a page fault, even if the tables would allow it by now (section 4.10.4.3), and
is gone afterwards. A write through one whose D flag is clear walks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mmuemu.mmu.rules import WRITABLE, key_tables, rights_table, separation_violated
from mmuemu.mmu.state import Access, PagingState
from mmuemu.mmu.tlb import GLOBAL, PCID_MASK, CachedTranslation, Tlb
from mmuemu.mmu.walk import NON_CANONICAL, Trace, Updates, fault_result, page_walker
from mmuemu.x86.paging import PAGE_MASK, RW, US, D, G, protection_key
from mmuemu.x86.registers import CR4_LASS, CR4_PCIDE, CR4_PGE, CR4_PKE, CR4_PKS, CR4_SMAP

_MOST_RULES = 1024


@dataclass(frozen=True, slots=True)
class StaleUse:
    """A cached translation was used that a walk would not have given: software relies on a missing invalidation.

    ``linear`` is the address accessed, or its page where Unicorn tells no more; ``memory`` is what the tables say now
    (None: not mapped). The rights differ for this privilege, or the physical addresses do; A and D flags and page sizes
    alone do not count.
    """

    linear: int
    access: Access
    user: bool
    cached: CachedTranslation
    memory: CachedTranslation | None

    def __str__(self) -> str:
        now = "is not mapped" if self.memory is None else f"is {_page(self.memory, self.linear)}"
        who = "user" if self.user else "supervisor"
        return (
            f"stale TLB entry used by a {who} {self.access.name.lower()} at {self.linear:#x}: "
            f"cached as {_page(self.cached, self.linear)}, {now} in the tables"
        )


def _page(entry: CachedTranslation, linear: int) -> str:
    """Physical page and rights, such as ``0x5000 rw-u``."""
    rights = (
        f"r{'w' if entry.allowed & RW else '-'}{'-' if entry.allowed & 1 else 'x'}{'u' if entry.allowed & US else 's'}"
    )
    return f"{entry.physical + (linear & entry.size - 1):#x} {rights}"


class Rules:
    """One paging state turned into what the use of a cached translation looks up; its CR3 is not used."""

    def __init__(self, qwords: memoryview, state: PagingState) -> None:
        self.state = state
        self.pcid_mask = PCID_MASK if state.cr4 & CR4_PCIDE else 0
        self.walk = page_walker(qwords, state)
        # The same tables without the rights, for a look at what they say: supervisor reads are never refused.
        self.look = page_walker(qwords, replace(state, cr4=state.cr4 & ~(CR4_PKE | CR4_PKS | CR4_SMAP | CR4_LASS)))
        mode = state.mode
        self.paging = bool(mode.levels)
        self.linear_mask = (1 << 64) - 1 if mode.canonical else 0xFFFF_FFFF
        self._levels = mode.levels
        self._has_keys = mode.has_keys
        self._global = G if state.cr4 & CR4_PGE else 0
        self._index_mask = 7 if state.no_execute else 6
        self._user = rights_table(state, user=True, ac=False)
        self._supervisor = rights_table(state, user=False, ac=False)
        self._supervisor_ac = rights_table(state, user=False, ac=True)
        self._keys = key_tables(state)
        self._fault = fault_result(state)

    def entry(self, pcid: int, linear: int, found: int, trace: Trace, dirty: bool) -> CachedTranslation:
        """What the TLB keeps of a walk that found a page, from the entries it read."""
        allowed, no_execute = RW | US, 0
        for level, _, read in trace:
            if self._levels[level].has_rights:
                allowed &= read
                no_execute |= read
        last, _, leaf = trace[-1]
        size = self._levels[last].size
        return CachedTranslation(
            GLOBAL if leaf & self._global else pcid,
            linear & -size,
            size,
            (found & ~PAGE_MASK) & -size,
            allowed | no_execute >> 63,
            protection_key(leaf) if self._has_keys else 0,
            dirty or bool(leaf & D),
        )

    def permissions(self, entry: CachedTranslation, user: bool, ac: bool) -> tuple[int, int]:
        """What the translation allows, and what its protection key takes away from that."""
        rights = self._user if user else self._supervisor_ac if ac else self._supervisor
        denied = 0 if self._keys is None else self._keys[user << 1 | (entry.allowed & US) >> 2][entry.key]
        return rights[entry.allowed & self._index_mask], denied

    def use(self, entry: CachedTranslation, linear: int, access: int, user: bool, ac: bool) -> int:
        """A walk's result, from the cached translation alone (WRITABLE only while D is set)."""
        permissions, denied = self.permissions(entry, user, ac)
        if denied >> access & 1:
            return self._fault(access, user, 33)
        permissions &= ~denied
        if not permissions >> access & 1:
            return self._fault(access, user, 1)
        if not entry.dirty:
            permissions &= ~WRITABLE
        return entry.physical | linear & entry.size - 1 & ~PAGE_MASK | permissions


class CachedTranslator:
    """A walk with ``tlb`` in front of it, over the tables in ``qwords``.

    ``on_stale`` makes it strict: it is called for every use of a cached translation that the tables no longer give.
    """

    def __init__(
        self, qwords: memoryview, tlb: Tlb | None = None, on_stale: Callable[[StaleUse], None] | None = None
    ) -> None:
        self.tlb = tlb if tlb is not None else Tlb()
        self.on_stale = on_stale
        self.tables: set[int] = set()
        """Frames that walks have read as tables; whoever is strict can watch them."""
        self._qwords = qwords
        self._rules: dict[tuple[int, ...], Rules] = {}

    def rules(self, key: tuple[int, int, int, int, int]) -> Rules:
        """The rules for (CR0, CR4, EFER, PKRU, IA32_PKRS), made on first use and kept."""
        found = self._rules.get(key)
        if found is None:
            if len(self._rules) >= _MOST_RULES:
                self._rules.clear()
            cr0, cr4, efer, pkru, pkrs = key
            found = self._rules[key] = Rules(self._qwords, PagingState(0, cr0, cr4, efer, pkru=pkru, pkrs=pkrs))
        return found

    def translate(
        self, rules: Rules, cr3: int, linear: int, access: int, user: bool, ac: bool, updates: Updates
    ) -> int:
        """A page walker's result (see :data:`mmuemu.mmu.walk.PageWalker`), from the TLB where it has the page.

        ``cr3`` is the register's value. A fault has already dropped what the TLB held of the page.
        """
        state, tlb = rules.state, self.tlb
        if not rules.paging:
            return rules.walk(cr3, linear, access, user, ac, updates, None)
        if state.address_space_separation and separation_violated(
            state, linear, fetch=access == Access.FETCH, user=user, ac=ac
        ):
            return NON_CANONICAL
        linear &= rules.linear_mask
        pcid = cr3 & rules.pcid_mask
        entry = tlb.lookup(pcid, linear)
        if entry is not None:
            found = rules.use(entry, linear, access, user, ac)
            if found < 0 or access != Access.WRITE or entry.dirty:
                tlb.hits += 1
                if self.on_stale is not None:
                    self._compare(rules, cr3, linear, access, user, ac, entry)
                if found < 0:
                    tlb.page_fault(linear, pcid)
                return found
        return self._walk(rules, cr3, linear, access, user, ac, updates, entry)

    def look(
        self,
        rules: Rules,
        cr3: int,
        linear: int,
        access: int,
        user: bool,
        ac: bool,
        updates: Updates,
        trace: Trace | None,
    ) -> int:
        """:meth:`translate` that leaves the TLB and its counters alone."""
        entry = self.tlb.lookup(cr3 & rules.pcid_mask, linear & rules.linear_mask) if rules.paging else None
        if entry is not None:
            return rules.use(entry, linear & rules.linear_mask, access, user, ac)
        return rules.walk(cr3, linear, access, user, ac, updates, trace)

    def _walk(
        self,
        rules: Rules,
        cr3: int,
        linear: int,
        access: int,
        user: bool,
        ac: bool,
        updates: Updates,
        clean: CachedTranslation | None,
    ) -> int:
        """The walk of a miss, or of a write through the ``clean`` translation, which gives way to the new one."""
        tlb, pcid = self.tlb, cr3 & rules.pcid_mask
        trace: list[tuple[int, int, int]] = []
        found = rules.walk(cr3, linear, access, user, ac, updates, trace)
        if found == NON_CANONICAL:
            return found
        tlb.misses += 1
        if self.on_stale is not None:
            self._note_tables(rules, trace)
        if found < 0:
            tlb.page_fault(linear, pcid)
            return found
        if clean is not None:
            tlb.drop(clean)
        tlb.insert(rules.entry(pcid, linear, found, trace, access == Access.WRITE))
        return found

    def _note_tables(self, rules: Rules, trace: Trace) -> None:
        shift = 12 - (rules.state.mode.entry_bytes.bit_length() - 1)
        self.tables.update(index >> shift << 12 for _, index, _ in trace)

    def _compare(
        self, rules: Rules, cr3: int, linear: int, access: int, user: bool, ac: bool, entry: CachedTranslation
    ) -> None:
        """Report the use of ``entry`` unless the tables give the same page with the same rights."""
        trace: list[tuple[int, int, int]] = []
        found = rules.look(cr3, linear, Access.READ, False, True, [], trace)
        self._note_tables(rules, trace)
        memory = None if found < 0 else rules.entry(cr3 & rules.pcid_mask, linear, found, trace, True)
        if memory is not None:
            offset = linear & ~PAGE_MASK
            same_page = entry.physical + (offset & entry.size - 1) == memory.physical + (offset & memory.size - 1)
            if same_page and rules.permissions(entry, user, ac) == rules.permissions(memory, user, ac):
                return
        if self.on_stale is not None:
            self.on_stale(StaleUse(linear, Access(access), user, entry, memory))

"""The TLB as software sees it (Intel SDM volume 3, section 4.10): what is cached, under which tag, and what ends it.

A :class:`Tlb` holds translations and knows nothing of walks or rights; :mod:`mmuemu.mmu.cached` puts it in front of a
walk. Every operation that invalidates has a method here, so that its rule stands in one place (section 4.10.4.1, and
"Invalidating the Translation Lookaside Buffers" in the chapter on memory caches for CR0.PE, CR4.PSE and the MTRRs).
Where the manual lets a processor drop more than it must, the method says what this one drops.

What needs no invalidation, because it decides how a cached translation is used and not what is in it: CR0.WP,
EFLAGS.AC, CR4.SMAP, CR4.PKE, CR4.PKS, PKRU, IA32_PKRS and EFER.NXE. There are no paging-structure caches: every walk
begins at CR3, which the manual allows, so INVLPG and page faults have none to drop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mmuemu.x86.controls import CR3_NO_FLUSH
from mmuemu.x86.paging import PAGE_SIZE
from mmuemu.x86.registers import CR0_PE, CR0_PG, CR4_PAE, CR4_PCIDE, CR4_PGE, CR4_PSE, CR4_SMEP

GLOBAL: Final = -1
"""The tag of a translation that is used under every PCID."""
DEFAULT_CAPACITY: Final = 1536
"""Translations in the second-level TLB of Skylake and its relatives."""
PCID_MASK: Final = 0xFFF


@dataclass(frozen=True, slots=True)
class CachedTranslation:
    """What a TLB entry holds (SDM volume 3, section 4.10.2.2).

    ``tag`` is a PCID or :data:`GLOBAL`; ``linear`` and ``physical`` are where the page of ``size`` bytes begins.
    ``allowed`` combines all levels: R/W and U/S at their places in an entry, XD in bit 0. ``key`` is the protection
    key, ``dirty`` the D flag: while it is clear, a write walks again.
    """

    tag: int
    linear: int
    size: int
    physical: int
    allowed: int
    key: int = 0
    dirty: bool = False


_Key = tuple[int, int, int]
"""(tag, size, first linear address)."""


class Tlb:
    """Translations by PCID, page and page size; at most ``capacity`` of them (None: no bound), the oldest goes first.

    ``hits``, ``misses`` and ``evictions`` count; ``flushes`` counts invalidations by cause. An operation that found
    nothing to drop counts too, a page fault only when it dropped something.
    """

    def __init__(self, capacity: int | None = DEFAULT_CAPACITY) -> None:
        self.capacity = capacity
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self.flushes: dict[str, int] = {}
        self.saw_large = False
        """Whether a page above 4 KiB was ever cached: a copy in pieces of 4 KiB may then hold more than one of them."""
        self._entries: dict[_Key, CachedTranslation] = {}
        self._sizes: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> list[CachedTranslation]:
        """Everything cached, the oldest first."""
        return list(self._entries.values())

    def lookup(self, pcid: int, linear: int) -> CachedTranslation | None:
        """The translation of ``linear`` under ``pcid``: its own before a global one, small pages before large ones.

        (With several, the manual lets the processor use any: section 4.10.2.3.) Counts nothing.
        """
        found = self._entries
        for tag in (pcid, GLOBAL):
            for size in self._sizes:
                entry = found.get((tag, size, linear & -size))
                if entry is not None:
                    return entry
        return None

    def insert(self, entry: CachedTranslation) -> None:
        """Cache ``entry``, in place of one of the same tag, page and size, or of the oldest when there is no room."""
        key = (entry.tag, entry.size, entry.linear)
        if key in self._entries:
            self._remove(key)
        elif self.capacity is not None and len(self._entries) >= self.capacity:
            self._remove(next(iter(self._entries)))
            self.evictions += 1
        self._entries[key] = entry
        self.saw_large |= entry.size > PAGE_SIZE
        if entry.size not in self._sizes:
            self._sizes = {size: self._sizes.get(size, 0) for size in sorted((*self._sizes, entry.size))}
        self._sizes[entry.size] += 1

    def drop(self, entry: CachedTranslation) -> None:
        """Forget one translation (a processor may at any time)."""
        self._remove((entry.tag, entry.size, entry.linear))

    def _remove(self, key: _Key) -> None:
        del self._entries[key]
        size = key[1]
        self._sizes[size] -= 1
        if not self._sizes[size]:
            del self._sizes[size]

    def _drop_where(self, goes: Callable[[_Key], bool]) -> int:
        gone = [key for key in self._entries if goes(key)]
        for key in gone:
            self._remove(key)
        return len(gone)

    def _drop_page(self, linear: int, tags: tuple[int, ...]) -> int:
        keys = [(tag, size, linear & -size) for tag in tags for size in self._sizes]
        gone = [key for key in keys if key in self._entries]
        for key in gone:
            self._remove(key)
        return len(gone)

    def _count(self, cause: str) -> None:
        self.flushes[cause] = self.flushes.get(cause, 0) + 1

    # -- what ends a translation -------------------------------------------------------------------------

    def flush(self, cause: str) -> None:
        """Drop everything, global translations too."""
        self._count(cause)
        self._entries.clear()
        self._sizes.clear()

    def mov_cr3(self, value: int, *, pcide: bool) -> None:
        """MOV to CR3 of ``value``, bit 63 included: all of the new PCID but global translations.

        PCID 0 while CR4.PCIDE = 0; nothing when CR4.PCIDE = 1 and bit 63 is set.
        """
        if pcide and value & CR3_NO_FLUSH:
            self._count("mov cr3 no-flush")
            return
        self._count("mov cr3")
        pcid = value & PCID_MASK if pcide else 0
        self._drop_where(lambda key: key[0] == pcid)

    def mov_cr0(self, old: int, new: int) -> None:
        """MOV to CR0: everything when PG or PE changes."""
        for bit, name in ((CR0_PG, "cr0.pg"), (CR0_PE, "cr0.pe")):
            if (old ^ new) & bit:
                self.flush(name)

    def mov_cr4(self, old: int, new: int, pcid: int) -> None:
        """MOV to CR4 while ``pcid`` is current.

        Everything when PGE, PSE or PAE changes or PCIDE goes from 1 to 0; when SMEP goes from 0 to 1, all of the
        current PCID and the global translations.
        """
        changed = old ^ new
        for bit, name in ((CR4_PGE, "cr4.pge"), (CR4_PSE, "cr4.pse"), (CR4_PAE, "cr4.pae")):
            if changed & bit:
                self.flush(name)
        if changed & old & CR4_PCIDE:
            self.flush("cr4.pcide")
        if changed & new & CR4_SMEP:
            self._count("cr4.smep")
            self._drop_where(lambda key: key[0] in (pcid, GLOBAL))

    def invlpg(self, linear: int, pcid: int) -> None:
        """INVLPG: the page of ``linear``, of any size, under the current PCID, and global ones."""
        self._count("invlpg")
        self._drop_page(linear, (pcid, GLOBAL))

    def invpcid(self, kind: int, pcid: int, linear: int) -> None:
        """INVPCID (SDM volume 2): 0 one address of a PCID, 1 a PCID, 2 everything, 3 everything but global ones."""
        if kind == 2:
            self.flush("invpcid 2")
            return
        self._count(f"invpcid {kind}")
        if kind == 0:
            self._drop_page(linear, (pcid,))
        elif kind == 1:
            self._drop_where(lambda key: key[0] == pcid)
        else:
            self._drop_where(lambda key: key[0] != GLOBAL)

    def page_fault(self, linear: int, pcid: int) -> bool:
        """#PF at ``linear``: what INVLPG drops, so that the fault cannot come again from the TLB; whether any was."""
        dropped = self._drop_page(linear, (pcid, GLOBAL))
        if dropped:
            self._count("page fault")
        return bool(dropped)

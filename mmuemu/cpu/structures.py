"""A paging-structure cache: where the tables of the last level lie (SDM volume 3, section 4.10.3).

Only the common case is in it, so that a miss of the TLB costs one look at one entry: 4-level or 5-level paging, tables
that restrict nothing, 4 KiB pages. Entries of the last level are read anew each time. It is for tables that only
:class:`~mmuemu.memory.page_table.PageTable` edits, which tells of tables that it takes away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.mmu.state import DEFAULT_MAXPHYADDR, PagingState
from mmuemu.mmu.walk import EXECUTABLE, WRITABLE
from mmuemu.x86.paging import ADDRESS_MASK, KEY_MASK, NX, PS, RW, US, A, P
from mmuemu.x86.paging import D as DIRTY

if TYPE_CHECKING:
    from mmuemu.memory.ram import GuestRam

UNKNOWN: Final = 0
"""No answer of a walker: a translation has permissions."""
_RESERVED: Final = ADDRESS_MASK & ~((1 << DEFAULT_MAXPHYADDR) - 1)
_MOST_ROOTS: Final = 1024
_ABSENT: Final = (-1 - 4, -1 - 6, -1 - 20)
"""Why a user access (read, write, fetch) to a page without an entry is refused, as a page walker says it."""


class StructureCache:
    """Tables of the last level, by root (CR3) and 2 MiB region, for user and for supervisor accesses."""

    def __init__(self, ram: GuestRam) -> None:
        self._ram = ram
        self._words = ram.qwords
        self._user: dict[int, dict[int, int]] = {}
        self._supervisor: dict[int, dict[int, int]] = {}
        self._tables_gone = ram.tables_gone

    def forget(self) -> None:
        """Tables have changed."""
        self._user.clear()
        self._supervisor.clear()
        self._tables_gone = self._ram.tables_gone

    def look_up(self, root: int, page: int, access: int, user: bool, key_0_rights: int) -> int:
        """What a page walker would return, with the accessed bit set; UNKNOWN where it is to be asked.

        ``key_0_rights`` are PKRU's bits for key 0: pages that have another key are not answered for.
        """
        if self._tables_gone != self._ram.tables_gone:
            self.forget()
        regions = (self._user if user else self._supervisor).get(root)
        if regions is None:
            return UNKNOWN
        table = regions.get(page >> 21)
        if table is None:
            return UNKNOWN
        index = table + (page >> 12 & 511)
        entry = self._words[index]
        if user:
            if not entry:
                return _ABSENT[access]
            if entry & (P | US | KEY_MASK | _RESERVED) != P | US or key_0_rights:
                return UNKNOWN
        elif entry & (P | US | _RESERVED) != P:
            return UNKNOWN
        found = permitted(entry, access)
        if found < 0:
            return UNKNOWN
        if not entry & A:
            self._words[index] = entry | A
        return found

    def knows(self, root: int, page: int, user: bool) -> bool:
        """Whether the tables above the entry for ``page`` are known, and let everything through."""
        if self._tables_gone != self._ram.tables_gone:
            self.forget()
        regions = (self._user if user else self._supervisor).get(root)
        return regions is not None and page >> 21 in regions

    def slot(self, root: int, page: int) -> int:
        """Where the entry for a user ``page`` stands, as an index of 64-bit words; -1 if that is not known."""
        table = self._user.get(root, {}).get(page >> 21)
        return -1 if table is None else table + (page >> 12 & 511)

    def learn(self, page: int, user: bool, state: PagingState) -> None:
        """Remember the table for ``page``, if it is common; a walk by ``state`` has just let an access through."""
        mode = state.mode
        if not state.no_execute or not state.smep or mode.entry_bytes != 8:
            return
        if state.supervisor_keys or not state.write_protect or state.address_space_separation:
            return
        words, table = self._words, state.root
        need = P | RW | US if user else P | RW
        for level in mode.levels[:-1]:
            index = (table >> 3) + level.index(page)
            entry = words[index]
            if entry & (need | NX | PS | _RESERVED) != need:
                return
            table = entry & ADDRESS_MASK
        roots = self._user if user else self._supervisor
        if len(roots) >= _MOST_ROOTS:
            roots.clear()
        roots.setdefault(state.cr3, {})[page >> 21] = table >> 3


def permitted(entry: int, access: int) -> int:
    """Page and permissions by the entry of a present page alone, or -1 when the access needs a walk after all."""
    permissions = 5 | (entry & WRITABLE if entry & DIRTY else 0)
    if entry & NX:
        permissions &= ~EXECUTABLE
    return entry & ADDRESS_MASK | permissions if permissions >> access & 1 else -1

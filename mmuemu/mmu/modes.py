"""The paging modes as data (Intel SDM volume 3, sections 4.1.1 and 4.3 to 4.5, tables 4-3 to 4-20).

A mode is its levels from the root down; the walk reads this description and holds no numbers of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from mmuemu.x86.paging import ADDRESS_MASK, PS


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a paging structure: an entry's name, the place of its index, and what its entries can say.

    ``may_be_large``: bit 7 makes the entry map a page (whether it does can depend on the paging state too).
    ``has_rights``: the entry has R/W, U/S, A and XD; a PDPTE of PAE paging has none of them.
    ``reserved``: bits below the address that must be 0 in an entry that refers to a table.
    """

    name: str
    shift: int
    index_bits: int = 9
    may_be_large: bool = False
    has_rights: bool = True
    reserved: int = 0

    @property
    def size(self) -> int:
        """Bytes of linear address space that one entry covers."""
        return 1 << self.shift

    def index(self, linear: int) -> int:
        """The number of the entry that ``linear`` is translated by."""
        return linear >> self.shift & (1 << self.index_bits) - 1


class PagingMode(NamedTuple):
    """A paging mode: its levels from the root down and the shape of its addresses and entries.

    ``linear_bits``: the width of a linear address; only a mode with ``canonical`` addresses checks the bits above.
    ``root_mask``: the bits of CR3 that locate the root. ``entry_reserved``: high bits reserved in every entry,
    besides those above MAXPHYADDR. ``has_keys``: entries hold protection keys. No levels: no translation.
    """

    name: str
    levels: tuple[Level, ...]
    linear_bits: int
    entry_bytes: int = 8
    canonical: bool = False
    root_mask: int = 0
    entry_reserved: int = 0
    has_keys: bool = False

    def maps_page(self, depth: int, entry: int) -> bool:
        """Whether a present ``entry`` of the level ``depth`` steps below the root maps a page, and not a table."""
        return depth == len(self.levels) - 1 or (self.levels[depth].may_be_large and bool(entry & PS))


_BITS_31_12: Final = 0xFFFF_F000
_BITS_31_5: Final = 0xFFFF_FFE0
_BITS_62_52: Final = 0x7FF0_0000_0000_0000
_BIT_7: Final = 1 << 7
_PAE_PDPTE_RESERVED: Final = 0x1E6
"""Bits 2:1 and 8:5 of a PDPTE (SDM volume 3, table 4-8)."""

_PTE: Final = Level("PTE", 12)
_PDE: Final = Level("PDE", 21, may_be_large=True)
_PDPTE: Final = Level("PDPTE", 30, may_be_large=True)
_PML4E: Final = Level("PML4E", 39, reserved=_BIT_7)
_PML5E: Final = Level("PML5E", 48, reserved=_BIT_7)

NO_PAGING: Final = PagingMode("none", (), 32)

THIRTY_TWO_BIT: Final = PagingMode(
    "32-bit",
    (Level("PDE", 22, 10, may_be_large=True), Level("PTE", 12, 10)),
    linear_bits=32,
    entry_bytes=4,
    root_mask=_BITS_31_12,
)

PAE: Final = PagingMode(
    "PAE",
    (Level("PDPTE", 30, 2, has_rights=False, reserved=_PAE_PDPTE_RESERVED), _PDE, _PTE),
    linear_bits=32,
    root_mask=_BITS_31_5,
    entry_reserved=_BITS_62_52,
)

FOUR_LEVEL: Final = PagingMode(
    "4-level",
    (_PML4E, _PDPTE, _PDE, _PTE),
    linear_bits=48,
    canonical=True,
    root_mask=ADDRESS_MASK,
    has_keys=True,
)

FIVE_LEVEL: Final = PagingMode(
    "5-level",
    (_PML5E, _PML4E, _PDPTE, _PDE, _PTE),
    linear_bits=57,
    canonical=True,
    root_mask=ADDRESS_MASK,
    has_keys=True,
)

MODES: Final = (NO_PAGING, THIRTY_TWO_BIT, PAE, FOUR_LEVEL, FIVE_LEVEL)

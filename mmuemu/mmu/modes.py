"""The paging modes as data (Intel SDM volume 3, section 4.1.1 and tables 4-14 to 4-20).

A mode is its levels from the root down; the walk reads this description and holds no numbers of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a paging structure: an entry's name, the shift of its index, and whether it may map a page."""

    name: str
    shift: int
    index_bits: int
    may_be_large: bool

    @property
    def size(self) -> int:
        """Bytes of linear address space that one entry covers."""
        return 1 << self.shift


@dataclass(frozen=True, slots=True)
class PagingMode:
    """A paging mode: its levels, the width of its linear addresses and the bytes of one entry."""

    name: str
    levels: tuple[Level, ...]
    linear_bits: int
    entry_bytes: int


FOUR_LEVEL: Final = PagingMode(
    name="4-level",
    levels=(
        Level("PML4E", 39, 9, may_be_large=False),
        Level("PDPTE", 30, 9, may_be_large=True),
        Level("PDE", 21, 9, may_be_large=True),
        Level("PTE", 12, 9, may_be_large=False),
    ),
    linear_bits=48,
    entry_bytes=8,
)

"""What a walk depends on: the paging state, the kind of access, and the results it can have."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from mmuemu.errors import UsageError
from mmuemu.mmu.modes import FOUR_LEVEL, PagingMode
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.registers import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_LA57,
    CR4_PAE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
)

DEFAULT_MAXPHYADDR: Final = 40
"""Physical-address width that Unicorn's CPU models report (TCG_PHYS_ADDR_BITS) and its own walker enforces."""


class Access(IntEnum):
    """What an access does with the page."""

    READ = 0
    WRITE = 1
    FETCH = 2


@dataclass(frozen=True, slots=True)
class PagingState:
    """The registers that decide how a linear address is translated (SDM volume 3, section 4.1).

    ``cr3`` locates the root; everything else chooses the mode and the rules. ``maxphyaddr`` is the width of
    physical addresses (bits above it are reserved in entries); ``page_1g`` is CPUID.80000001H:EDX[26].
    """

    cr3: int
    cr0: int = CR0_PE | CR0_PG | CR0_WP
    cr4: int = CR4_PAE
    efer: int = EFER_LME | EFER_LMA | EFER_NXE
    maxphyaddr: int = DEFAULT_MAXPHYADDR
    page_1g: bool = True

    @property
    def mode(self) -> PagingMode:
        """The paging mode in force; raises :class:`UsageError` for one that this version does not walk."""
        if not self.cr0 & CR0_PG:
            raise UsageError("paging is off (CR0.PG = 0): there is nothing to walk")
        if not (self.efer & EFER_LMA and self.cr4 & CR4_PAE) or self.cr4 & CR4_LA57:
            raise UsageError("only 4-level paging (CR4.PAE = 1, EFER.LMA = 1, CR4.LA57 = 0) can be walked")
        return FOUR_LEVEL

    @property
    def write_protect(self) -> bool:
        return bool(self.cr0 & CR0_WP)

    @property
    def no_execute(self) -> bool:
        return bool(self.efer & EFER_NXE)

    @property
    def smep(self) -> bool:
        return bool(self.cr4 & CR4_SMEP)

    @property
    def smap(self) -> bool:
        return bool(self.cr4 & CR4_SMAP)

    @property
    def root(self) -> int:
        """Physical address of the root table: CR3 without its flag bits (SDM volume 3, table 4-12)."""
        return self.cr3 & ((1 << self.maxphyaddr) - 1) & ~0xFFF


@dataclass(frozen=True, slots=True)
class Step:
    """One entry that a walk read: its level's name, where it lies, what it holds and what it covers."""

    level: str
    entry_address: int
    entry: int
    size: int


@dataclass(frozen=True, slots=True)
class Translation:
    """A permitted access: the physical address and what else the page allows at this privilege.

    ``readable``, ``writable`` and ``executable`` are what a TLB may cache for the same privilege:
    ``writable`` stays False while the dirty bit is clear, so that the first write walks again.
    ``updates`` are the accessed and dirty bits the walk owes, as (entry address, bits to set).
    """

    linear: int
    physical: int
    size: int
    readable: bool
    writable: bool
    executable: bool
    steps: tuple[Step, ...]
    updates: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class PageFault:
    """A refused access: #PF with its error code, or #GP/#SS with error code 0 for a non-canonical address.

    ``updates`` are the accessed bits of the upper entries that were used before the access was refused.
    """

    linear: int
    vector: Vector
    error_code: int
    steps: tuple[Step, ...]
    updates: tuple[tuple[int, int], ...]
    reason: str

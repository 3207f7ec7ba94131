"""What a walk depends on: the paging state, the kind of access, and the results it can have."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from mmuemu.errors import UsageError
from mmuemu.mmu.modes import FIVE_LEVEL, FOUR_LEVEL, NO_PAGING, PAE, THIRTY_TWO_BIT, PagingMode
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import pat_index
from mmuemu.x86.registers import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_LA57,
    CR4_LASS,
    CR4_PAE,
    CR4_PKE,
    CR4_PKS,
    CR4_PSE,
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
    physical addresses (bits above it are reserved in entries), 32 to 52; ``page_1g`` is CPUID.80000001H:EDX[26],
    ``pse36`` CPUID.01H:EDX[17]. ``pkru`` and ``pkrs`` (IA32_PKRS) hold the rights of the protection keys.
    """

    cr3: int
    cr0: int = CR0_PE | CR0_PG | CR0_WP
    cr4: int = CR4_PAE
    efer: int = EFER_LME | EFER_LMA | EFER_NXE
    maxphyaddr: int = DEFAULT_MAXPHYADDR
    page_1g: bool = True
    pkru: int = 0
    pkrs: int = 0
    pse36: bool = True

    @property
    def mode(self) -> PagingMode:
        """The paging mode in force (SDM volume 3, section 4.1.1).

        Raises UsageError for registers that no processor can hold: paging without protection, long mode without PAE.
        """
        if not self.cr0 & CR0_PG:
            return NO_PAGING
        if not self.cr0 & CR0_PE:
            raise UsageError("CR0.PG = 1 with CR0.PE = 0: paging needs protected mode")
        if self.efer & EFER_LMA:
            if not self.cr4 & CR4_PAE:
                raise UsageError("EFER.LMA = 1 with CR4.PAE = 0: long mode needs PAE")
            return FIVE_LEVEL if self.cr4 & CR4_LA57 else FOUR_LEVEL
        return PAE if self.cr4 & CR4_PAE else THIRTY_TWO_BIT

    @property
    def write_protect(self) -> bool:
        return bool(self.cr0 & CR0_WP)

    @property
    def no_execute(self) -> bool:
        """Whether XD counts: EFER.NXE, in a mode whose entries have the bit."""
        return bool(self.efer & EFER_NXE) and self.mode.entry_bytes == 8

    @property
    def smep(self) -> bool:
        return bool(self.cr4 & CR4_SMEP)

    @property
    def smap(self) -> bool:
        return bool(self.cr4 & CR4_SMAP)

    @property
    def page_size_extensions(self) -> bool:
        """Whether 32-bit paging has 4 MiB pages."""
        return bool(self.cr4 & CR4_PSE)

    @property
    def user_keys(self) -> bool:
        """Whether PKRU restricts accesses to user pages."""
        return bool(self.cr4 & CR4_PKE) and self.mode.has_keys

    @property
    def supervisor_keys(self) -> bool:
        """Whether IA32_PKRS restricts accesses to supervisor pages."""
        return bool(self.cr4 & CR4_PKS) and self.mode.has_keys

    @property
    def address_space_separation(self) -> bool:
        """Whether LASS checks bit 63 of linear addresses (64-bit modes only)."""
        return bool(self.cr4 & CR4_LASS) and self.mode.canonical

    @property
    def root(self) -> int:
        """Physical address of the root table: CR3 without its other bits (SDM volume 3, tables 4-3, 4-7, 4-12)."""
        return self.cr3 & ((1 << self.maxphyaddr) - 1) & self.mode.root_mask


class Step(NamedTuple):
    """One entry that a walk read: its level's name, where it lies, what it holds and what it covers."""

    level: str
    entry_address: int
    entry: int
    size: int


class Translation(NamedTuple):
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

    @property
    def pat_index(self) -> int:
        """Which field of IA32_PAT gives the page's memory type (0 without paging)."""
        return pat_index(self.steps[-1].entry, self.size) if self.steps else 0


class PageFault(NamedTuple):
    """A refused access: #PF with its error code, or #GP/#SS with error code 0 before any walk.

    The latter is for an address that is not canonical, or on the wrong side of LASS. ``updates`` are the accessed
    bits of the upper entries that were used before the access was refused.
    """

    linear: int
    vector: Vector
    error_code: int
    steps: tuple[Step, ...]
    updates: tuple[tuple[int, int], ...]
    reason: str

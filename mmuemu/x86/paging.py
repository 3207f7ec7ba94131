"""Page-table entry bits, page-fault error codes and page sizes (Intel SDM volume 3, chapter 4).

Plain integers are the working currency (they sit on the hottest path there is); ``EntryBits`` and
``FaultBits`` give the same bits their names for printing.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
PAGE_MASK: Final = PAGE_SIZE - 1
SIZE_2M: Final = 1 << 21
SIZE_1G: Final = 1 << 30
PAGE_SIZES: Final = (PAGE_SIZE, SIZE_2M, SIZE_1G)

# Entry bits, SDM volume 3, tables 4-15 to 4-20.
P: Final = 1 << 0
RW: Final = 1 << 1
US: Final = 1 << 2
PWT: Final = 1 << 3
PCD: Final = 1 << 4
A: Final = 1 << 5
D: Final = 1 << 6
PS: Final = 1 << 7
PAT_4K: Final = 1 << 7
G: Final = 1 << 8
AVL9: Final = 1 << 9
AVL10: Final = 1 << 10
AVL11: Final = 1 << 11
PAT_LARGE: Final = 1 << 12
KEY_SHIFT: Final = 59
KEY_MASK: Final = 15 << KEY_SHIFT
NX: Final = 1 << 63

ADDRESS_MASK: Final = 0x000F_FFFF_FFFF_F000
"""Bits 51:12 of an entry, the frame or table address when MAXPHYADDR is 52."""
FLAGS_MASK: Final = ((1 << 64) - 1) ^ ADDRESS_MASK

ADDRESS_BITS_48: Final = 48
KERNEL_HALF: Final = 0xFFFF_8000_0000_0000
"""The first linear address of the canonical upper half with 4-level paging."""
USER_TOP: Final = 0x0000_7FFF_FFFF_F000
"""Linux's TASK_SIZE for 4-level paging: the first address user code may not map."""
USER_TOP_5LEVEL: Final = (1 << 56) - PAGE_SIZE
"""The same for 5-level paging."""


class EntryBits(IntFlag):
    """Names of the bits of a page-table entry."""

    P = P
    RW = RW
    US = US
    PWT = PWT
    PCD = PCD
    A = A
    D = D
    PS = PS
    G = G
    NX = NX


class FaultBits(IntFlag):
    """The page-fault error code (SDM volume 3, section 4.7, figure 4-12)."""

    P = 1 << 0
    """Set: a protection violation; clear: an entry was not present."""
    W = 1 << 1
    """The access was a write."""
    U = 1 << 2
    """The access was a user-mode access."""
    RSVD = 1 << 3
    """A reserved bit was set in a present entry."""
    I = 1 << 4  # noqa: E741 - the SDM's name is I/D
    """The access was an instruction fetch (reported only with NXE or SMEP)."""
    PK = 1 << 5
    SS = 1 << 6
    SGX = 1 << 15


def is_canonical(address: int, bits: int = ADDRESS_BITS_48) -> bool:
    """Whether a 64-bit linear address is canonical: bits 63 to ``bits - 1`` all equal (SDM volume 1, 3.3.7.1)."""
    top = address >> (bits - 1)
    return top == 0 or top == (1 << (65 - bits)) - 1


def protection_key(entry: int) -> int:
    """The protection key in bits 62:59 of an entry that maps a page (SDM volume 3, section 4.6.2)."""
    return entry >> KEY_SHIFT & 15


def pat_index(entry: int, size: int) -> int:
    """Which field of IA32_PAT gives the memory type of a page of ``size`` bytes (SDM volume 3, section 4.9.2).

    The index is 4 * PAT + 2 * PCD + PWT; the PAT bit is bit 7 of an entry for 4 KiB and bit 12 of one for a large page.
    """
    pat = entry & (PAT_4K if size == PAGE_SIZE else PAT_LARGE)
    return (4 if pat else 0) | (entry & (PWT | PCD)) >> 3

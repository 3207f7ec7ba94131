"""Where a random program finds things: the addresses that the runner maps and the generator aims at."""

from __future__ import annotations

from typing import Final

PAGE: Final = 4096
CODE, CODE_PAGES = 0x1000_0000, 4
"""Readable, writable, executable."""
DATA, DATA_PAGES = 0x2000_0000, 12
"""Ten pages and the two of a hole; see :data:`RIGHTS`."""
READ_ONLY, NO_ACCESS, KEYED, HOLE, FRESH = (DATA + n * PAGE for n in (4, 6, 7, 8, 10))
RIGHTS: Final = ((0, 4, 3), (4, 1, 1), (5, 1, 3), (6, 1, 0), (7, 1, 3), (10, 2, 3))
"""First page, pages, PROT_*: of DATA. Pages 8 and 9 are not mapped; 7 gets a protection key if there are any."""
ALIAS_A, ALIAS_B, ALIAS_PAGES = 0x2100_0000, 0x2110_0000, 2
"""The same shared pages twice."""
STACK, STACK_PAGES = 0x3000_0000, 4
ALT, ALT_PAGES = 0x3100_0000, 16
"""Where handlers run."""
STATE: Final = 0x3200_0000
"""What a program starts with; two pages that only Python writes."""
S_FXSAVE, S_REGISTERS, S_FLAGS, S_PKRU, S_MASK = 0, 512, 640, 648, 656
S_RECOVERY: Final = 768
"""Sixteen addresses for handlers to go on at when the fault was not in the program's code."""
MAP: Final = 0x3300_0000
"""For each byte of CODE, two bytes: the offset to go on at when the instruction there faults."""
LOG: Final = 0x3400_0000
"""The faults: how many, then 64 bytes each; and, behind it, the final registers."""
FINAL: Final = LOG + PAGE
F_FXSAVE, F_REGISTERS, F_FLAGS, F_PKRU = 0, 512, 640, 648
ENTRY_BYTES: Final = 64
FAULTS: Final = 48
"""A program with more of them is ended."""
CODE_BYTES: Final = CODE_PAGES * PAGE
KERNEL: Final = (
    0xFFFF_8880_0000_0000, 0xFFFF_8880_0010_0000, 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8200_0000, 0xFFFF_FFFF_8020_0000,
    0xFFFF_FFFF_8020_1000, 0xFFFF_C900_0000_9FC0,
)  # fmt: skip
"""The direct map, places where no kernel is, and its entry's data and stack, which caches hold."""
STRANGE: Final = (0, 8, 0x8000_0000_0000_0000, 0x0000_8000_0000_0000, 0x7FFF_FFFF_EFF9, 0xFFFF_FFFF_FFFF_FFFC)

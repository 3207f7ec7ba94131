"""Segment descriptors and the selectors of a 64-bit kernel (SDM volume 3, sections 3.4.5 and 5.8.8)."""

from __future__ import annotations

from typing import Final

KERNEL_CS: Final = 0x10
KERNEL_SS: Final = 0x18
USER32_CS: Final = 0x23
USER_SS: Final = 0x2B
USER_CS: Final = 0x33
"""Linux's selectors (arch/x86/include/asm/segment.h): SYSRET needs SS = STAR[63:48] + 8 and CS = + 16."""

STAR: Final = (USER32_CS << 48) | (KERNEL_CS << 32)

_FLAT: Final = 0x000F_0000_0000_FFFF
_GRANULAR: Final = 1 << 55
_DEFAULT_32: Final = 1 << 54
_LONG: Final = 1 << 53
_PRESENT: Final = 1 << 47
_CODE_OR_DATA: Final = 1 << 44
_CODE: Final = 0xB << 40
_DATA: Final = 0x3 << 40


def code64(dpl: int) -> int:
    """A 64-bit code segment descriptor: readable, accessed, limit 4 GiB."""
    return _FLAT | _GRANULAR | _LONG | _PRESENT | _CODE_OR_DATA | _CODE | dpl << 45


def code32(dpl: int) -> int:
    """A 32-bit code segment descriptor."""
    return _FLAT | _GRANULAR | _DEFAULT_32 | _PRESENT | _CODE_OR_DATA | _CODE | dpl << 45


def data(dpl: int) -> int:
    """A writable data segment descriptor."""
    return _FLAT | _GRANULAR | _DEFAULT_32 | _PRESENT | _CODE_OR_DATA | _DATA | dpl << 45


KERNEL_GDT: Final = (0, 0, code64(0), data(0), code32(3), data(3), code64(3))
"""Descriptors at the selectors above."""


def cache_flags(descriptor: int) -> int:
    """The flags word of a segment cache: the high half of a descriptor without its base."""
    return descriptor >> 32 & 0x00FF_FF00

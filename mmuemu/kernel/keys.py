"""Protection keys of user pages: pkeys(7), arch/x86/mm/pkeys.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu.window import Q_CR4
from mmuemu.x86.registers import CR4_PKE

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

KEYS: Final = 16
NO_KEY: Final = -1
"""Given to pkey_mprotect(2): pages keep the key they have."""
INITIAL_PKRU: Final = 0x5555_5554
"""Key 0 alone is open, in a new program and in a signal handler."""


def lowest_free(keys: int) -> int:
    """The lowest key whose bit is clear in ``keys``; KEYS when there is none."""
    return (~keys & keys + 1).bit_length() - 1


def set_pkru(cpu: Cpu, value: int) -> None:
    """Load PKRU into the saved window, where protection keys are in use, and forget what it made of translations."""
    if cpu.window.q[Q_CR4] & CR4_PKE and cpu.fp.pkru != value:
        cpu.fp.pkru = value
        cpu.window.restore()
        cpu.flush_tlb("keys")
        cpu.window.save()

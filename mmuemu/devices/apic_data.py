"""Registers, bits and delivery modes of the local APIC, as data (Intel SDM volume 3, tables 11-1 and 11-6)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

MSR_APIC_BASE: Final = 0x1B
MSR_TSC_DEADLINE: Final = 0x6E0
X2APIC_MSRS: Final = range(0x800, 0xC00)

BASE_BSP: Final = 1 << 8
BASE_EXTD: Final = 1 << 10
BASE_EN: Final = 1 << 11
DEFAULT_BASE: Final = 0xFEE0_0000
PAGE: Final = 0x1000

VERSION: Final = 0x0005_0014
"""Version 14h with six LVT entries, no suppression of EOI broadcasts."""

ID, VERSION_REGISTER, TPR, APR, PPR, EOI = 0x20, 0x30, 0x80, 0x90, 0xA0, 0xB0
LDR, DFR, SVR, ISR, TMR, IRR = 0xD0, 0xE0, 0xF0, 0x100, 0x180, 0x200
ESR, ICR_LOW, ICR_HIGH = 0x280, 0x300, 0x310
LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR = range(0x320, 0x380, 0x10)
INITIAL_COUNT, CURRENT_COUNT, DIVIDE, SELF_IPI = 0x380, 0x390, 0x3E0, 0x3F0

SVR_ENABLE: Final = 1 << 8
LVT_STATUS: Final = 1 << 12
LVT_LEVEL: Final = 1 << 15
LVT_REMOTE_IRR: Final = 1 << 14
LVT_MASKED: Final = 1 << 16
LVT_MASKS: Final = {
    LVT_TIMER: 0x7_00FF,
    LVT_THERMAL: 0x1_07FF,
    LVT_PERF: 0x1_07FF,
    LVT_LINT0: 0x1_A7FF,
    LVT_LINT1: 0x1_A7FF,
    LVT_ERROR: 0x1_00FF,
}
"""Writable bits of each LVT entry (SDM figure 11-8)."""
LINTS: Final = (LVT_LINT0, LVT_LINT1)

ESR_SEND_ILLEGAL: Final = 1 << 5
ESR_RECEIVE_ILLEGAL: Final = 1 << 6
ESR_ILLEGAL_REGISTER: Final = 1 << 7

ICR_STATUS: Final = 1 << 12
ICR_LOGICAL: Final = 1 << 11
ICR_ASSERT: Final = 1 << 14
ICR_LEVEL: Final = 1 << 15
ICR_MASK: Final = 0x000C_CFFF
BROADCAST: Final = 0xFF
X2_BROADCAST: Final = 0xFFFF_FFFF


class Delivery(IntEnum):
    """Delivery modes (SDM 11.5.1, 11.6.1)."""

    FIXED = 0
    LOWEST = 1
    SMI = 2
    NMI = 4
    INIT = 5
    STARTUP = 6
    EXTINT = 7


class Shorthand(IntEnum):
    """The ICR's destination shorthand."""

    NONE = 0
    SELF = 1
    ALL = 2
    OTHERS = 3


def highest(bits: int) -> int:
    """The highest vector set in a 256-bit register, or -1."""
    return bits.bit_length() - 1

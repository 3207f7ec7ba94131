"""Segment and gate descriptors read from memory (Intel SDM volume 3, sections 3.4.5, 5.8.3, 6.11, 6.14.1)."""

from __future__ import annotations

from typing import Final, NamedTuple

TYPE_TSS32_AVAILABLE: Final = 0x9
TYPE_TSS32_BUSY: Final = 0xB
TYPE_CALL_GATE: Final = 0xC
TYPE_INTERRUPT_GATE: Final = 0xE
TYPE_TRAP_GATE: Final = 0xF
TYPE_TASK_GATE: Final = 0x5


class Descriptor(NamedTuple):
    """A segment descriptor of 8 bytes, taken apart."""

    base: int
    limit: int
    """In bytes, granularity applied."""
    type: int
    is_segment: bool
    """S: a code or data segment, not a system descriptor."""
    dpl: int
    present: bool
    long: bool
    big: bool
    """D/B: 32-bit operands or stack."""
    flags: int
    """The high half without base bits, as the engine's segment caches keep it."""

    @property
    def is_code(self) -> bool:
        return self.is_segment and bool(self.type & 8)

    @property
    def is_conforming(self) -> bool:
        return self.is_code and bool(self.type & 4)

    @property
    def is_writable_data(self) -> bool:
        return self.is_segment and self.type & 0xA == 2


def descriptor(raw: int) -> Descriptor:
    """Take an 8-byte descriptor apart."""
    limit = raw & 0xFFFF | raw >> 32 & 0xF_0000
    if raw >> 55 & 1:
        limit = limit << 12 | 0xFFF
    return Descriptor(
        base=raw >> 16 & 0xFF_FFFF | raw >> 32 & 0xFF00_0000,
        limit=limit,
        type=raw >> 40 & 0xF,
        is_segment=bool(raw >> 44 & 1),
        dpl=raw >> 45 & 3,
        present=bool(raw >> 47 & 1),
        long=bool(raw >> 53 & 1),
        big=bool(raw >> 54 & 1),
        flags=raw >> 32 & 0x00FF_FF00,
    )


class Gate(NamedTuple):
    """An interrupt, trap or call gate: of 16 bytes in long mode, of 8 otherwise."""

    selector: int
    offset: int
    type: int
    is_system: bool
    """The S bit is clear, as it must be."""
    dpl: int
    present: bool
    ist: int


def gate(raw: int, *, long: bool) -> Gate:
    """Take a gate apart; ``raw`` has 128 bits in long mode, else 64."""
    offset = raw & 0xFFFF | raw >> 32 & 0xFFFF_0000
    if long:
        offset |= (raw >> 64 & 0xFFFF_FFFF) << 32
    return Gate(
        selector=raw >> 16 & 0xFFFF,
        offset=offset,
        type=raw >> 40 & 0xF,
        is_system=not raw >> 44 & 1,
        dpl=raw >> 45 & 3,
        present=bool(raw >> 47 & 1),
        ist=raw >> 32 & 7 if long else 0,
    )

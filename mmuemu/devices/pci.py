"""PCI configuration mechanism 1 with nothing behind it, and the reset control register 0xcf9.

Sources: PCI Local Bus Specification 3.0, 3.2.2.3.2 (CONFIG_ADDRESS, CONFIG_DATA; a master abort reads all ones);
Intel 82371SB (PIIX3) datasheet, 2.5.5.6 (RC, the reset control register).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mmuemu.devices.bus import ONES, Range

CONFIG_ADDRESS: Final = 0xCF8
CONFIG_DATA: Final = 0xCFC
RESET_OFFSET: Final = 1
RCPU: Final = 1 << 2
RESET_KEPT: Final = 0x06
ADDRESS_KEPT: Final = 0x80FF_FFFC


class EmptyPci:
    """CONFIG_ADDRESS keeps what it is given; every configuration read gives all ones: no device, no host bridge."""

    def __init__(self, reset: Callable[[], None]) -> None:
        """``reset`` is called when a guest sets RCPU (bit 2) of port 0xcf9."""
        self._reset = reset
        self._address = 0
        self._control = 0

    def ports(self) -> Iterator[Range]:
        yield Range("pci-address", CONFIG_ADDRESS, 4, self._read_address, self._write_address, (1, 2, 4))
        yield Range("pci-data", CONFIG_DATA, 4, lambda _o, size: ONES[size], lambda _o, _s, _v: None, (1, 2, 4))

    def _read_address(self, offset: int, size: int) -> int:
        if size == 4:
            return self._address
        return self._control if (offset, size) == (RESET_OFFSET, 1) else ONES[size]

    def _write_address(self, offset: int, size: int, value: int) -> None:
        # CONFIG_ADDRESS is a doubleword register: narrower accesses there reach other registers.
        if size == 4:
            self._address = value & ADDRESS_KEPT
        elif (offset, size) == (RESET_OFFSET, 1):
            self._control = value & RESET_KEPT
            if value & RCPU:
                self._reset()

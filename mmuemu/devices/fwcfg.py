"""QEMU's fw_cfg interface on ports 0x510 (selector) and 0x511 (data), without DMA.

Source: QEMU ``docs/specs/fw_cfg.rst`` and ``include/standard-headers/linux/qemu_fw_cfg.h``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from mmuemu.devices.bus import Range

SELECTOR_PORT: Final = 0x510

SIGNATURE: Final = 0x00
ID: Final = 0x01
UUID: Final = 0x02
RAM_SIZE: Final = 0x03
NOGRAPHIC: Final = 0x04
NB_CPUS: Final = 0x05
NUMA: Final = 0x0D
BOOT_MENU: Final = 0x0E
MAX_CPUS: Final = 0x0F
FILE_DIR: Final = 0x19

TRADITIONAL: Final = 1 << 0
"""ID bit 0: selector and data registers; bit 1, the DMA interface, is clear."""


def standard_items(ram_bytes: int, cpus: int = 1) -> dict[int, bytes]:
    """The items of a machine with that much RAM and that many CPUs, and no files."""
    return {
        SIGNATURE: b"QEMU",
        ID: TRADITIONAL.to_bytes(4, "little"),
        UUID: bytes(16),
        RAM_SIZE: ram_bytes.to_bytes(8, "little"),
        NOGRAPHIC: (1).to_bytes(2, "little"),
        NB_CPUS: cpus.to_bytes(2, "little"),
        NUMA: bytes(8),
        BOOT_MENU: bytes(2),
        MAX_CPUS: cpus.to_bytes(2, "little"),
        FILE_DIR: bytes(4),
    }


class FwCfg:
    """One selected item, read byte by byte; past its end, and for an item that does not exist, zeros."""

    def __init__(self, items: Mapping[int, bytes]) -> None:
        self._items = dict(items)
        self._item = b""
        self._offset = 0

    def ports(self) -> Iterator[Range]:
        yield Range("fw_cfg", SELECTOR_PORT, 2, self._read, self._write, (1, 2))

    def _write(self, offset: int, size: int, value: int) -> None:
        # Only a 16-bit write to 0x510 selects; writing item data was removed from QEMU in 2.4.
        if offset == 0 and size == 2:
            self._item = self._items.get(value, b"")
            self._offset = 0

    def _read(self, _offset: int, size: int) -> int:
        chunk = self._item[self._offset : self._offset + size]
        self._offset += len(chunk)
        return int.from_bytes(chunk, "little")

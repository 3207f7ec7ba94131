"""QEMU's two debugging ports: ``isa-debug-exit`` and ``debugcon``.

Sources: QEMU ``hw/misc/debugexit.c`` (a write of N ends QEMU with status ``N << 1 | 1``) and
``hw/char/debugcon.c`` (port 0xe9 writes a byte, reads 0xe9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mmuemu.devices.bus import Range

EXIT_PORT: Final = 0xF4
EXIT_PORTS: Final = 4
CONSOLE_PORT: Final = 0xE9


class DebugExit:
    """A write of N anywhere in the four ports ends the machine with status ``N << 1 | 1``, never 0; reads give 0."""

    def __init__(self, end: Callable[[int], None], port: int = EXIT_PORT) -> None:
        """``end`` gets the status, not yet cut to the 8 bits a host keeps of it."""
        self._end = end
        self._port = port

    def ports(self) -> Iterator[Range]:
        yield Range("debug-exit", self._port, EXIT_PORTS, lambda _o, _s: 0, self._write, (1, 2, 4))

    def _write(self, _offset: int, _size: int, value: int) -> None:
        self._end(value << 1 | 1)


class DebugConsole:
    """Every byte written goes to ``out``; a read gives 0xe9, by which a guest knows that it is there."""

    def __init__(self, out: Callable[[bytes], None], port: int = CONSOLE_PORT) -> None:
        self._out = out
        self._port = port

    def ports(self) -> Iterator[Range]:
        yield Range("debugcon", self._port, 1, lambda _o, _s: CONSOLE_PORT, self._write)

    def _write(self, _offset: int, _size: int, value: int) -> None:
        self._out(bytes((value,)))

"""Buffers that keep stale bytes: line fill buffers, the store buffer, load ports (MDS).

Intel, "Deep Dive: Microarchitectural Data Sampling". Bytes stay until the entry is used again or VERW overwrites it.
"""

from __future__ import annotations

from collections import deque

from mmuemu.speculation.caches import LINE, LINE_SHIFT
from mmuemu.speculation.models import CpuSpec

_PAGE_OFFSET = 0xFFF


class LeakyBuffers:
    """What one core keeps of recent fills, stores and loads; ``ram`` is guest RAM by byte."""

    __slots__ = ("fills", "loads", "ram", "stores")

    def __init__(self, spec: CpuSpec, ram: memoryview) -> None:
        self.ram = ram
        self.fills: deque[bytes] = deque(maxlen=spec.fill_buffers)
        self.stores: deque[int] = deque(maxlen=spec.store_queue)
        """Physical addresses of recent stores."""
        self.loads: deque[int] = deque(maxlen=spec.load_ports)

    def filled(self, line: int) -> None:
        """A line came through a fill buffer."""
        data = self._line(line << LINE_SHIFT)
        if data is not None:
            self.fills.append(data)

    def stale_fill(self) -> bytes | None:
        """The 64 bytes of the fill buffer used last."""
        return self.fills[-1] if self.fills else None

    def stale_store(self, offset: int) -> bytes | None:
        """The line of the youngest store whose page offset is that of a load at ``offset`` (Fallout, section 4)."""
        wanted = offset & _PAGE_OFFSET & ~7
        for address in reversed(self.stores):
            if address & _PAGE_OFFSET & ~7 == wanted:
                return self._line(address)
        return None

    def stale_load(self) -> bytes | None:
        """The line of the last load."""
        return self._line(self.loads[-1]) if self.loads else None

    def _line(self, address: int) -> bytes | None:
        start = address & ~(LINE - 1)
        data = bytes(self.ram[start : start + LINE])
        return data if len(data) == LINE else None

    def clear(self) -> None:
        """VERW with the MD_CLEAR microcode."""
        self.fills.clear()
        self.stores.clear()
        self.loads.clear()

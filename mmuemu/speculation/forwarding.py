"""What a load or store that must fault hands on to younger instructions, by the flaws of the CPU.

Canella et al. (USENIX Security 2019), table 4, and Intel's advisories. Nothing forwarded is not the same as zero:
dependents do not wake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mmuemu.cpu.observe import SCRATCH
from mmuemu.speculation.caches import LINE, LINE_SHIFT
from mmuemu.speculation.ops import Op
from mmuemu.speculation.translations import WRITE, frame_of
from mmuemu.x86.paging import PAGE_MASK, US, FaultBits

if TYPE_CHECKING:
    from mmuemu.speculation.pipeline import Pipeline


class Forwarded(NamedTuple):
    """Data from physical ``page`` (at the access's own offset), after ``latency`` slots, because of ``flaw``."""

    flaw: str
    page: int = 0
    latency: int = 0
    op: Op | None = None
    """For faults that are not of memory: the instruction, ..."""
    ready: bool = False
    """... whether it computes a result, ..."""
    note: str = ""
    vector_only: bool = False
    passed: bool = False
    """... and whether that is in the registers already, so that the window begins behind it."""


class Forwarding:
    """The rules, over one core's caches and buffers."""

    def __init__(self, core: Pipeline) -> None:
        self.core = core

    def of(self, linear: int, access: int, time: int, size: int) -> Forwarded | None:
        """What an access at ``linear`` that the walk refuses forwards at ``time``; None: nothing."""
        core = self.core
        found, trace = core.translations.entries(linear, access)
        if found >= 0:
            return None
        error = -1 - found
        entry = trace[-1][2] if trace and 0 <= error < 1 << 16 else 0
        forwarded = None
        if 0 <= error < 1 << 16:
            forwarded = self._protection(linear, access, error, entry, len(trace), time)
        return forwarded or (self._stale(linear) if access != WRITE else None)

    def _protection(self, linear: int, access: int, error: int, entry: int, depth: int, time: int) -> Forwarded | None:
        flaws = self.core.flaws
        if not error & FaultBits.P or error & FaultBits.RSVD:
            if "l1tf" in flaws and access != WRITE and entry:
                return self._from_l1("l1tf", frame_of(entry) | linear & PAGE_MASK, time)
            return None
        physical = self._physical(entry, linear, depth)
        if error & FaultBits.PK:
            return self._data("meltdown-pk", physical) if "meltdown-pk" in flaws else None
        if error & FaultBits.U and not entry & US:
            if "meltdown" in flaws and access != WRITE:
                return self._from_l1("meltdown", physical, time)
            return None
        if access == WRITE and "meltdown-rw" in flaws:
            return self._data("meltdown-rw", physical)
        return None

    def _physical(self, entry: int, linear: int, depth: int) -> int:
        """The address that a present leaf maps ``linear`` to; ``depth`` entries were read."""
        levels = 5 if self.core.five_levels else 4
        inside = (1 << 12 + 9 * (levels - depth)) - 1
        return frame_of(entry) & ~inside | linear & inside

    def _from_l1(self, flaw: str, physical: int, time: int) -> Forwarded | None:
        """What L1 holds of ``physical``; nothing when it does not."""
        core = self.core
        if physical + LINE > core.cpu.ram.size or core.caches.level(physical >> LINE_SHIFT, time) != 1:
            return None
        return Forwarded(flaw, physical & ~PAGE_MASK, core.caches.l1.latency)

    def _data(self, flaw: str, physical: int) -> Forwarded | None:
        """What memory holds, at the price of the load."""
        core = self.core
        if physical + LINE > core.cpu.ram.size:
            return None
        latency, _ = core.caches.access(physical >> LINE_SHIFT, core.board.now)
        return Forwarded(flaw, physical & ~PAGE_MASK, latency)

    def _stale(self, linear: int) -> Forwarded | None:
        """Bytes of a buffer that somebody else has used."""
        core = self.core
        buffers, flaws = core.buffers, core.flaws
        for flaw, data in (
            ("msbds", buffers.stale_store(linear) if "msbds" in flaws else None),
            ("mfbds", buffers.stale_fill() if "mfbds" in flaws else None),
            ("mlpds", buffers.stale_load() if "mlpds" in flaws else None),
        ):
            if data is not None:
                offset = linear & PAGE_MASK & ~(LINE - 1)
                core.observer.scratch[offset : offset + LINE] = data
                return Forwarded(flaw, SCRATCH, core.caches.l1.latency)
        return None

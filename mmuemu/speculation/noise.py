"""What makes measuring harder on real machines: a clock that jitters, a prefetcher, others who use the cache.

Off by default; with a seed of its own, so that a run with noise is as repeatable as one without.
"""

from __future__ import annotations

from random import Random
from typing import Final

from mmuemu.speculation.caches import Hierarchy

JITTER: Final = 12
"""Cycles that a reading of the clock is late at most."""
_INTERRUPT: Final = 400
"""One reading in so many falls behind an interrupt..."""
_INTERRUPT_CYCLES: Final = 4000
"""...that takes up to so long."""
_PREFETCH: Final = 0.25
"""How often a miss brings the next line, too (Intel's adjacent-line and streamer prefetchers; a page is not left)."""
_EVICTION: Final = 1 / 64
"""How often somebody else takes a line's place at a miss."""
_LINES_A_PAGE: Final = 64


class Noise:
    """One machine's disturbances, drawn from ``seed``."""

    def __init__(self, seed: int) -> None:
        self._random = Random(f"{seed} noise")

    def jitter(self) -> int:
        """Cycles by which a reading of the clock is late."""
        draw = self._random
        late = draw.randrange(JITTER + 1)
        return late + draw.randrange(_INTERRUPT_CYCLES) if draw.randrange(_INTERRUPT) == 0 else late

    def missed(self, caches: Hierarchy, line: int, time: int) -> None:
        """A load of ``line`` missed L1."""
        draw = self._random
        if draw.random() < _PREFETCH and (line + 1) % _LINES_A_PAGE:
            caches.access(line + 1, time)
        if draw.random() < _EVICTION and caches.l1.lines:
            members = caches.l1.members[draw.randrange(len(caches.l1.members))]
            if members:
                caches.flush(members[draw.randrange(len(members))])

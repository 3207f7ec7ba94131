"""The data caches: three levels of physical lines with least-recently-used replacement, and lines on their way.

Times are in slots, parts of a cycle in which one instruction can be issued (:mod:`mmuemu.speculation.scoreboard`).
"""

from __future__ import annotations

from typing import Final

from mmuemu.speculation.models import CacheSpec, CpuSpec

LINE_SHIFT: Final = 6
LINE: Final = 64
MEMORY: Final = 4
"""The level of what no cache holds."""


class Cache:
    """One level. ``lines`` maps a line's number (physical address >> 6) to the time of its last use."""

    __slots__ = ("latency", "lines", "mask", "members", "ways")

    def __init__(self, spec: CacheSpec, slots: int) -> None:
        sets = spec.size // spec.ways // LINE
        self.mask = sets - 1
        self.ways = spec.ways
        self.latency = spec.latency * slots
        self.lines: dict[int, int] = {}
        self.members: list[list[int]] = [[] for _ in range(sets)]

    def insert(self, line: int, tick: int) -> int:
        """Put a line in; the line that had to go, or -1."""
        lines = self.lines
        victim = -1
        if line not in lines:
            members = self.members[line & self.mask]
            if len(members) >= self.ways:
                victim = min(members, key=lines.__getitem__)
                members.remove(victim)
                del lines[victim]
            members.append(line)
        lines[line] = tick
        return victim

    def remove(self, line: int) -> None:
        """Take a line out, if it is there."""
        if self.lines.pop(line, None) is not None:
            self.members[line & self.mask].remove(line)

    def clear(self) -> None:
        """Empty the cache."""
        self.lines.clear()
        for members in self.members:
            members.clear()


class Hierarchy:
    """L1D, L2 and an inclusive L3, and the lines that have been asked for and are not there yet."""

    __slots__ = ("arrivals", "l1", "l2", "l3", "memory_latency", "tick")

    def __init__(self, spec: CpuSpec) -> None:
        slots = spec.issue_width
        self.l1 = Cache(spec.l1d, slots)
        self.l2 = Cache(spec.l2, slots)
        self.l3 = Cache(spec.l3, slots)
        self.memory_latency = spec.memory_latency * slots
        self.arrivals: dict[int, int] = {}
        """Line -> time of its arrival in L1: until then it is no hit."""
        self.tick = 0
        """Counts uses: what least recently used is measured in."""

    def access(self, line: int, time: int) -> tuple[int, int]:
        """Load a line at ``time``: (slots until its data is there, level it was found in)."""
        self.tick = tick = self.tick + 1
        l1 = self.l1
        if line in l1.lines:
            l1.lines[line] = tick
            arrival = self.arrivals.get(line)
            if arrival is None:
                return l1.latency, 1
            if arrival > time:
                if arrival - time > self.memory_latency:
                    # Older, but later: this load is the one that fetches it.
                    arrival = self.arrivals[line] = time + self.memory_latency
                return max(arrival - time, l1.latency), 2
            del self.arrivals[line]
            return l1.latency, 1
        if line in self.l2.lines:
            latency, level = self.l2.latency, 2
        elif line in self.l3.lines:
            latency, level = self.l3.latency, 3
        else:
            latency, level = self.memory_latency, MEMORY
        self.arrivals[line] = time + latency
        self._fill(line, tick)
        return latency, level

    def fetch(self, line: int, arrival: int) -> None:
        """Load a line that L1 does not have, so that it is there at ``arrival``."""
        self.tick += 1
        self.arrivals[line] = arrival
        self._fill(line, self.tick)

    def _fill(self, line: int, tick: int) -> None:
        victim = self.l3.insert(line, tick)
        if victim >= 0:
            self.l2.remove(victim)
            self._drop(victim)
        self.l2.insert(line, tick)
        victim = self.l1.insert(line, tick)
        if victim >= 0:
            self.arrivals.pop(victim, None)

    def _drop(self, line: int) -> None:
        self.l1.remove(line)
        self.arrivals.pop(line, None)

    def level(self, line: int, time: int) -> int:
        """Where a line is, without touching it: 1 to 3, MEMORY; a line on its way is where it comes from: not 1."""
        if line in self.l1.lines:
            return 1 if self.arrivals.get(line, 0) <= time else 2
        return 2 if line in self.l2.lines else 3 if line in self.l3.lines else MEMORY

    def flush(self, line: int) -> bool:
        """CLFLUSH: out of every level; whether any had it."""
        present = line in self.l3.lines or line in self.l1.lines
        if present:
            self._drop(line)
            self.l2.remove(line)
            self.l3.remove(line)
        return present

    def flush_l1d(self) -> None:
        """IA32_FLUSH_CMD: L1D is written back and empty."""
        self.l1.clear()
        self.arrivals.clear()

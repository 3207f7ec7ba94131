"""Watchpoints: linear bytes, watched where they lie in physical memory as long as they lie there."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final

from mmuemu.cpu.debug import READS, WRITES, DebugPlaces, Place
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE

KINDS: Final = {2: ("watch", WRITES), 3: ("rwatch", READS), 4: ("awatch", READS | WRITES)}
"""The kinds of ``Z`` packets: what gdb calls a hit, and the accesses that are one."""
LONGEST: Final = 1 << 20
"""Bytes that one watchpoint may cover."""


@dataclass(slots=True)
class _Watch:
    owner: Hashable
    kind: int
    address: int
    length: int
    places: list[tuple[int, int, Place]] = field(default_factory=list)
    """Linear address and bytes of each page's part, and its hook."""


class Watchpoints:
    """The watchpoints of one machine; hooks exist only while one of them does."""

    def __init__(
        self,
        places: DebugPlaces,
        physical: Callable[[Hashable, int], int | None],
        on_hit: Callable[[Hashable, str, int], None],
    ) -> None:
        """``physical(owner, linear)`` says where a byte lies. ``on_hit(owner, name, address)`` hears of accesses."""
        self._places = places
        self._physical = physical
        self._on_hit = on_hit
        self._wanted: dict[tuple[Hashable, int, int, int], None] = {}
        self._active: dict[tuple[Hashable, int, int, int], _Watch] = {}

    def __bool__(self) -> bool:
        return bool(self._active)

    def add(self, owner: Hashable, kind: int, address: int, length: int) -> None:
        """Want one."""
        self._wanted[owner, kind, address, length] = None

    def remove(self, owner: Hashable, kind: int, address: int, length: int) -> None:
        """Want it no more."""
        self._wanted.pop((owner, kind, address, length), None)

    def forget(self, owner: Hashable) -> None:
        """Want none of this owner's."""
        for key in [key for key in self._wanted if key[0] == owner]:
            del self._wanted[key]

    def clear(self) -> None:
        """Want none, and have none."""
        self._wanted.clear()
        self.sync()

    def sync(self) -> None:
        """Have those that are wanted, while nothing runs."""
        for key in [key for key in self._active if key not in self._wanted]:
            for _, _, place in self._active.pop(key).places:
                self._places.unwatch(place)
        for key in self._wanted:
            if key not in self._active:
                self._active[key] = self._watch(_Watch(*key))
        self.refresh()

    def _watch(self, watch: _Watch) -> _Watch:
        name, kinds = KINDS[watch.kind]
        at, end = watch.address, watch.address + watch.length
        while at < end:
            size = min(PAGE_SIZE - (at & PAGE_MASK), end - at)
            place = self._places.watch(kinds, lambda: self._on_hit(watch.owner, name, watch.address))
            watch.places.append((at, size, place))
            at += size
        return watch

    def refresh(self) -> None:
        """Follow bytes that lie elsewhere now; also from a hook."""
        for watch in self._active.values():
            for linear, size, place in watch.places:
                physical = self._physical(watch.owner, linear)
                if physical is None:
                    place.leave()
                else:
                    place.move(physical, physical + size - 1)

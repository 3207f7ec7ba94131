"""How large the engine's TLB is, without regard to the host's clock.

When it is flushed the engine doubles the TLB of a mode that was used to more than 70 %, and shrinks one that was used
to less than 30 % if 100 ms of the host's time have passed since it was last looked at (``tlb_mmu_resize_locked`` in
``accel/tcg/cputlb.c``). Which translations meet in one entry would depend on how fast the host is, and so would misses,
accessed bits and the data TLB of the transient model. Here that time is a number of flushes.
"""

from __future__ import annotations

import ctypes
from typing import Final

from mmuemu.cpu.internals import state_address

WINDOW: Final = 256
"""Flushes after which a TLB that is hardly used shrinks."""
_MODES: Final = 3
"""NB_MMU_MODES."""
_DESCRIPTIONS: Final = -2160
"""Where ``CPUTLBDesc`` of the first mode is, from the registers on."""
_STRIDE: Final = 696
_BEGAN: Final = 2
"""Index in it of ``window_begin_ns``; the addresses of large pages stand before."""
_USED: Final = 4
"""Of ``n_used_entries``."""
_MORE: Final = 86
"""Of ``iotlb``, the table of what else belongs to each entry."""
_TABLES: Final = -64
"""Where ``CPUTLBDescFast`` of the first mode is: its mask, and the table."""
_ENTRY_SHIFT: Final = 6
_NEVER: Final = 1 << 62
"""No clock in nanoseconds gets there."""
_DAY_NS: Final = 86_400_000_000_000


class TlbSize:
    """The sizes of one engine's TLBs, and when it may shrink them."""

    def __init__(self, handle: ctypes.c_void_p) -> None:
        state = state_address(handle)
        words = _MODES * _STRIDE // 8
        self._words = memoryview((ctypes.c_int64 * words).from_address(state + _DESCRIPTIONS)).cast("B").cast("q")
        self._masks = memoryview((ctypes.c_uint64 * (2 * _MODES)).from_address(state + _TABLES)).cast("B").cast("Q")

    def plausible(self, now: int) -> bool:
        """Whether an engine that was made less than a day before ``now`` (ns since 1970) could have such a TLB."""
        began = self._words[_BEGAN :: _STRIDE // 8].tolist()
        masks = self._masks[::2].tolist()
        return (
            len(set(began)) == 1
            and abs(now - began[0]) < _DAY_NS
            and all(mask and not mask & (mask + (1 << _ENTRY_SHIFT)) for mask in masks)
        )

    @property
    def entries(self) -> list[int]:
        """How many entries the TLB of each mode has: supervisor with SMAP, user, supervisor without."""
        return [(mask >> _ENTRY_SHIFT) + 1 for mask in self._masks[::2].tolist()]

    def table(self, mode: int) -> tuple[int, int, int]:
        """Host addresses of the entries of ``mode`` and of what else belongs to each; how many there are."""
        mask, entries = self._masks[2 * mode : 2 * mode + 2].tolist()
        return entries, self._words[mode * _STRIDE // 8 + _MORE], (mask >> _ENTRY_SHIFT) + 1

    def use(self, mode: int, entries: int) -> None:
        """So many entries of ``mode`` are used that were not."""
        self._words[mode * _STRIDE // 8 + _USED] += entries

    def hold(self) -> None:
        """Let none shrink."""
        words = self._words
        words[_BEGAN] = words[_BEGAN + _STRIDE // 8] = words[_BEGAN + 2 * _STRIDE // 8] = _NEVER

    def expire(self) -> None:
        """Let those that are hardly used shrink at the next flush."""
        words = self._words
        words[_BEGAN] = words[_BEGAN + _STRIDE // 8] = words[_BEGAN + 2 * _STRIDE // 8] = 0

    def close(self) -> None:
        """The engine is going."""
        self._words.release()
        self._masks.release()

"""Physical frames of 4 KiB: who holds how many references, and giving unused ones back to the host."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from mmuemu.errors import OutOfFrames
from mmuemu.memory.ram import ZERO_PAGE, GuestRam, anonymous
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE, SIZE_2M

_NO_FRAME: Final = ~0x000F_FFFF_FFFF_F000
"""Bits no frame address has; a negative number has them too."""
_BATCH: Final = 64
_ONE: Final = (1).to_bytes(4, sys.byteorder)
_BLOCKS: Final = 8
_AHEAD: Final = 32 * PAGE_SIZE
"""How much the host commits at once when frames are given out in order."""


class FrameAllocator:
    """Frames between two physical addresses, each with a reference count; the order of frames given is a
    function of the order of calls alone.

    A released frame first waits in a short list, from where it is given out again (zeroed by hand, which is
    cheaper than a host page fault); a full list goes back to the host in as few ``madvise`` calls as
    possible.
    """

    __slots__ = (
        "_blocks",
        "_counts",
        "_end",
        "_executed",
        "_next",
        "_peak",
        "_pending",
        "_ready",
        "_runs",
        "_start",
        "_stop",
        "_zero",
        "limit",
        "on_exhausted",
        "on_free",
        "ram",
        "used",
    )

    def __init__(self, ram: GuestRam, start: int = 0, end: int | None = None) -> None:
        """Manage ``[start, end)`` of ``ram``, which nobody has written yet. Raises ValueError on a bad
        range.
        """
        end = ram.size if end is None else end
        if (start | end) & _NO_FRAME or not start < end <= ram.size:
            raise ValueError(f"no range of frames: {start:#x} to {end:#x}")
        self.ram = ram
        self._start = start
        self._end = end
        # One count a frame in memory of its own that is committed as frames get used.
        self._counts = memoryview(anonymous(((end >> 12) * 4 + PAGE_MASK) & ~PAGE_MASK)).cast("I")
        self._next = start
        self._ready = start
        self._stop = end
        self._runs: list[tuple[int, int]] = []
        self._pending: list[int] = []
        self._blocks: list[int] = []
        self._executed: set[int] = set()
        self._zero = -1
        self._peak = 0
        self.used = 0
        """Frames that have references now."""
        self.limit = (end - start) >> 12
        """Frames there are."""
        self.on_exhausted: Callable[[], bool] | None = None
        """Called when no frame is free; whether it released any."""
        self.on_free: list[Callable[[int], None]] = []
        """Called with a frame that was :meth:`mark_executed` when it is freed or its code overwritten."""

    @property
    def free(self) -> int:
        """Frames nobody has a reference to."""
        return self.limit - self.used

    @property
    def peak(self) -> int:
        """The most frames that were ever used at once."""
        return max(self._peak, self.used)

    @property
    def zero_frame(self) -> int:
        """The one frame that always reads as zeros; map it read-only, and :meth:`share` it for each
        mapping.
        """
        if self._zero < 0:
            self._zero = self.allocate()
        return self._zero

    def allocate(self) -> int:
        """Physical address of a frame of zeros with one reference. Raises OutOfFrames."""
        if self._pending:
            frame = self._pending.pop()
            self.ram.bytes[frame : frame + 4096] = ZERO_PAGE
        else:
            frame = self._next
            if frame >= self._ready:
                frame = self._prepare(frame)
            self._next = frame + 4096
        self._counts[frame >> 12] = 1
        self.used += 1
        return frame

    def copy(self, frame: int) -> int:
        """Physical address of a frame with the content of ``frame`` and one reference. Raises OutOfFrames."""
        if self._pending:
            new = self._pending.pop()
        else:
            new = self._next
            if new >= self._ready:
                new = self._prepare(new)
            self._next = new + 4096
        memory = self.ram.bytes
        memory[new : new + 4096] = memory[frame : frame + 4096]
        self._counts[new >> 12] = 1
        self.used += 1
        return new

    def _prepare(self, frame: int) -> int:
        """The next frame of the current run, or of another; the host commits a few behind it as well."""
        if frame >= self._stop:
            frame = self._take_run()
        self._ready = min(frame + _AHEAD, self._stop)
        self.ram.populate(frame, self._ready - frame)
        return frame

    def _take_run(self) -> int:
        """Make the most recently freed run the current one; its first frame."""
        while not self._runs:
            if self._blocks:
                self._runs += [(base, base + SIZE_2M) for base in sorted(self._blocks, reverse=True)]
                self._blocks.clear()
            elif self._pending:
                self._give_back()
            elif self.on_exhausted is None or not self.on_exhausted():
                raise OutOfFrames(f"all {self.limit} frames of guest memory are in use")
        self._next, self._stop = self._runs.pop()
        return self._next

    def allocate_run(self, count: int, align: int = PAGE_SIZE) -> int:
        """Physical address of ``count`` neighbouring zero frames, one reference each, ``align`` bytes
        aligned.

        The lowest fitting place is taken. Raises OutOfFrames, and ValueError on a count or alignment
        that is not a positive number, a power of two of at least 4,096.
        """
        if count <= 0 or align < PAGE_SIZE or align & (align - 1):
            raise ValueError(f"no run of frames: {count} frames aligned to {align:#x}")
        self.flush()
        base = self._cut_run(count << 12, align)
        if base < 0:
            raise OutOfFrames(f"no {count} neighbouring frames of guest memory are free")
        self._use(base, count)
        return base

    def _cut_run(self, size: int, align: int) -> int:
        """Take ``size`` free bytes out of the runs after a :meth:`flush`; where they begin, -1: nowhere."""
        runs = self._merged_runs()
        fits = (i for i, (start, end) in enumerate(runs) if (start + align - 1) & -align <= end - size)
        position = next(fits, None)
        base = -1
        if position is not None:
            start, end = runs[position]
            base = (start + align - 1) & -align
            runs[position : position + 1] = [r for r in ((start, base), (base + size, end)) if r[0] < r[1]]
        self._set_runs(runs)
        return base

    def _use(self, base: int, count: int) -> None:
        """``count`` free frames from ``base`` on have one reference from now on."""
        self._counts[base >> 12 : (base >> 12) + count] = memoryview(_ONE * count).cast("I")
        self.used += count

    def allocate_block(self) -> int:
        """Physical address of 512 neighbouring zero frames, 2 MiB aligned, one reference each; -1 without such a place.

        Several are set aside at once; frames that are allocated one by one get them when nothing else is left.
        """
        if not self._blocks:
            self.flush()
            for blocks in (_BLOCKS, 1):
                base = self._cut_run(blocks * SIZE_2M, SIZE_2M)
                if base >= 0:
                    self._blocks = [base + index * SIZE_2M for index in reversed(range(blocks))]
                    break
            else:
                return -1
        base = self._blocks.pop()
        self._use(base, SIZE_2M >> 12)
        return base

    def release_block(self, base: int) -> None:
        """:meth:`release` the 512 neighbouring frames from ``base`` on, 2 MiB aligned, which are in use.

        Together they go back to the host at once, unless somebody else uses one.
        """
        counts = self._counts[base >> 12 : base + SIZE_2M >> 12]
        if bytes(counts) != _ONE * len(counts) or any(base <= frame < base + SIZE_2M for frame in self._executed):
            self.release_all(list(range(base, base + SIZE_2M, PAGE_SIZE)))
            return
        self._peak = self.peak
        self.used -= len(counts)
        counts[:] = memoryview(bytes(4 * len(counts))).cast("I")
        self.ram.discard(base, SIZE_2M)
        self._blocks.append(base)

    def _merged_runs(self) -> list[tuple[int, int]]:
        """All free runs in address order, neighbours joined; blocks set aside are some of them again."""
        merged: list[tuple[int, int]] = []
        blocks = [(base, base + SIZE_2M) for base in self._blocks]
        self._blocks.clear()
        for start, end in sorted([*self._runs, *blocks, (self._next, self._stop)]):
            if merged and merged[-1][1] == start:
                merged[-1] = (merged[-1][0], end)
            elif start < end:
                merged.append((start, end))
        return merged

    def _set_runs(self, runs: list[tuple[int, int]]) -> None:
        """Continue with the lowest of ``runs`` (in address order)."""
        self._runs = runs[::-1]
        self._next, self._stop = self._runs.pop() if runs else (self._end, self._end)
        self._ready = self._next

    def share(self, frame: int) -> None:
        """One more reference to a frame in use. Raises ValueError for any other address."""
        index = frame >> 12
        try:
            count = 0 if frame & _NO_FRAME else self._counts[index]
        except IndexError:
            count = 0
        if not count:
            raise ValueError(f"{frame:#x} is no frame in use")
        self._counts[index] = count + 1

    def release(self, frame: int) -> None:
        """One reference less; without references the frame is free. Raises ValueError for a frame not in
        use.
        """
        index = frame >> 12
        try:
            count = 0 if frame & _NO_FRAME else self._counts[index]
        except IndexError:
            count = 0
        if count > 1:
            self._counts[index] = count - 1
            return
        if not count:
            raise ValueError(f"{frame:#x} is no frame in use")
        self._counts[index] = 0
        if self.used > self._peak:
            self._peak = self.used
        self.used -= 1
        if frame in self._executed:
            self._executed.discard(frame)
            self.forget_code(frame)
        self._pending.append(frame)
        if len(self._pending) >= _BATCH:
            self._give_back()

    def share_all(self, frames: list[int]) -> None:
        """:meth:`share` each of ``frames``, which are in use."""
        counts = self._counts
        for frame in frames:
            counts[frame >> 12] += 1

    def release_all(self, frames: list[int]) -> None:
        """:meth:`release` each of ``frames``, which are in use."""
        counts = self._counts
        for frame in frames:
            index = frame >> 12
            if counts[index] > 1:
                counts[index] -= 1
            else:
                self.release(frame)

    def share_many(self, frame: int, count: int) -> None:
        """``count`` more references to ``frame``, which is in use."""
        self._counts[frame >> 12] += count

    def release_many(self, frame: int, count: int) -> None:
        """``count`` references less to ``frame``, of more than that."""
        self._counts[frame >> 12] -= count

    def flush(self) -> None:
        """Give every free frame back to the host now, those committed ahead of use as well."""
        self._give_back()
        if self._ready > self._next:
            self.ram.discard(self._next, self._ready - self._next)
            self._ready = self._next

    def _give_back(self) -> None:
        """Give the released frames that wait back to the host, in as few calls as possible."""
        pending = self._pending
        if not pending:
            return
        pending.sort()
        first = previous = pending[0]
        for frame in [*pending[1:], -1]:
            if frame != previous + PAGE_SIZE:
                self.ram.discard(first, previous + PAGE_SIZE - first)
                self._runs.append((first, previous + PAGE_SIZE))
                first = frame
            previous = frame
        pending.clear()

    def refcount(self, frame: int) -> int:
        """References to ``frame``; 0 for a free frame and for any address that is no frame of this
        allocator.
        """
        if frame & _NO_FRAME or frame >= self._end:
            return 0
        return self._counts[frame >> 12]

    def mark_executed(self, frame: int) -> None:
        """Remember that code was fetched from ``frame``, until it is freed."""
        self._executed.add(frame)

    def forget_code(self, frame: int) -> None:
        """The content of an executed ``frame`` is about to change or go: everybody in ``on_free`` is told.

        The frame stays marked until it is freed: it may be executed again.
        """
        for callback in self.on_free:
            callback(frame)

    @property
    def executed(self) -> set[int]:
        """Frames that code was fetched from."""
        return set(self._executed)

    # -- snapshots -----------------------------------------------------------------------------------------------

    @property
    def high(self) -> int:
        """Where the frames begin that were never given out, or nobody has used since the last flush."""
        tops = [self._next] if self._stop == self._end else []
        return min([*tops, *(start for start, end in self._runs if end == self._end)], default=self._end)

    def references(self) -> tuple[bytes, frozenset[int]]:
        """The reference count of each frame from address 0 on (32 bits each; the others have none), and the free
        frames that are not zeros.
        """
        return bytes(self._counts[: self.high >> 12]), frozenset(self._pending)

    def put_references(self, counts: bytes, unclean: frozenset[int]) -> None:
        """Put :meth:`references` back; frames that are free then, and were not at the call, become zeros.

        The rest of this object's state is to be put back afterwards.
        """
        now, pending = self.references()
        then = memoryview(counts).cast("I")
        size = len(then)
        used = [number << 12 for number, count in enumerate(memoryview(now).cast("I")) if count]
        stale = [
            frame
            for frame in (*used, *pending)
            if (frame >> 12 >= size or not then[frame >> 12]) and frame not in unclean
        ]
        for start, end in _stretches(stale):
            if end - start > _AHEAD:
                self.ram.discard(start, end - start)
            else:
                self.ram.zero(start, end - start)
        self._counts[:size] = then
        for number in range(size, len(now) >> 2):
            self._counts[number] = 0

    def is_executed(self, frame: int) -> bool:
        """Whether code was fetched from ``frame`` since it was allocated."""
        return frame in self._executed


def _stretches(frames: list[int]) -> list[tuple[int, int]]:
    """``frames`` in order, neighbours joined, as ``[start, end)``."""
    found: list[tuple[int, int]] = []
    for frame in sorted(frames):
        if found and found[-1][1] == frame:
            found[-1] = (found[-1][0], frame + PAGE_SIZE)
        else:
            found.append((frame, frame + PAGE_SIZE))
    return found

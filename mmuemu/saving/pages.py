"""The content of guest memory, kept as bytes that all snapshots share in which they are the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mmuemu.memory.ram import GuestRam
from mmuemu.memory.written import WrittenPages
from mmuemu.x86.paging import PAGE_SIZE

_ZERO: Final = bytes(PAGE_SIZE)

Pages = dict[int, bytes]
"""Physical address -> content of a frame."""


class KeptPages:
    """Takes and puts back the pages of one machine's memory."""

    def __init__(self, ram: GuestRam) -> None:
        self._ram = ram
        self._pages: Pages = {}
        """What the last snapshot or restore held."""
        self._tracker: WrittenPages | None = None
        """Tells what was written since; without it everything is compared."""
        self._asked = False

    def track(self) -> None:
        """Have the host tell from now on what is written, where it can."""
        if not self._asked:
            self._asked = True
            self._tracker = WrittenPages.of(self._ram)

    def _written(self, end: int) -> set[int] | None:
        """Frames below ``end`` that may differ from what the last snapshot or restore held; None: all may."""
        if self._tracker is None:
            return None
        try:
            return self._tracker.take(end)
        except OSError:
            self.close()
            return None

    def take(self, frames: Iterable[int], end: int) -> Pages:
        """The content of ``frames``, which lie below ``end``."""
        memory, last = self._ram.bytes, self._pages
        written = self._written(end)
        pages: Pages = {}
        for frame in frames:
            before = last.get(frame)
            if before is None or written is None or frame in written:
                page = bytes(memory[frame : frame + PAGE_SIZE])
                before = before if before == page else page
            pages[frame] = before
        self._pages = pages
        return pages

    def put(self, pages: Pages, end: int) -> set[int]:
        """Put the content of frames back; those that had another."""
        memory, last = self._ram.bytes, self._pages
        written = self._written(end)
        suspects: Iterable[int] = pages
        if written is not None and last is pages:
            suspects = pages.keys() & written
        elif written is not None:
            suspects = {frame for frame, page in pages.items() if frame in written or last.get(frame) is not page}
        changed = set()
        for frame in suspects:
            page = pages[frame]
            if memory[frame : frame + PAGE_SIZE].tobytes() != page:
                memory[frame : frame + PAGE_SIZE] = page
                changed.add(frame)
        self._pages = pages
        if changed:
            self._written(end)
        return changed

    def take_all(self) -> Pages:
        """The content of all memory, but for pages of zeros."""
        ram, last = self._ram, self._pages
        written = self._written(ram.size)
        frames = ram.touched_frames() if written is None else last.keys() | written
        pages: Pages = {}
        for frame in frames:
            before = last.get(frame)
            if before is None or written is None or frame in written:
                page = bytes(ram.bytes[frame : frame + PAGE_SIZE])
                if page == _ZERO:
                    continue
                before = before if before == page else page
            pages[frame] = before
        self._pages = pages
        return pages

    def put_all(self, pages: Pages) -> set[int]:
        """Put all memory back, zeros where ``pages`` has nothing; the frames that had another content."""
        ram = self._ram
        written = self._written(ram.size)
        frames = set(ram.touched_frames()) if written is None else self._pages.keys() | written
        changed = set()
        for frame in frames | pages.keys():
            page = pages.get(frame, _ZERO)
            if ram.bytes[frame : frame + PAGE_SIZE].tobytes() != page:
                ram.bytes[frame : frame + PAGE_SIZE] = page
                changed.add(frame)
        self._pages = pages
        if changed:
            self._written(ram.size)
        return changed

    def close(self) -> None:
        """Look no longer at what is written."""
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None


__all__ = ["KeptPages", "Pages"]

"""Pages of files that nobody maps any more, kept for the next process that does.

Programs and libraries are mapped again and again; with the frames stays what the CPU has translated of their code.
A file that has changed meanwhile is read anew; all of this goes when memory is wanted for something else.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from mmuemu.kernel.abi.errno import SyscallError

if TYPE_CHECKING:
    from mmuemu.kernel.page_cache import FileMapping

MOST_FILES: Final = 64
"""A kept file may hold a descriptor of the host."""


class IdlePages:
    """The kept mappings of one machine, least recently used first; at most ``limit`` frames of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: OrderedDict[Any, tuple[FileMapping, tuple[int, int]]] = OrderedDict()
        self._frames = 0

    def __len__(self) -> int:
        return self._frames

    def mappings(self) -> list[FileMapping]:
        """What is kept."""
        return [mapping for mapping, _ in self._kept.values()]

    def keep(self, mapping: FileMapping) -> bool:
        """Take over a mapping without users whose pages are clean; False when it is not worth it."""
        version = _version(mapping.inode)
        if version is None or not mapping.pages or len(mapping.pages) > self.limit // 2:
            return False
        self._kept[mapping.inode] = (mapping, version)
        self._frames += len(mapping.pages)
        while self._frames > self.limit or len(self._kept) > MOST_FILES:
            self._drop_oldest()
        return True

    def take(self, inode: Any) -> FileMapping | None:
        """The mapping of ``inode``, if it is kept and the file is the same."""
        found = self._kept.pop(inode, None)
        if found is None:
            return None
        mapping, version = found
        self._frames -= len(mapping.pages)
        if _version(inode) == version:
            return mapping
        mapping.free()
        return None

    def _drop_oldest(self) -> None:
        _, (mapping, _) = self._kept.popitem(last=False)
        self._frames -= len(mapping.pages)
        mapping.free()

    def give_up(self) -> bool:
        """Free everything; whether that was anything."""
        found = bool(self._kept)
        while self._kept:
            self._drop_oldest()
        return found


def _version(inode: Any) -> tuple[int, int] | None:
    """When the file was modified and its size; None for one without a name."""
    try:
        stat = inode.stat()
    except (AttributeError, SyscallError, OSError):
        return None
    return (stat.mtime_ns, stat.size) if stat.nlink else None

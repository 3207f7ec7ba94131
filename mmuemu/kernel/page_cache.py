"""The pages of a mapped file, one frame each, shared by everybody who maps the file.

A mapping lives as long as some area maps its file: the last one to go writes dirty pages back and frees all, unless
somebody keeps idle pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from mmuemu.kernel.abi.errno import SyscallError
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.kernel.faults import PagedSpace
    from mmuemu.kernel.idle_pages import IdlePages
    from mmuemu.memory.frames import FrameAllocator


class MappedInode(Protocol):
    """What mapping needs of an inode."""

    mapping: Any

    @property
    def size(self) -> int:
        """Bytes in the file."""

    @property
    def dev(self) -> int:
        """The device number stat(2) shows."""

    @property
    def ino(self) -> int:
        """The inode number stat(2) shows."""

    def read_at(self, offset: int, count: int, /) -> bytes:
        """Up to ``count`` bytes at ``offset``."""

    def write_at(self, offset: int, data: bytes, /) -> int:
        """Store ``data`` at ``offset``."""


class SharedMemory:
    """The nameless file behind MAP_SHARED | MAP_ANONYMOUS (mm/shmem.c): zeros of a given size, kept in
    frames only.

    ``readable``, ``writable`` and ``inode`` make it its own opened file.
    """

    __slots__ = ("ino", "inode", "mapping", "readable", "size", "writable")

    dev = 1
    """Linux's internal tmpfs mount shows as 00:01."""

    def __init__(self, size: int, ino: int) -> None:
        self.size = size
        self.ino = ino
        self.mapping: Any = None
        self.readable = self.writable = True
        self.inode: MappedInode = self

    def read_at(self, offset: int, count: int) -> bytes:
        """Zeros: a page that was written is in the page cache."""
        return bytes(max(min(count, self.size - offset), 0))

    def write_at(self, offset: int, data: bytes) -> int:
        """Nothing to keep: when pages are written back the last user is going away."""
        return len(data)

    def punch(self, offset: int, count: int) -> None:
        """Make ``count`` bytes at ``offset`` zeros."""
        if self.mapping is not None:
            self.mapping.written_zeros(offset, count)


class FileMapping:
    """The cached pages of one inode. Their frames hold one reference for the cache and one per page-table
    entry.
    """

    __slots__ = ("_frames", "_held", "_idle", "_shared", "_size", "_users", "dirty", "inode", "on_areas", "pages")

    def __init__(self, inode: MappedInode, frames: FrameAllocator) -> None:
        self.inode = inode
        self._frames = frames
        self._users: Counter[PagedSpace] = Counter()
        self._shared = 0
        self._held = False
        self._idle: IdlePages | None = None
        self._size = inode.size
        self.on_areas: Callable[[], None] | None = None
        """Told after each area that comes or goes (System V shared memory counts them)."""
        self.pages: dict[int, int] = {}
        """Frames by page index."""
        self.dirty: set[int] = set()
        """Indexes of pages whose stores the inode does not know of yet."""

    @classmethod
    def of(cls, inode: MappedInode, frames: FrameAllocator, idle: IdlePages | None = None) -> FileMapping:
        """The mapping of ``inode``, made if it has none; its pages go to ``idle`` when nobody maps it any more."""
        if inode.mapping is None:
            kept = None if idle is None else idle.take(inode)
            inode.mapping = cls(inode, frames) if kept is None else kept
            inode.mapping._idle = idle
        mapping = inode.mapping
        assert isinstance(mapping, cls)
        return mapping

    @property
    def aliased(self) -> bool:
        """Whether stores through one area can change what others execute."""
        return self._shared > 0 and sum(self._users.values()) > 1

    @property
    def areas(self) -> int:
        """How many areas map this file, in all address spaces."""
        return sum(self._users.values())

    def hold(self) -> None:
        """Keep the pages when nobody maps them, until :meth:`let_go`."""
        self._held = True

    def let_go(self) -> None:
        """The pages go with the last area; now, if there is none."""
        self._held = False
        if not self._users:
            self._drop()

    def spaces(self) -> list[PagedSpace]:
        """The address spaces that map this file."""
        return list(self._users)

    def attach(self, space: PagedSpace, shared: bool) -> None:
        """An area of ``space`` maps this file; ``shared``: stores through it may reach the file."""
        self._users[space] += 1
        self._shared += shared
        if self.on_areas is not None:
            self.on_areas()

    def detach(self, space: PagedSpace, shared: bool) -> None:
        """An area of ``space`` no longer does; its pages are out of the tables."""
        self._users[space] -= 1
        self._shared -= shared
        if not self._users[space]:
            del self._users[space]
        if self.on_areas is not None:
            self.on_areas()
        if not self._users and not self._held:
            self._drop()

    def _drop(self) -> None:
        try:
            self.sync()
        except SyscallError:
            pass  # as on Linux, nobody is left to hear of a failed write-back
        finally:
            self.inode.mapping = None
            if self.dirty or self._idle is None or not self._idle.keep(self):
                self.free()

    def free(self) -> None:
        """Give the pages back."""
        for frame in self.pages.values():
            self._frames.release(frame)
        self.pages.clear()
        self.dirty.clear()

    def frame(self, index: int) -> int:
        """Physical address of page ``index`` (no reference is added), read from the inode if need be.

        -1 when the page lies wholly beyond the end of the file. Raises OutOfFrames and the inode's errors.
        """
        frame = self.pages.get(index, -1)
        if frame < 0 and index << 12 < self.inode.size:
            data = self.inode.read_at(index << 12, PAGE_SIZE)
            frame = self._frames.allocate()
            self._frames.ram.bytes[frame : frame + len(data)] = data
            self.pages[index] = frame
        return frame

    def overlay(self, offset: int, data: bytes) -> bytes:
        """``data`` as read from the inode at ``offset``, with the bytes of cached pages in place of its
        own.
        """
        ram = self._frames.ram.bytes
        result: bytearray | None = None
        for index, start, end in _pieces(offset, len(data)):
            frame = self.pages.get(index, -1)
            if frame >= 0:
                if result is None:
                    result = bytearray(data)
                at = (index << 12) - offset
                result[at + start : at + end] = ram[frame + start : frame + end]
        return data if result is None else bytes(result)

    def written(self, offset: int, data: bytes) -> None:
        """``data`` was written to the inode at ``offset``: cached pages get it too."""
        if offset + len(data) > self._size:
            self._clear_tail(self._size)
            self._size = offset + len(data)
        ram = self._frames.ram.bytes
        for index, start, end in _pieces(offset, len(data)):
            frame = self.pages.get(index, -1)
            if frame >= 0:
                at = (index << 12) - offset
                ram[frame + start : frame + end] = data[at + start : at + end]
                if self._frames.is_executed(frame):
                    self._frames.forget_code(frame)

    def written_zeros(self, offset: int, count: int) -> None:
        """Cached pages wholly or partly in ``count`` bytes at ``offset`` become zeros there."""
        for index in list(self.pages):
            start = max(offset - (index << 12), 0)
            end = min(offset + count - (index << 12), PAGE_SIZE)
            if start < end:
                self.written((index << 12) + start, bytes(end - start))

    def truncated(self, size: int) -> None:
        """The inode has ``size`` bytes now: pages beyond go from the cache and from everybody's tables."""
        keep = (size + PAGE_MASK) >> 12
        for space in list(self._users):
            space.drop_file_pages(self, keep)
        for index in [index for index in self.pages if index >= keep]:
            self._frames.release(self.pages.pop(index))
            self.dirty.discard(index)
        self._clear_tail(min(size, self._size))
        self._size = size

    def _clear_tail(self, size: int) -> None:
        """Zero what lies beyond ``size`` in its page: stores there do not become part of the file."""
        frame = self.pages.get(size >> 12, -1)
        if frame >= 0 and size & PAGE_MASK:
            self._frames.ram.zero(frame + (size & PAGE_MASK), PAGE_SIZE - (size & PAGE_MASK))

    def sync(self) -> None:
        """Write dirty pages to the inode, up to its size. Raises the inode's SyscallError; those pages stay
        dirty.
        """
        size = self.inode.size
        for index in sorted(self.dirty):
            offset = index << 12
            frame = self.pages.get(index, -1)
            if frame >= 0 and offset < size:
                self.inode.write_at(offset, self._frames.ram.read(frame, min(PAGE_SIZE, size - offset)))
            self.dirty.discard(index)


def _pieces(offset: int, count: int) -> list[tuple[int, int, int]]:
    """(page index, first byte, end byte) for each page that ``count`` bytes at ``offset`` touch."""
    end = offset + count
    return [
        (index, max(offset - (index << 12), 0), min(end - (index << 12), PAGE_SIZE))
        for index in range(offset >> 12, (end + PAGE_MASK) >> 12 if count else offset >> 12)
    ]

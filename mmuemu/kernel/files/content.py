"""The bytes of an in-memory file: only what was written is kept, the rest is zeros or a host file's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import SyscallError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmuemu.kernel.files.inode import Quota

CHUNK: Final = 1 << 16
_SHIFT: Final = 16
_MASK: Final = CHUNK - 1


class Content:
    """A sparse byte store in chunks of 64 KiB, over an optional base.

    ``base(offset, count)`` reads what lies below (may return less); ``base_size`` says how much of it shows.
    Storage is charged to ``quota`` (ENOSPC) and given back when the object dies.
    """

    __slots__ = ("_base", "_base_size", "_chunks", "_era", "_quota", "size", "stored")

    def __init__(self, quota: Quota, base: Callable[[int, int], bytes] | None = None, base_size: int = 0) -> None:
        self._quota = quota
        self._era = quota.era
        self._base = base
        self._base_size = base_size
        self._chunks: dict[int, bytearray] = {}
        self.size = base_size
        self.stored = 0
        """Bytes of memory taken."""

    def __del__(self) -> None:
        quota = getattr(self, "_quota", None)  # None: reading a snapshot failed before it had anything
        if quota is not None and not quota.is_lost(self._era):
            quota.used -= self.stored

    def _below(self, index: int, start: int, stop: int) -> bytes:
        """Bytes ``start:stop`` of chunk ``index`` where nothing was written."""
        offset = index << _SHIFT
        if self._base is None or offset + start >= self._base_size:
            return bytes(stop - start)
        data = self._base(offset + start, min(stop - start, self._base_size - offset - start))
        return data.ljust(stop - start, b"\0")

    def read(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset``, fewer only at the end."""
        end = min(offset + count, self.size)
        if offset >= end:
            return b""
        index = offset >> _SHIFT
        start = offset & _MASK
        if end <= (index + 1) << _SHIFT:
            return self._read_chunk(index, start, start + end - offset)
        pieces = []
        while offset < end:
            index = offset >> _SHIFT
            start = offset & _MASK
            stop = min(CHUNK, start + end - offset)
            pieces.append(self._read_chunk(index, start, stop))
            offset += stop - start
        return b"".join(pieces)

    def _read_chunk(self, index: int, start: int, stop: int) -> bytes:
        chunk = self._chunks.get(index)
        if chunk is None:
            return self._below(index, start, stop)
        data = bytes(chunk[start:stop])
        return data if len(data) == stop - start else data.ljust(stop - start, b"\0")

    def write(self, offset: int, data: bytes) -> int:
        """Write as much of ``data`` as there is room for; ENOSPC when none of it fits."""
        done = 0
        count = len(data)
        while done < count:
            start = offset & _MASK
            piece = count - done
            if piece > CHUNK - start:
                piece = CHUNK - start
            try:
                chunk = self._chunk_for(offset >> _SHIFT, start, start + piece)
            except SyscallError:
                piece = self._fitting(offset >> _SHIFT, start)
                if piece <= 0:
                    if done:
                        break
                    raise
                chunk = self._chunk_for(offset >> _SHIFT, start, start + piece)
                count = done + piece
            chunk[start : start + piece] = data[done : done + piece]
            done += piece
            offset += piece
            if offset > self.size:
                self.size = offset
        return done

    def _fitting(self, index: int, start: int) -> int:
        """How many bytes from ``start`` of chunk ``index`` on there is room for."""
        room = self._quota.limit - self._quota.used
        chunk = self._chunks.get(index)
        if chunk is not None:
            return len(chunk) + room - start
        under = min(max(self._base_size - (index << _SHIFT), 0), CHUNK)
        return room - start if under <= room else 0

    def _chunk_for(self, index: int, start: int, stop: int) -> bytearray:
        """Chunk ``index``, ``start`` bytes long at least and charged up to ``stop``, ready for assignment."""
        chunk = self._chunks.get(index)
        offset = index << _SHIFT
        if chunk is None:
            under = min(max(self._base_size - offset, 0), CHUNK)
            length = max(under, stop)
            self._quota.charge(length)
            self.stored += length
            chunk = bytearray(self._below(index, 0, under)) if under else bytearray()
            self._chunks[index] = chunk
        elif stop > len(chunk):
            self._quota.charge(stop - len(chunk))
            self.stored += stop - len(chunk)
        if start > len(chunk):
            chunk.extend(bytes(start - len(chunk)))
        return chunk

    def truncate(self, size: int) -> None:
        """Cut the file, or extend it by a hole."""
        if size < self.size:
            self._drop(size)
            self._base_size = min(self._base_size, size)
        self.size = size

    def _drop(self, size: int) -> None:
        """Forget everything from ``size`` on."""
        last = size >> _SHIFT
        freed = 0
        for index in [i for i in self._chunks if i >= last]:
            chunk = self._chunks[index]
            keep = size & _MASK if index == last else 0
            if keep < len(chunk):
                freed += len(chunk) - keep
                if keep:
                    del chunk[keep:]
                else:
                    del self._chunks[index]
        self._quota.charge(-freed)
        self.stored -= freed

    def punch(self, offset: int, count: int) -> None:
        """Make ``count`` bytes from ``offset`` zeros, giving whole chunks back where nothing lies below."""
        end = min(offset + count, self.size)
        covered = range(offset >> _SHIFT, (min(end, self._base_size) + _MASK) >> _SHIFT)
        for index in sorted({*self._chunks, *covered}):
            first = index << _SHIFT
            start, stop = max(offset - first, 0), min(end - first, CHUNK)
            if start >= stop:
                continue
            if self._base is not None and first < self._base_size:
                self.write(first + start, bytes(stop - start))
                continue
            chunk = self._chunks.get(index)
            if chunk is not None and start == 0 and stop >= len(chunk):
                del self._chunks[index]
                self._quota.charge(-len(chunk))
                self.stored -= len(chunk)
            elif chunk is not None and start < len(chunk):
                stop = min(stop, len(chunk))
                chunk[start:stop] = bytes(stop - start)

    def data_from(self, offset: int) -> int:
        """The first offset at or after ``offset`` that is not in a hole; the size if there is none."""
        best = self.size
        if offset < self._base_size:
            return offset
        for index, chunk in self._chunks.items():
            first = index << _SHIFT
            if first + len(chunk) > offset:
                best = min(best, max(first, offset))
        return best

    def hole_from(self, offset: int) -> int:
        """The first offset at or after ``offset`` that lies in a hole; the size if there is none."""
        while offset < self.size:
            if offset < self._base_size:
                offset = self._base_size
                continue
            chunk = self._chunks.get(offset >> _SHIFT)
            if chunk is None or offset & _MASK >= len(chunk):
                return offset
            offset = (offset & ~_MASK) + len(chunk)
        return self.size

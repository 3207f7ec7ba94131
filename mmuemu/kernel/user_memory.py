"""copy_from_user and copy_to_user: a task's memory by its page tables and areas, with demand paging.

Every method that copies raises SyscallError(EFAULT) for an address the task itself could not use that way, and
OutOfFrames when there is no memory for its page.
What fits before such an address has been copied then, as on Linux.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mmuemu.errors import OutOfFrames
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.faults import FaultResult
from mmuemu.x86.paging import ADDRESS_MASK, KEY_MASK, PAGE_MASK, PAGE_SIZE, RW, US, A, D, P, protection_key

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace

_READABLE: Final = P | US
_WRITABLE: Final = P | US | RW
_PLAINLY_READABLE: Final = _READABLE | KEY_MASK
_PLAINLY_WRITABLE: Final = _WRITABLE | KEY_MASK
"""Bits that decide about a page with protection key 0, which PKRU is not asked about."""
_USER_READ: Final = 4
_USER_WRITE: Final = 6
_STRETCH: Final = 1 << 20
"""The longest piece :meth:`UserMemory.chunks` gives."""


class UserMemory:
    """The memory of the task that runs in ``mm``.

    ``on_code_write`` is called with a frame that code was fetched from before something is stored in it;
    unless the CPU sets it, everybody in the frame allocator's ``on_free`` is told.
    """

    __slots__ = ("_bytes", "_frames", "_q", "mm", "on_code_write")

    def __init__(self, mm: AddressSpace) -> None:
        self.mm = mm
        self._frames = mm.frames
        self._q = mm.frames.ram.qwords
        self._bytes = mm.frames.ram.bytes
        self.on_code_write = mm.frames.forget_code

    # Reading

    def read(self, address: int, count: int) -> bytes:
        """``count`` bytes at linear ``address``."""
        offset = address & 4095
        if 0 < count <= 4096 - offset and 0 <= address < self.mm.task_size:
            slot = self.mm.page_table.entry_address(address) >> 3
            if slot >= 0:
                entry = self._q[slot]
                if entry & _PLAINLY_READABLE == _READABLE:
                    if not entry & A:
                        self._q[slot] = entry | A
                    at = (entry & ADDRESS_MASK) | offset
                    if self.mm.touch is not None:
                        self.mm.touch(at, count, False)
                    return bytes(self._bytes[at : at + count])
        return b"".join([bytes(piece) for piece in self.chunks(address, count, False)])

    def read_cstring(self, address: int, limit: int) -> bytes:
        """The bytes at ``address`` up to a NUL, which is not included; ENAMETOOLONG when ``limit`` have
        none.
        """
        parts: list[bytes] = []
        end = address + limit
        while address < end:
            size = min(PAGE_SIZE - (address & PAGE_MASK), end - address)
            at = self._locate(address, False)
            part = bytes(self._bytes[at : at + size])
            stop = part.find(0)
            if self.mm.touch is not None:
                self.mm.touch(at, stop + 1 or size, False)
            if stop >= 0:
                parts.append(part[:stop])
                return b"".join(parts)
            parts.append(part)
            address += size
        raise SyscallError(Errno.ENAMETOOLONG)

    def read_u8(self, address: int) -> int:
        """The byte at ``address``."""
        return self.read(address, 1)[0]

    def read_u16(self, address: int) -> int:
        """The 16-bit little-endian number at ``address``."""
        return int.from_bytes(self.read(address, 2), "little")

    def read_u32(self, address: int) -> int:
        """The 32-bit number at ``address``."""
        return int.from_bytes(self.read(address, 4), "little")

    def read_u64(self, address: int) -> int:
        """The 64-bit number at ``address``."""
        return int.from_bytes(self.read(address, 8), "little")

    # Writing

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data`` at linear ``address``."""
        count = len(data)
        offset = address & 4095
        if 0 < count <= 4096 - offset and 0 <= address < self.mm.task_size:
            slot = self.mm.page_table.entry_address(address) >> 3
            if slot >= 0:
                entry = self._q[slot]
                if entry & _PLAINLY_WRITABLE == _WRITABLE:
                    self._q[slot] = entry | 0x60
                    frame = entry & ADDRESS_MASK
                    if self._frames.is_executed(frame):
                        self.on_code_write(frame)
                    at = frame | offset
                    if self.mm.touch is not None:
                        self.mm.touch(at, count, True)
                    self._bytes[at : at + count] = data
                    return
        done = 0
        for piece in self.chunks(address, count, True):
            piece[:] = data[done : done + len(piece)]
            done += len(piece)

    def write_u32(self, address: int, value: int) -> None:
        """Store the low 32 bits of ``value``."""
        self.write(address, (value & 0xFFFF_FFFF).to_bytes(4, "little"))

    def write_u64(self, address: int, value: int) -> None:
        """Store the low 64 bits of ``value``."""
        self.write(address, (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little"))

    # Zero copy

    def chunks(self, address: int, count: int, write: bool) -> Iterator[memoryview]:
        """Views of the physical memory behind ``count`` bytes at ``address``, in order, for I/O without a
        copy.

        With ``write`` they are for storing into, and count as stored to. EFAULT comes after the views of
        what lies before the bad address. A view is good until the next system call.
        """
        end = address + count
        touch = self.mm.touch
        start = stop = -1
        while address < end:
            size = min(PAGE_SIZE - (address & PAGE_MASK), end - address)
            try:
                at = self._locate(address, write)
            except SyscallError:
                if start >= 0:
                    yield self._bytes[start:stop]
                raise
            if touch is not None:
                touch(at, size, write)
            if at == stop and stop - start < _STRETCH:
                stop += size
            else:
                if start >= 0:
                    yield self._bytes[start:stop]
                start, stop = at, at + size
            address += size
        if start >= 0:
            yield self._bytes[start:stop]

    def _locate(self, address: int, write: bool) -> int:
        """Physical address of one byte the task may read or write, its page faulted in, A and D set."""
        mm = self.mm
        if not 0 <= address < mm.task_size:
            raise SyscallError(Errno.EFAULT)
        need = _WRITABLE if write else _READABLE
        for attempt in range(2):
            at = mm.page_table.entry_address(address)
            if at >= 0:
                entry = self._q[at >> 3]
                if entry & need == need and not (entry & KEY_MASK and mm.key_refuses(protection_key(entry), write)):
                    self._q[at >> 3] = entry | (A | D if write else A)
                    frame = entry & ADDRESS_MASK
                    if write and self._frames.is_executed(frame):
                        self.on_code_write(frame)
                    return frame | (address & PAGE_MASK)
            else:
                found = mm.page_table.lookup(address)
                if found is not None and found.flags & need == need:
                    self._q[found.entry_address >> 3] |= A | D if write else A
                    return found.physical | (address & (found.size - 1))
            mm.huge.relieve()
            result = FaultResult.SEGV_MAPERR if attempt else mm.fault(address, _USER_WRITE if write else _USER_READ)
            if result is FaultResult.OOM:
                raise OutOfFrames("no memory for a system call's data")
            if result:
                break
        raise SyscallError(Errno.EFAULT)

    # By force, for loaders and debuggers

    def peek(self, address: int, count: int) -> bytes:
        """Read whatever the protection, as a debugger does; EFAULT only where nothing is mapped."""
        end = address + count
        parts: list[bytes] = []
        while address < end:
            size = min(PAGE_SIZE - (address & PAGE_MASK), end - address)
            at = self._force(address, False)
            if self.mm.touch is not None:
                self.mm.touch(at, size, False)
            parts.append(bytes(self._bytes[at : at + size]))
            address += size
        return b"".join(parts)

    def poke(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store whatever the protection, as a debugger does.

        A private page is copied first if it is shared, so files and other processes never see it; a page of a
        shared mapping that the task may not write gives EFAULT (``FOLL_FORCE`` in mm/gup.c).
        """
        done = 0
        while done < len(data):
            size = min(PAGE_SIZE - (address & PAGE_MASK), len(data) - done)
            at = self._force(address, True)
            frame = at & ~PAGE_MASK
            if self._frames.is_executed(frame):
                self.on_code_write(frame)
            if self.mm.touch is not None:
                self.mm.touch(at, size, True)
            self._bytes[at : at + size] = data[done : done + size]
            done += size
            address += size

    def _force(self, address: int, write: bool) -> int:
        try:
            return self._locate(address, write)
        except SyscallError:
            at = self.mm.force(address, write) if 0 <= address < self.mm.task_size else -1
            if at < 0:
                raise
            return at | (address & PAGE_MASK)

"""System V shared memory (ipc/shm.c): a nameless file of zeros whose pages outlive those who map it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.mman import MAP_FIXED, MAP_SHARED
from mmuemu.kernel.ipc.ids import EXECUTE, READ, WRITE, Ids, IpcObject, seconds
from mmuemu.kernel.page_cache import FileMapping
from mmuemu.kernel.vma import PROT_EXEC, PROT_READ, PROT_WRITE, Vma
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.page_cache import MappedInode
    from mmuemu.kernel.task import Task

SHM_RDONLY: Final = 0o10000
SHM_RND: Final = 0o20000
SHM_REMAP: Final = 0o40000
SHM_EXEC: Final = 0o100000
SHM_HUGETLB: Final = 0o4000
SHM_NORESERVE: Final = 0o10000
SHM_DEST: Final = 0o1000
SHM_LOCKED: Final = 0o2000
SHMMAX: Final = (1 << 64) - 1 - (1 << 24)
SHMMNI: Final = 4096
_DS: Final = struct.Struct("<QqqqiiQ16x")


class Segment(IpcObject):
    """One segment, which is its own inode: ``size`` is what was asked for, pages show zeros up to a whole page."""

    dev = 1

    def __init__(self, task: Task, key: int, mode: int, length: int, ids: Ids[Segment]) -> None:
        super().__init__(task, key, mode)
        kernel = task.kernel
        if mode & SHM_HUGETLB:
            raise SyscallError(Errno.ENOMEM)  # no huge page is ever reserved
        if length >> 12 > kernel.frames.limit and not mode & SHM_NORESERVE:
            raise SyscallError(Errno.ENOMEM)
        self.length = length
        self.atime = self.dtime = 0
        self.cpid, self.lpid = task.pid, 0
        self.mapping: Any = None
        self._kernel = kernel
        self._ids = ids
        self._attached = 0
        self.pages = FileMapping.of(self, kernel.frames)
        self.pages.hold()
        self.pages.on_areas = self._areas_changed

    @property
    def size(self) -> int:
        """Bytes that may be touched: whole pages."""
        return (self.length + PAGE_MASK) & ~PAGE_MASK

    @property
    def ino(self) -> int:
        """The inode number in /proc/PID/maps is the identifier."""
        return self.id

    @property
    def attached(self) -> int:
        """``shm_nattch``: the areas that map it."""
        return self._attached

    def read_at(self, offset: int, count: int) -> bytes:
        """Zeros: what was written is in the page cache."""
        return bytes(max(min(count, self.size - offset), 0))

    def write_at(self, offset: int, data: bytes) -> int:
        """Nothing to keep."""
        return len(data)

    def punch(self, offset: int, count: int) -> None:
        """Make ``count`` bytes at ``offset`` zeros."""
        self.pages.written_zeros(offset, count)

    def _areas_changed(self) -> None:
        """An area was made, copied, split, merged or unmapped (``shm_open``, ``shm_close``)."""
        now = self.pages.areas
        task = self._kernel.current
        if task is not None:
            self.lpid = task.pid
            if now > self._attached:
                self.atime = seconds(task)
            else:
                self.dtime = seconds(task)
        self._attached = now
        self.destroy_if_unused()

    def destroy_if_unused(self) -> None:
        """The last user of a removed segment is gone, and the segment with it."""
        if self.mode & SHM_DEST and not self._attached and not self.removed:
            self._ids.remove(self)
            self.pages.on_areas = None
            self.pages.let_go()

    def remove(self) -> None:
        """IPC_RMID: it loses its key now, and everything with the last who has it attached."""
        self._ids.forget_key(self)
        self.mode |= SHM_DEST
        self.destroy_if_unused()

    def pack(self) -> bytes:
        """The 112 bytes of ``struct shmid64_ds``."""
        times = (self.atime, self.dtime, self.ctime)
        return self.pack_permissions() + _DS.pack(self.length, *times, self.cpid, self.lpid, self._attached)

    def line(self) -> str:
        """Its line of /proc/sysvipc/shm."""
        resident = len(self.pages.pages) * PAGE_SIZE
        return (
            f"{self.key:10d} {self.id:10d}  {self.mode:4o} {self.length:21d} {self.cpid:5d} {self.lpid:5d}  "
            f"{self._attached:5d} {self.uid:5d} {self.gid:5d} {self.cuid:5d} {self.cgid:5d} "
            f"{self.atime:10d} {self.dtime:10d} {self.ctime:10d} {resident:21d} {0:21d}\n"
        )


class Attachment:
    """One shmat(2): the opened file that its areas map, so that they never merge with another's."""

    __slots__ = ("inode", "readable", "segment", "writable")

    def __init__(self, segment: Segment, writable: bool) -> None:
        self.segment = segment
        self.inode: MappedInode = segment
        self.readable = True
        self.writable = writable


class SharedSegments:
    """Every segment of a machine."""

    HEADER: Final = (
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime"
        "      dtime      ctime                   rss                  swap\n"
    )

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.ids: Ids[Segment] = Ids(SHMMNI)

    def get(self, task: Task, key: int, size: int, flags: int) -> int:
        """shmget(2)."""

        def make() -> Segment:
            if not 1 <= size <= SHMMAX:
                raise SyscallError(Errno.EINVAL)
            return Segment(task, key, flags, size, self.ids)

        return self.ids.get(task, key, flags, make, lambda found: found.length >= size)

    def attach(self, task: Task, identifier: int, address: int, flags: int) -> int:
        """shmat(2); the address (``do_shmat``)."""
        if identifier < 0:
            raise SyscallError(Errno.EINVAL)
        if address & PAGE_MASK:
            if not flags & SHM_RND:
                raise SyscallError(Errno.EINVAL)
            address &= ~PAGE_MASK
            if not address and flags & SHM_REMAP:
                raise SyscallError(Errno.EINVAL)
        elif not address and flags & SHM_REMAP:
            raise SyscallError(Errno.EINVAL)
        readonly, executable = flags & SHM_RDONLY, flags & SHM_EXEC
        prot = PROT_READ | (0 if readonly else PROT_WRITE) | (PROT_EXEC if executable else 0)
        wanted = READ | (0 if readonly else WRITE) | (EXECUTE if executable else 0)
        segment = self.ids.find(identifier)
        segment.demand(task, wanted)
        end = address + segment.size
        if address and not flags & SHM_REMAP and (end >> 64 or task.mm.vmas.overlapping(address, end)):
            raise SyscallError(Errno.EINVAL)
        name = f"/SYSV{segment.key & 0xFFFF_FFFF:08x} (deleted)"
        kind = MAP_SHARED | (MAP_FIXED if address else 0)
        return task.mm.mmap(address, segment.length, prot, kind, Attachment(segment, not readonly), 0, name)

    def detach(self, task: Task, address: int) -> None:
        """shmdt(2): EINVAL unless a segment was attached at ``address``."""
        if address & PAGE_MASK:
            raise SyscallError(Errno.EINVAL)
        mm = task.mm

        def begins(vma: Vma) -> bool:
            return isinstance(vma.file, Attachment) and vma.start - vma.offset == address

        first = next((vma for vma in mm.vmas.overlapping(address, mm.task_size) if begins(vma)), None)
        if first is None:
            raise SyscallError(Errno.EINVAL)
        file = first.file
        assert isinstance(file, Attachment)
        mine = [vma for vma in mm.vmas.overlapping(address, address + file.segment.size) if vma.file is file]
        for start, length in [(vma.start, vma.end - vma.start) for vma in mine if begins(vma)]:
            mm.munmap(start, length)

    def text(self) -> str:
        """/proc/sysvipc/shm."""
        return self.HEADER + "".join(segment.line() for segment in self.ids)

"""What lies where in a process's address space, from 0 to the last byte of the kernel half, as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mmuemu.errors import BadImage, printable
from mmuemu.kernel.maps import area_name
from mmuemu.kernel.registers import SP
from mmuemu.kernel.smaps import Usage
from mmuemu.kernel.vma import VM_ACCESS, VM_EXEC, VM_MAYSHARE, VM_WRITE
from mmuemu.loader.elf import ElfImage, ElfType, read_image
from mmuemu.loader.layout import Bases, choose_bases
from mmuemu.x86.paging import D

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.page_cache import MappedInode
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task
    from mmuemu.kernel.vma import Vma
    from mmuemu.memory.page_table import PageTable

AT_BASE: Final = 7
AT_ENTRY: Final = 9
_SPECIAL: Final = {"[heap]": "heap", "[stack]": "stack", "[vdso]": "vdso"}
_LARGEST_IMAGE: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Region:
    """``[start, end)``, what is there and how much of it is in memory; sizes in bytes.

    ``kind`` is one of ``text``, ``rodata``, ``data``, ``bss`` (of the program), ``heap``, ``stack``, ``linker``,
    ``library``, ``vdso``, ``file``, ``shared``, ``anonymous``, ``guard``, ``kernel`` and ``gap``; ``what`` says it in
    words. ``mover`` names what is drawn at random for its place (``image``, ``heap``, ``stack``, ``mmap``,
    ``direct_map``, ``vmalloc``, ``text``; empty: nothing), ``offset`` how far it lies from where it would be without
    ASLR or KASLR (None: nobody knows).
    """

    start: int
    end: int
    permissions: str
    kind: str
    what: str
    resident: int = 0
    dirty: int = 0
    shared: int = 0
    mover: str = ""
    offset: int | None = None
    owner: str = ""
    """The program or library that it belongs to, by its file's name."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


def auxiliary(process: Process, kind: int) -> int | None:
    """The value of the auxiliary vector's entry ``kind`` (AT_*), None without one."""
    words = memoryview(process.auxv[: len(process.auxv) & ~15]).cast("Q")
    return next((words[index + 1] for index in range(0, len(words), 2) if words[index] == kind), None)


def _program_inode(process: Process, mm: AddressSpace) -> MappedInode | None:
    """The file of the program: what its entry point is mapped from, also when the process has ended."""
    if process.exe_file is not None:
        return process.exe_file.inode
    vma = mm.vmas.find(auxiliary(process, AT_ENTRY) or 0)
    return None if vma is None or vma.file is None else vma.file.inode


def program_image(kernel: Kernel, process: Process, mm: AddressSpace) -> ElfImage | None:
    """The program that a process runs (or ran) in ``mm``, read anew; None when that cannot be done."""
    inode = _program_inode(process, mm)
    if inode is None or inode.size > _LARGEST_IMAGE:
        return None
    try:
        return read_image(inode.read_at(0, inode.size), process.exe, kernel.layout.user_top)
    except BadImage:
        return None


def living(kernel: Kernel) -> dict[Process, Task]:
    """The processes that have memory, by number, and a task of each; the first process's stays when it has ended."""
    found = {}
    known = kernel.processes if kernel.main is None else kernel.processes | {kernel.main.pid: kernel.main}
    for _, process in sorted(known.items()):
        task = next(iter(process.threads.values()), process.leader)
        if task is not None and task.mm.page_table in kernel.memory.half:
            found[process] = task
    return found


def _stack_pointer(kernel: Kernel, task: Task) -> int:
    """RSP of a task's user code."""
    if task is kernel.current and kernel.cpu.cpl == 3:
        return kernel.cpu.registers()["rsp"]
    return task.registers[SP]


class _Areas:
    """Tells what the areas of one process are, and how far they were moved."""

    def __init__(self, kernel: Kernel, process: Process, mm: AddressSpace) -> None:
        self.mm = mm
        self.image = program_image(kernel, process, mm)
        self.bias = (auxiliary(process, AT_ENTRY) or 0) - (self.image.entry if self.image is not None else 0)
        self.linker = auxiliary(process, AT_BASE) or 0
        self.fixed = self._fixed()
        own = _program_inode(process, mm)
        self.own = None if own is None else (own.dev, own.ino)
        self.stacks = {_stack_pointer(kernel, task): task.tid for task in process.threads.values()}
        vmas = list(mm.vmas)
        self.code = {self._file(vma) for vma in vmas if vma.file is not None and vma.flags & VM_EXEC}
        linker = mm.vmas.find(self.linker) if self.linker else None
        self.linker_file = None if linker is None or linker.file is None else self._file(linker)

    def _fixed(self) -> Bases | None:
        """Where the program would have been put without ASLR."""
        if self.image is None:
            return None
        try:
            return choose_bases(self.mm.layout, self.image, None)
        except BadImage:
            return None

    @staticmethod
    def _file(vma: Vma) -> tuple[int, int]:
        assert vma.file is not None
        return vma.file.inode.dev, vma.file.inode.ino

    def kind(self, vma: Vma, below: Vma | None) -> tuple[str, str, str]:
        """(kind, words, owner) of ``vma``, whose neighbour below is ``below``."""
        name = area_name(self.mm, vma)
        if name in _SPECIAL:
            return _SPECIAL[name], name.strip("[]"), ""
        if vma.file is not None:
            return self._file_kind(vma, name)
        if not vma.flags & VM_ACCESS:
            return "guard", "guard: no access", ""
        thread = next((tid for sp, tid in self.stacks.items() if vma.start <= sp < vma.end), None)
        if thread is not None:
            return "stack", f"stack of thread {thread}", ""
        if below is not None and below.end == vma.start and below.file is not None and vma.flags & VM_WRITE:
            kind, _, owner = self._file_kind(below, below.name)
            if owner:
                library = kind in ("library", "linker")
                return (kind if library else "bss"), f"{owner if library else 'program'} BSS", owner
        return "anonymous", printable(name) or "anonymous memory", ""

    def _file_kind(self, vma: Vma, name: str) -> tuple[str, str, str]:
        file = self._file(vma)
        part = "text" if vma.flags & VM_EXEC else "data" if vma.flags & VM_WRITE else "read-only data"
        short = printable(name.rpartition("/")[2]) or "memory"
        if file == self.own:
            return ("rodata" if part == "read-only data" else part), f"program {part}", short
        if vma.flags & VM_MAYSHARE:
            return "shared", f"shared {short}", ""
        if file in self.code:
            return ("linker" if file == self.linker_file else "library"), f"{short} {part}", short
        return "file", f"file {short}", ""

    def moved(self, vma: Vma, kind: str) -> tuple[str, int | None]:
        """(mover, offset) of an area."""
        mm, fixed = self.mm, self.fixed
        if fixed is None or self.image is None:
            return "", None
        if kind in ("text", "rodata", "data", "bss"):
            if self.image.type == ElfType.EXEC:
                return "", 0
            return "mmap" if self.image.interp is None else "image", self.bias - fixed.load_bias
        if kind == "heap":
            return "heap", mm.start_brk - fixed.brk_start
        if vma.start <= mm.start_stack <= vma.end:
            return "stack", vma.end - fixed.stack_top
        down = mm.layout.mmap_top_down
        if (mm.brk <= vma.start and vma.end <= mm.mmap_base) if down else vma.start >= mm.mmap_base:
            return "mmap", mm.mmap_base - fixed.mmap_base
        return "", None


def user_regions(kernel: Kernel, process: Process, mm: AddressSpace) -> list[Region]:
    """The areas of a live process, in address order."""
    areas = _Areas(kernel, process, mm)
    found = []
    below: Vma | None = None
    for vma in mm.vmas:
        kind, what, owner = areas.kind(vma, below)
        mover, offset = areas.moved(vma, kind)
        usage = Usage()
        usage.add(mm, vma)
        counts = usage.counts
        dirty = counts["Shared_Dirty"] + counts["Private_Dirty"]
        shared = counts["Shared_Clean"] + counts["Shared_Dirty"]
        found.append(
            Region(vma.start, vma.end, vma.permissions, kind, what, counts["Rss"], dirty, shared, mover, offset, owner)
        )
        below = vma
    return found


_KERNEL_MOVERS: Final = {"direct map of physical memory": "direct_map", "kernel stacks": "vmalloc"}


def kernel_regions(kernel: Kernel) -> list[Region]:
    """What the kernel half holds, in address order: the same for every process."""
    memory, layout = kernel.memory, kernel.layout
    offsets = {
        "direct_map": memory.layout.direct_map - layout.direct_map.base,
        "vmalloc": memory.layout.vmalloc - layout.vmalloc.base,
        "text": memory.layout.text - layout.text.base,
    }
    found = []
    for start, end, permissions, name in memory.regions():
        mover = _KERNEL_MOVERS.get(name, "text")
        resident, dirty = _mapped(memory.half.table, start, end)
        found.append(Region(start, end, permissions, "kernel", name, resident, dirty, 0, mover, offsets[mover]))
    return found


def _mapped(table: PageTable, start: int, end: int) -> tuple[int, int]:
    """Bytes that are mapped, and bytes of pages with D = 1."""
    resident = dirty = 0
    for _, entry, size in table.iterate(start, end):
        resident += size
        dirty += size if entry & D else 0
    return resident, dirty


def _nothings(kernel: Kernel) -> Iterator[tuple[int, int, str]]:
    """(start, end, words) of the stretches of an address space, for what is mapped nowhere in them."""
    layout = kernel.layout
    half = 1 << layout.linear_bits - 1
    above = (1 << 64) - half
    low_kernel = max(layout.kernel_start, above)
    bounds = (
        (layout.user_start, "never mapped (vm.mmap_min_addr)"),
        (layout.user_top, "unmapped"),
        (half, "nobody's"),
        (above, "not canonical"),
        (low_kernel, "nobody's"),
        (1 << 64, "unmapped, the kernel's"),
    )
    start = 0
    for end, words in bounds:
        if start < end:
            yield start, end, words
            start = end


def fill_gaps(pieces: Iterable[tuple[int, int, str]], regions: Iterable[Region]) -> list[Region]:
    """``regions`` (in address order) with what lies between them in ``pieces``: (start, end, words), in order."""
    stretches = list(pieces)
    out: list[Region] = []

    def fill(start: int, end: int) -> None:
        for low, high, words in stretches:
            if max(start, low) < min(end, high):
                out.append(Region(max(start, low), min(end, high), "", "gap", words))

    at = 0
    for region in regions:
        fill(at, region.start)
        out.append(region)
        at = max(at, region.end)
    fill(at, 1 << 64)
    return out


def with_gaps(kernel: Kernel, regions: list[Region]) -> list[Region]:
    """``regions`` (in address order) with what lies between them, from 0 to 2^64."""
    return fill_gaps(_nothings(kernel), regions)


def memory_map(
    kernel: Kernel, process: Process, mm: AddressSpace, *, kernel_half: bool = True, gaps: bool = True
) -> list[Region]:
    """The whole address space of a live process, in address order."""
    found = user_regions(kernel, process, mm) + (kernel_regions(kernel) if kernel_half else [])
    return with_gaps(kernel, found) if gaps else found


__all__ = [
    "Region",
    "auxiliary",
    "fill_gaps",
    "kernel_regions",
    "living",
    "memory_map",
    "program_image",
    "user_regions",
    "with_gaps",
]

"""From a frame of physical memory to everyone who has it: the reverse of a translation, found by reading all tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmuemu.errors import UsageError, printable
from mmuemu.kernel.half import STACK_PAGES
from mmuemu.view.regions import Region, kernel_regions, living, user_regions
from mmuemu.view.sheet import Sheet
from mmuemu.view.tables import Table, read_tables
from mmuemu.x86.paging import PAGE_MASK

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.page_cache import FileMapping
    from mmuemu.kernel.process import Process
    from mmuemu.memory.page_table import PageTable


@dataclass(frozen=True, slots=True)
class Mapper:
    """Somebody who has a frame.

    ``kind`` is ``process``, ``kernel`` (the half that all share), ``table`` (the frame is a page table) or ``cache``
    (it is the page cache's). ``linear`` is where it is mapped (-1: nowhere), ``rights`` are ``rwx`` there.
    """

    kind: str
    who: str
    linear: int
    rights: str
    what: str
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """A frame and its references."""

    frame: int
    references: int
    """Those that the allocator counts: one an entry (but for the direct map), one the page cache."""
    mappers: tuple[Mapper, ...]


def live_spaces(kernel: Kernel) -> dict[AddressSpace, list[Process]]:
    """Every address space there is, with the processes that live in it."""
    spaces: dict[AddressSpace, list[Process]] = {}
    for process, task in living(kernel).items():
        spaces.setdefault(task.mm, []).append(process)
    return spaces


def _named(process: Process) -> str:
    return f"process {process.pid} {printable(process.exe)}"


def _what(regions: list[Region], linear: int) -> str:
    return next((region.what for region in regions if region.start <= linear < region.end), "")


def _pages(tree: Table, address: int) -> Iterator[tuple[int, str]]:
    """(linear address, rights) of each page of a tree that ``address`` lies in."""
    for run in tree.runs():
        for index, frame in enumerate(run.frames):
            if frame <= address < frame + run.page_size:
                yield run.start + index * run.page_size + address - frame, run.rights


def _tables(tree: Table, address: int, who: str, pid: int | None) -> Iterator[Mapper]:
    for table in tree.tables():
        if table.physical == address:
            where = f"{table.level} table of {table.start:#x}-{table.end - 1:#x}"
            yield Mapper("table", who, -1, "", where, pid)


def _in_processes(kernel: Kernel, address: int) -> Iterator[Mapper]:
    top = 1 << kernel.layout.linear_bits - 1
    for space, owners in live_spaces(kernel).items():
        tree = read_tables(space.page_table, 0, top)
        for process in owners:
            regions: list[Region] | None = None
            for linear, rights in _pages(tree, address):
                regions = user_regions(kernel, process, space) if regions is None else regions
                yield Mapper("process", _named(process), linear, rights, _what(regions, linear), process.pid)
            yield from _tables(tree, address, _named(process), process.pid)
            if space.page_table.user_root != space.page_table.root and address == space.page_table.user_root:
                yield Mapper("table", _named(process), -1, "", "root table of ring 3", process.pid)


def _in_kernel(kernel: Kernel, address: int) -> Iterator[Mapper]:
    half = kernel.memory.half
    top = 1 << kernel.layout.linear_bits - 1
    halves: list[tuple[str, PageTable]] = [("kernel half", half.table)]
    if half.trampoline is not None:
        halves.append(("kernel half of ring 3's tables", half.trampoline))
    regions = kernel_regions(kernel)
    for who, table in halves:
        tree = read_tables(table, (1 << 64) - top)
        for linear, rights in _pages(tree, address):
            yield Mapper("kernel", who, linear, rights, _stack(kernel, linear) or _what(regions, linear))
        yield from _tables(tree, address, who, None)


def _stack(kernel: Kernel, linear: int) -> str:
    """Whose kernel stack an address lies in."""
    for task in kernel.tasks.values():
        if task.stack.top - (STACK_PAGES << 12) <= linear < task.stack.top:
            return f"kernel stack of thread {task.tid}"
    return ""


def _in_cache(kernel: Kernel, address: int) -> Iterator[Mapper]:
    names: dict[FileMapping, str] = {}
    for space in live_spaces(kernel):
        for vma in space.vmas:
            if vma.mapping is not None:
                names.setdefault(vma.mapping, vma.name or "shared memory")
    for mapping in kernel.idle_pages.mappings():
        names.setdefault(mapping, "a file that nobody maps")
    for segment in kernel.ipc.shm.ids:
        names.setdefault(segment.pages, "a System V segment")
    for mapping, name in names.items():
        for index, frame in mapping.pages.items():
            if frame == address:
                yield Mapper("cache", "page cache", -1, "", f"page {index} of {printable(name)}")


def who_maps(kernel: Kernel, address: int) -> FrameFacts:
    """Everyone who has the frame that physical ``address`` lies in. Raises UsageError beyond the memory there is."""
    if not 0 <= address < kernel.ram.size:
        raise UsageError(f"{address:#x}: the machine has physical memory up to {kernel.ram.size - 1:#x} (--memory)")
    frame = address & ~PAGE_MASK
    found = [*_in_processes(kernel, frame), *_in_kernel(kernel, frame), *_in_cache(kernel, frame)]
    if frame == kernel.frames.zero_frame:
        found.append(Mapper("kernel", "kernel", -1, "", "the shared zero page"))
    return FrameFacts(frame, kernel.frames.refcount(frame), tuple(found))


def mapper_parts(facts: FrameFacts, digits: int) -> list[str | Sheet]:
    """The answer for people."""
    count = facts.references
    used = f"{count} reference{'s' if count != 1 else ''}" if count else "free"
    head = f"frame {facts.frame >> 12} at {facts.frame:#x}: {used}\n"
    sheet = Sheet(("who", "linear address", "rights", "what"))
    for mapper in facts.mappers:
        linear = "-" if mapper.linear < 0 else f"{mapper.linear:0{digits}x}"
        sheet.add(mapper.who, linear, mapper.rights or "-", mapper.what)
    return [head, sheet]


def mapper_facts(facts: FrameFacts) -> dict[str, Any]:
    """The answer for JSON."""
    return {
        "frame": facts.frame >> 12,
        "physical": f"{facts.frame:#x}",
        "references": facts.references,
        "mappers": [
            {
                "kind": mapper.kind,
                "who": mapper.who,
                "pid": mapper.pid,
                "linear": None if mapper.linear < 0 else f"{mapper.linear:#x}",
                "rights": mapper.rights or None,
                "what": mapper.what,
            }
            for mapper in facts.mappers
        ],
    }


__all__ = ["FrameFacts", "Mapper", "live_spaces", "mapper_facts", "mapper_parts", "who_maps"]

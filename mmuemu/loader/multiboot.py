"""A kernel put into memory: where everything goes, and the multiboot information that says so.

Sources: Multiboot Specification 0.6.96, sections 3.2 (machine state) and 3.3 (boot information format); QEMU's
``hw/i386/multiboot.c`` for the low address of the information and the empty modules list that is present all the same;
GRUB's ``multiboot_elfxx.c`` for the sections without an address, which are loaded and get one; QEMU's
``hw/i386/pc_piix.c`` for the memory's hole below 4 GiB.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from mmuemu.errors import BadImage, UsageError
from mmuemu.loader.kernel_image import KernelImage, SectionTable
from mmuemu.x86.paging import PAGE_SIZE

BOOT_MAGIC: Final = 0x2BADB002
"""EAX at the entry of a multiboot kernel."""
LOADER_NAME: Final = b"mmuemu\0"

BASE_MEMORY_END: Final = 0x9_FC00
UPPER_MEMORY: Final = 0x10_0000
DEVICES: Final = 0xE000_0000
"""Memory up to so much lies below the devices in one piece; of more, 3 GiB do and the rest is above 4 GiB."""
HIGH_MEMORY: Final = 4 << 30
INFORMATION_FROM: Final = 0x9000
INFORMATION_LIMIT: Final = 0x9_F000
"""The information goes between these two when it fits: above what firmware and start-up code of other CPUs use."""

HAS_MEMORY: Final = 1 << 0
HAS_CMDLINE: Final = 1 << 2
HAS_MODULES: Final = 1 << 3
HAS_ELF_SECTIONS: Final = 1 << 5
HAS_MEMORY_MAP: Final = 1 << 6
HAS_LOADER_NAME: Final = 1 << 9
AVAILABLE: Final = 1
RESERVED: Final = 2

_INFORMATION_SIZE: Final = 116
_MODULE: Final = struct.Struct("<IIII")
_MAP_ENTRY: Final = struct.Struct("<IQQI")
_SHT_NULL: Final = 0
_SHT_NOBITS: Final = 8
_SHF_ALLOC: Final = 2
_SECTION_HEADERS: Final = {32: "<10I", 64: "<IIQQQQIIQQ"}


class Module(NamedTuple):
    """A file handed to the kernel: its bytes, and the string that goes with it (a name, perhaps arguments)."""

    data: bytes | memoryview
    string: str


class Block(NamedTuple):
    """Physical addresses from ``start`` to ``end`` (exclusive)."""

    start: int
    end: int


class PlacedSections(NamedTuple):
    """The section headers of an ELF kernel at ``address``, with the addresses of what was loaded for them."""

    address: int
    table: SectionTable


def low_memory(memory_size: int) -> int:
    """The end of the memory below 4 GiB."""
    return memory_size if memory_size <= DEVICES else 3 << 30


def ram(memory_size: int) -> tuple[Block, ...]:
    """The usable physical memory of a machine with ``memory_size`` bytes: below 640 KiB, from 1 MiB, from 4 GiB."""
    blocks = [Block(0, min(memory_size, BASE_MEMORY_END)), Block(UPPER_MEMORY, low_memory(memory_size))]
    blocks.append(Block(HIGH_MEMORY, HIGH_MEMORY + memory_size - low_memory(memory_size)))
    return tuple(block for block in blocks if block.end > block.start)


def memory_map(memory_size: int) -> list[tuple[int, int, int]]:
    """First address, size and type of every range in the memory map, in ascending order."""
    entries = [(block.start, block.end - block.start, AVAILABLE) for block in ram(memory_size)]
    entries.append((BASE_MEMORY_END, 0xA_0000 - BASE_MEMORY_END, RESERVED))
    entries.append((0xF_0000, 0x1_0000, RESERVED))
    return sorted(entries)


class Free:
    """What is free of the memory of a machine, claimed piece by piece, the lowest fitting address first."""

    def __init__(self, memory_size: int, taken: Sequence[Block] = ()) -> None:
        self._ram = ram(memory_size)
        self._taken = sorted(block for block in taken if block.end > block.start)

    @property
    def taken(self) -> tuple[Block, ...]:
        """Everything claimed so far, in ascending order."""
        return tuple(self._taken)

    def claim(self, size: int, align: int = 16, lowest: int = 0, limit: int = DEVICES) -> int | None:
        """The address, a multiple of ``align``, of ``size`` bytes from ``lowest`` up to ``limit``; None: no room."""
        for block in self._ram:
            end = min(block.end, limit)
            at = -(-max(block.start, lowest) // align) * align
            for taken in self._taken:
                if at + size <= taken.start:
                    break
                at = max(at, -(-taken.end // align) * align)
            if at + size <= end:
                if size:
                    new = Block(at, at + size)
                    self._taken.insert(bisect_left(self._taken, new), new)
                return at
        return None


@dataclass(frozen=True, slots=True)
class BootPlan:
    """What to do to memory and registers before the first instruction."""

    entry: int
    writes: tuple[tuple[int, bytes | memoryview], ...]
    """Pairs of (physical address, bytes); they overlap nothing of each other or of ``zeros``."""
    zeros: tuple[tuple[int, int], ...]
    """Pairs of (physical address, size) to be cleared."""
    registers: dict[str, int]
    """``rax``: the boot magic; ``rbx``: where the information is. The rest does not matter."""
    information: int
    occupied: tuple[Block, ...]
    """Everything that is in use, what the caller had reserved included."""
    memory_size: int

    def free(self) -> Free:
        """The rest of memory, for what else the caller has to place."""
        return Free(self.memory_size, self.occupied)


def build_information(
    address: int,
    memory_size: int,
    cmdline: bytes,
    modules: Sequence[tuple[Block, bytes]],
    sections: PlacedSections | None,
) -> bytes:
    """The multiboot information to be placed at ``address`` (a multiple of 4) with the lists and strings it points to.

    ``modules``: where each is, and its string. The length does not depend on ``address``.
    """
    blob = bytearray(_INFORMATION_SIZE)

    def put(piece: bytes) -> int:
        blob.extend(piece)
        return address + len(blob) - len(piece)

    map_bytes = b"".join(_MAP_ENTRY.pack(_MAP_ENTRY.size - 4, *entry) for entry in memory_map(memory_size))
    map_at = put(map_bytes)
    strings_at = address + len(blob) + len(modules) * _MODULE.size
    records, strings = [], bytearray()
    for block, string in modules:
        records.append(_MODULE.pack(block.start, block.end, strings_at + len(strings), 0))
        strings += string + b"\0"
    modules_at = put(b"".join(records))
    put(bytes(strings))
    flags = HAS_MEMORY | HAS_CMDLINE | HAS_MODULES | HAS_MEMORY_MAP | HAS_LOADER_NAME
    lower = min(memory_size, BASE_MEMORY_END) >> 10
    upper = max(low_memory(memory_size) - UPPER_MEMORY, 0) >> 10
    fields = [lower, upper, 0, put(cmdline + b"\0"), len(modules), modules_at, 0, 0, 0, 0]
    if sections is not None:
        flags |= HAS_ELF_SECTIONS
        table = sections.table
        fields[6:] = [table.number, table.entry_size, sections.address, table.names]
    fields += [len(map_bytes), map_at, 0, 0, 0, put(LOADER_NAME)]
    struct.pack_into("<17I", blob, 0, flags, *fields)
    return bytes(blob)


def _check_memory(image: KernelImage, memory_size: int, reserved: Sequence[Block]) -> None:
    blocks = ram(memory_size)
    for segment in image.segments:
        where = f"{segment.address:#x}-{segment.end:#x}"
        if not any(block.start <= segment.address and segment.end <= block.end for block in blocks):
            there = ", ".join(f"{block.start:#x}-{block.end:#x}" for block in blocks)
            raise BadImage(image.name, f"is to be loaded at {where}, and memory is at {there or 'no address'}")
        for block in reserved:
            if segment.address < block.end and block.start < segment.end:
                raise BadImage(
                    image.name, f"is to be loaded at {where}, over reserved memory at {block.start:#x}-{block.end:#x}"
                )


def _unloaded(image: KernelImage, table: SectionTable) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of every section that has bytes and no address; at most as many bytes as the file has."""
    layout = struct.Struct(_SECTION_HEADERS[32 if table.entry_size == 40 else 64])
    left = len(image.data)
    for number, (_, kind, flags, address, offset, size, *_) in enumerate(layout.iter_unpack(table.headers)):
        if kind in (_SHT_NULL, _SHT_NOBITS) or flags & _SHF_ALLOC or address or not size:
            continue
        if offset + size <= len(image.data) and size <= left:
            left -= size
            yield number, image.data[offset : offset + size]


def _place_sections(
    image: KernelImage, free: Free, lowest: int
) -> tuple[PlacedSections, list[tuple[int, bytes | memoryview]]] | None:
    """The section headers and what they speak of, placed; None when there are none, or no room for them."""
    table = image.sections
    if table is None or image.kind != "multiboot":
        return None
    at, field_format = (12, "<I") if table.entry_size == 40 else (16, "<Q")
    headers = bytearray(table.headers)
    pieces: list[tuple[int, memoryview]] = []
    end = len(headers)
    for number, content in _unloaded(image, table):
        end = -(-end // 16) * 16
        pieces.append((end, content))
        end += len(content)
        struct.pack_into(field_format, headers, number * table.entry_size + at, pieces[-1][0])
    base = free.claim(end, PAGE_SIZE, lowest)
    if base is None:
        return None
    for number, _ in _unloaded(image, table):
        where = number * table.entry_size + at
        struct.pack_into(field_format, headers, where, base + struct.unpack_from(field_format, headers, where)[0])
    writes: list[tuple[int, bytes | memoryview]] = [(base, bytes(headers))]
    writes += [(base + offset, content) for offset, content in pieces]
    return PlacedSections(base, table), writes


def _text(what: str, text: str) -> bytes:
    if "\0" in text:
        raise UsageError(f"the {what} contains a NUL character")
    return text.encode("utf-8", "surrogateescape")


def place(
    image: KernelImage,
    memory_size: int,
    modules: Sequence[Module] = (),
    cmdline: str = "",
    reserved: Sequence[Block] = (),
) -> BootPlan:
    """Put ``image`` and ``modules`` into ``memory_size`` bytes of memory, touching nothing of ``reserved``.

    Modules lie on page boundaries, above the kernel when there is room; the information below 636 KiB when there is. A
    ``"long"`` kernel gets the same information. Raises :class:`BadImage` when something has no room, naming addresses.
    """
    _check_memory(image, memory_size, reserved)
    free = Free(memory_size, [*reserved, *(Block(segment.address, segment.end) for segment in image.segments)])
    writes: list[tuple[int, bytes | memoryview]] = [(s.address, s.data) for s in image.segments if len(s.data)]
    below = [segment.end for segment in image.segments if segment.end <= DEVICES]
    above = max([UPPER_MEMORY, *below])

    def claim(size: int, align: int, lowest: int, limit: int = DEVICES) -> int | None:
        first = free.claim(size, align, lowest, limit)
        return free.claim(size, align, PAGE_SIZE) if first is None else first

    placed: list[tuple[Block, bytes]] = []
    for module in modules:
        # A module of no bytes has a page all the same, so that its address is its own.
        address = claim(max(len(module.data), 1), PAGE_SIZE, above)
        if address is None:
            why = f"no room for its {len(module.data):#x} bytes in {memory_size:#x} bytes of memory beside the kernel"
            raise BadImage(module.string or "module", why)
        placed.append((Block(address, address + len(module.data)), _text("module's string", module.string)))
        if len(module.data):
            writes.append((address, module.data))
    sections = _place_sections(image, free, above)
    line = _text("command line", cmdline)
    table = sections[0] if sections else None
    size = len(build_information(0, memory_size, line, placed, table))
    information = claim(size, 16, INFORMATION_FROM, INFORMATION_LIMIT)
    if information is None:
        raise BadImage(image.name, f"leaves no room for {size:#x} bytes of multiboot information")
    writes += sections[1] if sections else []
    writes.append((information, build_information(information, memory_size, line, placed, table)))
    zeros = [(s.address + len(s.data), s.memory - len(s.data)) for s in image.segments if s.memory > len(s.data)]
    registers = {"rax": BOOT_MAGIC, "rbx": information}
    return BootPlan(image.entry, tuple(writes), tuple(zeros), registers, information, free.taken, memory_size)

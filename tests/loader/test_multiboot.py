"""Kernels are read and placed as the Multiboot Specification says, overlapping nothing, or refused in one line."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmuemu.errors import BadImage, UsageError
from mmuemu.loader.kernel_image import read_kernel
from mmuemu.loader.multiboot import Block, BootPlan, Module, memory_map, place
from tests.fuzz.kernels import check_disjoint, check_place
from tests.loader.kernel_forge import MIB, SEEDS, TEXT, elf, flat, header

GIB = 1 << 30
MEMORY = 64 * MIB


def why(data: bytes, **options: str) -> str:
    with pytest.raises(BadImage) as caught:
        read_kernel(data, "kernel", **options)  # type: ignore[arg-type]
    return caught.value.why


class Memory:
    """What a plan makes of memory, and what it would say to the kernel."""

    def __init__(self, plan: BootPlan) -> None:
        self.plan = plan

    def read(self, address: int, size: int) -> bytes:
        for start, data in self.plan.writes:
            if start <= address and address + size <= start + len(data):
                return bytes(data[address - start : address - start + size])
        raise AssertionError(f"nothing was written at {address:#x}")

    def words(self, address: int, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}I", self.read(address, 4 * count))

    def string(self, address: int) -> bytes:
        out = b""
        while (byte := self.read(address + len(out), 1)) != b"\0":
            out += byte
        return out

    @property
    def information(self) -> tuple[int, ...]:
        return self.words(self.plan.registers["rbx"], 29)

    def modules(self) -> list[tuple[int, int, bytes]]:
        _, _, _, _, _, count, at, *_ = self.information
        records = [self.words(at + 16 * n, 4) for n in range(count)]
        return [(start, end, self.string(string)) for start, end, string, _ in records]

    def map(self) -> list[tuple[int, int, int]]:
        length, at = self.information[11:13]
        entries = []
        while length:
            size, base, amount, kind = struct.unpack("<IQQI", self.read(at, 24))
            entries.append((base, amount, kind))
            at, length = at + size + 4, length - size - 4
        return entries


# Reading.


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("machine", [3, 62])
def test_a_multiboot_elf_of_either_class_and_machine(bits, machine):
    image = read_kernel(elf(bits=bits, machine=machine), "kernel")
    assert (image.kind, image.entry, image.flags) == ("multiboot", MIB + 0x10, 3)
    ((address, data, memory),) = image.segments
    assert (address, len(data), memory) == (MIB, 0x800, 0x3000)
    assert bytes(data[12:]) == TEXT[12:0x800]


def test_segments_go_to_their_physical_addresses_and_a_virtual_entry_moves_with_them():
    loads = [(0x1000, MIB, MIB, 0x100, 0x100), (0x1100, 0xC020_0000, 2 * MIB, 0x100, 0x1000)]
    image = read_kernel(elf(loads, entry=0xC020_0040), "kernel")
    assert [segment.address for segment in image.segments] == [MIB, 2 * MIB]
    assert image.entry == 2 * MIB + 0x40
    assert read_kernel(elf(loads, entry=2 * MIB + 0x40), "kernel").entry == 2 * MIB + 0x40


@pytest.mark.parametrize(("at", "found"), [(0x1000, True), (8192 - 12, True), (8192 - 8, False), (0x1002, False)])
def test_where_the_header_may_be(at, found):
    data = elf(at=at)
    if found:
        assert read_kernel(data, "kernel", "multiboot").kind == "multiboot"
    else:
        assert why(data, entry="multiboot").startswith("has no multiboot header (what is at 0x")


def test_a_magic_without_its_checksum_is_no_header_and_the_search_goes_on():
    wrong = header(3, checksum=1)
    assert "no multiboot header (what is at 0x1000 has a wrong checksum" in why(elf(head=wrong))
    assert "no multiboot header in its first 8192 bytes" in why(elf(head=b""), entry="multiboot")
    assert read_kernel(elf(head=wrong + header(0)), "kernel").flags == 0


@pytest.mark.parametrize("bit", range(32))
def test_flags(bit):
    data = elf(head=header(1 << bit))
    if bit in range(3, 16):
        assert why(data) == f"asks by multiboot header flags {1 << bit:#x} for what no multiboot 1 loader knows"
    elif bit != 16:
        assert read_kernel(data, "kernel").flags == 1 << bit


def test_address_fields():
    image = read_kernel(flat(load_end=MIB + 0x200, bss_end=MIB + 0x5000), "kernel")
    assert [(s.address, len(s.data), s.memory) for s in image.segments] == [(MIB, 0x200, 0x5000)]
    assert image.entry == MIB + 0x40
    assert bytes(image.segments[0].data[8:12]) == struct.pack("<I", 0x1BADB002)
    whole = read_kernel(flat(), "kernel")
    assert (whole.segments[0].memory, whole.sections) == (0x400, None)
    assert read_kernel(flat(header_addr=MIB, load=MIB), "kernel").segments[0].data[:4] == struct.pack("<I", 0x1BADB002)


def test_address_fields_go_before_elf_headers():
    data = elf(head=header(1 << 16, MIB, MIB, MIB + 0x40, 0, MIB + 0x20))
    assert [(s.address, s.memory) for s in read_kernel(data, "kernel").segments] == [(MIB, 0x40)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"header_addr": MIB - 4}, "outside the file"),
        ({"header_addr": MIB + 12}, "outside the file"),
        ({"load_end": MIB}, "not above load_addr 0x100000"),
        ({"load_end": MIB + 0x401}, "is cut off: its multiboot header wants file bytes up to 0x401"),
        ({"bss_end": MIB + 4}, "bss_end_addr 0x100004 below the end of data 0x100400"),
        ({"entry": MIB + 0x400}, "has its entry point at 0x100400, outside what is loaded (0x100000-0x100400)"),
        ({"load": 0xFFFF_FF00, "header_addr": 0xFFFF_FF08, "entry": 0xFFFF_FF40}, "beyond 4 GiB"),
    ],
)
def test_address_fields_that_cannot_be(fields, message):
    assert message in why(flat(**fields))


def test_long_mode_kernels():
    data = elf(bits=64, head=b"")
    image = read_kernel(data, "kernel")
    assert (image.kind, image.entry, image.flags) == ("long", MIB + 0x10, 0)
    assert read_kernel(elf(bits=64), "kernel", "long").kind == "long"
    assert "a 32-bit ELF file" in why(elf(), entry="long")
    assert "entry point at 0x5, in none of its segments" in why(elf(bits=64, entry=5), entry="long")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\x7fELF", "broken or cut off header"),
        (b"hello\n" * 100, "has no multiboot header in its first 8192 bytes and is not an ELF file"),
        (b"MZ" + bytes(0x200) + b"HdrS" + bytes(100), "is a Linux bzImage"),
        (b"#!/bin/sh\n" + bytes(100), "is no multiboot or ELF kernel"),
        (elf(head=b""), "has no multiboot header in its first 8192 bytes and is a 32-bit ELF file"),
        (elf(bits=64, head=b"\xd6\x50\x52\xe8"), "multiboot 2 header only"),
        (elf(bits=64, head=b"", interpreter=True), "dynamically linked program"),
        (elf(bits=64, head=b"", kind=3, entry=0x10, loads=[(0x1000, 0, 0, 9, 99)]), "position-independent"),
        (elf(kind=1), "relocatable object"),
        (elf(machine=40), "for machine 40"),
        (elf([]), "has no program headers"),
        (elf([(0, 0, 0, 0, 0)]), "has nothing to load"),
        (elf([(0x1000, MIB, MIB, 0x800, 0x7FF)]), "more bytes in the file (0x800) than in memory (0x7ff)"),
        (elf([(0x2900, MIB, MIB, 0x800, 0x800)]), "segment 0 needs file bytes up to 0x3100, the file ends at 0x3000"),
        (elf([(0x1000, MIB, MIB, 8, 0x1001), (0x1000, MIB, MIB + 0x1000, 8, 8)]),
         "overlap in physical memory: 0x100000-0x101001 and 0x101000-0x101008"),
        (elf(bits=64, loads=[(0x1000, 0, 1 << 33, 0x800, 0x800)], entry=0x10), "beyond 4 GiB, where 32-bit code"),
    ],
)  # fmt: skip
def test_what_is_no_kernel_is_refused_with_the_reason(data, message):
    assert message in why(data)


def test_an_unknown_entry_is_a_usage_error():
    with pytest.raises(UsageError, match="none of auto, multiboot, long"):
        read_kernel(elf(), "kernel", "short")  # type: ignore[arg-type]


# Placing.


def planned(data: bytes | None = None, memory_size: int = MEMORY, **options: object) -> Memory:
    plan = place(read_kernel(elf() if data is None else data, "kernel"), memory_size, **options)  # type: ignore[arg-type]
    check_disjoint(plan, memory_size)
    return Memory(plan)


def test_the_information_structure():
    modules = [Module(b"first", "one a=b"), Module(bytes(5000), "two"), Module(b"", "")]
    memory = planned(modules=modules, cmdline="root=x é")
    plan, info = memory.plan, memory.information
    assert plan.registers == {"rax": 0x2BADB002, "rbx": plan.information}
    assert plan.entry == MIB + 0x10
    assert plan.zeros == ((MIB + 0x800, 0x2800),)
    assert 0x1000 <= plan.information < 0x9F000
    assert info[0] == 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9
    assert info[1:3] == (639, MEMORY // 1024 - 1024)
    assert memory.string(info[4]) == "root=x é".encode()
    assert memory.string(info[16]) == b"mmuemu"
    found = memory.modules()
    assert [string for _, _, string in found] == [b"one a=b", b"two", b""]
    assert [end - start for start, end, _ in found] == [5, 5000, 0]
    assert all(start % 4096 == 0 and start >= MIB + 0x3000 for start, _, _ in found)
    assert memory.read(found[0][0], 5) == b"first"
    assert len({start for start, _, _ in found}) == 3


def test_the_memory_map():
    assert planned().map() == [
        (0, 0x9FC00, 1),
        (0x9FC00, 0x400, 2),
        (0xF0000, 0x10000, 2),
        (MIB, MEMORY - MIB, 1),
    ]
    assert memory_map(5 * GIB)[-2:] == [(MIB, 3 * GIB - MIB, 1), (4 * GIB, 2 * GIB, 1)]
    assert memory_map(0xE000_0000)[-1] == (MIB, 0xDFF0_0000, 1)
    assert planned(memory_size=5 * GIB).information[2] == (3 * GIB - MIB) >> 10


def test_elf_sections_are_passed_on_and_those_without_an_address_loaded():
    strings, symbols = (3, 0, 0, 0x2000, 0x40), (2, 0, 0, 0x2100, 0x123)
    sections = [strings, symbols, (1, 2, MIB, 0x1000, 0x800), (8, 3, 0, 0x1800, 0x9000), (1, 0, 0, 0x2FFF, 2)]
    for bits in (32, 64):
        memory = planned(elf(bits=bits, sections=sections))
        info = memory.information
        size = 40 if bits == 32 else 64
        assert info[0] & 1 << 5
        assert (info[7], info[8], info[10]) == (6, size, 1)
        table = memory.read(info[9], 6 * size)
        records = list(struct.iter_unpack("<10I" if bits == 32 else "<IIQQQQIIQQ", table))
        assert memory.read(records[1][3], 0x40) == memory_of(elf(bits=bits, sections=sections), strings)
        assert memory.read(records[2][3], 0x123) == memory_of(elf(bits=bits, sections=sections), symbols)
        assert [record[3] for record in records[3:5]] == [MIB, 0]


def memory_of(data: bytes, section: tuple[int, int, int, int, int]) -> bytes:
    return data[section[3] : section[3] + section[4]]


def test_sections_that_find_no_room_are_left_out():
    data = elf([(0x1000, MIB, MIB, 0x800, MIB - 0x1000)], sections=[(3, 0, 0, 0, 0x2000)])
    memory = planned(data, memory_size=2 * MIB)
    assert not memory.information[0] & 1 << 5
    assert memory.information[7:11] == (0, 0, 0, 0)


def test_a_kernel_below_one_megabyte_and_reserved_memory_push_the_rest_away():
    data = elf([(0x1000, 0x8000, 0x8000, 0x800, 0x20000)], entry=0x8010)
    assert planned(data).plan.information >= 0x28000
    memory = planned(reserved=[Block(0x1000, 0x9FC00), Block(MIB + 0x3000, MIB + 0x8000)], modules=[Module(b"x", "")])
    assert memory.plan.information >= MIB
    assert memory.modules()[0][0] == MIB + 0x8000


def test_modules_go_below_a_kernel_at_the_top_of_memory():
    data = elf([(0x1000, 60 * MIB, 60 * MIB, 0x800, 4 * MIB)], entry=60 * MIB)
    assert planned(data, modules=[Module(bytes(8192), "m")]).modules()[0][0] < 60 * MIB


def test_what_is_left_can_be_claimed():
    plan = planned(modules=[Module(b"x", "m")]).plan
    free = plan.free()
    address = free.claim(3 * 4096, 4096, limit=0x9F000)
    assert address is not None
    assert all(block.end <= address or address + 3 * 4096 <= block.start for block in plan.occupied)
    assert Block(address, address + 3 * 4096) in free.taken
    assert free.claim(1 << 40) is None


@pytest.mark.parametrize(
    ("load", "memory_size", "message"),
    [
        ((0x1000, MIB, MIB, 8, 64 * MIB), MEMORY, "loaded at 0x100000-0x4100000, and memory is at 0x0-0x9fc00, 0x1000"),
        ((0x1000, MIB, 0x9F000, 8, 0x1000), MEMORY, "loaded at 0x9f000-0xa0000"),
        ((0x1000, MIB, 0xF0000, 8, 8), MEMORY, "loaded at 0xf0000-0xf0008"),
        ((0x1000, MIB, MIB, 8, 0x1000), MIB // 2, "loaded at 0x100000-0x101000, and memory is at 0x0-0x80000"),
        ((0x1000, MIB, 3 * GIB, 8, 8), 5 * GIB, "loaded at 0xc0000000-0xc0000008"),
    ],
)
def test_a_kernel_outside_memory_is_refused_naming_addresses(load, memory_size, message):
    with pytest.raises(BadImage) as caught:
        place(read_kernel(elf([load], entry=MIB), "kernel"), memory_size)
    assert message in str(caught.value)


def test_no_room_for_a_module_or_over_reserved_memory():
    image = read_kernel(elf(), "kernel")
    with pytest.raises(BadImage, match=r"^big: no room for its 0x4000000 bytes in 0x4000000 bytes of memory"):
        place(image, MEMORY, [Module(bytes(MEMORY), "big")])
    with pytest.raises(BadImage, match="over reserved memory at 0x102fff-0x200000"):
        place(image, MEMORY, reserved=[Block(MIB + 0x2FFF, 2 * MIB)])
    with pytest.raises(BadImage, match=r"no room for 0x[0-9a-f]+ bytes of multiboot information"):
        place(image, MEMORY, reserved=[Block(0, MIB), Block(MIB + 0x3000, MEMORY)])


def test_a_nul_cannot_be_passed():
    image = read_kernel(elf(), "kernel")
    with pytest.raises(UsageError, match="command line contains a NUL"):
        place(image, MEMORY, cmdline="a\0b")


# Whatever the bytes.

NUMBERS = st.sampled_from(
    [0, 1, 3, 0x28, 0x34, 0xFFF, 0x1000, 0xFFFF, MIB, 1 << 31, 0xFFFF_FFFF, 1 << 63, (1 << 64) - 1]
)


def refusal(data: bytes, entry: str) -> str:
    """What is said about ``data``; "hostile: " alone when it is taken."""
    try:
        check_place(read_kernel(data, "hostile", entry), MEMORY)  # type: ignore[arg-type]
    except BadImage as refused:
        return str(refused)
    return "hostile: "


@settings(max_examples=400, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    entry=st.sampled_from(["auto", "multiboot", "long"]),
    changes=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 0x200), st.integers(0x1000, 0x1020), st.integers(0x3000, 0x3100)),
            NUMBERS,
            st.sampled_from([1, 2, 4, 8]),
        ),
        max_size=6,
    ),
    cut=st.one_of(st.none(), st.integers(0, 0x3100)),
)
@example(seed=SEEDS[0], entry="auto", changes=[], cut=None)
def test_a_mutated_kernel_is_placed_or_refused_in_one_line(seed, entry, changes, cut):
    data = bytearray(seed)
    for at, value, size in changes:
        data[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    message = refusal(bytes(data[:cut]), entry)
    assert message.startswith("hostile: ")
    assert message.isprintable()
    assert len(message) < 400


def test_as_many_segments_and_sections_as_a_file_can_name_take_bounded_time():
    import time

    count = 65535
    loads = struct.pack("<IIIIIIII", 1, 0, 0, 0, 16, 16, 7, 4096)
    table = b"".join(loads[:8] + struct.pack("<II", MIB + 16 * n, MIB + 16 * n) + loads[16:] for n in range(count))
    section = struct.pack("<10I", 0, 3, 0, 0, 0, 1 << 20, 0, 0, 1, 0) * count
    start = 0x2000
    head = struct.pack(
        "<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", 2, 3, 1, MIB, start, start + len(table), 0, 52, 32, count, 40,
        count, 1,
    )  # fmt: skip
    data = (head.ljust(64, b"\0") + header()).ljust(start, b"\0") + table + section
    begun = time.process_time()
    plan = place(read_kernel(data, "many"), MEMORY)
    assert time.process_time() - begun < 3
    assert sum(len(content) for _, content in plan.writes) < 4 * len(data)

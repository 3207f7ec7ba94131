"""The kernel half: where it lies, who may touch it, and that all address spaces share it by reference."""

from __future__ import annotations

from random import Random

import pytest

from mmuemu.kernel.half import DIRECT_MAP, STACK_PAGES, TEXT, VMALLOC, KernelLayout, KernelMemory
from mmuemu.loader.layouts import LINUX
from mmuemu.memory.frames import FrameAllocator
from mmuemu.memory.page_table import PageTable
from mmuemu.memory.ram import GuestRam
from mmuemu.mmu.state import Access, PageFault, PagingState, Translation
from mmuemu.mmu.walk import walk
from mmuemu.x86.paging import NX, US

MEMORY = (64 << 20) + (2 << 20) + 0x3000


@pytest.fixture
def frames():
    ram = GuestRam(MEMORY)
    yield FrameAllocator(ram)
    ram.close()


@pytest.fixture
def kernel(frames):
    return KernelMemory(frames, KernelLayout())


def test_it_lies_where_linux_has_it(kernel):
    starts = [region[0] for region in kernel.regions()]
    assert starts[:3] == [DIRECT_MAP, VMALLOC, TEXT]
    assert (DIRECT_MAP, TEXT) == (0xFFFF_8880_0000_0000, 0xFFFF_FFFF_8000_0000)


def test_nothing_of_it_is_open_to_ring_3(kernel):
    kernel.new_stack()
    for linear, entry, _ in kernel.half.table.iterate(1 << 63, 1 << 64):
        found = kernel.half.table.lookup(linear)
        assert not found.flags & US, hex(linear)
        assert bool(entry & NX) == (linear != TEXT), hex(linear)


@pytest.mark.parametrize("access", list(Access))
def test_ring_3_is_refused_by_the_walk(frames, kernel, access):
    table = PageTable(frames, kernel=kernel.half)
    for linear, end, _, _ in kernel.regions()[:1] + kernel.regions()[2:]:
        for address in (linear, end - 1):
            result = walk(frames.ram, PagingState(table.root), address, access, user=True)
            assert isinstance(result, PageFault)
            assert result.error_code & 5 == 5


def test_the_direct_map_is_all_of_memory_in_large_pages(frames, kernel):
    table = kernel.half.table
    sizes = set()
    for physical in (0, 0x1234, 2 << 20, 64 << 20, MEMORY - 1):
        found = walk(frames.ram, PagingState(table.root), DIRECT_MAP + physical, Access.WRITE, user=False)
        assert isinstance(found, Translation)
        assert found.physical == physical
        sizes.add(found.size)
    assert sizes == {4096, 2 << 20}
    assert table.lookup(DIRECT_MAP + MEMORY) is None


def test_a_gigabyte_is_one_entry():
    ram = GuestRam(2 << 30)
    kernel = KernelMemory(FrameAllocator(ram), KernelLayout())
    assert kernel.half.table.lookup(DIRECT_MAP + (1 << 30)).size == 1 << 30
    assert kernel.frames.used < 32
    ram.close()


def test_a_stack_has_a_guard_below_and_above(kernel):
    first, second = kernel.new_stack(), kernel.new_stack()
    table = kernel.half.table
    for stack in (first, second):
        bottom = stack.top - STACK_PAGES * 4096
        assert table.lookup(bottom - 1) is None
        assert table.lookup(stack.top) is None
        assert table.lookup(bottom).physical == stack.frames[0]
        assert table.lookup(stack.top - 1).physical == stack.frames[-1]


def test_address_spaces_share_it_by_reference(frames, kernel):
    one, two = PageTable(frames, kernel=kernel.half), PageTable(frames, kernel=kernel.half)
    used = frames.used
    kernel.half.table.map(0xFFFF_F000_0000_0000, 0x5000, 1)
    for table in (one, two):
        assert table.lookup(0xFFFF_F000_0000_0000).physical == 0x5000
        assert table.lookup(TEXT).entry_address == kernel.half.table.lookup(TEXT).entry_address
    assert frames.used == used + 3


def test_kaslr_moves_each_area_by_itself_and_repeats_with_the_seed():
    layouts = [KernelLayout.placed(LINUX, MEMORY, Random(seed)) for seed in range(40)]
    assert layouts == [KernelLayout.placed(LINUX, MEMORY, Random(seed)) for seed in range(40)]
    for name, step in (("text", 2 << 20), ("direct_map", 1 << 30), ("vmalloc", 1 << 30)):
        values = {getattr(layout, name) for layout in layouts}
        assert len(values) > 30, name
        assert all(value % step == 0 for value in values)
    assert all(TEXT <= layout.text < TEXT + (1 << 30) for layout in layouts)
    for layout in layouts:
        assert layout.direct_map + (16 << 30) <= layout.vmalloc
        assert layout.vmalloc + (1 << 30) <= layout.text


def test_a_guest_cannot_reach_the_kernel(asm_program):
    """Through the whole path: ring 3 reads, writes and runs kernel text, and dies with SIGSEGV each time."""
    for body, doing in (("mov rax, [rdi]", "read"), ("mov [rdi], rax", "write"), ("jmp rdi", "execute")):
        machine, outcome = asm_program(f"mov rdi, {{text}}\n{body}\nhlt\n")
        assert outcome.exit_code == 128 + 11
        trap = machine.task.death.trap
        assert (trap.vector, trap.address, trap.error_code & 5, trap.cpl) == (14, TEXT, 5, 3), doing
        machine.close()


def test_registers_survive_a_system_call(asm_program):
    """Everything but RAX, RCX and R11 comes back as it was, flags included."""
    names = ["rbx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r12", "r13", "r14", "r15"]
    loads = "\n".join(f"mov {name}, {0x1111_0000 + number}" for number, name in enumerate(names))
    source = f"{loads}\nmov eax, 39\nstc\nstd\nsyscall\npushfq\npop rcx\ncld\n.byte 0x0f, 0x0b\n"
    machine, outcome = asm_program(source)
    assert outcome.exit_code == 128 + 4
    registers = machine.kernel.cpu.registers()
    assert [registers[name] for name in names] == [0x1111_0000 + number for number in range(len(names))]
    assert registers["rcx"] & 0x401 == 0x401
    assert registers["rax"] == machine.task.pid
    machine.close()

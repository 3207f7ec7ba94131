"""Kernel images of ``mmuemu boot``: placed without overlaps and run a little, or refused in one line.

The first byte chooses the entry, the second the size of memory; the rest is the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from mmuemu.board import BOOT_TABLES, Board, BoardOptions
from mmuemu.cpu.watchdog import Expired, Watchdog
from mmuemu.errors import BadImage
from mmuemu.loader.kernel_image import KernelImage, read_kernel
from mmuemu.loader.multiboot import Block, BootPlan, Module, place, ram
from tests.fuzz.targets import check_refusal
from tests.loader.kernel_forge import SEEDS

LONGEST: Final = 1 << 15
INSTRUCTIONS: Final = 2_000
_ENTRIES: Final = ("auto", "multiboot", "long")
_MEMORY: Final = (4 << 20, 1 << 20, 64 << 20, 3 << 20)


def check_disjoint(plan: BootPlan, memory_size: int) -> None:
    """Everything lies in memory and nothing on anything else."""
    pieces = [(at, at + len(data)) for at, data in plan.writes] + [(at, at + size) for at, size in plan.zeros]
    pieces.sort()
    for (_, end), (start, _) in pairwise(pieces):
        assert end <= start
    for start, end in pieces:
        assert any(block.start <= start and end <= block.end for block in ram(memory_size))
        assert any(block.start <= start and end <= block.end for block in joined(plan.occupied))


def joined(blocks: Sequence[Block]) -> list[Block]:
    """Sorted, neighbours made one."""
    out: list[Block] = []
    for block in sorted(blocks):
        if out and out[-1].end >= block.start:
            out[-1] = Block(out[-1].start, max(out[-1].end, block.end))
        else:
            out.append(block)
    return out


def check_place(image: KernelImage, memory_size: int, reserved: Sequence[Block] = ()) -> BootPlan:
    """Place a kernel, with a module and a command line. Raises BadImage."""
    plan = place(image, memory_size, [Module(b"abc", "m")], "x", reserved)
    check_disjoint(plan, memory_size)
    assert sum(len(data) for _, data in plan.writes) <= 70_000 * 41 + 3 * len(image.data)
    assert any(segment.address <= plan.entry < segment.end for segment in image.segments)
    return plan


def one(data: bytes) -> None:
    """Place it; what can be placed is booted."""
    memory_size = _MEMORY[data[1] % len(_MEMORY)] if len(data) > 1 else _MEMORY[0]
    try:
        image = read_kernel(data[2:], "hostile", _ENTRIES[data[0] % 3] if data else "auto")  # type: ignore[arg-type]
        reserved = [Block(memory_size - BOOT_TABLES, memory_size)] if image.kind == "long" else []
        plan = check_place(image, memory_size, reserved)
    except BadImage as refused:
        check_refusal(refused, "hostile: ", 400)
        return
    boot(image, plan, memory_size)


def boot(image: KernelImage, plan: BootPlan, memory_size: int) -> None:
    """Run it for a while."""
    board = Board(BoardOptions(memory_size, seed=1))
    try:
        for address, size in plan.zeros:
            board.ram.zero(address, size)
        for address, content in plan.writes:
            board.write(address, content)
        enter = board.enter_long if image.kind == "long" else board.enter_protected
        enter(plan.entry, plan.registers)
        with Watchdog(board.cpu, 2) as watchdog:
            end = board.run(max_instructions=INSTRUCTIONS, expired=lambda: watchdog.expired)
        assert 0 <= end.exit_code < 256
        assert end.kind
    except Expired:
        return
    finally:
        board.close()


def forget() -> None:
    """Nothing is kept."""


def seeds() -> list[bytes]:
    """Kernels of every kind."""
    return [bytes((entry, 0)) + data for data in SEEDS for entry in range(3)]

"""``monitor`` commands: what gdb itself has no command for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mmuemu.cpu.window import Q_CR2
from mmuemu.errors import UsageError
from mmuemu.kernel.maps import maps_text
from mmuemu.mmu.state import Access, PageFault, PagingState
from mmuemu.mmu.walk import walk
from mmuemu.view.places import find_address
from mmuemu.x86 import registers as x86
from mmuemu.x86.paging import NX, PCD, PS, PWT, RW, US, A, D, G, P

if TYPE_CHECKING:
    from mmuemu.board import Board
    from mmuemu.cpu.setup import Ram
    from mmuemu.kernel.task import Task

HELP: Final = """\
monitor walk PLACE [r|w|x] [user|kernel]    the page walk of an access, level by level
monitor maps                                what lies where
monitor cr                                  control registers and their bits
monitor help                                this list
"""
_BITS: Final = ((P, "P"), (RW, "RW"), (US, "US"), (PWT, "PWT"), (PCD, "PCD"), (A, "A"), (D, "D"), (PS, "PS"), (G, "G"),
                (NX, "NX"))  # fmt: skip
_LEAVES: Final = ("PTE",)
_ACCESSES: Final = {"r": Access.READ, "w": Access.WRITE, "x": Access.FETCH}
_MASK: Final = (1 << 64) - 1


def entry_bits(entry: int, leaf: bool) -> str:
    """The names of the bits that are set; PS of a last-level entry is PAT, D and G of a table mean nothing."""
    names = [name for bit, name in _BITS if entry & bit]
    if leaf:
        names = ["PAT" if name == "PS" else name for name in names]
    return " ".join(names) or "-"


def walk_text(ram: Ram, state: PagingState, words: Sequence[str], find: Callable[[str], int]) -> str:
    """The text of ``monitor walk``; what is wrong with ``words`` otherwise. ``find`` gives a place's address."""
    try:
        address = find(words[0]) & _MASK
        access = _ACCESSES[words[1] if len(words) > 1 else "r"]
        user = {"user": True, "kernel": False}[words[2] if len(words) > 2 else "user"]
        found = walk(ram, state, address, access, user=user)
    except UsageError as error:
        return f"{error}\n"
    except (IndexError, KeyError, ValueError):
        return "usage: monitor walk PLACE [r|w|x] [user|kernel]\n"
    lines = [f"CR3 {state.cr3:#x}"]
    for step in found.steps:
        lines.append(
            f"{step.level:<6} at {step.entry_address:#014x}: {step.entry:#018x} "
            f"{entry_bits(step.entry, step.level in _LEAVES)}"
        )
    if isinstance(found, PageFault):
        lines.append(f"refused: {found.reason} (vector {int(found.vector)}, error code {found.error_code:#x})")
    else:
        lines.append(f"physical {found.physical:#x}, page of {found.size:#x} bytes")
    return "\n".join(lines) + "\n"


def controls_text(state: PagingState, cr2: int, cr8: int) -> str:
    """The text of ``monitor cr``."""
    lines = []
    for name, value in (("CR0", state.cr0), ("CR2", cr2), ("CR3", state.cr3), ("CR4", state.cr4), ("CR8", cr8),
                        ("EFER", state.efer)):  # fmt: skip
        bits = " ".join(bit for bit, mask in _named(f"{name}_") if value & mask == mask)
        lines.append(f"{name:<4} {value:#018x}  {bits}".rstrip())
    return "\n".join(lines) + "\n"


def _named(prefix: str) -> list[tuple[str, int]]:
    return [(name[len(prefix) :], value) for name, value in vars(x86).items() if name.startswith(prefix)]


def process_command(task: Task, words: Sequence[str]) -> str:
    """The text of a command about a task of a machine."""
    kernel = task.kernel
    state = replace(kernel.cpu.paging, cr3=task.mm.page_table.root)
    name = words[0] if words else "help"
    if name == "walk":
        return walk_text(kernel.ram, state, words[1:], lambda text: find_address(kernel, task.mm, text))
    if name == "maps":
        half = "".join(f"{start:016x}-{end:016x} {rights} {what}\n" for start, end, rights, what in
                       kernel.memory.regions())  # fmt: skip
        return maps_text(task.mm) + half
    if name == "cr":
        kernel.cpu.window.save()
        return controls_text(state, kernel.cpu.window.q[Q_CR2], 0)
    return HELP if name == "help" else f"no such command: {name}\n{HELP}"


def board_command(board: Board, words: list[str]) -> str:
    """The text of a command about a board."""
    name = words[0] if words else "help"
    if name == "walk":
        given = words[1:]
        given += ["r", "kernel"][len(given) - 1 :] if given else []
        return walk_text(board.ram, board.cpu.paging, given, lambda text: int(text, 0))
    if name == "maps":
        rows = [f"{0:016x}-{board.ram.size:016x} RAM"]
        rows += [f"{part.first:016x}-{part.first + part.size:016x} {part.name}" for part in board.pc.mmio.ranges()]
        return "physical memory:\n" + "\n".join(rows) + "\n"
    if name == "cr":
        paging = board.cpu.paging
        return controls_text(paging, board.state()["cr2"], board.pc.lapic.cr8)
    return HELP if name == "help" else f"no such command: {name}\n{HELP}"

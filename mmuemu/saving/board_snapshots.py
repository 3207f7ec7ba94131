"""Snapshots of a bare machine in memory: its CPU, its memory, its devices and their clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mmuemu.cpu.window import BREAKPOINT_POINTERS
from mmuemu.errors import UsageError
from mmuemu.saving.graph import Graph, Record, Rules
from mmuemu.saving.pages import KeptPages, Pages
from mmuemu.saving.snapshots import CONSTANT, Parts, cpu_parts, parts_state
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.board import Board

_RULES: Final = Rules(
    "mmuemu",
    (*CONSTANT, "mmuemu.booter."),
    {
        "mmuemu.board.Board": ("options", "running", "snapshots", "trace"),
        "mmuemu.devices.bus.Bus": ("trace",),
        "mmuemu.devices.debug_exit.DebugConsole": ("_out",),
        "mmuemu.devices.serial.Uart": ("_out",),
    },
)
"""What has gone out stays out, and who listens is no state."""
_FEW: Final = 64
"""Frames whose translated code is forgotten one by one."""


def board_parts(board: Board) -> Parts:
    """The CPU's own objects, and what of each is a state."""
    return [*cpu_parts(board.cpu), (board.bare, ("nmi_blocked",))]


def check(board: Board) -> None:
    """Raises UsageError for a board that cannot be kept now."""
    if board.running:
        raise UsageError("a snapshot is taken and restored between runs, not by a callback in one")
    board.cpu.window.save()
    if any(board.cpu.window.q[BREAKPOINT_POINTERS]):
        raise UsageError("a snapshot cannot hold breakpoints that the guest has set (DR7)")


def check_alive(board: Board) -> None:
    """As :func:`check`, and UsageError for one that has ended."""
    check(board)
    if board.ended:
        raise UsageError("the machine has ended: there is nothing to keep")


def settle(board: Board) -> None:
    """After registers and objects were put back: what hangs on them."""
    cpu = board.cpu
    assert cpu.privileged is not None
    cpu.privileged.breakpoints.changed = True
    if board.bare.nmi_blocked:
        board.bare.block_nmi()
    board.bare.shutdown = None
    cpu.engine.flush()


@dataclass(slots=True, eq=False)
class BoardSnapshot:
    """A bare machine at one moment, to be given to :meth:`Board.restore` any number of times."""

    keeper: BoardSnapshots = field(repr=False)
    records: list[Record] = field(repr=False)
    pages: Pages = field(repr=False)
    """Of memory that is not zeros."""
    window: bytes = field(repr=False)
    parts: list[tuple[Any, str, Any]] = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of memory that is not zeros; pages that other snapshots have, too, are held once."""
        return len(self.pages) * PAGE_SIZE


class BoardSnapshots:
    """Takes snapshots of one board and puts them back."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._graph = Graph([board], _RULES)
        self._pages = KeptPages(board.ram)
        self._pages.track()

    def take(self) -> BoardSnapshot:
        """The machine as it is now. Raises UsageError while it runs, when it has ended, and for what cannot be kept."""
        board = self.board
        check_alive(board)
        cpu = board.cpu
        # Who goes on and who is restored both start with an empty TLB.
        cpu.engine.flush()
        records = self._graph.take()
        pages = self._pages.take_all()
        parts = parts_state(board_parts(board))
        cpu.window.save()
        return BoardSnapshot(self, records, pages, cpu.window.snapshot(), parts)

    def restore(self, snapshot: BoardSnapshot) -> None:
        """Make the machine what it was. Raises UsageError while it runs, and for another machine's snapshot."""
        board = self.board
        check(board)
        if snapshot.keeper is not self:
            raise UsageError("this snapshot is another machine's")
        cpu = board.cpu
        changed = self._pages.put_all(snapshot.pages)
        if len(changed) > _FEW:
            cpu.uc.ctl_flush_tb()
        else:
            for frame in changed:
                cpu.engine.forget_code(frame)
        self._graph.put(snapshot.records)
        cpu.window.load(snapshot.window)
        cpu.window.restore()
        for part, name, value in snapshot.parts:
            setattr(part, name, value)
        settle(board)

    def close(self) -> None:
        """Look no longer at what is written."""
        self._pages.close()


__all__ = ["BoardSnapshot", "BoardSnapshots", "board_parts", "check_alive", "settle"]

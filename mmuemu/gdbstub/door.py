"""``-g [HOST:]PORT``: wait for gdb, let it debug, and leave the machine to run on where it has let go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mmuemu.cpu.watchdog import Watchdog
from mmuemu.gdbstub.link import Gone, Link, listen, place_of
from mmuemu.gdbstub.packets import ALL
from mmuemu.gdbstub.server import Server

if TYPE_CHECKING:
    from mmuemu.board import Board, BoardEnd
    from mmuemu.cpu.cpu import Cpu
    from mmuemu.gdbstub.events import Target
    from mmuemu.machine import Machine

Say = Callable[[str], object]


@contextmanager
def _connected(cpu: Cpu, address: str, say: Say) -> Iterator[Link]:
    waiting = listen(address)
    with waiting:
        say(f"mmuemu: waiting for gdb on {place_of(waiting)}\n")
        connection, _ = waiting.accept()
    link = Link(connection, cpu.interrupt)
    try:
        yield link
    finally:
        link.close()


def _converse(cpu: Cpu, address: str, say: Say, make: Callable[[], Target]) -> None:
    """One client, from the first packet until it lets go. A client that just goes away ends what it debugged."""
    with _connected(cpu, address, say) as link:
        target = make()
        try:
            with Watchdog(cpu):
                Server(link, target).serve()
        except Gone:
            if target.alive:
                say("mmuemu: gdb has gone away: what it debugged is killed\n")
                target.kill(ALL)
        finally:
            target.finish()


def debug_machine(machine: Machine, address: str, say: Say) -> None:
    """Let gdb debug the program that was loaded; what is left then runs when the machine does. Raises UsageError."""
    from mmuemu.gdbstub.processes import ProcessTarget

    _converse(machine.kernel.cpu, address, say, lambda: ProcessTarget(machine))


def debug_board(board: Board, address: str, say: Say, bits: int) -> BoardEnd | None:
    """Let gdb debug a board with registers of ``bits``; how it ended, None when it was let go. Raises UsageError."""
    from mmuemu.gdbstub.boards import BoardTarget

    target = BoardTarget(board, bits)
    _converse(board.cpu, address, say, lambda: target)
    return target.end

"""A bare machine in a file, in the form of :mod:`mmuemu.saving.file`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmuemu import __version__
from mmuemu.cpu.cpuid import MODELS, cpu_model
from mmuemu.errors import UsageError
from mmuemu.saving.board_snapshots import board_parts, check_alive, settle
from mmuemu.saving.file import Content, parts_facts, put_parts, put_window, read_file, refusals, text_of, write_file
from mmuemu.saving.pages import KeptPages
from mmuemu.saving.reader import Reader
from mmuemu.saving.writer import Writer
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.board import Board, BoardOptions


def save(board: Board, path: str) -> None:
    """Write the board, which is not running, to ``path``; it is there as a whole or not at all.

    Raises UsageError for what a file cannot hold, and for a path that cannot be written.
    """
    check_alive(board)
    options = board.options
    if MODELS.get(options.model.name) != options.model:
        raise UsageError("a file can hold a machine whose CPU model has a name, not one made for it")
    cpu = board.cpu
    cpu.engine.flush()
    pages = KeptPages(board.ram).take_all()
    cpu.window.save()
    header = {
        "mmuemu": __version__,
        "kind": "board",
        "made": {
            **{name: getattr(options, name) for name in ("memory", "mmu", "firmware", "seed")},
            "model": options.model.name,
        },
        "frames": list(pages),
        "window": text_of(cpu.window.snapshot()),
        "cpu": parts_facts(board_parts(board)),
        "objects": Writer(board, board.ram).objects,
    }
    # Proof that the file can be resumed.
    _made(json.loads(json.dumps(header)), memoryview(b"".join(pages.values())), options).close()
    write_file(path, header, list(pages.values()))


def resume(path: str, options: BoardOptions, content: Content | None = None) -> Board:
    """The board that was saved to ``path``, whose ``content`` may be known; ``options`` say where serial lines lead.

    Raises UsageError for a file that cannot be read, is none of ours, of another version, cut off or changed.
    """
    header, pages = content or read_file(path)
    if header["kind"] != "board":
        raise UsageError(f"{path}: it holds no bare machine: Machine.resume and mmuemu resume take it up")
    with refusals(path):
        return _made(header, pages, options)


def _made(header: dict[str, Any], pages: memoryview, options: BoardOptions) -> Board:
    from mmuemu.board import Board

    made = dict(header["made"])
    board = Board(replace(options, **{**made, "model": cpu_model(made["model"])}))
    try:
        _put(board, header, pages)
    except BaseException:
        board.close()
        raise
    return board


def _put(board: Board, header: dict[str, Any], pages: memoryview) -> None:
    """Make ``board``, which is new, the one that was saved."""
    ram = board.ram
    KeptPages(ram).put_all({})
    for number, frame in enumerate(header["frames"]):
        if frame & PAGE_SIZE - 1:
            raise ValueError("its frames")
        ram.write(frame, pages[number * PAGE_SIZE : (number + 1) * PAGE_SIZE])
    Reader(header["objects"], board, ram)
    put_window(board.cpu, header["window"])
    put_parts(board_parts(board), header["cpu"])
    settle(board)


__all__ = ["resume", "save"]

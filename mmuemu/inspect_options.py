"""The options of ``mmuemu maps``, ``translate`` and ``pagetable``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from mmuemu.options import count, machine_options, speculation_options, view_options

_EVENTS = "entry, main, exit, syscall:NAME[:N], instruction:N, address:SYMBOL|0x..."
_EPILOG = """\
EVENT is one of
  entry               nothing has run yet (default)
  main                the program comes to its function main
  exit                it is about to end, its memory still there
  syscall:NAME[:N]    before the (Nth) system call NAME is made
  instruction:N       after N instructions
  address:PLACE       somebody comes to an address or a symbol
PLACE is 0x401000, a symbol, or an area as maps calls it ([stack], libc.so.6), each with +N or -N.
What the program prints goes to standard error. Arguments of the program that begin with - stand behind --.
"""


class _Words:
    """A parser that takes options and other words in any order, and whose words behind ``--`` are the guest's."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self._parse = parser.parse_known_args
        self._inside = False
        parser.parse_known_args = self  # type: ignore[method-assign, assignment]

    def __call__(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        if self._inside:
            return self._parse(args, namespace)
        mine = list(args or ())
        theirs: list[str] = []
        if "--" in mine:
            place = mine.index("--")
            mine, theirs = mine[:place], mine[place + 1 :]
        self._inside = True
        try:
            found, unknown = self._parser.parse_known_intermixed_args(mine, namespace)
        finally:
            self._inside = False
        found.arguments = [*found.arguments, *theirs]
        return found, unknown


def _common(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is looked at")
    group.add_argument("--at", metavar="EVENT", default="entry", help=f"run to there first: {_EVENTS}")
    group.add_argument("--pid", type=int, metavar="N", help="look at process N (default: who came to the event)")
    group.add_argument("--json", action="store_true", help="print JSON")
    machine_options(parser)
    speculation_options(parser)
    view_options(parser)


def _finish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs="*", default=[], metavar="ARGS", help=argparse.SUPPRESS)
    _Words(parser)


def _command(commands: Any, name: str, words: str, usage: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=words,
        usage=f"mmuemu {name} [options] {usage}",
        description=about,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def maps_options(commands: Any) -> None:
    """The parser of ``maps`` among ``commands``."""
    maps = _command(
        commands,
        "maps",
        "show the memory map of a program",
        "PROGRAM [ARGS...]",
        "Start PROGRAM, stop it and show its address space: areas, gaps, the kernel half; how much is in memory, and\n"
        "how far it was moved at random.",
    )
    _common(maps)
    maps.add_argument("--format", choices=("table", "linux"), default="table", help="linux: as /proc/PID/maps")
    maps.add_argument("--all", action="store_true", help="show every process there is")
    maps.add_argument("--runs", type=count, metavar="N", help="N machines with N seeds, their addresses side by side")
    maps.add_argument("program", metavar="PROGRAM")
    _finish(maps)


def translate_options(commands: Any) -> None:
    """The parser of ``translate`` among ``commands``."""
    translate = _command(
        commands,
        "translate",
        "show how an address is translated",
        "PROGRAM PLACE [ARGS...]",
        "Start PROGRAM, stop it and walk its page tables for one access to PLACE, level by level. Exit code 0: the\n"
        "access is allowed, 1: it is refused.",
    )
    _common(translate)
    translate.add_argument(
        "--as", dest="ring", choices=("user", "kernel"), default="user", help="who accesses (default: user)"
    )
    translate.add_argument("--access", choices=("r", "w", "x"), default="r", help="read, write or execute (default: r)")
    translate.add_argument("--ac", action="store_true", help="EFLAGS.AC = 1: the kernel means to access user memory")
    translate.add_argument("program", metavar="PROGRAM")
    translate.add_argument("place", metavar="PLACE")
    _finish(translate)


def pagetable_options(commands: Any) -> None:
    """The parser of ``pagetable`` among ``commands``."""
    pagetable = _command(
        commands,
        "pagetable",
        "show page tables, or who maps a frame",
        "PROGRAM [RANGE]",
        "Start PROGRAM, stop it and print its page tables as a tree, equal neighbours merged. RANGE is user (the\n"
        "default), kernel, all, START-END in hexadecimal, or a PLACE (its area or its page).",
    )
    _common(pagetable)
    pagetable.add_argument(
        "--frame", metavar="N|0xADDRESS", help="show who has a frame: its number, or a physical address in hexadecimal"
    )
    pagetable.add_argument("--frame-of", metavar="PLACE", help="show who has the frame that PLACE is in")
    pagetable.add_argument("--user-root", action="store_true", help="with --kpti: the tables that ring 3 runs on")
    pagetable.add_argument("program", metavar="PROGRAM")
    pagetable.add_argument("range", metavar="RANGE", nargs="?")
    _finish(pagetable)


__all__ = ["maps_options", "pagetable_options", "translate_options"]

"""The ``mmuemu`` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from mmuemu import __version__
from mmuemu.commands import COMMANDS
from mmuemu.errors import Exit, MmuemuError


class _Parser(argparse.ArgumentParser):
    """argparse with our exit code for wrong options."""

    def error(self, message: str) -> NoReturn:
        self.exit(Exit.OURS, f"{self.prog}: {message} (see {self.prog} --help)\n")


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command line: with the options of all commands, or of ``command`` alone if there is one."""
    parser = _Parser(
        prog="mmuemu",
        description="An x86-64 memory-management unit on Unicorn: run programs on page tables you can look at.",
    )
    parser.add_argument("--version", action="version", version=f"mmuemu {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name in (command,) if command in COMMANDS else COMMANDS:
        COMMANDS[name].add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the process's exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = make_parser(words[0] if words else None)
    options = parser.parse_args(words)
    if options.command is None:
        parser.print_help(sys.stderr)
        return Exit.OURS
    try:
        return COMMANDS[options.command].run(options)
    except MmuemuError as error:
        print(f"mmuemu: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print("mmuemu: the host gives no more memory", file=sys.stderr)
        return Exit.OURS
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Exit.OURS
    except Exception as error:
        if os.environ.get("MMUEMU_DEBUG"):
            raise
        kind = type(error).__name__
        if isinstance(error, ImportError) and not (error.name or "").startswith("mmuemu"):
            print(f"mmuemu: a package is missing or broken: {error} (mmuemu doctor tells more)", file=sys.stderr)
            return Exit.OURS
        print(f"mmuemu: this is a defect of mmuemu: {kind}: {error} (MMUEMU_DEBUG=1 shows where)", file=sys.stderr)
        return Exit.OURS

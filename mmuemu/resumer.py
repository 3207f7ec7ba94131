"""``--save`` of ``mmuemu run`` and ``boot``, and ``mmuemu resume``: a machine put into a file, and taken up again."""

from __future__ import annotations

import argparse
import os
import sys
import time
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from mmuemu.errors import MmuemuError, UsageError
from mmuemu.options import count, seconds

if TYPE_CHECKING:
    from mmuemu.board import Board
    from mmuemu.machine import Machine, Outcome


def save_options(parser: argparse.ArgumentParser) -> None:
    """``--save`` and ``--at``."""
    group = parser.add_argument_group("saving")
    group.add_argument(
        "--save", metavar="FILE", help="write the machine to FILE where --at or a limit stops it, for mmuemu resume"
    )
    group.add_argument(
        "--at",
        type=_moment,
        metavar="N|CALL",
        help="with --save: stop after N instructions, or behind the first system call of that name (exit code 0)",
    )


def resume_options(commands: Any) -> argparse.ArgumentParser:
    """``mmuemu resume``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "resume",
        help="go on with a machine that was saved",
        usage="mmuemu resume [options] FILE",
        description="Go on with the machine in FILE, which --save of mmuemu run or boot wrote. Exit codes are those of "
        "that command. Resume files of people you trust only: a made-up one may show programs any host file of yours.",
    )
    parser.add_argument("--timeout", type=seconds, metavar="SECONDS", help="stop after this much time (exit code 124)")
    parser.add_argument(
        "--max-instructions", type=count, metavar="N", help="stop after N more instructions (exit code 124)"
    )
    save_options(parser)
    group = parser.add_argument_group("reports, on standard error")
    group.add_argument("--strace", action="store_true", help="print every system call")
    group.add_argument("--maps", action="store_true", help="print the memory map at the end or the fault")
    group.add_argument("--stats", action="store_true", help="print counts: system calls, faults, TLB fills, memory")
    group.add_argument("--json", metavar="FILE", help="write how the run ended to FILE")
    parser.add_argument("file", metavar="FILE")
    parser.set_defaults(strace_filter=None, strace_file=None, strace_limit=32)
    return parser


def _moment(text: str) -> int | str:
    """A positive number, or the name of a system call."""
    if text[:1].isdigit() or text[:1] == "-":
        value = int(text, 0)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"not a positive number: {text}")
        return value
    return text


def check(options: Namespace) -> None:
    """Refuse what cannot be meant before anything runs. Raises UsageError."""
    if options.save is None:
        if options.at is not None:
            raise UsageError("--at: say where to with --save FILE")
        return
    folder = os.path.dirname(options.save) or "."
    if os.path.isdir(options.save) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise UsageError(f"--save {options.save}: it cannot be written")
    if options.at is None and options.max_instructions is None and options.timeout is None:
        raise UsageError("--save: say where to stop, with --at, --max-instructions or --timeout")
    if getattr(options, "gdb", None) is not None:
        raise UsageError("--save and --gdb do not go together: gdb says where a run stops")


def go(machine: Machine, options: Namespace) -> Outcome:
    """Run as ``options`` say, and save the machine where it stops if they say so. Raises UsageError when it cannot be
    saved."""
    if options.save is None:
        return machine.run(timeout=options.timeout, max_instructions=options.max_instructions, keyboard=True)
    limit, at = options.max_instructions, options.at
    if isinstance(at, str):
        machine.on_syscall(at)(lambda _event: machine.pause())
    elif at is not None:
        limit = at if limit is None else min(at, limit)
    outcome = machine.run(timeout=options.timeout, max_instructions=limit, keyboard=True)
    if outcome.limit is None:
        _say(f"mmuemu: the program ended before it was saved: there is no {options.save}\n")
        return outcome
    save(machine, options.save)
    if outcome.limit == "pause" or (outcome.limit == "instructions" and limit == at):
        outcome.exit_code, outcome.limit = 0, None
    return outcome


def save(machine: Machine | Board, path: str) -> None:
    """Save a machine, and say so."""
    started = time.perf_counter()
    machine.save(path)
    size = os.path.getsize(path)
    _say(f"mmuemu: saved to {path} ({size >> 10} KiB, {(time.perf_counter() - started) * 1000:.0f} ms)\n")


def resume(options: Namespace) -> int:
    """Go on with the machine in the file that ``options`` name; the exit code."""
    from mmuemu.machine import Machine
    from mmuemu.machine import Outcome as Ended
    from mmuemu.reporter import open_output
    from mmuemu.runner import after, facts, listen
    from mmuemu.saving.file import read_file
    from mmuemu.saving.file import resume as taken_up
    from mmuemu.tracing import call_trace

    check(options)
    content = read_file(options.file)
    if content[0]["kind"] == "board":
        from mmuemu.booter import resume as resume_board

        return resume_board(options, content)
    with taken_up(Machine, options.file, content) as machine:
        report = None if options.json is None else open_output(options.json, "--json")
        with call_trace(machine, options, _say) as trace:
            listen(machine, trace.say)
            try:
                outcome = go(machine, options)
            except UsageError:
                raise
            except MmuemuError as error:
                outcome = Ended(error.exit_code)
                _say(f"mmuemu: {error}\n")
        after(machine, outcome, options)
        if report is not None:
            with report:
                import json

                json.dump(facts(machine, outcome, []), report, indent=2)
                report.write("\n")
        return int(outcome.exit_code)


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()

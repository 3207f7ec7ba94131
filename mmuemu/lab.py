"""``mmuemu lab``: list the exercises, start one, check an answer."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from mmuemu.errors import UsageError
from mmuemu.options import seconds

if TYPE_CHECKING:
    from mmuemu.labs.checking import Grade

_EPILOG: Final = """\
exit codes of `mmuemu lab`:
  0            done; check: all points
  1            check: not all points
  125          mmuemu failed, or its options are wrong
"""


def lab_options(commands: Any) -> None:
    """The parser of ``lab`` among ``commands``."""
    lab = commands.add_parser(
        "lab",
        help="exercises with a grader",
        usage="mmuemu lab list [--json]\n       mmuemu lab start [--solution] NAME [DIR]\n"
        "       mmuemu lab check [options] [DIR]",
        description="Exercises on pages, faults, protection and speculation. Start one: its question and what you "
        "begin with are put into a directory. Check it: the grader runs and gives points.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = lab.add_subparsers(dest="verb", metavar="list|start|check", required=True, prog="mmuemu lab")
    listing = verbs.add_parser("list", help="list the labs")
    listing.add_argument("--json", action="store_true", help="as JSON")
    start = verbs.add_parser("start", help="begin a lab")
    start.add_argument("--solution", action="store_true", help="put the solution there in place of the starter")
    start.add_argument("name", metavar="NAME")
    start.add_argument("dir", metavar="DIR", nargs="?", help="a new or empty directory (default: NAME)")
    check = verbs.add_parser("check", help="grade an answer")
    check.add_argument("--json", metavar="FILE", help="write the points to FILE (-: standard output, and nothing else)")
    check.add_argument("--lab", metavar="NAME", help="which lab it is (default: the one that DIR was made for)")
    check.add_argument("--reports", metavar="DIR", help="leave in DIR what failed tests saw: walks, system calls, maps")
    check.add_argument("--timeout", type=seconds, metavar="SECONDS", default=120.0, help="end after this time (120)")
    check.add_argument("dir", metavar="DIR", nargs="?", default=".", help="where the answer is (default: here)")


def lab(options: argparse.Namespace) -> int:
    """What ``options`` (of the command line) ask; the exit code. Raises UsageError."""
    return _VERBS[options.verb](options)


def _list(options: argparse.Namespace) -> int:
    from mmuemu.labs.catalogue import labs

    if options.json:
        print(json.dumps([{"name": each.name, "title": each.title} for each in labs()], indent=2))
    else:
        for each in labs():
            print(f"{each.name:<16} {each.title}")
    return 0


def _start(options: argparse.Namespace) -> int:
    from mmuemu.errors import printable
    from mmuemu.labs.catalogue import find, start

    found = find(options.name)
    folder = Path(options.dir or found.name)
    names = start(found, folder, solution=options.solution)
    print(printable(f"{folder}: {', '.join(names)}"))
    print(printable(f"Read README.md, then: mmuemu lab check {folder}"))
    return 0


def _check(options: argparse.Namespace) -> int:
    from mmuemu.labs.catalogue import find, started
    from mmuemu.labs.checking import check

    folder = Path(options.dir)
    if not folder.is_dir():
        raise UsageError(f"lab check: {folder}: no such directory")
    if options.reports is not None and os.path.exists(options.reports) and not os.path.isdir(options.reports):
        raise UsageError(f"--reports {options.reports}: not a directory")
    found = started(folder) if options.lab is None else find(options.lab)
    with ExitStack() as stack:
        file = _output(options.json, stack)
        grade = check(found, folder, options.timeout, options.reports)
        if file is not None:
            file.write(json.dumps(grade.facts(), indent=2) + "\n")
    if options.json != "-":
        _show(grade)
    return 0 if grade.passed else 1


def _output(path: str | None, stack: ExitStack) -> IO[str] | None:
    """Where ``--json`` goes, opened before the grader runs."""
    if path is None or path == "-":
        return None if path is None else sys.stdout
    try:
        return stack.enter_context(open(path, "w", encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--json {path}: {error.strerror}") from None


def _show(grade: Grade) -> None:
    from mmuemu.errors import printable

    for test in grade.tests:
        print(f"{test.points:>3} of {test.max:<3} {printable(test.title)}")
        for line in test.message.splitlines():
            print(f"           {printable(line)}")
    print(f"{grade.lab}: {grade.points} of {grade.max} points")


_VERBS: Final = {"list": _list, "start": _start, "check": _check}

__all__ = ["lab", "lab_options"]

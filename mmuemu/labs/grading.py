"""What graders are written with, a pytest plugin: the marker ``points``, the fixture ``lab``, results as they come."""

from __future__ import annotations

import inspect
import json
import os
import re
import struct
import threading
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pytest

from mmuemu.errors import BadImage
from mmuemu.labs.checking import ALIVE, ANSWER, RESULTS

if TYPE_CHECKING:
    from mmuemu.testing.programs import Program
    from mmuemu.testing.results import Result
    from mmuemu.testing.session import Guest

MOST_TEXT: Final = 1 << 20
MOST_INSTRUCTIONS: Final = 3_000_000
MOST_FILLED: Final = 1 << 20
"""Bytes that the directives of an answer may fill, all together."""
MOST_SECONDS: Final = 20
_MOST_LINES: Final = 24
_OTHER_SYNTAX: Final = re.compile(r"%(?:[re]?[abcd]x|[re]?[sd]i|[re][sb]p|r\d+)\b")
"""The assembler takes a whole source in one syntax, and the graders' frames are in Intel's."""
_FILLER: Final = re.compile(r"\.(fill|space|skip|zero|org|b?align|p2align)\b([^,;#\n]*)", re.IGNORECASE)
_OUTSIDE: Final = re.compile(r"\.(?:incbin|include|macro|purgem|altmacro|irpc?|rept|rep)\b", re.IGNORECASE)
"""What would read the host's files into a program, or could spell such a directive, or multiply without end."""


class LabAnswer:
    """The fixture ``lab``: the files of an answer, and guests made of them. What is wrong with them fails the test."""

    def __init__(self, folder: Path, guest: Guest) -> None:
        self.folder = folder
        self.guest = guest

    def text(self, name: str) -> str:
        """A file of the answer."""
        try:
            with open(self.folder / name, encoding="utf-8") as file:
                found = file.read(MOST_TEXT + 1)
        except OSError as error:
            _fail(f"{name}: {error.strerror}")
        except UnicodeDecodeError:
            _fail(f"{name} is no text file")
        if len(found) > MOST_TEXT:
            _fail(f"{name} is longer than {MOST_TEXT >> 20} MiB")
        return found

    def answers(self, name: str = "answers.txt") -> dict[str, str]:
        """``question: answer`` lines; ``#`` begins a remark."""
        found = {}
        for line in self.text(name).splitlines():
            question, colon, answer = line.partition("#")[0].partition(":")
            if colon:
                found[question.strip()] = answer.strip()
        return found

    def answer(self, question: str, name: str = "answers.txt") -> str:
        """One of them; an empty one fails the test."""
        found = self.answers(name).get(question, "")
        if not found:
            _fail(f"{name}: {question!r} has no answer yet")
        return found

    def number(self, question: str, name: str = "answers.txt") -> int:
        """One that is a number, like 12 or 0xc."""
        text = self.answer(question, name)
        try:
            return int(text, 0)
        except ValueError:
            _fail(f"{name}: {question}: {text!r} is no number")

    def program(self, name: str, frame: str = "") -> Program:
        """The answer's assembly behind the grader's ``frame``, which has the entry."""
        answer = self.text(name)
        if why := _refusal(answer):
            _fail(f"{name}: {why}")
        text = f"{frame}\n.text\n{answer}\n"
        try:
            made = self.guest.asm(text, name.removesuffix(".s"))
            made.symbols  # noqa: B018  the labels are needed for it, too
        except BadImage as error:
            _fail(f"{name} {error.why}")
        return made

    def run(self, program: Program, *args: str, **options: Any) -> Result:
        """Run it; one that does not end is stopped, and fails the test."""
        limit = options.pop("max_instructions", MOST_INSTRUCTIONS)
        result = self.guest.run(program, args, max_instructions=limit, timeout=MOST_SECONDS, **options)
        if result.limit is not None:
            after = f"{limit} instructions" if result.limit == "instructions" else f"{MOST_SECONDS} seconds"
            _fail(f"{program.name} did not end: it was stopped after {after} (does it loop for ever?)")
        return result

    def numbers(self, result: Result, function: str, count: int) -> list[int]:
        """The 64-bit numbers that a frame wrote last, what its calls of ``function`` returned."""
        if result.fault is not None:
            _fail(f"{function}() faults: {result.fault}")
        if result.exit_code or len(result.stdout) < 8 * count:
            _fail(f"{function}() does not return as it was called: {result}")
        return list(struct.unpack(f"<{count}q", result.stdout[-8 * count :]))


def _refusal(assembly: str) -> str:
    """Why the assembler is not given an answer; empty when it is."""
    if found := _OTHER_SYNTAX.search(assembly):
        return f"{found[0]}: write Intel syntax, like mov rax, 1"
    if found := _OUTSIDE.search(assembly):
        return f"{found[0]} is not for labs (no files, no macros, no repetitions)"
    filled = 0
    for line in assembly.splitlines():
        for directive in _FILLER.finditer(line.partition("#")[0]):
            try:
                count = int(directive[2].strip(), 0)
            except ValueError:
                return f"{directive[0].strip()}: write how much as a plain number"
            # .fill has elements of up to 8 bytes, .p2align an exponent.
            filled += 1 << min(count, 64) if directive[1].lower() == "p2align" else 8 * count
            if not 0 <= count <= MOST_FILLED or filled > 8 * MOST_FILLED:
                return f"{directive[0].strip()}: an answer may fill {MOST_FILLED >> 20} MiB"
    return ""


def _fail(why: str) -> NoReturn:
    pytest.fail(why, pytrace=False)


@pytest.fixture
def lab(guest: Guest) -> LabAnswer:
    """The answer that is graded."""
    return LabAnswer(Path(os.environ[ANSWER]), guest)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; end with who started this."""
    if os.environ.get(ALIVE, "").isdigit():
        threading.Thread(target=_end_with, args=(int(os.environ[ALIVE]),), name="lab", daemon=True).start()
    config.addinivalue_line("markers", "points(n): what a test of a lab is worth")


def _end_with(descriptor: int) -> None:
    os.read(descriptor, 1)
    os._exit(1)


def _write(line: dict[str, Any]) -> None:
    with open(os.environ[RESULTS], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell what will be graded, so that a test that never ends is known to be missing."""
    _write({"tests": [{"name": item.name, "title": _title(item), "max": _points(item)} for item in session.items]})


def _points(item: pytest.Item) -> int:
    marker = item.get_closest_marker("points")
    return 1 if marker is None else int(marker.args[0])


def _title(item: pytest.Item) -> str:
    """The first line of the test's docstring, with what is special about this one of several."""
    said = (inspect.getdoc(getattr(item, "obj", None)) or item.name).splitlines()[0]
    return f"{said} [{item.name.partition('[')[2]}" if "[" in item.name else said


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Write how a test ended."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    if report.when == "call" or (report.when == "setup" and not report.passed):
        message = "" if call.excinfo is None else _message(call.excinfo.value)
        _write({"name": item.name, "outcome": "passed" if report.passed else "failed", "message": message})


def _message(error: BaseException) -> str:
    """What the author of the answer is told."""
    text = str(getattr(error, "msg", None) or error)
    kind = "" if isinstance(error, (AssertionError, pytest.fail.Exception)) else f"{type(error).__name__}: "
    lines = text.partition("\nassert ")[0].splitlines() or ["it does not hold"]
    return kind + "\n".join(lines[:_MOST_LINES])


__all__ = ["LabAnswer", "lab"]

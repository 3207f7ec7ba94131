"""Run a lab's grader on a directory, in a process of its own that ends; what it came to."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mmuemu.errors import MmuemuError, UsageError
from mmuemu.labs.catalogue import Lab

JSON_VERSION: Final = 1
ANSWER: Final = "MMUEMU_LAB_ANSWER"
"""Environment of the grader: the directory with the answer."""
RESULTS: Final = "MMUEMU_LAB_RESULTS"
"""Environment of the grader: the file that it writes as it goes, JSON lines."""
ALIVE: Final = "MMUEMU_LAB_ALIVE"
"""Environment of the grader: a descriptor that ends when who started it has."""
DEFAULT_TIMEOUT: Final = 120.0
_PACKAGE: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Test:
    """One graded question: ``outcome`` is ``"passed"``, ``"failed"``, or ``"error"`` (the grader did not end it)."""

    name: str
    title: str
    points: int
    max: int
    outcome: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Grade:
    """What a check came to; ``limit`` is ``"timeout"`` when the time was up."""

    lab: str
    tests: tuple[Test, ...]
    limit: str | None = None

    @property
    def points(self) -> int:
        """Reached."""
        return sum(test.points for test in self.tests)

    @property
    def max(self) -> int:
        """To be had."""
        return sum(test.max for test in self.tests)

    @property
    def passed(self) -> bool:
        """Whether all points were reached."""
        return self.points == self.max

    def facts(self) -> dict[str, Any]:
        """For JSON (docs/howto-labs.md)."""
        tests = [{name: getattr(test, name) for name in Test.__slots__} for test in self.tests]
        return {
            "version": JSON_VERSION, "lab": self.lab, "points": self.points, "max": self.max, "passed": self.passed,
            "limit": self.limit, "tests": tests,
        }  # fmt: skip


def check(lab: Lab, folder: Path, timeout: float = DEFAULT_TIMEOUT, reports: str | None = None) -> Grade:
    """Grade ``folder``; after ``timeout`` seconds the grader is killed, and what it had not ended counts nothing.

    ``reports`` is a directory for what failing tests leave. Raises UsageError where pytest is not installed, and
    MmuemuError when the grader itself did not start.
    """
    if importlib.util.find_spec("pytest") is None:
        raise UsageError("lab check: pytest is not installed: pip install pytest")
    with tempfile.TemporaryDirectory(prefix="mmuemu-lab-") as scratch:
        work = Path(scratch)
        (work / "pytest.ini").write_text("[pytest]\n")
        results = work / "results"
        with open(work / "output", "w+b") as output:
            code = _run(_command(lab, work, reports), _environment(folder, results), work, output, timeout)
            output.seek(0)
            said = output.read().decode("utf-8", "replace")
        return _grade(lab, _lines(results), code, said, timeout)


def _command(lab: Lab, work: Path, reports: str | None) -> list[str]:
    # The options of whoever calls, his plugins, his conftest.py and his directory are kept away from the grader.
    options = [
        "-q",
        "--noconftest",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "-c",
        str(work / "pytest.ini"),
    ]
    plugins = ["-p", "mmuemu.pytest_plugin", "-p", "mmuemu.labs.grading"]
    left = os.path.abspath(reports) if reports is not None else str(work / "reports")
    places = ["--rootdir", str(work), "--basetemp", str(work / "tmp"), "--mmuemu-artifacts", left]
    return [sys.executable, "-m", "pytest", *options, *plugins, *places, str(lab.folder / "grader.py")]


def _environment(folder: Path, results: Path) -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    path = [str(_PACKAGE.parent), *filter(None, [found.get("PYTHONPATH")])]
    return {
        **found, ANSWER: str(folder.absolute()), RESULTS: str(results), "PYTHONPATH": os.pathsep.join(path),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip


def _run(command: Sequence[str], environment: Mapping[str, str], work: Path, output: Any, timeout: float) -> int | None:
    """The exit code, None when the time was up; nothing of it runs on either way."""
    # The grader ends when nobody holds the other end any more: however this process dies.
    theirs, ours = os.pipe()
    try:
        grader = subprocess.Popen(
            command, cwd=work, env={**environment, ALIVE: str(theirs)}, pass_fds=(theirs,), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    try:
        return grader.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        os.close(ours)
        # wait() has not reaped it unless it has ended: its number is still its own.
        if grader.returncode is None:
            os.killpg(grader.pid, signal.SIGKILL)
            grader.wait()


def _lines(results: Path) -> list[dict[str, Any]]:
    if not results.exists():
        return []
    found = []
    for line in results.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # it was killed while it wrote this one
            break
    return found


def _last(said: str) -> str:
    return (said.strip().splitlines() or ["no output"])[-1]


def _grade(lab: Lab, lines: list[dict[str, Any]], code: int | None, said: str, timeout: float) -> Grade:
    """Put what was to be graded and what was together."""
    if not lines:
        if code is None:
            raise MmuemuError(f"lab check: the grader of {lab.name} did not start within {timeout:g} s")
        raise MmuemuError(f"lab check: the grader of {lab.name} did not start: {_last(said)}")
    ended = {line["name"]: line for line in lines[1:]}
    if code is None:
        why = f"stopped: the time limit of {timeout:g} s was reached (does the answer loop for ever?)"
    elif code < 0:
        why = f"the grader died of {signal.Signals(-code).name}"
    else:
        why = f"the grader ended before it: {_last(said)}"
    tests = []
    for planned in lines[0]["tests"]:
        done = ended.get(planned["name"], {"outcome": "error", "message": why})
        points = planned["max"] if done["outcome"] == "passed" else 0
        tests.append(Test(planned["name"], planned["title"], points, planned["max"], done["outcome"], done["message"]))
    return Grade(lab.name, tuple(tests), "timeout" if code is None else None)


__all__ = ["ALIVE", "ANSWER", "DEFAULT_TIMEOUT", "JSON_VERSION", "RESULTS", "Grade", "Test", "check"]

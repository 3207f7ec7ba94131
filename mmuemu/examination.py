"""What ``mmuemu doctor`` looks at: packages, tools, the machine, and mmuemu itself by mmuemu.selftest."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final

from mmuemu import __version__
from mmuemu.selftest import TESTS
from mmuemu.view.checkup import BROKEN, MISSING, OK, Finding
from mmuemu.view.sheet import human

_TOOL_SECONDS: Final = 5.0
_TEST_SECONDS: Final = 30.0
_CHILD: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from mmuemu.selftest import run; run(sys.argv[2:])"
)


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution of Python's and the module by which it is found."""

    name: str
    module: str
    without: str
    needed: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """A program of the host's; ``package`` is Debian's name for what it comes in."""

    name: str
    without: str
    package: str
    version: str = "--version"


_NOTHING: Final = "nothing runs"
PACKAGES: Final = (
    Package("unicorn", "unicorn", _NOTHING, needed=True),
    Package("capstone", "capstone", "nothing is disassembled, and most commands fail", needed=True),
    Package("keystone-engine", "keystone", "no assembly source runs", needed=True),
    Package("pyelftools", "elftools", "no program is loaded", needed=True),
    Package("rich", "rich", "nothing is shown in colour, and no demo at all", needed=True),
    Package("pytest", "pytest", "there are no fixtures for tests, and no `mmuemu lab check`"),
    Package("ziglang", "ziglang", "C sources need a compiler of the system's"),
    Package("hypothesis", "hypothesis", "mmuemu's own tests do not run"),
    Package("sphinx", "sphinx", "the pages are not built as HTML"),
    Package("distributed", "distributed", "nothing is sent to a Dask cluster"),
    Package("atheris", "atheris", "a checkout's fuzz targets follow no coverage before Python 3.12"),
)
TOOLS: Final = (
    Tool("gdb", "nothing connects to -g (any other debugger that speaks gdb's protocol does)", "gdb"),
    Tool("strace", "the tests do not compare --strace with it", "strace"),
    Tool("musl-gcc", "the tests run no programs of musl", "musl-tools"),
    Tool("busybox", "the tests run no busybox", "busybox-static", "--help"),
    Tool("qemu-system-x86_64", "the tests do not compare boards with it", "qemu-system-x86"),
    Tool("qemu-x86_64", "speed is not compared with it", "qemu-user"),
)


def examine() -> list[Finding]:
    """Look at everything; takes some two seconds, longer where something hangs."""
    return [*_packages(), *_self_tests(), *_tools(), *_host()]


def _packages() -> Iterator[Finding]:
    where = f"{platform.python_version()}, {sys.executable}"
    yield Finding("packages", "Python", OK, where, needed=True)
    yield Finding("packages", "mmuemu", OK, f"{__version__}, {os.path.dirname(__file__)}", needed=True)
    for each in PACKAGES:
        state = OK if find_spec(each.module) is not None else MISSING
        found = _version_of(each.name) if state == OK else ""
        get = f"pip install {each.name}"
        yield Finding("packages", each.name, state, found, each.without, get, each.needed)


def _version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "of unknown version"


def _self_tests() -> Iterator[Finding]:
    """What mmuemu.selftest says; a test that takes its process down is broken, and the others are run without it."""
    results: dict[str, tuple[str, str]] = {}
    left = list(TESTS)
    while left:
        code, out = _ended([sys.executable, "-c", _CHILD, json.dumps(sys.path), *left], _TEST_SECONDS)
        for each in map(json.loads, filter(lambda line: line.startswith('{"name"'), out.splitlines())):
            results[each["name"]] = each["state"], each["found"]
            left.remove(each["name"])
        if left:
            results[left.pop(0)] = BROKEN, _how(code)
    for name in TESTS:
        finding = Finding("checks", name, *results[name], without=_NOTHING, needed=True)
        if name == "C compiler":
            get = "Debian's gcc and libc6-dev, or pip install 'mmuemu[cc]'"
            finding = replace(finding, without="no C source runs", get=get, needed=False)
        elif finding.state != OK:
            finding = replace(finding, get="pip install --force-reinstall mmuemu")
        yield finding


def _how(code: int | None) -> str:
    """How a process ended that should have said more."""
    if code is None:
        return f"takes more than {_TEST_SECONDS:.0f} seconds"
    return f"dies of {signal.Signals(-code).name}" if code < 0 else f"ends with exit code {code}"


def _tools() -> Iterator[Finding]:
    for each in TOOLS:
        path = shutil.which(each.name)
        state, found = MISSING, ""
        if path is not None:
            code, out = _ended([path, each.version], _TOOL_SECONDS)
            state = OK if code == 0 else BROKEN
            found = f"{path}: {out.partition(chr(10))[0] if state == OK else f'{each.version} fails'}"
        yield Finding("tools", each.name, state, found, each.without, f"Debian's {each.package}")


def _host() -> Iterator[Finding]:
    yield Finding("machine", "system", OK, f"{platform.system()} {platform.release()}, {platform.machine()}")
    yield Finding("machine", "cores", OK, str(os.cpu_count() or 1))
    yield Finding("machine", "memory", *_memory())
    state = OK if os.access("/proc/self/fd", os.R_OK) else MISSING
    yield Finding("machine", "/proc", state, "", "chmod fails in mounts with :rw")
    yield Finding("machine", "terminal", OK, _terminal())


def _terminal() -> str:
    if not sys.stdout.isatty():
        return "none: standard output is a file or a pipe"
    colour = os.environ.get("TERM", "dumb") != "dumb" and "NO_COLOR" not in os.environ
    columns = shutil.get_terminal_size().columns
    return f"{columns} columns, {sys.stdout.encoding}, {'colours' if colour else 'no colours'}"


def _memory() -> tuple[str, str]:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = (page * os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (ValueError, OSError):
        return MISSING, "its size is not told"
    return OK, f"{human(total)}, {human(free)} of it free"


def _ended(command: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """(exit code, what was printed) of ``command``; None when it did not end in time, or does not start at all.

    Nothing of it runs on.
    """
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError:
        return None, ""
    with process:
        try:
            out, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as late:
            out = late.output or b""
        code: int | None = process.returncode
        if code is None:
            # Not reaped, so its number is still its own.
            os.killpg(process.pid, signal.SIGKILL)
    return code, out.decode(errors="replace")


__all__ = ["PACKAGES", "TOOLS", "examine"]

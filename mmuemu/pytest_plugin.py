"""The pytest plugin ``mmuemu`` (entry point ``pytest11``): fixtures, the marker, options, what a failing test leaves.

Nothing else of mmuemu is imported before a test asks for a fixture of these (docs/howto-pytest.md).
PYTEST_DONT_REWRITE: it asserts nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from mmuemu.machine import Machine
    from mmuemu.testing.bare import Bare
    from mmuemu.testing.session import Guest, Session

_MARKER: Final = (
    "mmuemu(seed=, mmu=, layout=, cpu=, mitigations=, kpti=, ...): options of mmuemu.Machine for the fixtures machine, "
    "guest and bare; a list makes one test of each value"
)
_OPTIONS: Final = "_mmuemu_options"
_SESSION: Final = pytest.StashKey["Session"]()
_FOLDER: Final = pytest.StashKey[Path]()
_DRAWN: Final = pytest.StashKey[bool]()


def _seed(text: str) -> int:
    """``--mmuemu-seed``: a number, or one drawn."""
    if text == "random":
        from random import SystemRandom

        return SystemRandom().getrandbits(32)
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: give a number from 0 to 2^64 - 1, or random")
    return value


def pytest_addoption(parser: pytest.Parser) -> None:
    """The command line's options."""
    group = parser.getgroup("mmuemu", "mmuemu")
    group.addoption(
        "--mmuemu-seed", metavar="N", type=_seed, default=None,
        help="seed of machines whose test gives none (a number, or random; 1)",
    )  # fmt: skip
    group.addoption(
        "--mmuemu-artifacts", metavar="DIR", default=None,
        help="where a failing test leaves its runs as text, JSON and pages (pytest's temporary directory)",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; refuse a directory that cannot be one."""
    config.addinivalue_line("markers", _MARKER)
    folder = config.getoption("mmuemu_artifacts", None)
    if folder is not None and os.path.exists(folder) and not os.path.isdir(folder):
        raise pytest.UsageError(f"--mmuemu-artifacts {folder}: not a directory")


def _session_seed(config: pytest.Config) -> int | None:
    """The seed that was given or drawn; a worker of pytest-xdist has that of its controller."""
    given: dict[str, Any] = getattr(config, "workerinput", {})
    seed: int | None = given.get("mmuemu_seed", config.getoption("mmuemu_seed", None))
    return seed


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist starts a worker."""
    node.workerinput["mmuemu_seed"] = _session_seed(node.config)


def pytest_report_header(config: pytest.Config) -> str | None:
    """The seed, when one was given or drawn."""
    seed = _session_seed(config)
    return None if seed is None else f"mmuemu: seed {seed} (--mmuemu-seed {seed})"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test of each combination of what the marker lists."""
    markers = list(metafunc.definition.iter_markers("mmuemu"))
    if not markers or _OPTIONS not in metafunc.fixturenames:
        return
    from mmuemu.testing import options

    try:
        found = options.merged(markers)
    except ValueError as error:
        pytest.fail(str(error), pytrace=False)
    if any(isinstance(value, list) for value in found.values()):
        combined = options.combinations(found)
        metafunc.parametrize(_OPTIONS, combined, indirect=True, ids=options.ids(found, combined))


@pytest.fixture
def _mmuemu_options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The options of this test: the marker's, and the seed of the command line where the marker gives none."""
    from mmuemu.testing.options import DEFAULT_SEED, merged

    found = dict(request.param) if hasattr(request, "param") else merged(request.node.iter_markers("mmuemu"))
    if found.get("seed") is None:
        given = _session_seed(request.config)
        found["seed"] = DEFAULT_SEED if given is None else given
        request.node.stash[_DRAWN] = True
    return found


@pytest.fixture
def _mmuemu_session(
    request: pytest.FixtureRequest, _mmuemu_options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Generator[Session, None, None]:
    from mmuemu.testing.session import Session

    session = Session(_mmuemu_options)
    folder = request.config.getoption("mmuemu_artifacts")
    request.node.stash[_SESSION] = session
    request.node.stash[_FOLDER] = tmp_path_factory.getbasetemp() / "mmuemu" if folder is None else Path(folder)
    yield session
    session.close()


@pytest.fixture
def machine(_mmuemu_session: Session) -> Callable[..., Machine]:
    """Make machines: ``machine(seed=2)`` is a :class:`mmuemu.Machine` with the marker's options, closed at the end."""
    return _mmuemu_session.machine


@pytest.fixture
def guest(_mmuemu_session: Session) -> Guest:
    """Make programs (``asm``, ``c``, ``program``) and run them (``run``), each on a machine of its own."""
    from mmuemu.testing.session import Guest

    return Guest(_mmuemu_session)


@pytest.fixture
def bare(_mmuemu_session: Session) -> Bare:
    """A CPU with page tables and no kernel: ``map``, ``run``, ``boot``."""
    from mmuemu.testing.bare import Bare

    return Bare(_mmuemu_session)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """A test that fails with a guest leaves its runs, and the command that repeats it."""
    outcome = yield
    session = item.stash.get(_SESSION, None)
    if session is None:
        return
    report: pytest.TestReport = outcome.get_result()
    if report.when == "teardown":
        del item.stash[_SESSION]
    elif report.failed:
        report.sections.append(("mmuemu", _leave(item, session)))


def _leave(item: pytest.Item, session: Session) -> str:
    """Write the artifact of a failed test; what the report says of it."""
    import shlex

    from mmuemu.testing import artifacts

    file, colons, rest = str(item.nodeid).partition("::")
    here = os.path.relpath(item.config.rootpath / file, item.config.invocation_params.dir)
    command = f"python -m pytest {shlex.quote(here + colons + rest)}"
    if item.stash.get(_DRAWN, False):
        command += f" --mmuemu-seed {session.options['seed']}"
    folder = item.stash[_FOLDER]
    try:
        paths, account = artifacts.write(session, folder, str(item.nodeid), command)
    except OSError as error:
        return f"no report: {error.filename or folder}: {error.strerror}\nrepeat: {command}"
    except Exception as error:  # whatever a test did to its machine, pytest goes on
        return f"no report: {type(error).__name__}: {error}\nrepeat: {command}"
    lines = "\n".join(f"report: {path}" for path in paths)
    return f"{account}\n{lines}\nrepeat: {command}".lstrip("\n")


__all__ = ["bare", "guest", "machine"]

"""A little fuzzing of every target, always the same; what was found once; and that the harness finds what is there."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import session, targets, worker
from tests.fuzz.draw import Draw
from tests.fuzz.found import FOUND
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import TARGETS, digest, find, signature
from tests.fuzz.worker import attempt, limited

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="needs Linux programs and their compiler"
)
EXECUTIONS = {"loader": 100, "kernels": 100, "calls": 50, "gdb": 50, "saved": 12, "tables": 1_000, "texts": 400}


def must_pass(name: str, data: bytes) -> None:
    with limited():
        found = attempt(find(name), data)
    if found is not None:
        raise AssertionError(f"{name}: {signature(found)}: bytes.fromhex({data.hex()!r})") from found


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_seeds(name):
    target = find(name)
    pool = target.seeds()
    assert all(len(data) <= target.LONGEST for data in pool)
    random = Random(f"{name} 1")
    for _ in range(EXECUTIONS[name]):
        must_pass(name, mutate(random, pool, target.LONGEST))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(TARGETS)), data=st.binary(max_size=200))
def test_any_bytes(name, data):
    must_pass(name, data)


@pytest.mark.parametrize(("name", "what"), [(name, what) for name, kept in FOUND.items() for what in kept])
def test_what_was_found_once(name, what):
    must_pass(name, bytes.fromhex(FOUND[name][what]))


# The harness.

BROKEN = """
import os, time
LONGEST = 64
def seeds():
    return [b"\\0" * 20]
def forget():
    pass
def one(data):
    if data[:1] == b"\\x80":
        raise IndexError(len(data))
    if data[:1] == b"\\x81" and {death}:
        os.kill(os.getpid(), 11)
    if data[:1] == b"\\x82":
        bytearray({greed} << 20)[::4096] = b"x" * ({greed} << 8)
    while data[:1] == b"\\x83":
        pass
"""


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A target that fails in every way, for this process and its workers."""
    package = tmp_path / "package"
    package.mkdir()

    def make(**values):
        defaults = {"death": 0, "greed": 0}
        (package / "broken.py").write_text(BROKEN.format(**{**defaults, **values}))
        import tests.fuzz

        monkeypatch.setattr(tests.fuzz, "__path__", [*tests.fuzz.__path__, str(package)])
        monkeypatch.setattr(worker, "SECONDS", 1)
        sys.modules.pop("tests.fuzz.broken", None)
        return find("broken")

    yield make
    sys.modules.pop("tests.fuzz.broken", None)


def test_an_attempt_tells_what_is_wrong(broken, monkeypatch):
    target = broken(greed=worker.MEGABYTES + 300)
    with limited():
        assert attempt(target, b"") is None
        assert isinstance(attempt(target, b"\x80"), IndexError)
        assert isinstance(attempt(target, b"\x83"), targets.Slow)
        # To touch so much memory takes a slow host more than that second.
        monkeypatch.setattr(worker, "SECONDS", 30)
        assert isinstance(attempt(target, b"\x82"), targets.Greedy)
    assert signature(attempt(target, b"\x80")) == "IndexError in broken.py:one"


def test_a_finding_is_kept_once_and_made_smaller(broken, tmp_path):
    target = broken()
    trials = worker.Trials(target, worker.Desk(tmp_path / "desk"), tmp_path / "keep")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a").write_bytes(target.seeds()[0])
    with limited():
        trials(b"\x80" + bytes(30))
        trials(b"\x80" + bytes(31))
    kept = [path for path in (tmp_path / "keep").iterdir() if path.suffix == ""]
    assert [path.read_bytes() for path in kept] == [b"\x80" + bytes(30)]
    name, _, text = kept[0].with_suffix(".txt").read_text().partition("\n")
    assert name == "IndexError in broken.py:one"
    assert "raise IndexError" in text
    assert session.minimise("broken", kept[0].read_bytes(), name) == b"\x80"
    again = worker.Trials(target, worker.Desk(tmp_path / "desk"), tmp_path / "keep")
    with limited():
        again(b"\x80")
    assert len(list((tmp_path / "keep").iterdir())) == 2


def test_a_death_is_an_outcome(broken):
    broken(death=1)
    assert session.outcome("broken", b"\x81") == "signal 11"
    assert session.outcome("broken", b"\x80") == "IndexError in broken.py:one"
    assert session.outcome("broken", b"") == ""


def test_the_desk_outlives_its_writer(tmp_path):
    pid = os.fork()
    if pid == 0:
        worker.Desk(tmp_path / "desk").put(7, 9, b"the input")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert worker.Desk(tmp_path / "desk").get() == (7, 9, b"the input")


def test_mutation_is_repeatable_and_bounded():
    first, second = ([mutate(random, [bytes(30), b"abc"], 40) for _ in range(300)] for random in (Random(3), Random(3)))
    assert first == second
    assert max(map(len, first)) == 40
    assert len(set(first)) > 250


@given(st.binary(max_size=40), st.lists(st.integers(0, 9), max_size=9))
def test_a_draw_takes_every_byte_once(data, sizes):
    draw = Draw(data)
    taken = b"".join(draw.bytes(size) for size in sizes)
    assert taken == data[: sum(sizes)]
    assert draw.left == max(len(data) - sum(sizes), 0)


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *map(str, arguments)], cwd=session._TOP, capture_output=True, text=True,
        timeout=60, env={**os.environ, "PYTHONPATH": str(session._TOP)}, **options,
    )  # fmt: skip


def test_the_command(tmp_path):
    done = command("texts", "--minutes", "0.01", "--corpus", tmp_path, "--engine", "plain")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("texts: ")
    assert done.stdout.endswith("findings 0\n")
    assert {digest(data) for data in find("texts").seeds()} <= {path.name for path in (tmp_path / "texts").iterdir()}
    found = tmp_path / "input"
    found.write_bytes(b"\0{")
    assert command("texts", "--replay", found).returncode == 0
    refused = command("nothing")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr


def test_an_interruption_leaves_nothing_running(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz", "texts", "--corpus", str(tmp_path), "--engine", "plain"],
        cwd=session._TOP, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, text=True,
    )  # fmt: skip
    for _ in range(200):
        time.sleep(0.05)
        if (tmp_path / "texts.log").exists():
            break
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert out.endswith("interrupted\n")
    for _ in itertools.repeat(None, 100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the worker lives")


def test_paths_of_findings_are_in_the_report(broken, tmp_path):
    broken()
    fuzzed = session.Session("broken", tmp_path, "plain", 1, 1)
    fuzzed.keep.mkdir(parents=True)
    path = worker.store(fuzzed.keep, b"\x80" + bytes(9), "IndexError in broken.py:one", "text")
    said: list[str] = []
    assert fuzzed._smaller(path.with_suffix(".txt"), said.append) == path
    assert "--replay" in path.with_suffix(".txt").read_text()
    assert Path(f"{path}.small").read_bytes() == b"\x80"
    assert "FOUND IndexError" in said[0]

"""Machines in files: whoever resumes one does what was done before; what is no whole snapshot is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import subprocess
import sys
import zlib
from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmuemu.cpu.window import B_SSE_ROUNDING, D_FPSTT, Q_DR0, STATE_OFFSET
from mmuemu.errors import UsageError
from mmuemu.machine import Machine
from mmuemu.saving.file import MAGIC
from mmuemu.view.report.data import speculation_facts
from tests.run.harness import ENVIRONMENT, PACKAGE
from tests.run.test_snapshots import LIMIT, VARIANTS, state, to_the_end


@pytest.mark.parametrize("variant", VARIANTS)
def test_who_is_resumed_does_what_was_done_before(programs, tmp_path, variant):
    program, path = str(programs("moments")), str(tmp_path / "file")
    examples, options = VARIANTS[variant]

    @given(st.integers(1, 150_000))
    @settings(max_examples=(examples + 1) // 2)
    def check(first):
        with Machine(seed=7, memory="64M", **options) as machine:
            process = machine.spawn(program, ["moments"], {})
            machine.run(max_instructions=first)
            assume(not process.ended)
            machine.save(path)
            at_once, expected = state(machine, process), to_the_end(machine, process)
            assert expected[0].exit_code == 3
        with Machine.resume(path) as machine:
            process = machine.processes[0]
            assert state(machine, process) == at_once
            machine.save(path + "2")
            assert to_the_end(machine, process) == expected
        with Machine.resume(path + "2") as machine:
            process = machine.processes[0]
            assert to_the_end(machine, process) == expected

    check()


def test_caches_and_predictors_are_kept(programs, tmp_path):
    """One by one: that cycles come out equal afterwards says it of those that mattered."""

    def hidden(machine):
        core = machine.speculation
        return speculation_facts(core, Counter()), core.board.cycles, machine.kernel.random.getstate()

    path = str(tmp_path / "file")
    with Machine(seed=7, memory="64M", cpu="skylake") as machine:
        machine.spawn(str(programs("moments")), ["moments"], {})
        machine.run(max_instructions=4_000)
        here, before = machine.snapshot(), hidden(machine)
        machine.save(path)
        assert before[0]["caches"][0]["lines"] > 50
        assert before[0]["btb"]["used"] > 0
        machine.run(max_instructions=4_000)
        assert hidden(machine)[0] != before[0]
        machine.restore(here)
        assert hidden(machine) == before
    with Machine.resume(path) as machine:
        assert hidden(machine) == before


def mmuemu(*arguments, stdin=b"", cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "mmuemu", *map(str, arguments)],
        input=stdin, capture_output=True, timeout=120, cwd=cwd, env={**ENVIRONMENT, "PYTHONPATH": str(PACKAGE)},
    )  # fmt: skip


def test_the_command_line_saves_and_resumes_in_another_process(programs, tmp_path):
    program, file = programs("moments"), tmp_path / "moments.snapshot"
    first = mmuemu("run", "--seed", "7", "--save", file, "--at", "60000", program)
    assert first.returncode == 0
    assert b"saved to" in first.stderr
    runs = [mmuemu("resume", file) for _ in range(2)]
    assert [run.returncode for run in runs] == [3, 3]
    assert runs[0].stdout == runs[1].stdout
    lines = (first.stdout + runs[0].stdout).decode().splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [str(number) for number in range(8)]
    assert "child 9 shared 548" in lines[-1]


def test_a_system_call_can_be_the_moment_and_the_streams_are_the_new_process_s(busybox, tmp_path):
    script = "echo one; read x; echo got $x; exit 5"
    file = tmp_path / "f"
    first = mmuemu("run", "--seed", "1", "--save", file, "--at", "write", busybox, "sh", "-c", script, stdin=b"lost\n")
    assert (first.returncode, first.stdout) == (0, b"one\n")
    for word in (b"a", b"b"):
        found = mmuemu("resume", "--json", tmp_path / "j", file, stdin=word + b"\n")
        assert (found.returncode, found.stdout, found.stderr) == (5, b"got " + word + b"\n", b"")
        assert json.loads((tmp_path / "j").read_text())["exit_code"] == 5


def test_a_limit_saves_too_and_a_resumed_machine_can_be_saved_again(programs, tmp_path):
    program, one, two = programs("moments"), tmp_path / "one", tmp_path / "two"
    first = mmuemu("run", "--seed", "7", "--save", one, "--max-instructions", "50000", program)
    assert first.returncode == 124
    second = mmuemu("resume", "--save", two, "--max-instructions", "50000", one)
    assert second.returncode == 124
    third = mmuemu("resume", two)
    assert third.returncode == 3
    assert (first.stdout + second.stdout + third.stdout).count(b"\n") == 9


def test_what_cannot_be_meant_is_one_line(programs, tmp_path):
    program = programs("moments")
    for arguments in (
        ("run", "--at", "5", program),
        ("run", "--save", tmp_path / "f", program),
        ("run", "--save", tmp_path / "no" / "f", "--at", "5", program),
        ("run", "--save", tmp_path, "--at", "5", program),
        ("run", "--save", tmp_path / "f", "--at", "nosuchcall", program),
        ("run", "--save", tmp_path / "f", "--at", "0", program),
        ("resume", tmp_path / "missing"),
        ("resume", tmp_path),
        ("resume", "/dev/null"),
    ):
        found = mmuemu(*arguments)
        assert found.returncode == 125, arguments
        assert found.stderr.count(b"\n") == 1, found.stderr
        assert b"Traceback" not in found.stderr
        assert list(tmp_path.iterdir()) == []
    early = mmuemu("run", "--seed", "1", "--save", tmp_path / "f", "--at", "2000000000", "/bin/true")
    assert (early.returncode, early.stderr.count(b"\n")) == (0, 1)
    assert not (tmp_path / "f").exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small machine's file."""
    path = tmp_path_factory.mktemp("saved") / "file"
    with Machine(seed=1, memory="16M") as machine:
        machine.spawn("/bin/echo", ["echo", "hello"], {})
        machine.run(max_instructions=500)
        machine.save(str(path))
    return path


def resumed(data, path):
    path.write_bytes(data)
    with Machine.resume(str(path)) as machine:
        outcome = machine.run(max_instructions=LIMIT)
        return outcome.exit_code


def test_a_file_that_is_cut_or_changed_is_refused(saved, tmp_path):
    whole = saved.read_bytes()
    path = tmp_path / "f"
    assert resumed(whole, path) == 0

    @given(st.integers(0, len(whole) - 1), st.integers(1, 255), st.booleans())
    @settings(max_examples=60)
    def check(place, change, cut):
        data = whole[:place] if cut else whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :]
        with pytest.raises(UsageError) as refused:
            resumed(data, path)
        assert str(refused.value).startswith(f"{path}: ")

    check()
    for other in (b"", b"\x7fELF", whole + b"more", MAGIC, whole.replace(b"snapshot 1\n", b"snapshot 2\n", 1)):
        with pytest.raises(UsageError):
            resumed(other, path)


def rewritten(whole, change):
    """The file with its header changed, and a checksum that says that all is well."""
    body = zlib.decompress(whole[len(MAGIC) + 16 : -32])
    length = struct.unpack_from("<Q", body)[0]
    header = json.loads(body[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    body = struct.pack("<Q", len(text)) + text + body[8 + length :]
    packed = zlib.compress(body)
    content = MAGIC + struct.pack("<QQ", len(packed), len(body)) + packed
    return content + hashlib.sha256(content).digest()


def window(at, value):
    """The CPU's state with the 32-bit word ``at`` changed."""

    def change(header):
        state = bytearray(base64.b64decode(header["window"]))
        struct.pack_into("<I", state, STATE_OFFSET + 4 * at, value)
        header["window"] = base64.b64encode(state).decode()

    return change


CHANGES = {
    "version": lambda header: header.update(mmuemu="0.0.1"),
    "missing": lambda header: header.pop("objects"),
    "frames": lambda header: header["frames"].pop(),
    "a frame outside": lambda header: header["frames"].__setitem__(-1, 1 << 40),
    "reference": lambda header: header["objects"][0]["s"].update(kernel={"o": 10**6}),
    "foreign class": lambda header: header["objects"].append({"k": "new", "c": "subprocess:Popen", "s": {}}),
    "foreign function": lambda header: header["objects"].append({"k": "function", "c": "os:system"}),
    "foreign module": lambda header: header["objects"].append({"k": "function", "c": "mmuemu.kernel.os:system"}),
    "function of the door": lambda header: header["objects"].append({"k": "function", "c": "mmuemu.cli:main"}),
    "function that writes": lambda header: header["objects"].append(
        {"k": "function", "c": "mmuemu.saving.file:write_file"}
    ),
    "imported name": lambda header: header["objects"].append({"k": "function", "c": "mmuemu.kernel.clock:time.sleep"}),
    "module of a module": lambda header: header["objects"].append(
        {"k": "function", "c": "mmuemu.kernel.files.hostfd:os.makedirs"}
    ),
    "dunder": lambda header: header["objects"].append({"k": "function", "c": "mmuemu.kernel.clock:__builtins__.eval"}),
    "unknown kind": lambda header: header["objects"].append({"k": "pickle", "c": "x"}),
    "a long name": lambda header: header["objects"].append({"k": "A" * 9999, "c": "x"}),
    "a long value": lambda header: header["objects"].append({"k": "new", "c": "A" * 9999, "s": {}}),
    "window": lambda header: header.update(window="AAAA"),
    "x87 stack outside of the state": window(D_FPSTT, 1 << 20),
    "rounding that there is none of": window(B_SSE_ROUNDING // 4, 0x0707_0707),
    "cpu part": lambda header: header["cpu"].append([0, "uc", 1]),
    "option": lambda header: header["made"].update(nonsense=1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_forged_file_is_refused_in_one_line(saved, tmp_path, change):
    path = tmp_path / "f"
    with pytest.raises(UsageError) as refused:
        resumed(rewritten(saved.read_bytes(), CHANGES[change]), path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < len(str(path)) + 500


def test_a_pointer_into_the_host_s_memory_is_not_taken_from_a_file(saved, tmp_path):
    """The engine's break- and watchpoints stand behind the debug registers; it follows them when DR7 is written."""
    path = tmp_path / "f"
    for word in (2 * Q_DR0 + 16, 2 * Q_DR0 + 23, 2 * 691, 2 * 695):
        path.write_bytes(rewritten(saved.read_bytes(), window(word, 0x4141_4141)))
        with Machine.resume(str(path)) as machine:
            machine.kernel.cpu.window.save()
            assert not machine.kernel.cpu.window.d[word]
            assert machine.run(max_instructions=LIMIT).exit_code == 0


def test_what_a_file_cannot_hold_is_refused_by_save_and_nothing_is_written(tmp_path, saved):
    import os

    with Machine(seed=1, layout="linux") as machine:
        with pytest.raises(UsageError, match="nothing to save"):
            machine.save(str(tmp_path / "f"))
        reader, writer = os.pipe()
        try:
            machine.spawn("/bin/echo", ["echo", "x"], {}, stdout=writer)
            with pytest.raises(UsageError, match="descriptor"):
                machine.save(str(tmp_path / "f"))
            assert machine.run().exit_code == 0
            assert os.read(reader, 10) == b"x\n"
        finally:
            os.close(reader)
            os.close(writer)
    with Machine.resume(str(saved)) as machine, pytest.raises(UsageError):
        machine.save(str(tmp_path / "no" / "f"))
    assert list(tmp_path.iterdir()) == []

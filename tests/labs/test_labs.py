"""Labs: each solution has all points, each starter fewer, whatever is wrong with an answer is said and ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmuemu.errors import MmuemuError, UsageError
from mmuemu.labs.catalogue import EXERCISES, MARK, ORDER, find, start, started
from mmuemu.labs.checking import check

ROOT = Path(__file__).parents[2]
needs_proc = pytest.mark.skipif(
    not hasattr(os, "mkfifo") or not Path("/proc/self/cmdline").exists(), reason="needs FIFOs and /proc"
)


def command(*arguments, cwd=None, **environment):
    """Run ``mmuemu lab``."""
    return subprocess.run(
        [sys.executable, "-m", "mmuemu", "lab", *map(str, arguments)],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


@pytest.fixture
def begun(tmp_path):
    """Start a lab with files of ours over the starter's (or the solution's)."""

    def make(name, files=None, *, solution=False):
        folder = tmp_path / name
        start(find(name), folder, solution=solution)
        for file, text in (files or {}).items():
            (folder / file).write_text(text)
        return folder

    return make


def test_every_exercise_is_listed_and_complete():
    assert sorted(path.name for path in EXERCISES.iterdir()) == sorted(ORDER)
    for name in ORDER:
        folder = EXERCISES / name
        assert {"README.md", "grader.py", "starter", "solution"} <= {path.name for path in folder.iterdir()}
        assert (folder / "README.md").read_text().startswith("# ")
        files = [{path.name for path in (folder / kind).iterdir()} for kind in ("starter", "solution")]
        assert files[0] == files[1]


@pytest.mark.parametrize("name", ORDER)
def test_a_solution_has_all_points(begun, name):
    grade = check(find(name), begun(name, solution=True))
    assert [test for test in grade.tests if test.outcome != "passed"] == []
    assert grade.passed
    assert 5 < grade.points < 20


@pytest.mark.parametrize("name", ORDER)
def test_a_starter_has_fewer_and_does_not_crash(begun, name):
    grade = check(find(name), begun(name))
    assert not grade.passed
    assert grade.points < grade.max / 2
    assert grade.limit is None
    for test in grade.tests:
        assert test.outcome in ("passed", "failed")
        assert "Error:" not in test.message, test
        assert bool(test.message) == (test.outcome == "failed")
        assert test.points == (test.max if test.outcome == "passed" else 0)


def test_json(begun, tmp_path):
    folder = begun("nx", {"rop.s": "    .data\npayload: .quad 0\npayload_end: .quad 0\n"}, solution=True)
    told = tmp_path / "grade.json"
    ran = command("check", "--json", told, "--reports", tmp_path / "reports", folder)
    assert (ran.returncode, ran.stderr) == (1, "")
    facts = json.loads(told.read_text())
    assert set(facts) == {"version", "lab", "points", "max", "passed", "limit", "tests"}
    assert (facts["version"], facts["lab"], facts["points"], facts["max"]) == (1, "nx", 5, 8)
    assert (facts["passed"], facts["limit"]) == (False, None)
    assert all(set(test) == {"name", "title", "points", "max", "outcome", "message"} for test in facts["tests"])
    assert sum(test["points"] for test in facts["tests"]) == 5
    failed = next(test for test in facts["tests"] if test["outcome"] == "failed")
    assert failed["name"] == "test_rop"
    assert "nx: 5 of 8 points" in ran.stdout
    assert list((tmp_path / "reports").glob("*.txt"))
    ran = command("check", "--json", "-", folder)
    assert json.loads(ran.stdout) == facts


def test_an_answer_that_loops_ends_at_its_limit(begun):
    grade = check(find("read-only"), begun("read-only", {"answer.s": "protect: jmp protect\n"}, solution=True))
    looped = [test for test in grade.tests if test.outcome == "failed"]
    assert len(looped) == 3
    assert all("did not end: it was stopped after 3000000 instructions" in test.message for test in looped)
    assert grade.points == 2


def graders(folder):
    """Processes that grade ``folder``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"MMUEMU_LAB_ANSWER={folder}\0".encode() in path.read_bytes():
                found.append(path)
        except OSError:
            pass
    return found


@needs_proc
def test_the_time_limit_ends_all_of_it(begun):
    folder = begun("read-only", solution=True)
    (folder / "answer.s").unlink()
    os.mkfifo(folder / "answer.s")  # whoever opens it waits for a writer
    began = time.monotonic()
    grade = check(find("read-only"), folder, timeout=5)
    assert time.monotonic() - began < 40
    assert (grade.limit, grade.points, grade.max) == ("timeout", 0, 6)
    assert all(test.outcome == "error" for test in grade.tests)
    assert "the time limit of 5 s was reached" in grade.tests[0].message
    assert graders(folder) == []


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_who_is_killed_leaves_no_grader(begun, number):
    folder = begun("cow", solution=True)
    (folder / "answer.s").unlink()
    os.mkfifo(folder / "answer.s")
    checking = subprocess.Popen(
        [sys.executable, "-m", "mmuemu", "lab", "check", str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with open(folder / "answer.s", "w"):  # opens when the grader reads
        assert graders(folder)
        checking.send_signal(number)
        checking.wait(30)
        until = time.monotonic() + 30
        while graders(folder) and time.monotonic() < until:
            time.sleep(0.05)
        assert graders(folder) == []


def test_a_limit_before_anything_was_graded(begun):
    with pytest.raises(MmuemuError, match=r"did not start within 0\.01 s"):
        check(find("read-only"), begun("read-only"), timeout=0.01)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"answer.s": "protect:\n    movv rax, rbx\n"}, "answer.s cannot be assembled: 'movv rax, rbx': Invalid"),
        ({"answer.s": "nothing:\n    ret\n"}, "answer.s cannot be assembled"),
        ({"answer.s": "protect:\n    .zero 0x7fffffffff\n"}, ".zero 0x7fffffffff: an answer may fill 1 MiB"),
        ({"answer.s": "protect: ret\n" + ".space 1000000\n" * 9}, "an answer may fill 1 MiB"),
        ({"answer.s": "protect: ret\n.p2align 40\n"}, "an answer may fill 1 MiB"),
        ({"answer.s": "protect: ret\n.data\n.zero (0x4000000 * 64)\n"}, "write how much as a plain number"),
        ({"answer.s": "protect:\n    xor eax, eax\n    mov rax, [rax]\n"}, "it faults: #PF"),
        ({"answer.s": "protect: ret\n" + "#" * (1 << 20)}, "answer.s is longer than 1 MiB"),
        ({"answer.s": 'protect: ret\n.data\n .incbin "/etc/passwd"\n'}, ".incbin is not for labs"),
        ({"answer.s": 'protect: ret\n.irp x,incbin\n.\\x "/etc/passwd"\n.endr\n'}, ".irp is not for labs"),
        ({"answer.s": "protect:\n    mov $1, %eax\n    ret\n"}, "write Intel syntax"),
        ({"answer.s": "_start: ret\nprotect: ret\n"}, "answer.s cannot be assembled"),
    ],
    ids=[
        "syntax",
        "label",
        "giant",
        "giants",
        "power",
        "expression",
        "fault",
        "long",
        "host-file",
        "spelled",
        "syntax-of-others",
        "entry",
    ],
)
def test_bad_answers_are_told(begun, files, message):
    grade = check(find("read-only"), begun("read-only", files))
    first = grade.tests[0]
    assert (first.outcome, first.points) == ("failed", 0)
    assert message in first.message


# (lab, file, its text, points of all): other ways to do it right, and short cuts that are not meant.
PRIVATE_COW = """
share:
    mov edi, 0x10000000
    call protect
    mov edi, 0x20000000
protect:
    mov esi, 0x4000
    mov edx, 1
    mov eax, 10
    syscall
    ret
on_fault:
    mov rdi, [rsi + 16]
    and rdi, -4096
    mov r9, rdi
    and r9, 0x3fff
    lea rax, [rdi - 0x10000000]
    cmp rax, 0x4000
    jb inside
    sub rax, 0x10000000
    cmp rax, 0x4000
    jae mistake
inside:
    mov esi, 4096
    mov edx, 3
    mov r10d, 0x12          # MAP_PRIVATE | MAP_FIXED, of the file: the kernel copies
    mov r8d, 3
    mov eax, 9
    syscall
    ret
mistake:
    mov edi, 99
    mov eax, 60
    syscall
"""
BY_WRITE = """
probe:
    mov rsi, rdi
    mov edi, 1
    mov edx, 8
    mov eax, 1
    syscall
    xor ebx, ebx            # the grader's registers are its own affair
    xor r12d, r12d
    sub rax, 8
    sete al
    movzx eax, al
    ret
"""
OWN_CODE = """
    .text
mine:
    mov edi, 42
    mov eax, 60
    syscall
    .data
payload:
    .zero 64
    .quad mine
payload_end:
    .quad 0
"""
CMOV = """
lookup:
    cmp rdi, [rip + size]
    jae outside
    xor ecx, ecx
    cmp rdi, [rip + size]
    cmovae rdi, rcx
    lea rcx, [rip + array]
    movzx eax, byte ptr [rcx + rdi]
    shl eax, 6
    lea rdx, [rip + table]
    movzx eax, byte ptr [rdx + rax]
    ret
outside:
    mov rax, -1
    ret
"""
ALWAYS_83 = "spy:\n    mov eax, 83\n    ret\n"


@pytest.mark.parametrize(
    ("name", "file", "text", "points"),
    [
        ("cow", "answer.s", PRIVATE_COW, 7),
        ("kernel-boundary", "answer.s", BY_WRITE, 10),
        ("nx", "rop.s", OWN_CODE, 5),
        ("mitigations", "mask.s", CMOV, 15),
        ("mitigations", "mask.s", CMOV.replace("cmovae", "cmovb"), 11),
        ("mitigations", "mask.s", CMOV.replace("xor ecx, ecx", ".byte 0x0f, 0xae, 0xe8"), 11),
        ("flush-reload", "answer.s", ALWAYS_83, 0),
        ("meltdown", "answer.s", "leak:\n    mov rax, -1\n    ret\n", 1),
        ("spectre-v1", "answer.s", "attack:\n    mov rax, -1\n    ret\n", 0),
    ],
    ids=["private", "by-write", "own-code", "cmov", "wrong-cmov", "bytes", "guess", "silent-meltdown", "silent-v1"],
)
def test_other_answers(begun, name, file, text, points):
    grade = check(find(name), begun(name, {file: text}, solution=True))
    assert grade.points == points, [test for test in grade.tests if test.outcome != "passed"]


def test_files_that_cannot_be_read(begun):
    folder = begun("read-only", solution=True)
    (folder / "answer.s").write_bytes(b"\xff\xfe\x00")
    (folder / "answers.txt").unlink()
    messages = [test.message for test in check(find("read-only"), folder).tests]
    assert messages[0] == "answer.s is no text file"
    assert messages[-1] == "answers.txt: No such file or directory"


def test_nothing_of_an_answer_runs_on_the_host(begun, tmp_path):
    """Python files, a conftest.py, a pytest.ini in the answer's directory, and pytest's own environment."""
    trap = f"open({str(tmp_path / 'trapped')!r}, 'w')\nraise SystemExit(0)\n"
    names = ("conftest.py", "json.py", "mmuemu.py", "pytest.py", "sitecustomize.py", "grader.py", "test_x.py")
    folder = begun("read-only", dict.fromkeys(names, trap) | {"pytest.ini": "[pytest]\naddopts = --no\n"})
    plain = command("check", "--json", "-", cwd=tmp_path, PYTEST_ADDOPTS="--nothing", PYTEST_PLUGINS="none")
    assert plain.returncode == 125  # tmp_path itself is no lab
    ran = command("check", "--json", "-", folder, cwd=tmp_path, PYTEST_ADDOPTS="--nothing", PYTEST_PLUGINS="none")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert json.loads(ran.stdout)["points"] == 0
    assert not (tmp_path / "trapped").exists()


def test_list_and_start(tmp_path):
    listed = command("list")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(ORDER)
    assert [lab["name"] for lab in json.loads(command("list", "--json").stdout)] == list(ORDER)
    begun = command("start", "cow", cwd=tmp_path)
    assert (begun.returncode, begun.stderr) == (0, "")
    assert sorted(os.listdir(tmp_path / "cow")) == sorted([MARK, "README.md", "answer.s"])
    assert started(tmp_path / "cow").name == "cow"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["start", "cows"], "no lab 'cows': choose from page-walk, "),
        (["start", "cow", "full"], "full is not empty"),
        (["start", "cow", "full/file/x"], "full/file/x: Not a directory"),
        (["check", "full"], "full is no lab: make one with mmuemu lab start"),
        (["check", "none"], "none: no such directory"),
        (["check", "--lab", "cows", "full"], "no lab 'cows'"),
        (["check", "--lab", "cow", "--json", "none/x", "full"], "--json none/x: No such file or directory"),
        (["check", "--lab", "cow", "--reports", "full/file", "full"], "--reports full/file: not a directory"),
        (["check", "--timeout", "0", "full"], "not a positive number of seconds"),
        (["check", "marked"], "names no lab: '../cow'"),
        (["mend"], "invalid choice: 'mend'"),
        ([], "arguments are required"),
    ],
    ids=lambda value: "-".join(value).replace("/", "_") if isinstance(value, list) else "",
)
def test_bad_use(tmp_path, arguments, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    (tmp_path / "marked").mkdir()
    (tmp_path / "marked" / MARK).write_text("../cow\n")
    ran = command(*arguments, cwd=tmp_path)
    assert ran.returncode == 125
    assert message in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stdout == ""


def test_without_pytest(begun, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install pytest"):
        check(find("cow"), begun("cow"))


def test_a_directory_without_a_mark_can_be_graded(begun):
    folder = begun("fault", solution=True)
    (folder / MARK).unlink()
    ran = command("check", "--lab", "fault", folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == "fault: 10 of 10 points"
    shutil.rmtree(folder)

"""Sweeps as they are run: grading, going on after Ctrl-C and kill -9, attacks, labs; the same results each time."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mmuemu.cli import main
from mmuemu.demonstrator import Request, demonstrate
from mmuemu.labs.catalogue import find, start
from mmuemu.sweep.cells import DONE, ERROR, IMPOSSIBLE
from mmuemu.sweep.plan import Plan, read_plan
from mmuemu.sweep.run import build_source, run_here
from tests.sweep.submissions import WRONG, matrix, write

TIMES = {"cpu_seconds", "wall_seconds"}


def rows(path: Path) -> list[dict[str, Any]]:
    """The results so far, in the order they came."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM cells ORDER BY rowid")]
    except sqlite3.OperationalError:
        return []
    finally:
        database.close()


def sweep(*arguments: object) -> int:
    return main(["sweep", *map(str, arguments)])


def test_thirty_submissions_are_graded(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    right = write(tmp_path, 30)
    file = matrix(tmp_path / "grade.json")
    assert sweep(file, "--csv", "points.csv", "--report", "page.html") == 1
    with open("points.csv") as points:
        graded = list(csv.DictReader(points))
    assert {row["submission"]: row["points"] == "2" for row in graded} == right
    assert sum(right.values()) == 22
    why = {row["submission"]: row["why"] for row in graded if row["points"] == "0"}
    assert why["s003.s"] == 'standard output is not the expected one: 2 bytes, "7\\n"'
    assert why["s005.s"] == "exit code 3, not 0"
    assert why["s008.s"] == "killed by SIGSEGV, not 0"
    assert why["s011.s"] == "stopped by the limit of instructions"
    assert why["s015.s"] == "cannot be assembled: 'mov rax': Invalid operand"
    told = capsys.readouterr()
    assert told.out.startswith("30 of 30 cells in grade.sqlite: ")
    assert told.err == ""
    page = Path("page.html").read_text()
    assert page.index("Failures") < page.index("Points") < page.index("Entropy") < page.index("Results")
    before = rows(tmp_path / "grade.sqlite")
    _repeat(told.out, before)
    # Again: everything is there.
    assert sweep(file, "--json") == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["cells"] == 30
    assert facts["missing"] == 0
    assert facts["as_expected"] == sum(right.values())
    assert {row["program"] for row in facts["submissions"]} == set(right)
    assert rows(tmp_path / "grade.sqlite") == before


def _repeat(told: str, found: list[dict[str, Any]]) -> None:
    """One of the commands that the text shows does what the cell did."""
    line = next(line.strip() for line in told.splitlines() if "s008" in line and "mmuemu run" in line)
    command = line.replace("mmuemu", f"{sys.executable} -m mmuemu", 1)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, env=environment)
    row = next(row for row in found if row["program"] == "s008.s")
    assert (done.returncode, done.stdout) == (row["exit_code"], row["stdout"]) == (139, b"4\n")


def _mixed(folder: Path) -> Plan:
    write(folder, 9)
    (folder / "echo.s").write_text(
        "_start: xor eax, eax\n xor edi, edi\n mov rsi, rsp\n mov edx, 16\n syscall\n mov edx, eax\n mov eax, 1\n"
        " mov edi, 2\n syscall\n rdtsc\n mov edi, esp\n mov eax, 60\n syscall\n"
    )
    programs = [{"path": ["s003.s", "s002", "s008.s"]}, {"path": "echo.s", "args": ["a"], "stdin": "input\n"}]
    return read_plan(
        matrix(
            folder / "m.json", programs, seeds=[1, 9], layouts=["linux", "windows-x64"], engines=["python", "native"]
        )
    )


def test_a_worker_that_ran_other_cells_gives_the_same_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = _mixed(tmp_path)
    built = {}
    for cell in plan.cells:
        if cell.program.path.endswith(".s") and cell.program.path not in built:
            built[cell.program.path] = str(tmp_path / f"built{len(built)}")
            assert build_source(cell.program.path, built[cell.program.path]) == ""

    def all_of(order: list[int]) -> dict[str, dict[str, Any]]:
        cells = [plan.cells[at] for at in order]
        found = {cell.key: run_here(cell, built.get(cell.program.path)) for cell in cells}
        return {key: {name: v for name, v in row.items() if name not in TIMES} for key, row in found.items()}

    order = list(range(len(plan.cells)))
    first = all_of(order)
    random.Random(1).shuffle(order)
    assert all_of(order) == first
    echoed = [first[cell.key] for cell in plan.cells if cell.program.name == "echo.s"]
    assert {row["stderr"] for row in echoed} == {b"input\n"}
    assert len({row["exit_code"] for row in echoed}) > 1  # by seed: it is of the stack's address
    # And processes of their own: a pool's.
    sweep(tmp_path / "m.json")
    for row in rows(tmp_path / "m.sqlite"):
        same = {name: first[row["key"]].get(name) for name in row if name in first[row["key"]]}
        assert same == {name: row[name] for name in same}


def _wait_for(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 50
    while not path.exists() or len(rows(path)) < count:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ctrl_c_and_kill_lose_nothing_that_was_recorded(tmp_path):
    spin = "_start: mov ecx, 3000000\nagain: dec ecx\n jnz again\n mov eax, 60\n xor edi, edi\n syscall\n"
    (tmp_path / "spin.s").write_text(spin)
    file = matrix(tmp_path / "m.json", [{"path": "spin.s", "expect": {"exit": 0}}], seeds={"count": 20},
                  limits={"max_instructions": None}, jobs=1)  # fmt: skip
    out = tmp_path / "r.sqlite"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def started() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mmuemu", "sweep", file, "--out", str(out)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    running = started()
    _wait_for(out, 2, running)
    os.killpg(running.pid, signal.SIGINT)
    said = running.communicate(timeout=50)
    first = rows(out)
    assert (running.returncode, said[0]) == (130, "")
    assert said[1] == f"mmuemu: stopped: {len(first)} of 20 cells are in {out}; the same command goes on\n"
    assert 2 <= len(first) < 20
    running = started()
    _wait_for(out, len(first) + 2, running)
    second = rows(out)
    running.kill()
    running.communicate(timeout=50)
    third = rows(out)
    assert third[: len(second)] == second
    assert second[: len(first)] == first
    assert sweep(file, "--out", out) == 0
    last = rows(out)
    assert last[: len(third)] == third
    assert sorted(int(row["seed"]) for row in last) == list(range(1, 21))
    assert not [name for name in os.listdir(tmp_path) if name.startswith("r.sqlite-")]


def test_only_what_failed_is_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, 2)
    file = matrix(tmp_path / "m.json", jobs=1)
    assert sweep(file) == 0
    database = sqlite3.connect("m.sqlite")
    database.execute("UPDATE cells SET state = 'lost', matches = 0, wall_seconds = -1 WHERE program = 's001.s'")
    database.execute("UPDATE cells SET wall_seconds = -1 WHERE program = 's000.s'")
    database.commit()
    database.close()
    assert sweep(file) == 1
    assert sweep(file, "--retry-failed") == 0
    assert {row["program"]: row["wall_seconds"] == -1 for row in rows(tmp_path / "m.sqlite")} == {
        "s000.s": True, "s001.s": False
    }  # fmt: skip
    # What changed is another matrix.
    (tmp_path / "s001.s").write_text((tmp_path / "s000.s").read_text())
    capsys.readouterr()
    assert sweep(file) == 125
    assert "holds another matrix: programs (s001.s)" in capsys.readouterr().err
    assert sweep(file, "--extend") == 0
    assert len(rows(tmp_path / "m.sqlite")) == 3


def test_attacks_by_cpu_and_mitigation(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    programs = [{"attack": "meltdown", "bytes": 1, "tries": 1}]
    file = matrix(tmp_path / "m.json", programs, cpus=["skylake", "none"], mitigations=["off", "kpti", "eibrs"],
                  jobs=1)  # fmt: skip
    assert sweep(file, "--json", "--report", "page.html") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["states"] == {"done": 2, "error": 0, "lost": 0, "impossible": 4}
    assert {(row["mitigations"], row["rate"]) for row in facts["leaks"]} == {("off", 1.0), ("kpti", 0.0)}
    for row in rows(tmp_path / "m.sqlite"):
        if row["state"] != IMPOSSIBLE:
            shown = demonstrate(Request("meltdown", "skylake", row["mitigations"], size=1, seed=1, tries=1))
            assert (row["leaked"], row["cause"], row["instructions"]) == (
                sum(shown.right), shown.cause, shown.instructions
            )  # fmt: skip
    assert "Leak rate of meltdown" in Path("page.html").read_text()


def test_answers_to_a_lab(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start(find("page-walk"), tmp_path / "ada", solution=True)
    file = matrix(tmp_path / "m.json", [{"lab": "page-walk", "path": "ada"}], jobs=1)
    assert sweep(file, "--csv", "points.csv") == 0
    with open("points.csv") as points:
        (ada,) = csv.DictReader(points)
    assert ada["points"] == ada["max"]
    assert int(ada["max"]) > 1


def test_output_without_end_is_counted_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flood.s").write_text(
        "_start: mov ebx, 200\nagain: mov eax, 1\n mov edi, 1\n mov rsi, 0x401000\n mov edx, 64\n syscall\n"
        " dec ebx\n jnz again\n mov eax, 60\n xor edi, edi\n syscall\n"
    )
    (tmp_path / "none.bin").write_bytes(b"\x7fELF nothing")
    file = matrix(tmp_path / "m.json", [{"path": ["flood.s", "none.bin"]}], limits={"output": 10})
    plan = read_plan(file)
    assert build_source(plan.cells[0].program.path, str(tmp_path / "built")) == ""
    flood, none = run_here(plan.cells[0], str(tmp_path / "built")), run_here(plan.cells[1], None)
    assert (flood["state"], flood["stdout_bytes"], len(flood["stdout"])) == (DONE, 200 * 64, 10)
    assert (none["state"], none["exit_code"]) == (ERROR, 126)
    (tmp_path / "none.bin").write_bytes(b"another")
    from mmuemu.sweep.run import material_of

    material_of.cache_clear()
    assert "has changed since" in run_here(plan.cells[1], None)["error"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["none.json"], "sweep none.json: No such file"),
        (["m.json", "--out", "no/r"], "--out no/r: No such file"),
        (["m.json", "--report", "no/r"], "--report no/r: No such file"),
    ],
)
def test_bad_use_is_one_line(arguments, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, 1)
    matrix(tmp_path / "m.json")
    assert sweep(*arguments) == 125
    told = capsys.readouterr()
    assert told.err.startswith(f"mmuemu: {why}")
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_the_submissions_are_wrong_in_every_way():
    assert set(WRONG.values()) == {"digit", "code", "fault", "loop", "syntax"}

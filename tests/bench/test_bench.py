"""``mmuemu bench``: who is right, who is wrong, who does not end, and what is made of the figures."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mmuemu.bench import contestants, figures, goals, plot, table
from mmuemu.bench.building import build
from mmuemu.bench.contestants import Contestant
from mmuemu.bench.figures import Measurement, Result, Row
from mmuemu.bench.measuring import Plan, measure
from mmuemu.bench.page import page
from mmuemu.bench.running import Run, run
from mmuemu.bench.workloads import WORKLOADS, chosen
from mmuemu.errors import UsageError

PACKAGE = Path(__file__).resolve().parents[2]
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guests")
    build(WORKLOADS, folder)
    return folder


def test_every_guest_is_used():
    sources = {path.stem for path in (PACKAGE / "mmuemu" / "bench" / "guests").glob("*.c")}
    assert sources == {workload.source for workload in WORKLOADS if workload.source}


@needs_gcc
@pytest.mark.parametrize("name", [each.name for each in WORKLOADS if each.bare == "program"])
def test_the_bare_script_agrees_with_the_host(name, programs):
    [workload] = chosen([name])
    bare = Contestant("bare", (sys.executable,), "")
    count = min(workload.count, workload.base + 2)
    host = subprocess.run([programs / workload.source, str(count)], capture_output=True, check=True).stdout
    assert run(bare.run(workload, count, programs), bare.environment(), host, 60).status == "ok"


@needs_gcc
@pytest.mark.parametrize("name", ["cow", "execve", "handoffs", "protect", "off"])
def test_an_engine_agrees_with_the_host(name, programs):
    [workload] = chosen([name])
    [engine] = contestants.engines(["native"])
    words = [word.format(count=3, self=programs / workload.source) for word in workload.arguments]
    host = subprocess.run([programs / workload.source, *words], capture_output=True, check=True).stdout
    assert run(engine.run(workload, 3, programs), engine.environment(), host, 60).status == "ok"


@needs_gcc
@pytest.mark.parametrize("name", ["page-fault", "invalid-opcode", "int", "restore", "snapshot", "windows"])
def test_a_probe_counts_what_it_did(name, programs):
    [workload] = chosen([name])
    [engine] = contestants.engines(["python"])
    found = run(engine.run(workload, 40, programs), engine.environment(), None, 60)
    assert found.status == "ok", found.why
    # Of forty bits that nobody can know a predictor gets about half.
    assert found.units == 40 if name != "windows" else 5 < found.units < 60


@pytest.mark.parametrize("kind", ["pf", "ud", "int"])
def test_the_bare_script_sees_each_exception(kind):
    [workload] = [each for each in WORKLOADS if each.probe == kind]
    bare = Contestant("bare", (sys.executable,), "")
    assert run(bare.run(workload, 7, Path("/")), bare.environment(), None, 60).units == 7


def shell(text: str, expected: bytes | None = b"right\n", limit: float = 20) -> Run:
    return run(["/bin/sh", "-c", text], os.environ, expected, limit)


@pytest.mark.parametrize(
    ("text", "status", "why"),
    [
        ("echo right", "ok", ""),
        ("echo left", "wrong", "says 'left\\n'"),
        ("echo right; echo no such call >&2; exit 3", "wrong", "exit code 3: no such call"),
        ("echo right; kill -SEGV $$", "wrong", "SIGSEGV"),
        ("", "wrong", "says nothing"),
    ],
)
def test_a_run_is_judged_by_output_and_exit_code(text, status, why):
    found = shell(text)
    assert (found.status, found.why) == (status, why)


def test_what_does_not_start_is_wrong():
    assert run(["/nowhere/emulator"], os.environ, b"", 5).why == "does not start: No such file or directory"


def gone(path: Path) -> bool:
    """Whether the process whose number is in ``path`` is no more, or soon."""
    for _ in range(100):
        try:
            if Path(f"/proc/{path.read_text().strip()}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_who_does_not_end_is_ended_with_all_its_children(tmp_path):
    found = shell(f"sleep 1000 & echo $! >{tmp_path}/child; wait", limit=0.5)
    assert (found.status, found.why) == ("timeout", "not done within 0.5 s")
    assert gone(tmp_path / "child")


def test_a_child_left_behind_is_ended(tmp_path):
    assert shell(f"sleep 1000 & echo $! >{tmp_path}/child; echo right").status == "ok"
    assert gone(tmp_path / "child")


def test_time_of_children_counts():
    spent = shell("sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; echo right").cpu
    assert spent > shell("echo right").cpu + 0.02


def peer(tmp_path: Path, name: str, text: str) -> Contestant:
    script = tmp_path / name
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    return Contestant(name, (str(script),), "1")


@needs_gcc
def test_a_row_has_the_right_and_the_wrong_ones(programs, tmp_path):
    [workload] = chosen(["syscalls"])
    # A program that takes its time for each of its calls, one that lies once, and one that answers nothing in time.
    slow = peer(tmp_path, "slow", 'i=0; while [ $i -lt "$2" ]; do i=$((i+1)); done; "$@"')
    liar = peer(tmp_path, "liar", f'"$@"; test "$2" = 0 || {{ echo >>{tmp_path}/lies; echo more; }}')
    stuck = peer(tmp_path, "stuck", "sleep 60")
    row = measure(Plan(programs, 2, 2, False), workload, [slow, liar, stuck])
    assert {name: found.status for name, found in row.results.items()} == {
        "slow": "ok", "liar": "wrong", "stuck": "timeout",
    }  # fmt: skip
    assert row.figure("slow") == row.results["slow"].unit > 0
    assert {part: len(group) for part, group in row.results["slow"].runs.items()} == {"full": 2, "base": 2}
    assert (tmp_path / "lies").read_text() == "\n", "who was wrong is not run again"
    assert row.fastest() == "slow"


def test_a_unit_is_what_lies_between_the_two_counts():
    full, base = [Run(cpu, 10, 30) for cpu in (5.0, 1.2, 1.0)], [Run(cpu, 20, 10) for cpu in (0.2, 0.3, 0.1)]
    assert figures.result({"full": full, "base": base}, 10).unit == pytest.approx(0.1)
    assert figures.result({"full": full, "base": base}, None).unit == pytest.approx(0.05), "as the probe counted"
    assert figures.result({"full": base, "base": full}, 10).unit is None, "lost in noise"
    both = figures.result({"full": full, "base": base, "plain": full, "plain base": full}, 10)
    assert both.ratio is None
    assert figures.result({"full": full}, 0).cpu == 1.2


def test_a_ratio_is_of_rounds_not_of_figures():
    # The machine is three times as slow in every other round, and the two were not hit alike: their medians differ.
    mine, yours = [1.0, 3.0, 1.0, 3.0, 3.0], [1.0, 3.0, 1.0, 3.0, 1.0]
    runs = [{"full": [Run(cpu + 0.5, 0, 0) for cpu in cpus], "base": [Run(0.5, 0, 0)] * 5} for cpus in (mine, yours)]
    row = Row("x", "one of x", True, {"mine": figures.result(runs[0], 10), "yours": figures.result(runs[1], 10)})
    assert (row.figure("mine"), row.figure("yours")) == (pytest.approx(0.3), pytest.approx(0.1))
    assert row.ratio("mine", "yours") == pytest.approx(1)
    whole = Row("x", "x", False, {"mine": figures.result({"full": runs[0]["full"]}, None)})
    assert whole.results["mine"].rounds() == [1.5, 3.5, 1.5, 3.5, 3.5]


def test_a_ratio_to_what_was_lost_in_noise_is_none():
    found = {"full": [Run(cpu, 0, 0) for cpu in (1.0, 0.9, 2.0)], "base": [Run(1.0, 0, 0)] * 3}
    row = Row("x", "one of x", True, {"mine": result(1), "yours": figures.result(found, 1)})
    assert row.figure("yours") is None
    assert row.ratio("mine", "yours") is None


def result(unit: float) -> Result:
    """Of a contestant that starts up in a tenth of a second."""
    return Result(cpu=unit + 0.1, unit=unit, units=1, runs={"full": [unit + 0.1] * 3, "base": [0.1] * 3})


def sample() -> Measurement:
    """Figures of three contestants."""
    found = Measurement(
        {"cpu": "a <CPU> | that is"}, {"python": "1", "bare": "2", "qiling": "3"}, {"blink": "a"}, 3, False
    )

    def row(name: str, **units: float | str) -> None:
        results = {
            who: Result("wrong", "says <nothing>") if isinstance(unit, str) else result(unit)
            for who, unit in units.items()
        }
        found.rows.append(Row(name, f"one of {name}", True, results))

    row("syscalls", python=2e-6, bare=1e-6, qiling=11e-6)
    row("fork", python=3e-4, qiling=9e-4)
    row("signals", python=1e-5, qiling="wrong")
    row("sha256", python=1.04, bare=1.0, qiling=1.2)
    row("mandelbrot", python=1.06, bare=1.0)
    return found


def test_goals_go_by_the_figures():
    met = {goal.text: goal.met for goal in goals.goals(sample())}
    assert met == {
        "start-up: 1.5 times as fast as Qiling": None,
        "syscalls: 5 times as fast as Qiling": True,
        "fork: 4 times as fast as Qiling": False,
        "execve: 2 times as fast as Qiling": None,
        "ahead of Qiling wherever it completes, as runs": True,
        "correct where Qiling is wrong or does not finish": True,
        "sha256: within 5 % of bare Unicorn": True,
        "mandelbrot: within 5 % of bare Unicorn": False,
    }


def test_goals_need_us_to_be_right():
    found = sample()
    found.row("signals").results["python"] = Result("wrong")
    found.row("sha256").results["python"] = result(1.3)
    texts = {goal.text: goal for goal in goals.goals(found)}
    assert texts["correct where Qiling is wrong or does not finish"].met is False
    assert texts["ahead of Qiling wherever it completes, as runs"].met is False
    assert (
        "sha256, python: 0.93x (0.92x a unit), of 3 workloads"
        in texts["ahead of Qiling wherever it completes, as runs"].figures
    )
    assert found.failed()


def test_the_table_shows_who_was_wrong():
    text = "".join(part if isinstance(part, str) else part.text() for part in table.parts(sample()))
    assert "syscalls    2.00 us  1.00 us  11.0 us        2.00x        2.00x" in text
    assert "signals     10.0 us        -    wrong            -            -" in text
    assert "signals, qiling: wrong: says <nothing>" in text
    assert "not here: blink (a)" in text


def test_what_json_holds_can_be_read_again(tmp_path):
    file = tmp_path / "figures"
    file.write_text(json.dumps(sample().as_json()))
    assert figures.read(str(file)).as_json() == sample().as_json()


def test_the_figure_has_a_mark_for_each_figure():
    root = ElementTree.fromstring(plot.draw(sample()))
    marks = [node.text for node in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(marks) == 11
    assert "qiling: 11.0 us" in marks


def test_the_page_says_all(tmp_path):
    text = page(sample(), "figure.svg")
    assert "| cpu | a &lt;CPU> \\| that is |" in text
    assert "(figure.svg)" in text
    assert "| signals | 10.0 us | - | wrong | - | - |" in text
    assert "- signals, qiling: wrong: says &lt;nothing>" in text
    assert "| fork: 4 times as fast as Qiling | not met | python 3.00x |" in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nonesuch"], "unknown workload 'nonesuch'"),
        (["--engines", "fast"], "--engines: unknown engine 'fast'"),
        (["--peers", "bochs"], "--peers: unknown peer 'bochs'"),
        (["--peer", "bochs"], "--peer bochs: write NAME=PATH"),
        (["--peer", "python=/bin/true"], "write NAME=PATH"),
        (["--peer", "bochs=/nowhere"], "/nowhere is no program"),
        (["--peer", "qiling=/bin/false"], "--peer qiling=/bin/false: not a Python that has qiling"),
        (["--json", "/nowhere/x", "start-up"], "--json /nowhere/x: No such file or directory"),
        (["--page", "x.svg", "start-up"], "--page x.svg: write a name for Markdown"),
        (["--from", "/nowhere/x"], "--from /nowhere/x: No such file or directory"),
        (["--from", __file__], "no JSON"),
        (["--rounds", "0"], "--rounds"),
    ],
)
def test_bad_use_is_one_line_and_125(arguments, complaint, capsys, monkeypatch, tmp_path):
    from mmuemu.cli import main

    monkeypatch.chdir(tmp_path)

    try:
        code = main(["bench", *arguments])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 125
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("unit", value) for value in (-1, float("nan"), float("inf"), 10**400, "1", True)),
        *(("units", value) for value in (None, 1.5, 10**400, True)),
    ],
)
def test_a_time_or_a_count_that_is_none_is_refused(key, value, tmp_path):
    file = tmp_path / "figures"
    facts = sample().as_json()
    facts["workloads"][0]["results"]["bare"][key] = value
    file.write_text(json.dumps(facts))
    with pytest.raises(UsageError, match="damaged"):
        figures.read(str(file))


@pytest.mark.parametrize("runs", [{}, {"full": [1.0]}, {"full": [1.0], "base": []}, {"full": [0.0], "base": [0.0]}])
def test_runs_that_are_missing_make_no_ratio(runs, tmp_path, capsys):
    from mmuemu.cli import main

    file = tmp_path / "figures"
    facts = sample().as_json()
    facts["workloads"][0]["results"]["bare"]["runs"] = runs
    file.write_text(json.dumps(facts))
    assert main(["bench", "--from", str(file), "syscalls"]) == 0
    assert re.search(r"syscalls .*1.00 us .* - +", capsys.readouterr().out)


@pytest.mark.parametrize(
    "change", [{"version": 9}, {"rounds": "x"}, {"workloads": [1]}, {"machine": None}, {"quick": 1}]
)
def test_a_damaged_file_is_refused(change, tmp_path):
    file = tmp_path / "figures"
    file.write_text(json.dumps({**sample().as_json(), **change}))
    with pytest.raises(UsageError):
        figures.read(str(file))


def test_a_file_may_be_written_over_itself(tmp_path, capsys):
    from mmuemu.cli import main

    file = tmp_path / "figures"
    file.write_text(json.dumps(sample().as_json()))
    page = tmp_path / "page.md"
    assert main(["bench", "--from", str(file), "--json", str(file), "--page", str(page), "fork"]) == 0
    assert [row["name"] for row in json.loads(file.read_text())["workloads"]] == ["fork"]
    assert "signals" not in capsys.readouterr().out
    assert "(page.svg)" in page.read_text()
    assert (tmp_path / "page.svg").read_text() == plot.draw(figures.read(str(file)))


@needs_gcc
def test_without_a_static_library_threads_are_left_out(monkeypatch, capsys, tmp_path):
    from mmuemu.cli import main

    wrapper = peer(tmp_path, "cc", 'for word in "$@"; do test "$word" = -pthread && exit 7; done; exec gcc "$@"')
    monkeypatch.setattr("mmuemu.bench.building.compiler", lambda: list(wrapper.command))
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert main(["bench", "--quick", "--engines", "native", "--no-peers", "start-up", "handoffs"]) == 0
    out = capsys.readouterr().out
    assert "\nstart-up " in out
    assert "left out: handoffs (exit code 7)" in out


def test_without_a_compiler_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("mmuemu.bench.building.compiler", lambda: None)
    with pytest.raises(UsageError, match="no C compiler for x86-64 Linux: install gcc"):
        build(WORKLOADS, tmp_path)


@needs_gcc
def test_a_signal_shows_what_was_complete_and_leaves_nothing(tmp_path):
    hang = f"echo $$ >{tmp_path}/child; exec sleep 1000"
    script = peer(tmp_path, "stuck", f'case "$1" in *syscalls) {hang};; *) exec "$@";; esac')
    words = ["--quick", "--engines", "native", "--peers", "stuck", "--peer", f"stuck={script.command[0]}"]
    words += ["--json", str(tmp_path / "json"), "start-up", "syscalls"]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    process = subprocess.Popen(
        [sys.executable, "-m", "mmuemu", "bench", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "child").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "")
    assert "\nstart-up " in out
    assert "syscalls" not in out
    assert "stopped: what is shown was complete" in out
    assert json.loads((tmp_path / "json").read_text())["interrupted"] is True
    assert gone(tmp_path / "child")


@needs_gcc
def test_a_wrong_engine_is_exit_code_1(monkeypatch, capsys):
    from mmuemu.cli import main

    engine = Contestant("native", (shutil.which("true"),), "1")
    monkeypatch.setattr(contestants, "engines", lambda _: [engine])
    assert main(["bench", "--quick", "--no-peers", "start-up"]) == 1
    assert "start-up, native: wrong: says nothing" in capsys.readouterr().out

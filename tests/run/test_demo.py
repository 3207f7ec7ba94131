"""``mmuemu demo`` as a command: what it prints and writes, exit codes, bad options, the matrix."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mmuemu.guest.attacks import ATTACKS
from tests.run.harness import emulator_environment

FIELDS = {
    "attack", "cpu", "mitigations", "secret_hex", "leaked_hex", "accuracy", "bytes_per_second", "cycles_per_byte",
    "cause", "version", "seed", "flaws", "instructions", "windows", "exit_code", "histogram",
}  # fmt: skip
SHORT = ("--bytes", "1", "--seed", "1")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mmuemu", *arguments]


def demo(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**emulator_environment(), "COLUMNS": "100", **more}
    return subprocess.run([*command("demo"), *arguments], capture_output=True, text=True, timeout=120, env=environment)


def test_it_lists_the_attacks():
    done = demo()
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(ATTACKS)
    assert max(map(len, done.stdout.splitlines())) < 120


def test_one_attack_in_words_as_json_and_as_a_page(tmp_path):
    facts, page = tmp_path / "facts.json", tmp_path / "page.html"
    done = demo("meltdown", *SHORT, "--json", str(facts), "--report", str(page))
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(facts.read_text())
    assert set(found) >= FIELDS
    assert (found["attack"], found["cpu"], found["mitigations"]) == ("meltdown", "skylake", "off")
    assert (found["cause"], found["accuracy"], found["exit_code"]) == ("meltdown", 1.0, 0)
    assert found["leaked_hex"] == found["secret_hex"] != ""
    assert found["bytes_per_second"] > 0
    assert found["cycles_per_byte"] > 1000
    assert sum(count for _, count in found["histogram"]) == 256 * found["attempts"]
    hit, threshold = min(cycles for cycles, _ in found["histogram"]), found["threshold"]
    assert hit < threshold < max(cycles for cycles, _ in found["histogram"])
    assert found["secret_hex"] in done.stdout
    assert "ring 0 only" in done.stdout
    assert re.search(r"cause +meltdown: ", done.stdout)
    assert done.stdout.endswith("meltdown: all 1 bytes leaked\n")
    assert "\x1b" not in done.stdout
    text = page.read_text()
    assert "http" not in text
    assert "<script" not in text
    assert "prefers-color-scheme" in text
    assert _tags_match(text)


def _tags_match(text: str) -> bool:
    open_tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta",):
                open_tags.append(tag)

        def handle_startendtag(self, tag, attrs):
            pass

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Reader().feed(text)
    return not open_tags


def test_what_does_not_leak_exits_with_1_and_says_why(tmp_path):
    facts = tmp_path / "facts.json"
    done = demo("meltdown", *SHORT, "--cpu", "zen2", "--json", str(facts))
    assert done.returncode == 1
    assert "nothing leaked: zen2 does not have meltdown here" in done.stdout
    found = json.loads(facts.read_text())
    assert (found["accuracy"], found["cause"], found["leaked_hex"], found["cycles_per_byte"]) == (0.0, None, "00", None)
    assert found["exit_code"] == 1


def test_the_control_tells_how_it_was_refused():
    done = demo("plain-read", *SHORT, "--tries", "2")
    assert done.returncode == 1
    assert "refused: write(pipe, secret, 1) = -EFAULT" in done.stdout
    assert re.search(r"SIGSEGV \(\d+ times\)", done.stdout)


def test_a_budget_ends_it():
    done = demo("v1", *SHORT, "--budget", "5000")
    assert done.returncode == 1
    assert "nothing leaked: the budget of 5,000 instructions is spent" in done.stdout


def test_a_trace_of_it_can_be_explained(tmp_path):
    trace = tmp_path / "windows.jsonl"
    done = demo("v1", *SHORT, "--trace-file", str(trace))
    assert done.returncode == 0
    again = subprocess.run(
        [*command("explain"), str(trace)], capture_output=True, text=True, timeout=60, env=emulator_environment()
    )
    assert again.returncode == 0, again.stderr
    assert "cpu skylake" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["v9"], "unknown attack 'v9': choose from v1, "),
        (["v1", "--cpu", "pentium"], "pentium"),
        (["v1", "--mitigations", "prayer"], "unknown mitigation 'prayer': choose from off, auto"),
        (["v1", "--vulnerable", "v7"], "unknown flaw 'v7': choose from v1"),
        (["v1", "--cpu", "in-order", "--mitigations", "retpoline"], "branch target buffer"),
        (["meltdown", "--bytes", "33"], "--bytes 33: the attack can leak 1 to 32"),
        (["v1", "--bytes", "0"], "not a positive number"),
        (["v1", "--json", "/nowhere/x"], "--json /nowhere/x: No such file or directory"),
        (["v1", "--report", "/nowhere/x"], "--report /nowhere/x: No such file or directory"),
        (["--json", "x"], "--json of which attack?"),
        (["v1", "--matrix"], "NAME is for one"),
        (["--matrix", "--cpu", "zen2"], "--cpu is for one"),
        (["v1", "--cpus", "zen2"], "--cpus is for --matrix"),
        (["--matrix", "--attacks", "v1,v9"], "unknown attack 'v9'"),
        (["--matrix", "--cpus", "pentium"], "pentium"),
        (["--matrix", "--cpus", ","], "name at least one each"),
        (["--matrix", "--mitigations", "prayer"], "unknown mitigation 'prayer'"),
        (["v1", "--trace", "nonsense"], "choose from faults"),
    ],
)
def test_wrong_options_are_125_and_one_line(arguments, complaint):
    done = demo(*arguments)
    assert done.returncode == 125
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_matrix_is_the_same_on_any_number_of_processes(tmp_path):
    found = []
    for jobs in ("1", "2"):
        facts = tmp_path / f"{jobs}.json"
        done = demo(
            "--matrix", "--attacks", "meltdown,plain-read", "--cpus", "skylake,zen2", "--mitigations", "off,kpti,eibrs",
            *SHORT, "--jobs", jobs, "--json", str(facts), "--report", str(tmp_path / "page.html"),
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        cells = json.loads(facts.read_text())["cells"]
        for cell in cells:
            cell.pop("seconds", None)
            cell.pop("bytes_per_second", None)
        found.append((cells, done.stdout))
    assert found[0] == found[1]
    cells, text = found[0]
    assert re.search(r"^meltdown +100% meltdown +0% *$", text, re.MULTILINE)
    assert re.search(r"^meltdown +100% meltdown +0% +n/a *$", text, re.MULTILINE)
    assert [(cell["attack"], cell["column"], cell.get("accuracy")) for cell in cells] == [
        ("meltdown", "skylake", 1.0), ("meltdown", "zen2", 0.0), ("plain-read", "skylake", 0.0),
        ("plain-read", "zen2", 0.0), ("meltdown", "off", 1.0), ("meltdown", "kpti", 0.0), ("meltdown", "eibrs", None),
    ]  # fmt: skip
    assert "no enhanced IBRS" in cells[-1]["impossible"]
    assert _tags_match((tmp_path / "page.html").read_text())


def alive(session: int) -> list[str]:
    """The processes of a session that still run; zombies do not."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, of, *_ = status.read_text().rpartition(")")[2].split()
            if int(of) == session and state != "Z":
                found.append(status.parent.name)
    return found


def test_ctrl_c_ends_the_matrix_and_its_workers():
    running = subprocess.Popen(
        [*command("demo"), "--matrix", "--seed", "1", "--jobs", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=emulator_environment(), start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(alive(running.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)
    os.killpg(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (130, "")
    assert "Traceback" not in err
    deadline = time.monotonic() + 20
    while alive(running.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive(running.pid) == []

"""The least that must work of an installed mmuemu, on every Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_it_is_the_installed_one_and_imports_in_no_time(installed):
    source = (
        "import sys, time; before = set(sys.modules); start = time.perf_counter(); import mmuemu; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names; "
        "print(time.perf_counter() - start, mmuemu.__file__, *new)"
    )
    runs = [installed.python(source).split() for _ in range(3)]
    assert min(float(seconds) for seconds, *_ in runs) < 0.2
    assert not Path(runs[0][1]).is_relative_to(ROOT)
    assert runs[0][2:] == ["mmuemu"]


@pytest.mark.parametrize("mmu", ["python", "native"])
def test_a_program_runs(installed, mmu):
    assert installed.says("run", "--mmu", mmu, "hello.s", code=7) == "hi\n"


def test_the_engines_agree_on_a_fault(installed):
    facts = {}
    for mmu in ("python", "native"):
        installed.says("run", "--mmu", mmu, "--seed", "1", "--json", f"{mmu}.json", "null.s", code=139)
        facts[mmu] = json.loads((installed.here / f"{mmu}.json").read_text())
    assert facts["python"]["fault"]["error_code"] == 6
    assert facts["python"]["fault"] == facts["native"]["fault"]
    assert facts["python"]["maps"] == facts["native"]["maps"]


def test_a_c_program_forks(installed, compiler):
    assert installed.says("run", "hello.c", "child", code=3) == "child 2\n"


def test_an_attack_leaks(installed):
    installed.says("demo", "meltdown", "--seed", "1", "--bytes", "1", "--json", "leak.json")
    found = json.loads((installed.here / "leak.json").read_text())
    assert (found["accuracy"], found["cause"], found["leaked_hex"]) == (1.0, "meltdown", found["secret_hex"])


def test_nothing_is_deprecated(installed):
    arguments = [
        "-W",
        "error",
        "-m",
        "mmuemu",
        "run",
        "--seed",
        "1",
        "--maps",
        "--stats",
        "--report",
        "page.html",
        "hello.s",
    ]
    assert installed.says(*arguments, program="python", code=7) == "hi\n"

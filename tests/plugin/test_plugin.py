"""The plugin in pytest: fixtures, markers, options, what a failing test leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import mmuemu.pytest_plugin
import mmuemu.testing.bare
import mmuemu.testing.session
from mmuemu.kernel.syscalls import load_all
from mmuemu.testing.artifacts import file_name
from tests.plugin.guests import HELLO, NULL
from tests.plugin.installed import PROJECT, describe
from tests.view.test_report import data_of, rows_of

pytest_plugins = ["pytester"]
# pytester forgets what is imported inside a run of its own, and the table of system calls is filled once.
load_all()
HEAD = f"import pytest\nfrom mmuemu.testing import *\nHELLO = {HELLO!r}\nNULL = {NULL!r}\n"


@pytest.fixture
def run(pytester, monkeypatch):
    """Run a test file in this process with the plugin; the result."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def call(source, *arguments):
        pytester.makepyfile(test_it=HEAD + source)
        return pytester.runpytest_inprocess("-p", "mmuemu.pytest_plugin", "-p", "no:cacheprovider", *arguments)

    return call


def test_the_fixtures_work(run):
    result = run("""
def test_guest(guest):
    assert guest.run(guest.asm(HELLO)).stdout == b"hi\\n"

def test_machine(guest, machine):
    one = machine(seed=5)
    assert one.seed == 5
    process = guest.start(guest.asm(HELLO), machine=one)
    assert process.wait(60).exit_code == 7
    assert machine().seed == 1

def test_bare(bare):
    assert_faults(bare.run("mov rax, [0x500000]"), at=0x500000, error="U")
""")
    result.assert_outcomes(passed=3)
    assert result.ret == 0


def test_machines_are_closed_when_the_test_has_ended(run, monkeypatch):
    closed = []
    real = mmuemu.testing.session.Machine.close
    monkeypatch.setattr(mmuemu.testing.session.Machine, "close", lambda self: (closed.append(self.seed), real(self)))
    run("""
def test_it(guest, machine):
    guest.run(guest.asm(HELLO), seed=3)
    machine(seed=4)
    raise RuntimeError

def test_next():
    pass
""").assert_outcomes(failed=1, passed=1)
    assert closed == [4, 3]


def test_lists_in_the_marker_make_tests(run):
    result = run(
        """
@pytest.mark.mmuemu(mmu=["python", "native"], seed=[7, 8], kpti=True)
def test_it(guest, request):
    result = guest.run(guest.asm(HELLO))
    assert result.machine.kernel.options.kpti
    print("ran", result.machine.seed, result.machine.kernel.cpu.engine.name)

@pytest.mark.mmuemu(mitigations=["off", "kpti,ssbd"], cpu="skylake", vulnerable=("meltdown", "v1"))
def test_mitigations(machine):
    print("ran", machine().speculation_settings.mitigations)

@pytest.mark.mmuemu(layout=[{"name": "x"}, None])
def test_unused():
    pass
""",
        "-v",
        "-s",
    )
    result.assert_outcomes(passed=7)
    lines = result.outlines
    for mmu in ("python", "native"):
        for seed in (7, 8):
            assert any(f"test_it[{mmu}-seed={seed}]" in line and f"ran {seed} {mmu}" in line for line in lines), lines
    assert any("[mitigations=off]" in line and "ran off" in line for line in lines)
    assert any("[kpti,ssbd]" in line and "kpti" in line.split("ran")[1] for line in lines)


def test_the_closest_marker_wins(run):
    run("""
pytestmark = pytest.mark.mmuemu(seed=5, mmu="native")

@pytest.mark.mmuemu(seed=6)
class TestIt:
    @pytest.mark.mmuemu(seed=[7])
    def test_function(self, machine):
        made = machine()
        assert (made.seed, made.kernel.cpu.engine.name) == (7, "native")

    def test_class(self, machine):
        assert machine().seed == 6

def test_module(machine):
    assert machine(mmu="python").kernel.cpu.engine.name == "python"
    assert machine().seed == 5
""").assert_outcomes(passed=3)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("sed=1", "has no option 'sed': choose from aslr, cpu,"),
        ("1", "takes options by name, not 1"),
        ("seed=[]", "(seed=[]): give at least one value"),
    ],
)
def test_a_wrong_marker_is_one_clear_line(run, marker, message):
    result = run(f"""
@pytest.mark.mmuemu({marker})
def test_it(guest):
    pass
""")
    result.assert_outcomes(errors=1)
    assert any("@pytest.mark.mmuemu" in line and message in line for line in result.outlines), result.outlines
    assert not any("Traceback" in line or "pytest_plugin.py" in line for line in result.outlines)


def test_the_marker_is_registered(run):
    run("@pytest.mark.mmuemu(seed=1)\ndef test_it(): pass\n", "--strict-markers").assert_outcomes(passed=1)
    assert any("@pytest.mark.mmuemu(seed=, mmu=" in line for line in run("", "--markers").outlines)


SEEDS = """
def test_free(machine): print("ran", machine().seed)
@pytest.mark.mmuemu(seed=9)
def test_given(machine): print("ran", machine().seed)
"""


@pytest.mark.parametrize(("options", "seeds"), [([], "1 9"), (["--mmuemu-seed", "0x2a"], "42 9")])
def test_the_seed_of_the_command_line_is_for_tests_without_one(run, options, seeds):
    result = run(SEEDS, "-s", *options)
    assert " ".join(line.split("ran ")[1] for line in result.outlines if "ran " in line).replace(".", "") == seeds
    header = any("mmuemu: seed 42" in line for line in result.outlines)
    assert header == bool(options)


def test_a_random_seed_is_one_for_the_session_and_told(run):
    result = run("def test_it(machine): assert machine() is None\n", "--mmuemu-seed", "random")
    (header,) = [line for line in result.outlines if line.startswith("mmuemu: seed ")]
    seed = header.split()[2]
    assert any(line.startswith("repeat: ") and line.endswith(f"--mmuemu-seed {seed}") for line in result.outlines)


def test_workers_of_xdist_have_the_same_random_seed(pytester, tmp_path_factory):
    pytest.importorskip("xdist")
    pytester.makepyfile(
        "def test_a(machine): assert machine() is None\ndef test_b(machine): assert machine() is None\n"
    )
    done = subprocess_run(pytester, tmp_path_factory.mktemp("site"), "-n1", "--mmuemu-seed=random")
    (header,) = [line for line in done.stdout.splitlines() if line.startswith("mmuemu: seed ")]
    seeds = {line.split()[-1] for line in done.stdout.splitlines() if line.startswith("repeat: ")}
    assert seeds == {header.split()[2]}


@pytest.mark.parametrize("seed", ["-1", "x", str(1 << 64)])
def test_a_bad_seed_is_refused(run, seed):
    result = run(SEEDS, f"--mmuemu-seed={seed}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert any("is no seed" in line for line in result.errlines)


# -- what a failing test leaves ----------------------------------------------------------------------------------------

FAILING = """
@pytest.mark.parametrize("x", ["a b"])
def test_it(guest, x):
    result = guest.run(guest.asm(HELLO))
    result = guest.run(guest.asm(NULL))
    assert_faults(result, at=0, error="P|W|U")
"""


def test_a_failing_test_leaves_its_runs_and_the_command(run, pytester):
    result = run(FAILING, "--mmuemu-artifacts", "left/here")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*error: expected P|W|U, got W|U",
            "E*PDE *not present *<- refuses",
            "*- mmuemu -*",
            "<Result of guest: exit code 139, SIGSEGV, #PF error W|U at rip 0x401000*",
            "report: left/here/test_it*.txt",
            "report: left/here/test_it*.html",
            "report: left/here/test_it*-2.html",
            "repeat: python -m pytest 'test_it.py::test_it[[]a b]' --mmuemu-seed 1",
        ]
    )
    assert not any("checks.py" in line for line in result.outlines), "the helper's own frames are hidden"
    (path,) = (pytester.path / "left/here").glob("*.json")
    facts = json.loads(path.read_text())
    assert (facts["version"], facts["test"]) == (1, "test_it.py::test_it[a b]")
    first, second = facts["runs"]
    assert (first["exit_code"], first["stdout"], first["fault"]) == (7, "hi\n", None)
    assert [call["name"] for call in first["syscalls"]] == ["write", "exit"]
    assert (second["signal"], second["fault"]["error"], second["fault"]["address"]) == ("SIGSEGV", "W|U", "0x0")
    assert [step["level"] for step in second["fault"]["walk"]["steps"]] == ["PML4E", "PDPTE", "PDE"]
    assert second["fault"]["walk"]["steps"][2]["refuses"]
    assert second["maps"][0].startswith("00401000-")
    text = path.with_suffix(".txt").read_text()
    for piece in ("exit(7)", "hi", "00401000-00402000 r-xp", "<- refuses", "--mmuemu-seed 1"):
        assert piece in text
    shown = data_of(path.with_suffix(".html"))
    assert "SIGSEGV" in shown["facts"]["summary"]
    assert shown["facts"]["repeat"] == facts["repeat"]
    regions = {region["kind"]: region["start"] for region in shown["processes"][0]["regions"]}
    assert regions["text"] == f"{0x401000:016x}"
    assert [row[4].split()[0] for row in rows_of(shown)] == ["refused"]
    (other,) = (pytester.path / "left/here").glob("*-2.html")
    assert [row[4] for row in rows_of(data_of(other))] == ["write(1, 0x402000, 3) = 3", "exit(7) = 0"]


def test_the_command_repeats_the_failure(run, pytester):
    result = run(FAILING)
    (line,) = [line for line in result.outlines if line.startswith("repeat: ")]
    report, *_ = [line for line in result.outlines if line.startswith("report: ")]
    assert "/pytest-of-" in report, "it lies below pytest's temporary directory"
    command = line.removeprefix("repeat: python -m pytest ") + " -p mmuemu.pytest_plugin -p no:cacheprovider"
    again = subprocess.run(f'"{sys.executable}" -m pytest {command}', shell=True, capture_output=True, text=True)
    assert "1 failed" in again.stdout


def test_no_seed_is_added_where_the_test_has_its_own(run):
    result = run("@pytest.mark.mmuemu(seed=3)\ndef test_it(bare):\n    assert bare.run('ud2').fault is None\n")
    result.stdout.fnmatch_lines(["<BareResult: #UD error 0x0 at rip 0x401000 in ring 3>", "report: *"])
    assert "repeat: python -m pytest test_it.py::test_it" in result.outlines


def test_processes_that_a_test_started_itself_are_in_the_report(run, pytester):
    run(
        """
def test_it(guest):
    process = guest.start(guest.asm("again: jmp again"))
    process.wait(max_instructions=10)
    assert process.ended
""",
        "--mmuemu-artifacts=left",
    )
    (path,) = (pytester.path / "left").glob("*.txt")
    assert "r-xp" in path.read_text()


def test_tests_that_pass_or_have_no_guest_leave_nothing(run, pytester):
    result = run(
        """
def test_passes(guest): guest.run(guest.asm(HELLO))
def test_without(): assert 0
@pytest.mark.xfail
def test_expected(guest): assert guest.run(guest.asm(HELLO)).exit_code == 0
def test_skips(guest): pytest.skip("why not")
""",
        "--mmuemu-artifacts=left",
    )
    result.assert_outcomes(passed=1, failed=1, xfailed=1, skipped=1)
    assert not (pytester.path / "left").exists()
    assert not any("repeat:" in line for line in result.outlines)


def test_a_directory_that_cannot_be_written(run, pytester):
    (pytester.path / "file").write_text("")
    result = run(FAILING, "--mmuemu-artifacts=file")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert any("--mmuemu-artifacts file: not a directory" in line for line in result.errlines)
    result = run(FAILING, "--mmuemu-artifacts=file/below")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["no report: file/below*: *", "repeat: *"])


def test_a_machine_that_the_test_closed_itself(run):
    result = run("""
def test_it(guest, machine):
    with machine() as m:
        process = guest.start(guest.asm(NULL), machine=m)
        process.wait(60)
    assert process.exit_code == 0

def test_run(guest):
    result = guest.run(guest.asm(NULL))
    result.machine.close()
    assert result.exit_code == 0
""")
    result.assert_outcomes(failed=2)
    assert sum(line.startswith("repeat: ") for line in result.outlines) == 2
    assert sum(line.startswith("report: ") for line in result.outlines) == 2
    assert not any(line.endswith(".html") for line in result.outlines)


def test_a_report_that_cannot_be_made_does_not_end_the_session(run):
    result = run("""
def test_it(guest):
    guest.run(guest.asm(NULL)).process.process.leader = None
    guest._session.runs.append(None)
    assert 0

def test_next(): pass
""")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["no report: AttributeError: *", "repeat: python -m pytest test_it.py::test_it *"])


def test_file_names_are_plain_and_differ():
    assert file_name("test_x") == "test_x"
    names = {file_name(node) for node in ("a/b.py::t[x/y]", "a/b.py::t[x y]", "a/b.py::t[x-y]", "a" * 300, "a" * 301)}
    assert len(names) == 5
    assert all("/" not in name and len(name) < 120 for name in names)


# -- projects that do not use it ---------------------------------------------------------------------------------------


def subprocess_run(pytester, folder, *arguments):
    describe(folder)
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT.parent}{os.pathsep}{folder}"}
    environment.pop("PYTEST_DISABLE_PLUGIN_AUTOLOAD", None)
    others = [part for name in ("benchmark", "hypothesispytest", "timeout") for part in ("-p", f"no:{name}")]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *others, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=pytester.path)


def test_as_an_entry_point_it_loads_nothing_before_it_is_used(pytester, tmp_path_factory):
    pytester.makepyfile("""
import sys
def test_it(request):
    assert request.config.pluginmanager.hasplugin("mmuemu")
    loaded = sorted(name for name in sys.modules if name.split(".")[0] in ("mmuemu", "unicorn", "capstone"))
    assert loaded == ["mmuemu", "mmuemu.pytest_plugin"]
""")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess_run(pytester, folder)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_fixtures_of_the_same_names_are_the_projects_own(run):
    run("""
@pytest.fixture
def machine(): return "mine"
@pytest.fixture
def guest(): return "mine, too"
def test_it(machine, guest): assert (machine, guest) == ("mine", "mine, too")
""").assert_outcomes(passed=1)

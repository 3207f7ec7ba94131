"""``mmuemu doctor``: what is there, what is broken, and that it survives what is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

import mmuemu.view.sheet
from mmuemu import examination
from mmuemu.doctor import doctor
from mmuemu.selftest import TESTS
from mmuemu.view.checkup import Finding
from tests.run.harness import PACKAGE, emulator_environment, executable


def call(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "mmuemu", *arguments], env={**emulator_environment(), **environment},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def states(done):
    found = json.loads(done.stdout)
    return found["ok"], {each["name"]: (each["state"], each["found"]) for each in found["checks"]}


def test_a_broken_compiler_and_nothing_else_on_path(tmp_path):
    text = '#!/bin/sh\n[ "$1" = -dumpmachine ] && echo x86_64-linux-gnu && exit\necho no libc >&2\nexit 1\n'
    executable(tmp_path, "gcc", text)
    done = call("doctor", "--json", PATH=str(tmp_path), CC="")
    ok, found = states(done)
    assert (done.returncode, ok) == (0, True)
    assert found["C compiler"] == ("broken", f"{tmp_path}/gcc: no libc")
    assert found["gdb"][0] == found["strace"][0] == found["busybox"][0] == "missing"
    assert found["engine python"] == found["engine native"] == ("ok", "runs a program")
    assert {*TESTS, *(each.name for each in examination.PACKAGES + examination.TOOLS)} <= set(found)


def test_a_package_that_crashes_is_told_and_the_rest_looked_at(tmp_path):
    (tmp_path / "keystone.py").write_text("import os\nos.abort()\n")
    done = call("doctor", PYTHONPATH=f"{tmp_path}:{PACKAGE}", CC="")
    lines = {line.split("  ")[1].strip(): line for line in done.stdout.splitlines() if line.startswith("  ")}
    assert done.returncode == 1
    for name in ("assembler", "engine python", "engine native"):
        assert lines[name].endswith(" broken   dies of SIGABRT")
    assert " ok " in lines["disassembler"]
    assert done.stdout.endswith("Needed, and not working: assembler, engine python, engine native.\n")
    assert done.stderr == ""


def test_commands_name_the_doctor_when_a_package_is_missing(tmp_path):
    (tmp_path / "unicorn.py").write_text("raise ImportError('its library cannot be loaded')\n")
    done = call("run", "x.s", PYTHONPATH=f"{tmp_path}:{PACKAGE}")
    assert done.returncode == 125
    assert done.stderr == (
        "mmuemu: a package is missing or broken: its library cannot be loaded (mmuemu doctor tells more)\n"
    )


def test_an_empty_path_has_no_tools(path):
    assert {each.state for each in examination._tools()} == {"missing"}
    assert all(each.without and each.get for each in examination._tools())


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("missing", 1)])
def test_a_table_without_rich(monkeypatch, capsys, state, code):
    def show(_):
        raise ImportError("rich")

    finding = Finding("packages", "rich", state, "", "nothing is red", "pip install rich", needed=True)
    monkeypatch.setattr(mmuemu.view.sheet, "show", show)
    monkeypatch.setattr(examination, "examine", lambda: [finding])
    assert doctor(Namespace(json=False)) == code
    told = capsys.readouterr().out.splitlines()
    assert told[2].split() == ["rich", state]
    assert told[-1] == ("Needed, and not working: rich." if code else "All that is needed works.")


def test_tools_are_asked_for_their_version(path):
    executable(path, "gdb", "#!/bin/sh\necho GNU gdb 13.1\necho more\n")
    executable(path, "strace", "#!/bin/sh\nexit 3\n")
    executable(path, "busybox", "no program at all")
    found = {each.name: (each.state, each.found) for each in examination._tools()}
    assert found["gdb"] == ("ok", f"{path}/gdb: GNU gdb 13.1")
    assert found["strace"] == ("broken", f"{path}/strace: --version fails")
    assert found["busybox"][0] == "broken"


@pytest.mark.skipif(not os.path.exists("/proc/self/cmdline"), reason="needs /proc")
def test_what_hangs_is_ended_with_all_it_started():
    start = time.monotonic()
    code, out = examination._ended(["/bin/sh", "-c", "sleep 300 & echo $!; wait"], 0.3)
    assert code is None
    command = Path(f"/proc/{int(out)}/cmdline")
    # Nobody may have reaped it yet.
    while command.exists() and command.read_bytes() and time.monotonic() - start < 20:
        time.sleep(0.01)
    assert time.monotonic() - start < 20

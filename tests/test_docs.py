"""Every command and every Python block in the README and the docs is run; shown output must be the real one."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugin.installed import describe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (f"{page.name}:{page.read_text()[: found.start()].count(chr(10)) + 1}", found[2])
        for page in PAGES
        for found in BLOCK.finditer(page.read_text())
        if found[1] == language
    ]


def steps(block: str) -> list[tuple[str, list[str]]]:
    """(command, expected lines) of a console block."""
    out: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            out.append((line[2:], []))
        elif out:
            out[-1][1].append(line)
    return out


def pattern(line: str) -> str:
    """``...`` in an expected line stands for anything."""
    return "".join(f"[{c}]" if c in "[]*?" else c for c in line).replace("...", "*")


def matches(expected: list[str], actual: list[str]) -> bool:
    if not expected:
        return not actual
    if expected == ["..."]:
        return True
    if expected[0] == "...":
        return any(matches(expected[1:], actual[skip:]) for skip in range(len(actual) + 1))
    return bool(actual) and fnmatch.fnmatchcase(actual[0], pattern(expected[0])) and matches(expected[1:], actual[1:])


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A PATH on which ``mmuemu`` and ``python`` are this interpreter's."""
    folder = tmp_path_factory.mktemp("bin")
    for name, module in (("mmuemu", "-m mmuemu "), ("python", "")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n')
        script.chmod(0o755)
    describe(folder)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "COLUMNS": "100"}


def needs(block: str) -> str | None:
    """Why a block cannot be run here, or None."""
    if "busybox" in block and shutil.which("busybox") is None:
        return "busybox is not installed"
    if "gdb -q" in block and shutil.which("gdb") is None:
        return "gdb is not installed"
    if (".c" in block or "mmuemu bench --quick" in block) and shutil.which("gcc") is None:
        return "no gcc"
    return None


@pytest.mark.parametrize(("where", "block"), blocks("console"), ids=[where for where, _ in blocks("console")])
def test_a_console_block_is_true(where, block, environment):
    reason = needs(block)
    if reason:
        pytest.skip(reason)
    script = ["exec 2>&1"]
    marker = "----mmuemu-docs----"
    for command, _ in steps(block):
        script += [command, f"mmuemu_status=$?; echo '{marker}'; (exit $mmuemu_status)"]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    outputs = done.stdout.split(f"{marker}\n")
    for (command, expected), output in zip(steps(block), outputs, strict=False):
        assert matches(expected, output.splitlines()), (
            f"{where}: $ {command}\n{output}\n-- shown:\n{chr(10).join(expected)}"
        )
    assert len(outputs) == len(steps(block)) + 1


def python_of(page: Path) -> str:
    """All Python blocks of a page as one program."""
    return "\n".join(found[2] for found in BLOCK.finditer(page.read_text()) if found[1] == "python")


@pytest.mark.parametrize("page", [page for page in PAGES if python_of(page)], ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, environment):
    command = [sys.executable, "-c", python_of(page)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_holds_two_set_up_commands():
    commands = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2

"""Programs that name a dynamic linker: theirs is loaded from the guest's files, and they behave as on the host."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.run.harness import compare, mmuemu

COMMANDS = (
    ("sed", "-n", "2,3p"),
    ("sort", "-r"),
    ("sha256sum",),
    ("awk", "{ n += $1 } END { print n, sqrt(2) }"),
    ("expr", "6", "*", "7"),
    ("bash", "-c", "declare -a x=(a b c); for i in 0 1 2; do printf '%s-' ${x[i]}; done; echo $((2**40))"),
    ("perl", "-e", "printf '%.15g %s', atan2(1,1)*4, join ',', sort { $a <=> $b } 30, 4, 200"),
)


@pytest.mark.parametrize("engine", ["python", "native"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_command(command: tuple[str, ...], engine: str, tmp_path: Path) -> None:
    program = shutil.which(command[0])
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    found = compare(Path(program), list(command[1:]), engine, tmp_path, stdin=b"10 one\n20 two\n30 three\n5 four\n")
    assert found.code == 0
    assert found.out


@pytest.mark.parametrize("name", ["sed", "perl", "bash"])
def test_isolated_it_sees_what_it_links_to_and_nothing_else(name: str, tmp_path: Path) -> None:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    assert mmuemu("--isolate", program, "--version", cwd=tmp_path).code == 0
    shell = shutil.which("bash")
    if shell is not None:
        found = mmuemu("--isolate", shell, "-c", "echo /usr/bin/* /usr/share/*", cwd=tmp_path)
        assert found.out.split()[-1] == b"/usr/share/*"
        assert all(word.startswith(b"/usr/bin/bash") for word in found.out.split()[:-1])

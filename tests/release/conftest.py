"""Tests of what is released, from outside.

``.ci/wheel`` says where the files are, ``.ci/installed`` where one of them is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmuemu.sources import assemble
from tests.plugin.guests import HELLO, NULL

BOARD = "mov dx, 0x3f8\nmov al, 65\nout dx, al\nmov dx, 0xf4\nmov al, 5\nout dx, al\n"
C = r"""
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    int status = 0;
    if (!fork())
        _exit(argc);
    wait(&status);
    printf("%s %d\n", argv[1], WEXITSTATUS(status));
    return 3;
}
"""


def given(name: str) -> Path:
    """The directory that the variable names; without it the test is none of this run's."""
    if name not in os.environ:
        pytest.skip(f"{name} is not set: .ci/run builds and installs what is released")
    return Path(os.environ[name])


class Installed:
    """A Python that has mmuemu installed, called in a directory of its own and without the checkout."""

    def __init__(self, programs: Path, here: Path) -> None:
        self.programs = programs
        self.here = here
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        self.environment = {**kept, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100"}

    def call(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of that environment."""
        return subprocess.run(
            [str(self.programs / program), *arguments], cwd=self.here, env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def says(self, *arguments: str, code: int = 0, program: str = "mmuemu") -> str:
        """Its standard output; the exit code must be this one, and no traceback may be seen."""
        done = self.call(program, *arguments)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stdout + done.stderr
        return done.stdout

    def python(self, source: str, *options: str) -> str:
        """What a Python program prints."""
        return self.says(*options, "-c", source, program="python")


@pytest.fixture
def installed(tmp_path):
    """The installed mmuemu; files to run lie where it is called."""
    found = Installed(given("MMUEMU_INSTALLED"), tmp_path)
    for name, text in {"hello.s": HELLO, "null.s": NULL, "hello.c": C}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "board.elf").write_bytes(assemble(BOARD, "board"))
    return found


@pytest.fixture
def compiler():
    """Skip where C sources cannot be built."""
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("no gcc")

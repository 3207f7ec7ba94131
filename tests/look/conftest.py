"""Programs to look at, and the commands that look."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmuemu.machine import Machine
from tests.run.harness import emulator_environment

SELF_MAPS = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static char text[65536], zeros[40000];
int filled[3000] = {1, 2, 3};
int main(int argc, char **argv)
{
    char *volatile heap = malloc(5000);
    memset(heap, 1, 5000);
    char *shared = mmap(0, 12288, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *own = mmap(0, 20480, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    shared[0] = own[0] = own[8192] = own[16384] = zeros[20000] = 1;
    mprotect(own + 4096, 4096, PROT_READ);
    mprotect(own + 8192, 4096, PROT_NONE);
    filled[2000] += *(volatile char *)(own + 12288);
    int file = open(argc > 1 ? argv[1] : "/proc/self/maps", O_RDONLY), size = 0, got;
    while ((got = read(file, text + size, sizeof text - size)) > 0)
        size += got;
    write(1, text, size);
    return filled[2000] & 0;
}
"""
FORKER = r"""
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
volatile char both[8192] __attribute__((aligned(4096))) = "as it was";
int main(void)
{
    char *shared = mmap((void *)0x20000000, 8192, 3, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    strcpy(shared, "seen by both");
    both[4096] = both[0];
    if (!fork()) {
        both[4096] = both[0] + shared[0];
        for (;;)
            pause();
    }
    usleep(1000);
    getppid();
    for (;;)
        pause();
}
"""
FLAVOURS = {"static": ["-static"], "static-pie": ["-static-pie"], "dynamic": [], "no-pie": ["-no-pie"]}


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Callable[..., Path]:
    """Compiles a C source, once a flavour."""
    folder = tmp_path_factory.mktemp("look")

    def build(source: str, flavour: str = "static") -> Path:
        if shutil.which("gcc") is None:
            pytest.skip("no gcc")
        target = folder / f"{abs(hash(source))}-{flavour}"
        if not target.exists():
            command = ["gcc", "-O1", "-w", *FLAVOURS[flavour], "-x", "c", "-", "-o", str(target)]
            subprocess.run(command, input=source, text=True, check=True)
        return target

    return build


@pytest.fixture
def machine() -> Any:
    """Makes machines, closed at the end."""
    made = []

    def make(**options: Any) -> Machine:
        made.append(Machine(**{"seed": 1, "memory": 64 << 20} | options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def look(*arguments: object) -> subprocess.CompletedProcess[str]:
    """``mmuemu`` with arguments."""
    return subprocess.run(
        [sys.executable, "-m", "mmuemu", *map(str, arguments)],
        capture_output=True, text=True, env=emulator_environment(), timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def looked(*arguments: object, code: int = 0) -> dict[str, Any]:
    """The JSON that a command prints."""
    done = look(*arguments, "--json")
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found

"""Build the attacks of this directory into the package: ``python samples/speculation/build.py [NAME...]``.

Each ``NAME.c`` becomes ``mmuemu/guest/attacks/NAME.elf``, a static program of a few KiB without a C library. Its
build id is a digest of its sources and of the compiler's options, by which a test tells whether it is up to date.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
INTO = HERE.parents[1] / "mmuemu" / "guest" / "attacks"
HEADERS = ("lab.h", "kernel.h")
OPTIONS = (
    "-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-pic", "-no-pie", "-fno-stack-protector", "-std=gnu11",
    "-fcf-protection=none", "-fno-asynchronous-unwind-tables", "-fno-ident", "-mno-red-zone", "-mgeneral-regs-only",
    "-Wall", "-Wextra", "-Wno-unused-function", "-Wno-unused-variable",
    "-Wl,-z,noseparate-code,-z,norelro,-z,noexecstack,-z,max-page-size=4096",
)  # fmt: skip
"""For GCC. Deterministic: the same compiler makes the same bytes."""


def names() -> list[str]:
    """The attacks that have a source here."""
    return sorted(path.stem for path in HERE.glob("*.c"))


def digest(name: str) -> str:
    """The build id that ``NAME.elf`` must carry, 20 bytes in hexadecimal."""
    parts = [(HERE / file).read_bytes() for file in (f"{name}.c", *HEADERS)]
    return hashlib.sha1(b"\0".join([*parts, " ".join(OPTIONS).encode()])).hexdigest()


def build(name: str, target: Path) -> None:
    """Compile one attack to ``target``. Raises CalledProcessError when GCC refuses, FileNotFoundError without it."""
    source = HERE / f"{name}.c"
    command = ["gcc", *OPTIONS, f"-Wl,--build-id=0x{digest(name)}", "-o", str(target), source.name]
    subprocess.run(command, check=True, cwd=HERE)


def main(arguments: list[str]) -> None:
    """Build the named attacks, or all."""
    INTO.mkdir(exist_ok=True)
    for name in arguments or names():
        build(name, INTO / f"{name}.elf")


if __name__ == "__main__":
    main(sys.argv[1:])

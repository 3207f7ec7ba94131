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
HEADERS = ("lab.h", "kernel.h", "pair.h")
OPTIONS = (
    "-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-pic", "-no-pie", "-fno-stack-protector", "-std=gnu11",
    "-fcf-protection=none", "-fno-asynchronous-unwind-tables", "-fno-ident", "-mno-red-zone", "-mgeneral-regs-only",
    "-Wall", "-Wextra", "-Wno-unused-function", "-Wno-unused-variable",
    "-Wl,-z,noseparate-code,-z,norelro,-z,noexecstack,-z,max-page-size=4096",
)  # fmt: skip
"""For GCC. Deterministic: the same compiler makes the same bytes."""
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "v1-lfence": ("v1", ("-DHARDEN_LFENCE",)),
    "v1-mask": ("v1", ("-DHARDEN_MASK",)),
    "v2-retpoline": ("v2", ("-mindirect-branch=thunk-inline", "-mindirect-branch-register")),
    "v4-ssbd": ("v4", ("-DHARDEN_SSBD",)),
}
"""The same source with a hardened victim: name -> source and more options."""


def names() -> list[str]:
    """What is built."""
    return sorted([*(path.stem for path in HERE.glob("*.c")), *VARIANTS])


def recipe(name: str) -> tuple[Path, tuple[str, ...]]:
    """The source of ``NAME.elf`` and GCC's options for it."""
    source, more = VARIANTS.get(name, (name, ()))
    return HERE / f"{source}.c", (*OPTIONS, *more)


def digest(name: str) -> str:
    """The build id that ``NAME.elf`` must carry, 20 bytes in hexadecimal."""
    source, options = recipe(name)
    parts = [path.read_bytes() for path in (source, *(HERE / header for header in HEADERS))]
    return hashlib.sha1(b"\0".join([*parts, " ".join(options).encode()])).hexdigest()


def build(name: str, target: Path) -> None:
    """Compile one attack to ``target``. Raises CalledProcessError when GCC refuses, FileNotFoundError without it."""
    source, options = recipe(name)
    command = ["gcc", *options, f"-Wl,--build-id=0x{digest(name)}", "-o", str(target), source.name]
    subprocess.run(command, check=True, cwd=HERE)


def main(arguments: list[str]) -> None:
    """Build the named attacks, or all."""
    INTO.mkdir(exist_ok=True)
    for name in arguments or names():
        build(name, INTO / f"{name}.elf")


if __name__ == "__main__":
    main(sys.argv[1:])

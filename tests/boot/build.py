"""The test kernels, compiled once per session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "kernels"
COMMON = ["-O1", "-w", "-ffreestanding", "-nostdlib", "-nostdinc", "-fno-pic", "-fno-pie", "-fno-stack-protector"]
COMMON += ["-fno-asynchronous-unwind-tables", "-mgeneral-regs-only", "-fcf-protection=none", "-std=gnu11"]
NARROW = ["-m32", "-march=i686"]
WIDE = ["-m64", "-mno-red-zone", "-mcmodel=small"]
LINK = ["-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,max-page-size=4096"]
LINK += ["-Wl,--no-warn-rwx-segments", "-Wl,-T", str(SOURCES / "kernel.ld")]

KERNELS: dict[str, tuple[list[str], list[str]]] = {
    "hello32": (NARROW, ["start32.S", "hello32.c"]),
    "flat": ([*NARROW, "-DADDRESSES"], ["start32.S", "hello32.c"]),
    "timer32": ([*NARROW, "-DTABLES"], ["start32.S", "vectors.S", "timer.c"]),
    "triple": (NARROW, ["start32.S", "triple.c"]),
    "spin": (NARROW, ["start32.S", "spin.c"]),
    "flood": (NARROW, ["start32.S", "flood.c"]),
    "echo": (NARROW, ["start32.S", "echo.c"]),
    "wild": (NARROW, ["start32.S", "wild.c"]),
    "astray": (NARROW, ["start32.S", "astray.c"]),
    "long64": (WIDE, ["start64.S", "vectors.S", "long64.c"]),
    "timer": (WIDE, ["start64.S", "vectors.S", "timer.c"]),
    "apic": (WIDE, ["start64.S", "vectors.S", "apic.c"]),
    # Entered in long mode, by a loader that does that.
    "long64-direct": ([*WIDE, "-Wl,-e,start64"], ["start64.S", "vectors.S", "long64.c"]),
}  # fmt: skip
"""Name -> compiler options and sources. A ``WIDE`` kernel is an ELF64 file; ``NAME.elf32`` is the same as ELF32,
which is what QEMU wants of a multiboot kernel. ``flat.bin`` has a multiboot header and no other."""
FORMS = {"elf32": "elf32-i386", "bin": "binary"}


class Kernels:
    """Kernels of ``tests/boot/kernels``, compiled on first use; shared by parallel workers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, name: str) -> Path:
        """The compiled kernel; skips the test when the host's compiler cannot make it."""
        target = self.directory / name
        if target.exists():
            return target
        if sys.platform != "linux" or shutil.which("gcc") is None or shutil.which("objcopy") is None:
            pytest.skip("gcc and binutils are not here")
        scratch = self.directory / f"{name}.{os.getpid()}"
        base, dot, form = name.rpartition(".")
        if dot:
            command = ["objcopy", "-O", FORMS[form], str(self(base)), str(scratch)]
        else:
            options, sources = KERNELS[name]
            paths = [str(SOURCES / source) for source in sources]
            command = ["gcc", *COMMON, *options, *paths, *LINK, "-o", str(scratch)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{command[0]} cannot build {name} (no x86 compiler?): {done.stderr.strip().splitlines()[-1]}")
        os.replace(scratch, target)
        return target

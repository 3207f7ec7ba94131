"""Build the guest code of this package: ``python -m mmuemu.guest.build`` writes a ``.bin`` beside each ``.s``.

The built bytes are part of the package, so that no run pays for an assembler; a test holds them against the
sources.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

SOURCES: Final = {
    "syscall_entry": ("syscall_entry", "KPTI = 0"),
    "syscall_entry_kpti": ("syscall_entry", "KPTI = 1"),
    "trampoline": ("trampoline", ""),
    "ifunc_start": ("ifunc_start", ""),
}
"""What is built: the name of the bytes -> the source's name, and what stands before its first line."""


def assemble(name: str) -> bytes:
    """The machine code that :data:`SOURCES` calls ``name``, by Keystone."""
    import keystone

    source, settings = SOURCES[name]
    text = files("mmuemu.guest").joinpath(f"{source}.s").read_text()
    code = "\n".join([settings, *(line.split("#", 1)[0] for line in text.splitlines())])
    encoded, _ = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64).asm(code)
    return bytes(encoded)


def load(name: str) -> bytes:
    """The built bytes called ``name``."""
    return files("mmuemu.guest").joinpath(f"{name}.bin").read_bytes()


def main() -> None:
    """Build everything in the source tree this module runs from."""
    for name in SOURCES:
        Path(__file__).with_name(f"{name}.bin").write_bytes(assemble(name))


if __name__ == "__main__":
    main()

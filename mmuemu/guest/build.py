"""Build the guest code of this package: ``python -m mmuemu.guest.build`` writes a ``.bin`` beside each ``.s``.

The built bytes are part of the package, so that no run pays for an assembler; a test holds them against the
sources.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

SOURCES: Final = ("syscall_entry", "syscall_entry_kpti", "trampoline", "ifunc_start")


def assemble(name: str) -> bytes:
    """The machine code of ``guest/<name>.s``, by Keystone."""
    import keystone

    source = files("mmuemu.guest").joinpath(f"{name}.s").read_text()
    code = "\n".join(line.split("#", 1)[0] for line in source.splitlines())
    encoded, _ = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64).asm(code)
    return bytes(encoded)


def load(name: str) -> bytes:
    """The built bytes of ``guest/<name>.s``."""
    return files("mmuemu.guest").joinpath(f"{name}.bin").read_bytes()


def main() -> None:
    """Build everything in the source tree this module runs from."""
    for name in SOURCES:
        Path(__file__).with_name(f"{name}.bin").write_bytes(assemble(name))


if __name__ == "__main__":
    main()

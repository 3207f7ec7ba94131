"""Build the guest code of this package: ``python -m mmuemu.guest.build`` writes a ``.bin`` beside each ``.s``.

The built bytes are part of the package, so that no run pays for an assembler; a test holds them against the
sources.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Final

from mmuemu.guest.vdso import build_vdso

SOURCES: Final = {
    "syscall_entry": ("syscall_entry", "KPTI = 0\n"),
    "syscall_entry_kpti": ("syscall_entry", "KPTI = 1\n"),
    "vulnerable": ("vulnerable", "KPTI = 0\nENTRY = 0\n"),
    "vulnerable_kpti": ("vulnerable", "KPTI = 1\nENTRY = 0\n"),
    **{
        name: (name, "")
        for name in ("trampoline", "link_start", "link_fini", "tls_get_addr", "tlsdesc", "tlsdesc_undefined")
    },
}
"""What is built: the name of the bytes -> the source's name, and what stands before its first line."""
PLACES: Final = {"vulnerable": 0x400}
"""How far behind the code that its ``ENTRY`` means a source's code lies, by the source's name."""
IMAGES: Final = ("vdso",)
"""What is built into a shared object, not into bare code."""
_LABEL: Final = re.compile(r"^(\w+):\n", re.MULTILINE)


def _source(name: str) -> str:
    source = files("mmuemu.guest").joinpath(f"{name}.s").read_text()
    return "\n".join(line.split("#", 1)[0].rstrip() for line in source.splitlines()) + "\n"


def _encode(code: str, address: int = 0) -> bytes:
    import keystone

    encoded, _ = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64).asm(code, address)
    return bytes(encoded)


def assemble(name: str) -> bytes:
    """The machine code that :data:`SOURCES` calls ``name``, by Keystone."""
    source, settings = SOURCES[name]
    return _encode(settings + _source(source), PLACES.get(source, 0))


def assemble_functions(name: str) -> dict[str, bytes]:
    """The machine code of ``guest/<name>.s`` function by function, each from its label on."""
    _, *parts = _LABEL.split(_source(name))
    return {label: _encode(code) for label, code in zip(parts[::2], parts[1::2], strict=True)}


def build(name: str) -> bytes:
    """What ``guest/<name>.bin`` must hold."""
    return build_vdso(assemble_functions(name)) if name in IMAGES else assemble(name)


def load(name: str) -> bytes:
    """The built bytes called ``name``."""
    return files("mmuemu.guest").joinpath(f"{name}.bin").read_bytes()


def main() -> None:
    """Build everything in the source tree this module runs from."""
    for name in (*SOURCES, *IMAGES):
        Path(__file__).with_name(f"{name}.bin").write_bytes(build(name))


if __name__ == "__main__":
    main()

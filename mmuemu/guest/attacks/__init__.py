"""The attacks of ``samples/speculation``, built: what each is about, and where its program lies.

``samples/speculation/build.py`` builds the programs; ``samples/speculation/lab.h`` tells what they print.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple


class Attack(NamedTuple):
    """One program. It takes the number of bytes, of tries for a byte, and of hits by which the best value must lead."""

    title: str
    page: str
    """The page of ``docs/attacks`` that explains it."""
    flaws: tuple[str, ...] = ()
    """What the CPU must have, all of it (names of ``mmuemu.speculation.flaws``); empty: it needs none."""
    stopped_by: tuple[str, ...] = ()
    """Mitigations each of which stops it alone."""
    secret: str = "guest"
    """Who knows the secret: ``guest`` (it prints it), ``kernel`` (``Kernel.secret``), ``text`` (the base of the
    kernel's text, the low bytes, most significant first)."""
    most: int = 256
    """Bytes that it can leak at most."""
    leaks: bool = True
    """False: it never does, whatever the CPU (a control, or a hardened victim)."""


def _kernel(title: str, page: str, flaws: tuple[str, ...], stopped_by: tuple[str, ...]) -> Attack:
    return Attack(title, page, flaws, stopped_by, secret="kernel", most=32)


ATTACKS: Final[dict[str, Attack]] = {
    "v1": Attack("Spectre v1: past a bounds check", "bounds", ("v1",)),
    "v1-lfence": Attack("the same, LFENCE behind the check", "bounds", ("v1",), leaks=False),
    "v1-mask": Attack("the same, the index masked", "bounds", ("v1",), leaks=False),
    "v1-kernel": _kernel("Spectre v1 against a system call", "bounds", ("v1",), ("lfence", "nospec", "smap")),
    "v1.1": Attack("Spectre v1.1: a store past a bounds check", "bounds", ("v1",)),
    "evict-reload": Attack("Spectre v1, the cache emptied without CLFLUSH", "channels", ("v1",)),
    "v2": Attack("Spectre v2: an indirect call, in place", "branches", ("v2",)),
    "v2-retpoline": Attack("the same, compiled with retpolines", "branches", ("v2",), leaks=False),
    "v2-cross": Attack("Spectre v2 from one process to another", "branches", ("v2",), ("ibpb",)),
    "v2-kernel": _kernel(
        "Spectre v2 from user code to the kernel", "branches", ("v2",), ("retpoline", "ibrs", "eibrs", "smap")
    ),
    "ret2spec": Attack("SpectreRSB: the return address overwritten", "returns", ("rsb",)),
    "ret2spec-underflow": Attack("SpectreRSB: more returns than entries", "returns", ("rsb",)),
    "ret2spec-cross": Attack("SpectreRSB from one process to another", "returns", ("rsb",), ("rsb-fill",)),
    "v4": Attack("Spectre v4: a load passes a store", "bypass", ("v4",), ("ssbd",)),
    "v4-ssbd": Attack(
        "the same, SSBD asked for by prctl, where the kernel lets it", "bypass", ("v4",), ("ssbd", "auto")
    ),
    "meltdown": _kernel("Meltdown: a forbidden load, the fault caught", "faults", ("meltdown",), ("kpti",)),
    "meltdown-branch": _kernel("Meltdown behind a branch: no fault at all", "faults", ("v1", "meltdown"), ("kpti",)),
    "meltdown-rw": Attack("Meltdown-RW: a store to a read-only page", "faults", ("meltdown-rw",)),
    "meltdown-pk": Attack("Meltdown-PK: past a protection key", "faults", ("meltdown-pk",)),
    "meltdown-nm": Attack("Meltdown-NM: another process's XMM0", "faults", ("meltdown-nm",), ("eager-fpu",)),
    "l1tf": Attack("L1TF: a page that is not present", "faults", ("l1tf",), ("pte-inversion", "l1d-flush")),
    "mfbds": _kernel("MFBDS: from a line fill buffer", "buffers", ("mfbds",), ("verw",)),
    "msbds": _kernel("MSBDS: from the store buffer", "buffers", ("msbds",), ("verw",)),
    "prime-probe": Attack("Prime+Probe: a table look-up, no speculation", "channels"),
    "kaslr": Attack("KASLR by the time of PREFETCH", "kaslr", secret="text", most=8),
    "plain-read": _kernel("the control: reading the kernel's secret", "control", (), ())._replace(leaks=False),
}
"""By name. The order is the one of the documentation."""


def program(name: str) -> Path:
    """The ELF file of the attack called ``name``. Raises KeyError for a name that is not in :data:`ATTACKS`."""
    if name not in ATTACKS:
        raise KeyError(name)
    return Path(str(files(__name__).joinpath(f"{name}.elf")))

"""On which two machines a batch of programs is compared."""

from __future__ import annotations

import random
from typing import Any, Final

from mmuemu.speculation.flaws import FLAWS

BATCH: Final = 40
"""Programs that one machine runs."""
CPUS: Final = ("skylake", "haswell", "zen2", "icelake", "cascadelake")


def sides(number: int, kind: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of both machines for batch ``number``.

    ``kind`` is a CPU's name, ``"off"`` or ``"native"`` for two machines without transient execution, or nothing: by
    number, every second time Skylake with all flaws, else any CPU with any flaws.
    """
    if kind == "off":
        return {}, {}
    if kind == "native":
        return {}, {"mmu": "native"}
    draw = random.Random(f"{number} sides")
    if kind == "all" or number % 2 == 0:
        return {}, {"flaws": sorted(FLAWS)}
    return {}, {"flaws": draw.sample(sorted(FLAWS), draw.randrange(1, len(FLAWS)))}

"""On which two machines a batch of programs is compared."""

from __future__ import annotations

import random
from typing import Any, Final

from mmuemu.speculation.catalogue import find_cpu, lacks
from mmuemu.speculation.flaws import FLAWS

BATCH: Final = 40
"""Programs that one machine runs."""
CPUS: Final = ("skylake", "haswell", "zen2", "icelake", "cascadelake", "in-order")


def _beside(number: int, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The machine without and with transient execution.

    Every third time without is a processor that does not speculate, and then all flags are compared at faults, too.
    """
    if number % 3 == 2:
        return {"machine": "still", "strict": True, **options}, {"strict": True, **options}
    return {"machine": "plain", **options}, options


def sides(number: int, kind: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of both machines for batch ``number``.

    ``kind`` is a CPU's name, ``"off"`` or ``"native"`` for two machines without transient execution, or nothing: by
    number, every second time Skylake with all flaws, else any CPU with any flaws it can have.
    """
    if kind == "off":
        return {}, {}
    if kind == "native":
        return {}, {"mmu": "native"}
    if kind or number % 2 == 0:
        # Loads pass stores soon: programs are too short to train them for long.
        return _beside(number, cpu=kind or "skylake", mitigations="off", vulnerable="all", threshold=1)
    draw = random.Random(f"{number} sides")
    cpu = draw.choice(CPUS)
    possible = [name for name in FLAWS if not lacks(find_cpu(cpu), name)]
    flaws = draw.sample(possible, draw.randrange(len(possible) + 1))
    options: dict[str, Any] = {"vulnerable": ",".join(flaws), "not_vulnerable": "all"} if flaws else {}
    return _beside(number, cpu=cpu, mitigations=draw.choice(("off", "auto", "auto")), **options)

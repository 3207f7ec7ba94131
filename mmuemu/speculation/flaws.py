"""The flaws a CPU can have, by the names that ``--vulnerable`` takes.

Names follow Canella et al., "A Systematic Evaluation of Transient Execution Attacks and Defenses" (USENIX Security
2019), and Linux's Documentation/admin-guide/hw-vuln.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mmuemu.errors import UsageError

FLAWS: Final[dict[str, str]] = {
    "v1": "a conditional branch is predicted, and the wrong way runs (Spectre v1, v1.1; CVE-2017-5753, 2018-3693)",
    "v2": "an indirect branch goes where the branch target buffer says (Spectre v2; CVE-2017-5715)",
    "rsb": "a return goes where the return stack buffer says (ret2spec, SpectreRSB; CVE-2018-15572)",
    "v4": "a load passes an older store whose address is not known (speculative store bypass; CVE-2018-3639)",
    "meltdown": "a load that U/S forbids forwards what L1 holds (Meltdown-US; CVE-2017-5754)",
    "meltdown-rw": "a store that R/W forbids reaches younger loads (Meltdown-RW, Spectre v1.2)",
    "meltdown-pk": "a load that a protection key forbids forwards its data (Meltdown-PK)",
    "meltdown-nm": "an FPU instruction that raises #NM computes with what the registers hold (LazyFP; CVE-2018-3665)",
    "meltdown-ac": "a load that raises #AC forwards its data (Meltdown-AC)",
    "meltdown-de": "a division by zero forwards a result (Meltdown-DE)",
    "l1tf": "a load by an entry with P=0 or reserved bits forwards what L1 holds of its frame (CVE-2018-3620)",
    "mfbds": "a faulting load forwards stale bytes of a line fill buffer (RIDL, ZombieLoad; CVE-2018-12130)",
    "msbds": "a faulting load forwards stale bytes of the store buffer (Fallout; CVE-2018-12126)",
    "mlpds": "a faulting load forwards stale bytes of a load port (RIDL; CVE-2018-12127)",
}
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "mds": ("mfbds", "msbds", "mlpds"),
    "all": tuple(FLAWS),
}
"""Names for several."""


def parse_flaws(names: Iterable[str], option: str) -> frozenset[str]:
    """The flaws that ``names`` mean. Raises UsageError, listing the known names, for any other."""
    found: set[str] = set()
    for name in names:
        if name in FLAWS:
            found.add(name)
        elif name in GROUPS:
            found.update(GROUPS[name])
        else:
            raise UsageError(f"{option}: unknown flaw {name!r}: choose from {', '.join([*FLAWS, *GROUPS])}")
    return frozenset(found)

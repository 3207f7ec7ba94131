"""Page-table entries and accesses: our walk and the engine's must say the same of each (tests/mmu/differential.py).

The bytes are the bits of the generator that makes the cases.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from tests.fuzz.draw import DrawnRandom
from tests.mmu.cases import make_case
from tests.mmu.differential import Differential

LONGEST: Final = 1024
_MOST_CASES: Final = 8


@cache
def _differential() -> Differential:
    return Differential()


def forget() -> None:
    """Start with other memory."""
    _differential.cache_clear()


def one(data: bytes) -> None:
    """As many cases as the bytes make."""
    random = DrawnRandom(data)
    for _ in range(_MOST_CASES):
        case = make_case(random)
        trouble = _differential().check(case)
        assert trouble is None, f"{trouble}\npython -m tests.mmu.differential --case '{case.describe()}'"
        if not random.draw.left:
            return


def seeds() -> list[bytes]:
    """Bytes of every kind: the first four choose mode, access and ring."""
    fixed = [bytes((number, 255 - number, number * 7 & 255, mode)) for number in range(8) for mode in range(0, 256, 37)]
    return [choice + bytes((at * step + 17) & 255 for at in range(96)) for step, choice in enumerate(fixed)]

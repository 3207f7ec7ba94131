"""Which programs are sources, to be built first (:mod:`mmuemu.sources` does it)."""

from __future__ import annotations

import os
from typing import Final

SUFFIXES: Final = frozenset({".s", ".S", ".asm", ".c"})


def is_source(path: str) -> bool:
    """Whether ``path`` names something to be built first."""
    return os.path.splitext(path)[1] in SUFFIXES

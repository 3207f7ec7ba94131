"""Inputs that once showed a defect, by target: what was wrong, and the input in hexadecimal."""

from __future__ import annotations

from typing import Final

FOUND: Final[dict[str, dict[str, str]]] = {
    "saved": {
        "an x87 stack outside of the CPU's state: the engine wrote to the host's memory": "fda10000001000",
    },
}

"""Inputs that once showed a defect, by target: what was wrong, and the input in hexadecimal."""

from __future__ import annotations

from typing import Final

FOUND: Final[dict[str, dict[str, str]]] = {
    "saved": {
        "an x87 stack outside of the CPU's state: the engine wrote to the host's memory": "fda10000001000",
        "the version is a control character": "0f00071427ac",
        "the version is an object: thousands of characters in one line": "000bff41ff0b0002000202",
    },
}

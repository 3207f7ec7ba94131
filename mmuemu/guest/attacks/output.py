"""What the attacks print (``samples/speculation/lab.h`` describes it), read."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Told:
    """One program's output; what it did not say is empty, 0 or None."""

    who: str = ""
    """Who may read the secret."""
    secret: bytes | None = None
    """None: the program does not know it."""
    leaked: bytes = b""
    sure: bytes = b""
    """1 for each byte of ``leaked`` that the program believes."""
    tries: int = 0
    cached: int = 0
    flushed: int = 0
    threshold: int = 0
    probes: list[int] = field(default_factory=list)
    """Cycles of the last reloads for the first byte, by value."""
    histogram: dict[int, int] = field(default_factory=dict)
    """Cycles of a reload -> how many there were."""
    faults: int = 0
    notes: list[str] = field(default_factory=list)


_NUMBERS = ("tries", "cached", "flushed", "threshold", "faults")
_BYTES = ("secret", "leaked", "sure")


def read_told(output: bytes) -> Told:
    """Read an attack's standard output; lines of other programs, and broken ones, are passed over."""
    told = Told()
    for line in output.decode("ascii", "replace").splitlines():
        word, _, rest = line.partition(" ")
        try:
            _read(told, word, rest)
        except ValueError:
            continue
    return told


def _read(told: Told, word: str, rest: str) -> None:
    if word in _NUMBERS:
        setattr(told, word, int(rest))
    elif word in _BYTES:
        setattr(told, word, bytes.fromhex(rest))
    elif word == "probes":
        told.probes = [int(number) for number in rest.split()]
    elif word == "hist":
        cycles, count = rest.split()
        told.histogram[int(cycles)] = told.histogram.get(int(cycles), 0) + int(count)
    elif word == "who":
        told.who = rest
    elif word == "note":
        told.notes.append(rest)

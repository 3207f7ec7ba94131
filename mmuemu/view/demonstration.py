"""The result of one demonstrated attack: what leaked, how fast, and because of what."""

from __future__ import annotations

import errno
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mmuemu.guest.attacks import ATTACKS
from mmuemu.guest.attacks.output import Told
from mmuemu.speculation.flaws import FLAWS

VERSION: Final = 1
"""Of :meth:`Demonstration.as_json`."""
ARCHITECTURAL: Final = "architectural"
"""The cause of a leak that no transient fill had a part in."""
FORWARDING: Final = frozenset(
    name for name in FLAWS if name.startswith("meltdown") or name in ("l1tf", "mfbds", "msbds", "mlpds")
)
"""Flaws by which a load hands on what it must not; the others only lead there."""
_RESULT: Final = re.compile(r"= -(\d+)$")


def cause_of(chain: tuple[str, ...]) -> str:
    """The flaw at the root of a chain of causes: the one that forwarded data, else the outermost."""
    for flaw in reversed(chain):
        if flaw in FORWARDING:
            return flaw
    return chain[0] if chain else ARCHITECTURAL


@dataclass(slots=True)
class Demonstration:
    """One run of one attack."""

    attack: str
    cpu: str
    mitigations: str
    flaws: tuple[str, ...]
    """Those in force."""
    seed: int
    noise: int | None
    size: int
    """Bytes that were asked for."""
    secret: bytes
    told: Told
    budget: int
    exhausted: bool = False
    """Whether the budget ended it."""
    guest_exit: int = 0
    fills: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Transient fills of the lines that stand for the bytes that leaked, by chain of causes."""
    misled: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """The same of bytes that were believed and are wrong."""
    probe_fills: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Transient fills of any line of the probe array."""
    instructions: int = 0
    windows: int = 0
    cycles: int = 0
    seconds: float = 0.0
    """CPU time of the host for the run."""

    @property
    def right(self) -> list[bool]:
        """For each byte asked for: whether it was believed, and is the secret's."""
        told = self.told
        return [
            index < min(len(told.leaked), len(told.sure), len(self.secret))
            and bool(told.sure[index])
            and told.leaked[index] == self.secret[index]
            for index in range(self.size)
        ]

    @property
    def leaked(self) -> bytes:
        """What was believed, 0 where nothing was."""
        return self.told.leaked[: self.size].ljust(self.size, b"\0")

    @property
    def believed(self) -> int:
        """How many bytes the attack believed, rightly or not."""
        return sum(self.told.sure[: self.size])

    @property
    def accuracy(self) -> float:
        """The part of the secret that leaked, 0 to 1."""
        return sum(self.right) / self.size

    @property
    def bytes_per_second(self) -> float:
        """Right bytes for each second of the host's CPU."""
        return sum(self.right) / self.seconds if self.seconds else 0.0

    @property
    def cycles_per_byte(self) -> float | None:
        """Guest cycles for each right byte; None when there is none."""
        right = sum(self.right)
        return self.cycles / right if right else None

    @property
    def cause(self) -> str | None:
        """The flaw at the root of most fills that mattered; None when nothing leaked."""
        if not any(self.right):
            return None
        return cause_of(self.fills.most_common(1)[0][0]) if self.fills else ARCHITECTURAL

    @property
    def exit_code(self) -> int:
        """0: all bytes leaked."""
        return 0 if all(self.right) else 1

    @property
    def refusals(self) -> list[str]:
        """What the kernel and the processor answered: notes with errno's names, and signals."""
        found = [note for note in map(_named, self.told.notes) if " = -E" in note]
        return [*found, f"SIGSEGV ({self.told.faults} times)"] if found and self.told.faults else found

    @property
    def reason(self) -> str:
        """Why not all of it leaked, in words; empty when it did."""
        if all(self.right):
            return ""
        if self.exhausted:
            return f"the budget of {self.budget:,} instructions is spent"
        if self.guest_exit:
            return f"the attack ended with exit code {self.guest_exit}"
        if self.believed and not any(self.right):
            by = f", and came by {cause_of(self.misled.most_common(1)[0][0])}" if self.misled else ""
            return f"what the attack believes is not the secret{by}"
        if any(self.right):
            return f"{sum(self.right)} of {self.size} bytes leaked"
        return self._why_nothing()

    def _why_nothing(self) -> str:
        attack = ATTACKS[self.attack]
        if self.refusals:
            return f"refused: {', '.join(self.refusals)}"
        missing = [flaw for flaw in attack.flaws if flaw not in self.flaws]
        if missing:
            return f"{self.cpu} does not have {', '.join(missing)} here"
        if self.told.notes:
            return "; ".join(self.told.notes)
        stopping = [name for name in attack.stopped_by if self.mitigations.count(name)]
        if stopping:
            return f"stopped by {', '.join(stopping)}"
        if not attack.leaks:
            return "as it should be: the victim is hardened"
        if not self.told.threshold:
            return "the clock tells cached lines from flushed ones by nothing"
        return f"no value led in {self.told.tries} attempts"

    def as_json(self) -> dict[str, Any]:
        """The fields of ``mmuemu demo --json`` (docs/reference-cli.md)."""
        told = self.told
        return {
            "version": VERSION,
            "attack": self.attack,
            "cpu": self.cpu,
            "mitigations": self.mitigations,
            "flaws": list(self.flaws),
            "seed": self.seed,
            "noise": self.noise,
            "bytes": self.size,
            "who": told.who,
            "secret_hex": self.secret.hex(),
            "leaked_hex": self.leaked.hex(),
            "believed": self.believed,
            "accuracy": self.accuracy,
            "bytes_per_second": round(self.bytes_per_second, 1),
            "cycles_per_byte": None if self.cycles_per_byte is None else round(self.cycles_per_byte),
            "cause": self.cause,
            "causes": chains(self.fills),
            "probe_fills": chains(self.probe_fills),
            "reason": self.reason,
            "exit_code": self.exit_code,
            "instructions": self.instructions,
            "windows": self.windows,
            "cycles": self.cycles,
            "attempts": told.tries,
            "budget": self.budget,
            "seconds": round(self.seconds, 3),
            "threshold": told.threshold,
            "cached": told.cached,
            "flushed": told.flushed,
            "probes": told.probes,
            "histogram": [[cycles, count] for cycles, count in sorted(told.histogram.items())],
            "notes": [_named(note) for note in told.notes],
        }


def chains(fills: Mapping[tuple[str, ...], int]) -> list[dict[str, Any]]:
    """Chains of causes with how often each was, the most frequent first."""
    ordered = sorted(fills.items(), key=lambda item: (-item[1], item[0]))
    return [{"chain": list(chain), "fills": count} for chain, count in ordered]


def _named(note: str) -> str:
    """A note with ``= -14`` as ``= -EFAULT``."""
    return _RESULT.sub(lambda found: f"= -{errno.errorcode.get(int(found[1]), found[1])}", note)

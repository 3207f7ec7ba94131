"""Running one attack, and what it says: shared by the tests of this directory."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from mmuemu.guest.attacks import ATTACKS, program
from mmuemu.machine import Machine
from mmuemu.speculation.flaws import FLAWS
from mmuemu.speculation.trace import Window

LINES = {
    "who": r".+",
    "secret": r"(?:[0-9a-f]{2})+",
    "leaked": r"(?:[0-9a-f]{2})+",
    "sure": r"(?:0[01])+",
    "tries": r"\d+",
    "cached": r"\d+",
    "flushed": r"\d+",
    "threshold": r"\d+",
    "probes": r"\d+(?: \d+)*",
    "hist": r"\d+ \d+",
    "faults": r"\d+",
    "note": r".+",
}
"""What an attack may print: the first word of a line, and the rest of it."""
SEVERAL = {"hist", "note"}


@dataclass
class Run:
    """What a run left: exit code, the output's lines by their first words, the secret, the windows there were."""

    code: int | None
    told: dict[str, list[str]]
    secret: str = ""
    windows: list[Window] = field(default_factory=list)

    @property
    def leaked(self) -> str:
        return self.told["leaked"][0]


def parse(text: bytes) -> dict[str, list[str]]:
    """The lines by their first words. Fails when a line is none of :data:`LINES`."""
    found: dict[str, list[str]] = {}
    for line in text.decode("ascii").splitlines():
        word, _, rest = line.partition(" ")
        assert re.fullmatch(LINES[word], rest), line
        found.setdefault(word, []).append(rest)
    for word, values in found.items():
        assert len(values) == 1 or word in SEVERAL, word
    return found


def run(image: bytes, *arguments: str) -> Run:
    """On a CPU that does not speculate."""
    with Machine(seed=1) as machine:
        process = machine.spawn(image, ["attack", *arguments])
        process.wait(max_instructions=20_000_000)
        return Run(process.exit_code, parse(process.stdout))


def only(flaws: Collection[str]) -> dict[str, Iterable[str]]:
    """Settings of a machine whose CPU has these flaws and no other."""
    return {"vulnerable": sorted(flaws), "not_vulnerable": sorted(set(FLAWS) - set(flaws))}


def attack(
    name: str, size: int = 2, tries: int = 4, *, cpu: str = "skylake", mitigations: str = "off", **settings
) -> Run:
    """``name`` on a speculating CPU."""
    with Machine(seed=1, show_secret=True, cpu=cpu, mitigations=mitigations, **settings) as machine:
        core = machine.speculation
        assert core is not None
        core.trace = []
        process = machine.spawn(program(name).read_bytes(), [name, str(size), str(tries)])
        process.wait(max_instructions=20_000_000)
        told = parse(process.stdout)
        match ATTACKS[name].secret:
            case "kernel":
                secret = machine.kernel.secret[:size].hex()
            case "text":
                secret = machine.kernel.memory.layout.text.to_bytes(8, "big")[-size:].hex()
            case _:
                secret = told["secret"][0] if "secret" in told else ""
        return Run(process.exit_code, told, secret, core.trace)

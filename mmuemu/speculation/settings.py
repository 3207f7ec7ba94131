"""What a user asks of a machine's transient execution, resolved: the model, its flaws, the mitigations, the noise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from mmuemu.errors import UsageError
from mmuemu.speculation.flaws import parse_flaws

if TYPE_CHECKING:
    from mmuemu.speculation.mitigations import Mitigations
    from mmuemu.speculation.models import CpuSpec


class Settings(NamedTuple):
    """``flaws`` are those in force, whatever the model has; ``noise`` is the noise's seed, None for none."""

    spec: CpuSpec
    flaws: frozenset[str]
    mitigations: Mitigations
    noise: int | None = None


def words(names: str | Iterable[str]) -> list[str]:
    """A list of names that may be written as one text with commas."""
    parts = names.split(",") if isinstance(names, str) else names
    return [part.strip() for part in parts if part.strip()]


def resolve(
    cpu: str | CpuSpec | None,
    *,
    mitigations: str | Iterable[str] = "off",
    vulnerable: str | Iterable[str] = (),
    not_vulnerable: str | Iterable[str] = (),
    noise: int | None = None,
    mmu: str = "python",
    kpti: bool = False,
) -> Settings | None:
    """The settings that these options mean, None without a CPU model. ``kpti`` puts that mitigation in force too.

    Raises UsageError for names that do not exist and for what cannot be together; messages name the command line's
    options.
    """
    more, less = words(vulnerable), words(not_vulnerable)
    text = ",".join(words(mitigations)) or "off"
    if cpu is None:
        given = {"--mitigations": text != "off", "--vulnerable": more, "--not-vulnerable": less}
        given["--noise"] = noise is not None
        for option, value in given.items():
            if value:
                raise UsageError(f"{option} needs --cpu: without a CPU model nothing runs transiently")
        return None
    if mmu != "python":
        raise UsageError(f"--cpu needs --mmu python: speculation follows every translation, and {mmu} shows none")
    from mmuemu.speculation.catalogue import check, find_cpu
    from mmuemu.speculation.mitigations import parse_mitigations

    spec = find_cpu(cpu) if isinstance(cpu, str) else check(cpu)
    flaws = _flaws(spec, more, less)
    found = parse_mitigations(text, spec, flaws)
    return Settings(spec, flaws, found.also("kpti") if kpti else found, noise)


def _flaws(spec: CpuSpec, more: list[str], less: list[str]) -> frozenset[str]:
    from mmuemu.speculation.catalogue import lacks

    added, removed = parse_flaws(more, "--vulnerable"), parse_flaws(less, "--not-vulnerable")
    if "all" in more:
        # Of every flaw there is: those this processor has the parts for.
        added = frozenset(flaw for flaw in added if not lacks(spec, flaw)) - removed
    for flaw in sorted(added):
        why = lacks(spec, flaw)
        if why:
            raise UsageError(f"--vulnerable {flaw}: {why}")
    if "all" in less:
        # --not-vulnerable all --vulnerable v1: that one and no other.
        return added
    both = sorted(added & removed)
    if both:
        raise UsageError(f"--vulnerable and --not-vulnerable both name {', '.join(both)}")
    return spec.flaws - removed | added

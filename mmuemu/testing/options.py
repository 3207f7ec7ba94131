"""``@pytest.mark.mmuemu(...)``: which options there are, and what lists among them come to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, Final

OPTIONS: Final = (
    "aslr", "cpu", "files", "kpti", "layout", "max_instructions", "max_processes", "memory", "mitigations", "mmu",
    "noise", "not_vulnerable", "schedule", "seed", "show_secret", "thp", "timeout", "user", "virtual_time",
    "vulnerable",
)  # fmt: skip
"""Those of ``Machine``, and the limits of a run."""
LIMITS: Final = ("timeout", "max_instructions")
DEFAULT_SEED: Final = 1
DEFAULT_TIMEOUT: Final = 60.0


def merged(markers: Iterable[Any]) -> dict[str, Any]:
    """The options of ``markers``, the closest first, which wins. Raises ValueError for what is no option."""
    found: dict[str, Any] = {}
    for marker in markers:
        if marker.args:
            raise ValueError(f"@pytest.mark.mmuemu takes options by name, not {marker.args[0]!r}")
        for name, value in marker.kwargs.items():
            if name not in OPTIONS:
                raise ValueError(f"@pytest.mark.mmuemu has no option {name!r}: choose from {', '.join(OPTIONS)}")
            if isinstance(value, list) and not value:
                raise ValueError(f"@pytest.mark.mmuemu({name}=[]): give at least one value")
            found.setdefault(name, value)
    return found


def combinations(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One set of options for each combination of what is listed; a list means alternatives, a tuple is one value."""
    names = list(options)
    alternatives = [value if isinstance(value, list) else [value] for value in options.values()]
    return [dict(zip(names, values, strict=True)) for values in product(*alternatives)]


def ids(options: Mapping[str, Any], combined: Iterable[Mapping[str, Any]]) -> list[str]:
    """The name of each combination: what differs, ``seed=1-native``."""
    listed = [name for name, value in options.items() if isinstance(value, list)]
    return ["-".join(_id(name, one[name]) for name in listed) for one in combined]


def _id(name: str, value: object) -> str:
    if isinstance(value, str) and value not in ("off", "auto"):
        return value
    if isinstance(value, (str, int, float)) or value is None:
        return f"{name}={value}"
    if isinstance(value, (tuple, set, frozenset)):
        return "+".join(str(part) for part in value)
    return str(getattr(value, "name", name))


__all__ = ["DEFAULT_SEED", "DEFAULT_TIMEOUT", "LIMITS", "OPTIONS", "combinations", "ids", "merged"]

"""What ``mmuemu doctor`` found, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mmuemu.errors import printable
from mmuemu.view.sheet import Sheet

VERSION: Final = 1
OK: Final = "ok"
MISSING: Final = "missing"
BROKEN: Final = "broken"
_STYLES: Final = {OK: "", MISSING: "yellow", BROKEN: "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    group: str
    """The heading it stands under."""
    name: str
    state: str
    """OK, MISSING or BROKEN."""
    found: str = ""
    """Version and place, or what is wrong with it."""
    without: str = ""
    """What does not work where it is not OK."""
    get: str = ""
    """Where it comes from."""
    needed: bool = False
    """Whether mmuemu does not work without it."""


def is_well(findings: Sequence[Finding]) -> bool:
    """Whether everything needed works."""
    return all(each.state == OK for each in findings if each.needed)


def as_json(findings: Sequence[Finding], version: str) -> dict[str, Any]:
    """For programs (docs/reference-cli.md); ``version`` is mmuemu's."""
    checks = [{name: getattr(each, name) for name in Finding.__slots__} for each in findings]
    return {"version": VERSION, "mmuemu": version, "ok": is_well(findings), "checks": checks}


def parts(findings: Sequence[Finding]) -> Iterator[str | Sheet]:
    """The table, then what to do about what is not well."""
    sheet = Sheet(("what", "state", "found"))
    group = None
    for each in findings:
        if each.group != group:
            group = each.group
            sheet.add(group, "", "", style="bold")
        sheet.add(f"  {each.name}", each.state, printable(each.found), style=_STYLES[each.state])
    yield sheet
    for each in findings:
        if each.state != OK and each.without:
            source = f" ({each.get})" if each.get else ""
            yield f"{each.name}: {each.state}, so {each.without}{source}\n"
    bad = [each.name for each in findings if each.needed and each.state != OK]
    yield f"Needed, and not working: {', '.join(bad)}.\n" if bad else "All that is needed works.\n"


__all__ = ["BROKEN", "MISSING", "OK", "VERSION", "Finding", "as_json", "is_well", "parts"]

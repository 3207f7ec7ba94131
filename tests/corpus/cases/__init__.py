"""All cases, in the order of docs/compat.md."""

from __future__ import annotations

from tests.corpus.case import Case
from tests.corpus.cases import archives, building, coreutils, languages, processes, python, shells, text

GROUPS: dict[str, tuple[Case, ...]] = {
    "Shells": shells.CASES,
    "Coreutils": coreutils.CASES,
    "Text": text.CASES,
    "Archives and ciphers": archives.CASES,
    "Languages": languages.CASES,
    "Python": python.CASES,
    "Compilers and version control": building.CASES,
    "Processes": processes.CASES,
}
CASES = tuple(case for group in GROUPS.values() for case in group)

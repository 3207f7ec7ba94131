"""Grader: why does this fault?"""

from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "starter"
RULES = {
    "not present": "not-present", "read-only": "read-only", "not executable": "no-execute",
    "supervisor-only": "supervisor-only",
}  # fmt: skip


def bits(text):
    return {bit.strip().upper() for bit in text.split("|")}


@pytest.mark.points(2)
@pytest.mark.parametrize("name", "abcde")
@pytest.mark.mmuemu(aslr=False)
def test_why(lab, guest, name):
    """What went wrong in the program"""
    fault = guest.run(guest.program(PROGRAMS / f"{name}.s")).fault
    given = [lab.answer(f"{name} {what}").lower() for what in ("access", "error", "why")]
    assert given[0] == (fault.access or "none"), f"{name} access: what does the instruction at {fault.rip:#x} do?"
    error = fault.error if fault.access else "0"
    assert bits(given[1]) == bits(error), f"{name} error: not these bits (mmuemu run {name}.s shows them)"
    right = next((word for text, word in RULES.items() if text in fault.rule), "non-canonical")
    assert given[2] == right, f"{name} why: look at the walk: mmuemu translate --no-aslr --at exit {name}.s ADDRESS"

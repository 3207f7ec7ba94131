"""Grader: Spectre v1."""

import pytest

from mmuemu.labs.receiver import receiver

COUNT = 3
FIRST = -384


def leaked(lab, **options):
    """What the answer finds on such a machine, and what the kernel's secret is."""
    frame = receiver("attack", FIRST, COUNT)
    result = lab.run(lab.program("answer.s", frame), show_secret=True, cpu="skylake", **options)
    return lab.numbers(result, "attack", COUNT), list(result.machine.kernel.secret[:COUNT])


@pytest.mark.points(4)
@pytest.mark.mmuemu(seed=[31, 32])
def test_the_secret_leaks(lab):
    """The kernel's secret comes out of a system call that checks its index"""
    found, secret = leaked(lab)
    assert found == secret, f"attack() found {found}, which is not the secret"


@pytest.mark.points(2)
def test_nothing_to_find(lab):
    """It finds nothing where the system call is hardened"""
    found, secret = leaked(lab)
    assert found == secret, "it does not work on the plain system call yet"
    for mitigation in ("lfence", "nospec"):
        found, _ = leaked(lab, mitigations=mitigation)
        assert found == [-1] * COUNT, f"attack() found {found} with {mitigation}: that is invented"

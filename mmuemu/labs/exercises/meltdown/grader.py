"""Grader: Meltdown."""

import pytest

from mmuemu.guest.attacks import ATTACKS
from mmuemu.labs.receiver import receiver

COUNT = 3


def leaked(lab, machine, **options):
    """What the answer finds on such a machine, and what the kernel's secret is."""
    kernel = machine(show_secret=True, **options).kernel
    address = kernel.memory.driver.data_symbols()["mmuemu_secret"]
    result = lab.run(lab.program("answer.s", receiver("leak", address, COUNT)), show_secret=True, **options)
    return lab.numbers(result, "leak", COUNT), list(kernel.secret[:COUNT])


@pytest.mark.points(3)
@pytest.mark.mmuemu(cpu="skylake", seed=[21, 22])
def test_the_secret_leaks(lab, machine):
    """The kernel's secret is read on a processor that has the flaw"""
    found, secret = leaked(lab, machine)
    assert found == secret, f"leak() found {found}, which is not the secret"


@pytest.mark.points(1)
def test_nothing_to_find(lab, machine):
    """It finds nothing where nothing is: a processor without the flaw, and page-table isolation"""
    found, secret = leaked(lab, machine, cpu="skylake")
    assert found == secret, "it does not work on Skylake yet"
    for options in ({"cpu": "icelake"}, {"cpu": "skylake", "mitigations": "kpti", "kpti": True}):
        found, _ = leaked(lab, machine, **options)
        assert found == [-1] * COUNT, f"leak() found {found} with {options}: that is invented"


@pytest.mark.points(1)
def test_answers(lab):
    """What stops it"""
    assert lab.answer("which mitigation stops it").lower() in ATTACKS["meltdown"].stopped_by, "try it: mmuemu demo"

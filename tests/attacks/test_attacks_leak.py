"""Each attack leaks where the CPU has its flaw, for that reason alone, and is stopped by what is said to stop it."""

from __future__ import annotations

from itertools import product

import pytest
from attack_runs import attack, only

from mmuemu.guest.attacks import ATTACKS
from mmuemu.speculation.catalogue import named

LEAKING = [name for name, about in ATTACKS.items() if about.leaks]
STOPPED = [(name, mitigation) for name, about in ATTACKS.items() for mitigation in about.stopped_by]
OTHER_CPUS = {"eibrs": "cascadelake"}
"""Mitigations that skylake does not offer, and a CPU that does."""


@pytest.mark.parametrize("name", LEAKING)
def test_a_cpu_with_all_flaws_leaks_every_byte(name):
    result = attack(name, 3)
    assert result.code == 0
    assert result.leaked == result.secret
    assert result.told["sure"] == ["010101"]


@pytest.mark.parametrize("name", [name for name in LEAKING if ATTACKS[name].flaws])
def test_its_flaws_alone_are_enough_and_are_every_windows_cause(name):
    flaws = ATTACKS[name].flaws
    result = attack(name, **only(flaws))
    assert result.leaked == result.secret
    causes = {cause for window in result.windows for fill in window.fills for cause in fill.causes}
    assert causes == set(flaws)


@pytest.mark.parametrize(("name", "flaw"), [(name, flaw) for name in LEAKING for flaw in ATTACKS[name].flaws])
def test_without_one_of_its_flaws_nothing_leaks(name, flaw):
    result = attack(name, not_vulnerable=[flaw])
    assert result.leaked == "0000"
    assert result.code == 0


@pytest.mark.parametrize(("name", "mitigation"), STOPPED)
def test_each_mitigation_alone_stops_it(name, mitigation):
    cpu = OTHER_CPUS.get(mitigation, "skylake")
    assert attack(name, cpu=cpu, mitigations=mitigation).leaked == "0000"


@pytest.mark.parametrize("name", [name for name, about in ATTACKS.items() if not about.leaks])
def test_controls_and_hardened_victims_leak_nowhere(name):
    assert attack(name).leaked == "0000"


@pytest.mark.parametrize("name", LEAKING)
def test_a_cpu_in_order_leaks_by_caches_and_translations_alone(name):
    result = attack(name, cpu="in-order")
    assert result.leaked == ("0000" if ATTACKS[name].flaws else result.secret)


@pytest.mark.parametrize(
    ("name", "cpu"),
    [
        *product(
            ["v1", "v2", "ret2spec", "v4", "meltdown", "l1tf", "mfbds", "prime-probe"],
            ["haswell", "zen2", "icelake", "cascadelake"],
        ),
        ("evict-reload", "zen2"),
    ],
)
def test_other_cpus_leak_by_what_they_have(name, cpu):
    result = attack(name, cpu=cpu)
    assert result.leaked == (result.secret if named(cpu).flaws.issuperset(ATTACKS[name].flaws) else "0000")


def test_kaslr_under_page_table_isolation_is_found_by_the_trampoline():
    result = attack("kaslr", 8, mitigations="kpti")
    assert result.leaked == result.secret


def test_a_victim_that_may_not_protect_itself_says_so():
    """With mitigations off, Linux refuses PR_SET_SPECULATION_CTRL."""
    result = attack("v4-ssbd")
    assert "PR_SET_SPECULATION_CTRL is refused" in result.told["note"][0]
    assert result.leaked == result.secret

"""Every attack leaks where its flaw is, for that reason, and nowhere else; each mitigation that should stop it does."""

from __future__ import annotations

from itertools import product

import pytest

from mmuemu.demonstrator import Request, default_cpu, demonstrate
from mmuemu.errors import UsageError
from mmuemu.guest.attacks import ATTACKS
from mmuemu.speculation.catalogue import NAMES, find_cpu
from mmuemu.view.demonstration import ARCHITECTURAL, Demonstration, cause_of

LEAKING = [name for name, attack in ATTACKS.items() if attack.leaks]
TRANSIENT = [name for name in LEAKING if ATTACKS[name].flaws]
HARDENED = [name for name, attack in ATTACKS.items() if not attack.leaks]
MITIGATED = [(name, mitigation) for name in LEAKING for mitigation in ATTACKS[name].stopped_by]
BYTES = {"kaslr": 4}
"""For attacks whose first bytes are the same in every run."""
TRIES = 4


def run(name: str, **options: object) -> Demonstration:
    return demonstrate(Request(attack=name, size=BYTES.get(name, 1), tries=TRIES, **options))


def assert_all_leaked(shown: Demonstration) -> None:
    assert shown.secret
    assert any(shown.secret)
    assert shown.leaked == shown.secret, shown.reason
    assert shown.accuracy == 1
    assert shown.exit_code == 0


def assert_nothing_leaked(shown: Demonstration) -> None:
    """A few believe zeros that another flaw hands them (stale buffers)."""
    assert shown.secret or shown.told.notes
    assert not any(shown.right)
    assert not any(shown.leaked), shown.leaked.hex()
    assert shown.accuracy == 0
    assert shown.exit_code == 1
    assert not shown.exhausted
    assert shown.cause is None


@pytest.mark.parametrize("name", LEAKING)
def test_it_leaks_on_a_vulnerable_cpu(name):
    flaws = ATTACKS[name].flaws
    shown = run(name)
    assert_all_leaked(shown)
    assert set(flaws) <= set(shown.flaws)
    assert shown.cause == (flaws[-1] if flaws else ARCHITECTURAL)


@pytest.mark.parametrize("name", TRANSIENT)
def test_it_leaks_by_its_flaw_alone_and_every_fill_says_so(name):
    flaws = ATTACKS[name].flaws
    shown = run(name, not_vulnerable="all", vulnerable=",".join(flaws))
    assert set(shown.flaws) == set(flaws)
    assert_all_leaked(shown)
    assert shown.fills
    assert {cause_of(chain) for chain in shown.fills} == {flaws[-1]}
    assert {flaw for chain in shown.probe_fills for flaw in chain} <= set(flaws)
    assert {cause_of(chain) for chain in shown.probe_fills} <= set(flaws)


@pytest.mark.parametrize(("name", "flaw"), [(name, flaw) for name in TRANSIENT for flaw in ATTACKS[name].flaws])
def test_it_leaks_nothing_where_all_but_its_flaw_are(name, flaw):
    shown = run(name, vulnerable="all", not_vulnerable=flaw)
    assert flaw not in shown.flaws
    assert len(shown.flaws) >= len(find_cpu(default_cpu(ATTACKS[name])).flaws) - 1
    assert_nothing_leaked(shown)


@pytest.mark.parametrize("name", TRANSIENT)
def test_it_leaks_nothing_on_a_cpu_that_does_nothing_transiently(name):
    shown = run(name, cpu="in-order")
    assert_nothing_leaked(shown)
    assert shown.windows == 0


@pytest.mark.parametrize(("name", "mitigation"), MITIGATED)
def test_each_mitigation_stops_it_alone(name, mitigation):
    for cpu in NAMES:
        if find_cpu(cpu).flaws >= set(ATTACKS[name].flaws):
            try:
                shown = run(name, cpu=cpu, mitigations=mitigation)
            except UsageError:
                continue  # not on this one: the next has the means
            assert set(ATTACKS[name].flaws) <= set(shown.flaws)
            assert_nothing_leaked(shown)
            return
    pytest.fail(f"no CPU model that {name} works on has {mitigation}")


@pytest.mark.parametrize("name", HARDENED)
def test_a_hardened_victim_leaks_nothing(name):
    assert_nothing_leaked(run(name))


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
    shown = run(name, cpu=cpu)
    if find_cpu(cpu).flaws >= set(ATTACKS[name].flaws):
        assert_all_leaked(shown)
    else:
        assert_nothing_leaked(shown)


def test_kaslr_under_page_table_isolation_is_found_by_the_trampoline():
    assert_all_leaked(run("kaslr", mitigations="kpti"))


def test_a_victim_that_may_not_protect_itself_says_so():
    """With mitigations off, Linux refuses PR_SET_SPECULATION_CTRL."""
    shown = run("v4-ssbd")
    assert "PR_SET_SPECULATION_CTRL is refused" in shown.told.notes[0]
    assert_all_leaked(shown)


@pytest.mark.parametrize("name", ["mfbds", "msbds"])
def test_flushing_the_l1d_overwrites_the_leaky_buffers_too(name):
    assert_nothing_leaked(run(name, mitigations="l1d-flush"))


def test_a_mitigation_against_another_flaw_does_not_stop_it():
    assert_all_leaked(run("v1", mitigations="kpti,ssbd,ibpb,verw"))
    assert_all_leaked(run("meltdown", mitigations="ssbd,ibpb,retpoline"))


@pytest.mark.parametrize("name", ["v1-kernel", "meltdown", "v4"])
def test_linux_own_choice_stops_it(name):
    assert run("v1", mitigations="auto").exit_code == 0, "user code is not hardened by the kernel"
    if name != "v4":  # SSBD is by prctl only
        assert_nothing_leaked(run(name, mitigations="auto"))


def test_one_seed_one_result():
    first, again, other = (run("v2", seed=seed).as_json() for seed in (5, 5, 6))
    for facts in (first, again):
        assert facts.pop("seconds") > 0
        assert facts.pop("bytes_per_second") > 0
    assert first == again
    assert other["secret_hex"] != first["secret_hex"] or other["cycles"] != first["cycles"]

"""Mitigations by name, what Linux picks by itself, and which flaws are in force."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmuemu.errors import UsageError
from mmuemu.speculation import identity
from mmuemu.speculation.catalogue import NAMES, lacks, named
from mmuemu.speculation.flaws import FLAWS
from mmuemu.speculation.mitigations import MITIGATIONS, OFF, automatic, impossible, parse_mitigations
from mmuemu.speculation.models import CpuSpec
from mmuemu.speculation.settings import resolve
from mmuemu.x86 import msrs

SKYLAKE = named("skylake")
AUTO = {
    "skylake": "kpti,retpoline,ibpb=prctl,rsb-fill,ssbd=prctl,pte-inversion,verw,nospec,smap,eager-fpu",
    "haswell": "kpti,retpoline,ibpb=prctl,rsb-fill,ssbd=prctl,pte-inversion,verw,nospec,eager-fpu",
    "zen2": "retpoline,ibpb=prctl,rsb-fill,ssbd=prctl,nospec,smap,eager-fpu",
    "icelake": "eibrs,ibpb=prctl,rsb-fill,ssbd=prctl,nospec,smap,eager-fpu",
    "cascadelake": "eibrs,ibpb=prctl,rsb-fill,ssbd=prctl,nospec,smap,eager-fpu",
    "in-order": "eager-fpu",
}


@pytest.mark.parametrize("name", NAMES)
def test_what_linux_picks(name: str) -> None:
    spec = named(name)
    picked = automatic(spec, spec.flaws)
    assert str(picked) == AUTO[name]
    assert parse_mitigations("auto", spec, spec.flaws) == picked
    assert parse_mitigations(str(picked), spec, spec.flaws) == picked


def test_the_choice_follows_the_flaws() -> None:
    assert "kpti" not in automatic(SKYLAKE, SKYLAKE.flaws - {"meltdown"})
    assert "verw" in automatic(SKYLAKE, frozenset({"msbds"}))
    assert "verw" not in automatic(SKYLAKE, frozenset({"v1", "v2"}))
    assert str(automatic(SKYLAKE, frozenset())) == "smap,eager-fpu"
    old = replace(SKYLAKE, microcode=())
    assert str(automatic(old, SKYLAKE.flaws)) == "kpti,retpoline,rsb-fill,pte-inversion,nospec,smap,eager-fpu"


def test_returns_that_ask_the_btb_need_ibrs() -> None:
    spec = replace(SKYLAKE, rsb_underflow="btb")
    picked = automatic(spec, spec.flaws)
    assert "ibrs" in picked
    assert "retpoline" not in picked
    assert identity.bugs(spec, spec.flaws)[-1] == "retbleed"
    assert identity.vulnerabilities(spec, spec.flaws, picked)["retbleed"] == "Mitigation: IBRS"
    assert identity.vulnerabilities(spec, spec.flaws, OFF)["retbleed"] == "Vulnerable"
    assert "retbleed" not in identity.vulnerabilities(spec, spec.flaws - {"rsb"}, OFF)


def test_a_list_is_what_it_names() -> None:
    found = parse_mitigations("kpti, ssbd=prctl,ibpb,ibpb=prctl", SKYLAKE, SKYLAKE.flaws)
    assert (found.names, found.on_request) == ({"kpti", "ibpb"}, {"ssbd"})
    more = parse_mitigations("auto,ssbd", SKYLAKE, SKYLAKE.flaws)
    assert (more.level("ssbd"), more.level("ibpb"), more.level("lfence")) == ("always", "prctl", "")
    assert parse_mitigations("off", SKYLAKE, SKYLAKE.flaws) == OFF
    assert str(OFF) == "off"
    assert parse_mitigations("ibrs,retpoline", SKYLAKE, SKYLAKE.flaws).names == {"ibrs", "retpoline"}


@pytest.mark.parametrize(
    ("cpu", "text", "answer"),
    [
        ("skylake", "kpit", "unknown mitigation 'kpit': choose from off, auto, kpti"),
        ("skylake", "kpti,,verw", "unknown mitigation ''"),
        ("skylake", "off,kpti", "give it alone"),
        ("skylake", "kpti=prctl", "unknown mitigation 'kpti=prctl'"),
        ("skylake", "eibrs", "IBRS_ALL"),
        ("icelake", "ibrs,eibrs", "choose one"),
        ("zen2", "ibrs", "zen2 has no IBRS"),
        ("zen2", "verw", "no MD_CLEAR"),
        ("zen2", "l1d-flush", "no L1D_FLUSH"),
        ("haswell", "smap", "haswell has no SMAP"),
        ("in-order", "retpoline", "in-order has none"),
        ("in-order", "rsb-fill", "no return stack buffer"),
        ("in-order", "ssbd=prctl", "offers nothing"),
    ],
)
def test_what_cannot_be_says_why(cpu: str, text: str, answer: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_mitigations(text, named(cpu), named(cpu).flaws)
    assert answer in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_page_table_isolation_is_never_impossible(name: str) -> None:
    for mitigation in ("kpti", "pte-inversion", "lfence", "nospec", "eager-fpu"):
        assert impossible(named(name), mitigation) == ""


# -- settings ----------------------------------------------------------------------------------------------------


def test_no_model_no_settings() -> None:
    assert resolve(None) is None
    assert resolve(None, mitigations="off", kpti=True, mmu="native") is None


@pytest.mark.parametrize(
    ("cpu", "options", "answer"),
    [
        (None, {"mitigations": "auto"}, "--mitigations needs --cpu"),
        (None, {"vulnerable": ["v1"]}, "--vulnerable needs --cpu"),
        (None, {"not_vulnerable": "v1"}, "--not-vulnerable needs --cpu"),
        (None, {"noise": 0}, "--noise needs --cpu"),
        ("skylake", {"mmu": "native"}, "--mmu python"),
        ("in-order", {"vulnerable": "v1"}, "runs nothing transiently"),
        ("haswell", {"vulnerable": "meltdown-pk"}, "no protection keys"),
        ("skylake", {"vulnerable": "v1", "not_vulnerable": "v1,v2"}, "both name v1"),
        ("skylake", {"vulnerable": "rowhammer"}, "unknown flaw 'rowhammer'"),
    ],
)
def test_options_that_do_not_go_together(cpu: str | None, options: dict[str, object], answer: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(cpu, **options)
    assert answer in str(caught.value)


def flaws_of(cpu: str | CpuSpec, **options: object) -> frozenset[str]:
    settings = resolve(cpu, **options)
    assert settings is not None
    return settings.flaws


def test_flaws_in_force() -> None:
    assert flaws_of("skylake") == SKYLAKE.flaws
    assert flaws_of("skylake", not_vulnerable="mds,v1") == SKYLAKE.flaws - {"mfbds", "msbds", "mlpds", "v1"}
    assert flaws_of("zen2", vulnerable=["meltdown"]) == named("zen2").flaws | {"meltdown"}
    assert flaws_of("skylake", not_vulnerable="all", vulnerable="v4") == {"v4"}
    assert flaws_of("in-order", not_vulnerable="all") == frozenset()
    assert flaws_of("skylake", vulnerable="all") == frozenset(FLAWS)
    assert flaws_of("haswell", vulnerable="all", not_vulnerable="v2") == frozenset(FLAWS) - {"meltdown-pk", "v2"}
    assert flaws_of("in-order", vulnerable="all") == frozenset()
    assert flaws_of(SKYLAKE) == SKYLAKE.flaws


def test_isolation_asked_for_alone_is_in_force() -> None:
    settings = resolve("skylake", kpti=True, mitigations=["ibpb=prctl", "verw"])
    assert settings is not None
    assert str(settings.mitigations) == "kpti,ibpb=prctl,verw"


# -- what the processor says -------------------------------------------------------------------------------------


def test_arch_capabilities_of_the_models() -> None:
    known = {"skylake": 0, "haswell": 0, "zen2": 0, "icelake": 0x16B, "cascadelake": 0x2B, "in-order": 0}
    found = {name: identity.cpu_model(named(name), named(name).flaws).arch_capabilities for name in NAMES}
    assert found == known


some_flaws = st.frozensets(st.sampled_from(list(FLAWS)))


@given(st.sampled_from(NAMES), some_flaws)
def test_what_is_denied_is_not_there_and_the_other_way_round(name: str, flaws: frozenset[str]) -> None:
    spec = named(name)
    flaws = frozenset(flaw for flaw in flaws if not lacks(spec, flaw))
    model = identity.cpu_model(spec, flaws)
    bits, bugs = model.arch_capabilities, identity.bugs(spec, flaws)
    denied = {"rdcl_no": {"cpu_meltdown", "l1tf"}, "mds_no": {"mds"}, "ssb_no": {"spec_store_bypass"}}
    for bit, names in denied.items():
        says_no = bits >> msrs.ARCH_CAPABILITIES[bit] & 1
        assert not (says_no and names & set(bugs))
        could = {"rdcl_no": {"meltdown", "l1tf"}, "mds_no": {"mfbds", "msbds", "mlpds"}, "ssb_no": {"v4"}}[bit]
        if spec.vendor == "GenuineIntel" and could & spec.flaws and not could & flaws:
            assert says_no
    assert bool(bits) == ("arch_capabilities" in model.features)
    if spec.vendor == "AuthenticAMD":
        assert bits == 0
        assert ("amd_ssb_no" in model.features) == ("v4" not in flaws)
    texts = identity.vulnerabilities(spec, flaws, automatic(spec, flaws))
    assert set(texts) == {name.removeprefix("cpu_") for name in bugs} - {"msbds_only"}
    # Linux's own choice leaves nothing vulnerable that it has the means against.
    if set(spec.microcode) >= {"ibpb", "ssbd", "md_clear"}:
        assert all(text.startswith("Mitigation") for text in texts.values()), texts


def test_texts_of_indirect_branches() -> None:
    def text(cpu: str, mitigations: str) -> str:
        spec = named(cpu)
        return identity.vulnerabilities(spec, spec.flaws, parse_mitigations(mitigations, spec, spec.flaws))[
            "spectre_v2"
        ]

    assert text("skylake", "retpoline,ibpb,stibp,rsb-fill") == (
        "Mitigation: Retpolines, IBPB: always-on, IBRS_FW, STIBP: forced, RSB filling, PBRSB-eIBRS: Not affected"
    )
    assert text("skylake", "ibrs") == "Mitigation: IBRS, IBPB: disabled, STIBP: disabled, PBRSB-eIBRS: Not affected"
    assert text("icelake", "eibrs,retpoline") == (
        "Mitigation: Enhanced IBRS + Retpolines, IBPB: disabled, PBRSB-eIBRS: Not affected"
    )
    assert text("zen2", "kpti").startswith("Vulnerable, IBPB: disabled, STIBP: disabled")


def test_texts_of_the_store_buffer_alone() -> None:
    only = frozenset({"msbds"})
    assert identity.bugs(SKYLAKE, only) == ("mds", "msbds_only")
    assert identity.vulnerabilities(SKYLAKE, only, OFF)["mds"] == "Vulnerable; SMT vulnerable"
    cleared = parse_mitigations("verw", SKYLAKE, only)
    assert identity.vulnerabilities(SKYLAKE, only, cleared)["mds"] == "Mitigation: Clear CPU buffers; SMT disabled"


def test_every_mitigation_has_a_line() -> None:
    assert all(len(text) > 20 and "\n" not in text for text in MITIGATIONS.values())

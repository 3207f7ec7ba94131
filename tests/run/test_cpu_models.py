"""A CPU model tells its guest one truth by CPUID, /proc/cpuinfo and /sys, and what prctl says is Linux's."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from mmuemu.speculation.catalogue import NAMES, named
from mmuemu.speculation.mitigations import automatic
from mmuemu.speculation.models import CpuSpec
from tests.run.harness import Programs, compare, mmuemu

NOT_AFFECTED = "Not affected"
DENIED = {"meltdown": 0, "l1tf": 0, "mds": 5, "spec_store_bypass": 4}
"""Files of /sys -> the bit of IA32_ARCH_CAPABILITIES that denies what they are about."""
AFFECTED = {
    "meltdown": ("cpu_meltdown", {"meltdown"}),
    "spectre_v1": ("spectre_v1", {"v1"}),
    "spectre_v2": ("spectre_v2", {"v2", "rsb"}),
    "spec_store_bypass": ("spec_store_bypass", {"v4"}),
    "l1tf": ("l1tf", {"l1tf"}),
    "mds": ("mds", {"mfbds", "msbds", "mlpds"}),
}
"""Files of /sys -> what /proc/cpuinfo calls that bug, and the flaws it is made of."""
COUNTERMEASURE = {
    "meltdown": "kpti", "spectre_v1": "nospec", "spec_store_bypass": "ssbd", "l1tf": "pte-inversion", "mds": "verw",
}  # fmt: skip


def told(out: bytes) -> dict[str, str]:
    """The lines of cpumodel.c as a table."""
    pairs = [line.split(":", 1) for line in out.decode().splitlines() if ":" in line]
    return {name.strip().rpartition("cpu/")[2]: value.strip() for name, value in pairs}


def leaf(found: dict[str, str], name: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in found[name].split())


def run(programs: Programs, place: Path, *options: str) -> tuple[dict[str, str], dict[str, object]]:
    report = place / "report.json"
    found = mmuemu("--json", report, *options, programs("cpumodel"), cwd=place)
    assert found.code == 0, found.err
    return told(found.out), json.loads(report.read_text())


@pytest.mark.parametrize("mitigations", ["off", "auto"])
@pytest.mark.parametrize("name", NAMES)
def test_all_ways_of_asking_agree(name: str, mitigations: str, programs: Programs, tmp_path: Path) -> None:
    spec = named(name)
    found, facts = run(programs, tmp_path, "--cpu", name, "--mitigations", mitigations)
    check_identity(spec, found)
    check_caches(spec, found)
    check_flaws(spec, found, spec.flaws)
    flags = found["flags"].split()
    names = automatic(spec, spec.flaws) if mitigations == "auto" else None
    for file, mitigation in COUNTERMEASURE.items():
        text = found[f"vulnerabilities/{file}"]
        active = names is not None and names.level(mitigation) != ""
        assert text.startswith("Mitigation: " if active and text != NOT_AFFECTED else ("Vulnerable", NOT_AFFECTED))
    assert ("pti" in flags) == (names is not None and "kpti" in names) == facts["kpti"]
    assert (facts["cpu"], set(facts["flaws"])) == (name, spec.flaws)
    assert facts["mitigations"] == str(names or "off")


def check_identity(spec: CpuSpec, found: dict[str, str]) -> None:
    signature, flags = leaf(found, "1.0")[0], found["flags"].split()
    family = (signature >> 8 & 15) + (signature >> 20 & 0xFF)
    model = signature >> 4 & 15 | signature >> 12 & 0xF0
    assert (family, model, signature & 15) == (spec.family, spec.model, spec.stepping)
    assert found["cpu family"] == str(spec.family)
    assert (found["model"], found["stepping"]) == (str(spec.model), str(spec.stepping))
    a, b, c, d = leaf(found, "0.0")
    assert struct.pack("<3I", b, d, c).decode() == spec.vendor == found["vendor_id"]
    assert found["cpuid level"] == str(a)
    brand = b"".join(struct.pack("<4I", *leaf(found, f"8000000{n}.0")) for n in (2, 3, 4)).rstrip(b"\0").decode()
    assert brand == spec.brand == found["model name"]
    assert float(found["cpu MHz"]) == spec.tsc_hz / 1e6
    if spec.crystal_hz:
        denominator, numerator, crystal, _ = leaf(found, "15.0")
        assert (crystal * numerator // denominator, leaf(found, "16.0")[0]) == (spec.tsc_hz, spec.base_mhz)
    edx, amd = leaf(found, "7.0")[3], leaf(found, "80000008.0")[1]
    if spec.vendor == "GenuineIntel":
        bits = {"md_clear": 10, "ibrs": 26, "ibpb": 26, "stibp": 27, "l1d_flush": 28, "ssbd": 31}
        assert all((edx >> bit & 1) == (name in spec.microcode) for name, bit in bits.items())
        assert amd & ~(1 << 9) == 0
        assert (edx >> 29 & 1) == bool(spec.capabilities) == ("arch_capabilities" in flags)
    else:
        bits = {"ibpb": 12, "ibrs": 14, "stibp": 15, "ssbd": 24}
        assert all((amd >> bit & 1) == (name in spec.microcode) for name, bit in bits.items())
        assert edx == 0
    shown = {"l1d_flush": "flush_l1d"}
    for name in ("ibrs", "ibpb", "stibp", "ssbd", "md_clear", "l1d_flush"):
        assert (shown.get(name, name) in flags) == (name in spec.microcode), name
    assert ("ibrs_enhanced" in flags) == ("ibrs_all" in spec.capabilities)


def check_caches(spec: CpuSpec, found: dict[str, str]) -> None:
    caches = (("Data", spec.l1d), ("Instruction", spec.l1i), ("Unified", spec.l2), ("Unified", spec.l3))
    for index, (kind, cache) in enumerate(caches):
        place = f"cpu0/cache/index{index}/"
        assert found[place + "type"] == kind
        assert found[place + "size"] == f"{cache.size >> 10}K"
        ways, sets = int(found[place + "ways_of_associativity"]), int(found[place + "number_of_sets"])
        assert (ways, ways * sets * int(found[place + "coherency_line_size"])) == (cache.ways, cache.size)
        a, b, c, _ = leaf(found, f"4.{index}")
        if spec.vendor == "GenuineIntel":
            assert ("", "Data", "Instruction", "Unified")[a & 31] == kind
            assert ((b >> 22) + 1, c + 1) == (ways, sets)
    if spec.vendor == "AuthenticAMD":
        l1, l2 = leaf(found, "80000005.0"), leaf(found, "80000006.0")
        assert (l1[2] >> 24 << 10, l1[3] >> 24 << 10) == (spec.l1d.size, spec.l1i.size)
        assert (l2[2] >> 16 << 10, (l2[3] >> 18) * 512 << 10) == (spec.l2.size, spec.l3.size)
    # The C library asks by the vendor's own leaves.
    assert found["dcache"].split() == [str(cache.size) for cache in (spec.l1d, spec.l2, spec.l3)]
    assert found["cache size"] == f"{spec.l3.size >> 10} KB"


def check_flaws(spec: CpuSpec, found: dict[str, str], flaws: frozenset[str]) -> None:
    bugs = found["bugs"].split()
    for file, (bug, made_of) in AFFECTED.items():
        there = bool(flaws & made_of)
        assert (found[f"vulnerabilities/{file}"] != NOT_AFFECTED) == there == (bug in bugs), file
    for file in ("srbds", "tsx_async_abort", "itlb_multihit", "mmio_stale_data", "gather_data_sampling",
                 "spec_rstack_overflow", "reg_file_data_sampling", "retbleed"):  # fmt: skip
        assert found[f"vulnerabilities/{file}"] == NOT_AFFECTED


@pytest.mark.parametrize(
    ("options", "more", "less"),
    [
        (("--cpu", "skylake", "--not-vulnerable", "meltdown,mds"), set(), {"meltdown", "mfbds", "msbds", "mlpds"}),
        (("--cpu", "icelake", "--vulnerable", "l1tf,mfbds"), {"l1tf", "mfbds"}, set()),
        (("--cpu", "zen2", "--vulnerable", "meltdown", "--not-vulnerable", "v4"), {"meltdown"}, {"v4"}),
    ],
)
def test_flaws_switched_one_by_one_are_told(
    options: tuple[str, ...], more: set[str], less: set[str], programs: Programs, tmp_path: Path
) -> None:
    spec = named(options[1])
    found, facts = run(programs, tmp_path, *options)
    check_flaws(spec, found, spec.flaws - less | more)
    assert set(facts["flaws"]) == spec.flaws - less | more


def test_without_a_model_nothing_is_affected(programs: Programs, tmp_path: Path) -> None:
    found, facts = run(programs, tmp_path)
    check_flaws(named("in-order"), found, frozenset())
    assert found["bugs"] == ""
    assert (facts["cpu"], facts["flaws"], facts["mitigations"]) == (None, [], None)


def _host_is_conditional() -> bool:
    """Whether this host's kernel leaves store bypass and indirect branches to prctl, as the case below does."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return False
    wanted = ("Speculation_Store_Bypass:\tthread vulnerable", "SpeculationIndirectBranch:\tconditional enabled")
    return all(line in text for line in wanted)


@pytest.mark.skipif(not _host_is_conditional(), reason="the host's kernel has other defaults")
def test_prctl_is_the_hosts(programs: Programs, tmp_path: Path) -> None:
    options = ("--cpu", "icelake", "--mitigations", "auto")
    found = compare(programs("speculation"), [], "python", tmp_path, options=options)
    assert found.out.count(b"\n") > 1000


MODES = {
    ("skylake", "off"): ("vulnerable", "always enabled", [(0, 2), (1, 2)]),
    ("skylake", "ssbd,ibpb"): ("globally mitigated", "always disabled", [(0, 4), (1, 4)]),
    ("skylake", "stibp,l1d-flush"): ("vulnerable", "always disabled", [(0, 2), (1, 4), (2, 2)]),
    ("skylake", "ssbd=prctl"): ("thread vulnerable", "always enabled", [(0, 3), (1, 2), (2, 8)]),
    ("zen2", "ibpb=prctl"): ("vulnerable", "conditional enabled", [(0, 2), (1, 3), (2, 8)]),
    ("icelake", "l1d-flush=prctl"): ("vulnerable", "always enabled", [(0, 2), (1, 2), (2, 4)]),
    ("in-order", "auto"): ("not vulnerable", "not affected", [(0, 0), (1, 0), (2, 8)]),
}


@pytest.mark.parametrize("case", MODES)
def test_modes_of_prctl(case: tuple[str, str], programs: Programs, tmp_path: Path) -> None:
    cpu, mitigations = case
    store, branch, values = MODES[case]
    found = mmuemu("--cpu", cpu, "--mitigations", mitigations, programs("speculation"), "again", cwd=tmp_path)
    lines = found.out.decode().splitlines()
    assert f"  Speculation_Store_Bypass:\t{store}" in lines
    assert f"  SpeculationIndirectBranch:\t{branch}" in lines
    for which, value in values:
        assert f"  get {which}: {value} errno 0" in lines
    # Store bypass without control is ENXIO; indirect branches that nobody rules are allowed, and stay so (EPERM).
    if store != "thread vulnerable":
        assert "  set 0 2: -1 errno 6" in lines
    assert ("  set 2 2: 0 errno 0" in lines) == ((2, 4) in values)

"""A program sees one processor, whichever way it asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmuemu.cpu.cpuid import DEFAULT
from tests.run.harness import ENGINES, Programs, mmuemu


@pytest.mark.parametrize("engine", ENGINES)
def test_cpuid_hwcap_and_cpuinfo_agree(engine: str, programs: Programs, tmp_path: Path) -> None:
    found = mmuemu("--mmu", engine, programs("cpuid", "musl-static"), cwd=tmp_path)
    assert found.code == 0, found.err
    numbers, brand, cpu, readable, model, flags, sizes = found.out.decode().splitlines()
    signature, ecx, edx, hwcap = (int(word, 16) for word in numbers.split())
    leaf = DEFAULT.leaf(1)
    assert (signature, ecx, edx) == (leaf[0], leaf[2] | 1 << 27, leaf[3])
    assert hwcap == edx
    assert brand == DEFAULT.brand
    assert (cpu, readable) == ("0", "1")
    assert model.split(": ")[1] == brand
    shown = flags.split(": ")[1].split()
    assert shown[shown.index("pku") + 1] == "ospke", "the kernel has turned protection keys on"
    assert [flag for flag in shown if flag != "ospke"] == list(DEFAULT.flags)
    assert sizes.endswith(": 40 bits physical, 48 bits virtual")

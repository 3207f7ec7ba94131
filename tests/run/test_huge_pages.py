"""Transparent huge pages: the same program on the host's kernel and on ours; what the options and files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmuemu import Machine
from mmuemu.errors import UsageError
from tests.run.harness import Programs, compare, host, mmuemu

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ENGINES = pytest.mark.parametrize("engine", ["python", "native"])


@ENGINES
@pytest.mark.parametrize(
    "options", [["--seed", "1"], ["--seed", "7", "--thp", "madvise", "--kpti"]], ids=["plain", "kpti"]
)
def test_a_program_sees_what_it_sees_on_the_host(
    engine: str, options: list[str], programs: Programs, tmp_path: Path
) -> None:
    if not ENABLED.exists() or "[never]" in ENABLED.read_text():
        pytest.skip("the host has no transparent huge pages")
    program = programs("hugepages", "glibc-static")
    if b"written: 512 pages, Rss 2048, Referenced 2048, AnonHugePages 2048" not in host([program], cwd=tmp_path).out:
        pytest.skip("the host finds no 2 MiB of memory in one piece")
    compare(program, [], engine, tmp_path, options=options)


@ENGINES
@pytest.mark.parametrize("thp", ["always", "never"])
def test_pages_one_behind_the_other(engine: str, thp: str, programs: Programs, tmp_path: Path) -> None:
    """Rights that go, pages that go, copies, code that is changed through another mapping: as on the host."""
    compare(programs("ahead", "glibc-static"), [], engine, tmp_path, options=["--seed", "1", "--thp", thp])


@ENGINES
def test_pages_that_were_never_used_are_there_when_memory_is_short(
    engine: str, programs: Programs, tmp_path: Path
) -> None:
    program = programs("hugepages", "glibc-static")
    found = mmuemu("--mmu", engine, "--memory", "64M", program, "12", "50", cwd=tmp_path)
    assert (found.out, found.code) == (b"Rss 24576\nRss 48, 0 wrong\n", 0), found.err
    never = mmuemu("--mmu", engine, "--memory", "64M", "--thp", "never", program, "12", "50", cwd=tmp_path)
    assert (never.out, never.code) == (b"Rss 48\nRss 48, 0 wrong\n", 0), never.err


def test_the_native_engine_grows_its_tlb_by_what_is_mapped() -> None:
    """It serves the misses itself, so that nobody counts them."""
    grown = {}
    for engine in ("python", "native"):
        with Machine(mmu=engine) as machine:
            cpu = machine.kernel.cpu.engine
            for _ in range(25):
                cpu.count_pages(512)
                cpu.count_fault()
            grown[engine] = cpu.growths
    assert grown == {"python": 0, "native": 6}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], b"[always] madvise never\n"),
        (["--thp", "madvise"], b"always [madvise] never\n"),
        (["--thp", "never"], b"always madvise [never]\n"),
    ],
)
def test_sysfs_tells_the_policy(options: list[str], text: bytes, tmp_path: Path) -> None:
    assert mmuemu(*options, "busybox", "cat", ENABLED, cwd=tmp_path).out == text


def test_a_policy_there_is_none_of_is_refused(tmp_path: Path) -> None:
    found = mmuemu("--thp", "sometimes", "busybox", "true", cwd=tmp_path)
    assert found.code == 125
    assert b"sometimes" in found.err
    assert found.err.count(b"\n") == 1
    with pytest.raises(UsageError, match="choose from always, madvise, never"):
        Machine(thp="sometimes")

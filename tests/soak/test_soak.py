"""A little of the soak, always the same; and that its checks find what is broken."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from random import Random

import pytest

from mmuemu.kernel.address_space import AddressSpace
from mmuemu.machine import Machine
from mmuemu.x86.paging import RW
from tests.soak.__main__ import Soak, main
from tests.soak.checks import TlbShadow, at_rest, handles, settled, view
from tests.soak.runs import Plan, Workshop

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="needs Linux programs and their compiler"
)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("soak"))


@pytest.mark.parametrize("number", [1, 2, 3, 4, 6, 7, 10, 11])
def test_runs(workshop, number):
    plan = workshop.plan(number)
    assert workshop.plan(number) == plan
    ending = workshop.run(plan)
    assert ending.checks >= 1
    assert ending.instructions > 1_000


def mix(workshop, seed=3, **options):
    """A machine that runs guest/mix.c."""
    program, *_ = workshop._mix(Random(1))
    machine = Machine(seed=1, memory="64M", **options)
    process = machine.spawn(program, ["mix", str(seed), "40"], {})
    return machine, process


def test_a_run_is_repeated_by_its_number(workshop):
    plan = workshop.plan(6)
    assert workshop.run(plan) == workshop.run(plan)


class TestTheChecksThemselves:
    def test_a_missing_flush(self, workshop):
        """Rights are taken from a page and the CPU is not told."""
        machine, _ = mix(workshop, aslr=False)
        with machine:
            shadow = TlbShadow(machine.kernel)
            for _ in range(400):
                machine.run(max_instructions=500)
                shadow.check()
                space = machine.kernel.mm
                found = [
                    (page, held)
                    for (user, page), held in shadow._held.items()
                    if user and held[1] & 2 and space.page_table.entry_address(page) >= 0
                ]
                if found:
                    break
            address = space.page_table.entry_address(found[0][0])
            machine.kernel.ram.qwords[address >> 3] &= ~RW
            with pytest.raises(AssertionError, match="the TLB may write"):
                shadow.check()

    def test_a_kernel_that_forgets_to_flush(self, workshop, monkeypatch):
        machine, _process = mix(workshop)
        with machine:
            shadow = TlbShadow(machine.kernel)
            never = property(lambda _: lambda *_: None, lambda *_: None)
            monkeypatch.setattr(AddressSpace, "on_flush", never, raising=False)

            def run() -> None:
                while machine.run(max_instructions=200).limit is not None:
                    shadow.check()

            with pytest.raises(AssertionError, match="the TLB may"):
                run()

    def test_frames_that_nobody_gives_back(self, workshop):
        machine, process = mix(workshop)
        with machine:
            process.wait()
            machine.run()
            at_rest(machine.kernel)
            machine.kernel.frames.allocate()
            with pytest.raises(AssertionError, match="nothing refers to"):
                at_rest(machine.kernel)

    def test_files_of_the_host(self, tmp_path):
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "f").write_bytes(b"a")
        (tmp_path / "link").symlink_to("d")
        seen = {view(tmp_path)}
        for change in (
            lambda: (tmp_path / "d" / "f").write_bytes(b"b"),
            lambda: (tmp_path / "new").write_bytes(b""),
            lambda: (tmp_path / "new").chmod(0o600),
            lambda: (tmp_path / "d" / "f").rename(tmp_path / "d" / "g"),
        ):
            change()
            assert view(tmp_path) not in seen
            seen.add(view(tmp_path))

    def test_descriptors(self, tmp_path):
        before = handles()
        with open(tmp_path / "f", "w"):
            assert handles() == (before[0] + 1, before[1])
            assert settled(before) == (before[0] + 1, before[1])
        assert settled(before) == before

    def test_a_finding_is_kept_with_its_command(self, tmp_path, monkeypatch, capsys):
        (tmp_path / "top").mkdir()
        soak = Soak(tmp_path / "top", tmp_path / "keep", 7)

        def fail(_self: Workshop, _plan: Plan) -> None:
            raise AssertionError("planted")

        monkeypatch.setattr(Workshop, "run", fail)
        soak.one()
        assert soak.findings == 1
        kept = (tmp_path / "keep" / "7.txt").read_text()
        assert kept.startswith("python -m tests.soak --run 7\n")
        assert "planted" in kept
        monkeypatch.chdir(tmp_path)
        assert main(["--run", "7", "--keep", str(tmp_path / "other")]) == 1
        assert Path(tmp_path / "other" / "7.txt").exists()
        assert "FOUND in run 7: AssertionError: planted" in capsys.readouterr().out

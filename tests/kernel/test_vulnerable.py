"""The kernel's secret, and the driver that labs attack: what they are when nothing is transient."""

from __future__ import annotations

import itertools
import struct
import tempfile
from collections.abc import Sequence

import pytest

from mmuemu.kernel.abi.errno import Errno
from mmuemu.kernel.vulnerable import ARRAY, BANNER, SECRET_LENGTH
from mmuemu.machine import Machine
from mmuemu.memory.page_table import PageTable
from mmuemu.sources import assemble
from mmuemu.x86.paging import NX, US, P
from tests.kernel.hardened import Recorder, hardened

READ, CALL, USE, FLUSH, STORE = range(5)
KERNEL_TABLE = 0
MITIGATIONS = [(), ("lfence",), ("nospec",), ("retpoline",), ("verw", "rsb-fill", "retpoline", "lfence", "nospec")]
FAULT = -Errno.EFAULT
INVALID = -Errno.EINVAL


def source(calls: Sequence[Sequence[int | str]]) -> str:
    """A program that makes driver calls (what, RSI, RDX, R10, R8) and writes their results; ``page`` is memory."""
    lines = [
        "mov eax, 9\nxor edi, edi\nmov esi, 0x200000\nmov edx, 3\nmov r10d, 0x22\nmov r8, -1\nxor r9d, r9d\nsyscall",
        "mov r15, rax\nmov rbp, rsp\nsub rsp, 4096\nmov rbx, rsp",
    ]
    for call in calls:
        for register, value in zip(("rdi", "rsi", "rdx", "r10", "r8"), call, strict=True):
            lines.append(f"mov {register}, {'r15' if value == 'page' else value}")
        lines.append("mov eax, 1000\nsyscall\nmov [rbx], rax\nadd rbx, 8")
    lines.append("mov eax, 1\nmov edi, 1\nmov rsi, rsp\nmov rdx, rbx\nsub rdx, rsp\nsyscall\nmov eax, 60\nxor edi, edi")
    return "\n".join(lines) + "\nsyscall\n"


def results(machine: Machine, calls: Sequence[Sequence[int | str]]) -> list[int]:
    """What the driver answered."""
    with tempfile.TemporaryFile() as output:
        machine.load(assemble(source(calls), "test.s"), ["test"], {}, stdout=output)
        assert machine.run(timeout=20).exit_code == 0
        output.seek(0)
        data = output.read()
    return list(struct.unpack(f"<{len(data) // 8}q", data))


def page(machine: Machine, at: int = 0, size: int = 4096) -> bytes:
    frame = machine.kernel.memory.data_frame
    return bytes(machine.kernel.ram.bytes[frame + at : frame + at + size])


@pytest.fixture(params=["python", "native"])
def mmu(request: pytest.FixtureRequest) -> str:
    return request.param


class TestTheDriver:
    @pytest.mark.parametrize("names", [None, *MITIGATIONS], ids=str)
    @pytest.mark.parametrize("kpti", [False, True])
    def test_it_does_what_it_says(self, names: tuple[str, ...] | None, kpti: bool, mmu: str) -> None:
        calls = [
            *((READ, index, KERNEL_TABLE, 12, 0) for index in (0, 7, 15)),
            *((READ, index, KERNEL_TABLE, 12, 0) for index in (16, 17, -1, -384, 1 << 32)),
            *((CALL, slot, 0, 0, 0) for slot in (0, 1, 2, 3, 4, -1)),
            (USE, 0, 0, 0, 0),
            *((FLUSH, line, 0, 0, 0) for line in (0, 1, 2, 3, 4)),
            (STORE, 0, 0, 0, 0),
            *((what, 0, 0, 0, 0) for what in (5, 6, -1)),
        ]
        with hardened(names, kpti=kpti, mmu=mmu, show_secret=True) as machine:
            assert results(machine, calls) == [
                *(ARRAY[index] for index in (0, 7, 15)),
                *[INVALID] * 5,
                0x100, 0x201, 0x102, 0x203, INVALID, INVALID,
                0,
                0, 0, 0, 0, INVALID,
                0,
                INVALID, INVALID, INVALID,
            ]  # fmt: skip
            secret = machine.kernel.secret
            assert page(machine, 0xC0, 32) == secret, "the last thing that went there"

    def test_a_use_of_the_secret_reads_all_of_it(self) -> None:
        with hardened(None, show_secret=True) as machine:
            assert results(machine, [(USE, 0, 0, 0, 0)]) == [0]
            assert page(machine, 0xE0, 8) == sum(machine.kernel.secret).to_bytes(8, "little")

    @pytest.mark.parametrize("kpti", [False, True])
    def test_registers_survive(self, kpti: bool, mmu: str) -> None:
        """All but RAX, the result, RCX and R11, which ``syscall`` takes, and R9, in which the result travels."""
        names = ["rbx", "rdx", "rsi", "rbp", "r8", "r10", "r12", "r13", "r14", "r15"]
        for what in (CALL, FLUSH, STORE, 9):
            values = [2 if name == "rsi" else 0x1111_0000 + number for number, name in enumerate(names)]
            loads = "\n".join(f"mov {name}, {value}" for name, value in zip(names, values, strict=True))
            text = (
                f"{loads}\nmov edi, {what}\nmov eax, 1000\nstc\nstd\nsyscall\npushfq\npop rcx\ncld\n.byte 0x0f, 0x0b\n"
            )
            with hardened((), kpti=kpti, mmu=mmu, show_secret=True) as machine:
                machine.load(assemble(text, "test.s"), ["test"], {})
                assert machine.run(timeout=20).exit_code == 128 + 4
                registers = machine.kernel.cpu.registers()
                assert [registers[name] for name in names] == values
                assert registers["rcx"] & 0x401 == 0x401

    def test_it_is_not_there_unless_asked_for(self) -> None:
        with hardened(()) as machine:
            assert results(machine, [(READ, 0, 0, 0, 0)]) == [-Errno.ENOSYS]
            assert machine.kernel.statistics.unknown == {1000: 1}
            frame = machine.kernel.memory.text_frame
            assert bytes(machine.kernel.ram.bytes[frame + 0x400 : frame + 0x1000]) == bytes(0xC00)

    def test_other_calls_go_past_it(self, mmu: str) -> None:
        for show in (False, True):
            with hardened((), mmu=mmu, show_secret=show) as machine:
                machine.load(assemble("mov eax, 39\nsyscall\nmov rdi, rax\n.byte 0x0f, 0x0b\n", "t.s"), ["t"], {})
                machine.run(timeout=20)
                assert machine.kernel.main.leader.registers[14] == machine.kernel.main.pid

    @pytest.mark.parametrize("kpti", [False, True])
    def test_it_may_be_interrupted_anywhere(self, kpti: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mmuemu.kernel.scheduler.SHORTEST", 1)
        monkeypatch.setattr("mmuemu.kernel.scheduler.LONGEST", 150)
        fork = "mov eax, 57\nsyscall\nmov r14, rax\nmov ebx, 60\n"
        loop = (
            "again:\nmov edi, 2\nmov eax, 1000\nsyscall\ntest rax, rax\njnz wrong\n"
            "mov edi, 1\nmov esi, 3\nmov eax, 1000\nsyscall\ncmp rax, 0x203\njne wrong\ndec ebx\njnz again\n"
            "mov edi, 7\ntest r14, r14\njz leave\nmov eax, 61\nmov rdi, -1\nxor esi, esi\nxor edx, edx\n"
            "xor r10d, r10d\nsyscall\nmov edi, 5\nleave:\nmov eax, 60\nsyscall\n"
            "wrong:\nmov edi, 99\nmov eax, 60\nsyscall\n"
        )
        with hardened(("retpoline", "verw"), kpti=kpti, show_secret=True) as machine:
            machine.load(assemble(fork + loop, "test.s"), ["test"], {})
            assert machine.run(timeout=30).exit_code == 5
            assert machine.kernel.scheduler.switches > 30


class TestBadPointers:
    PLACES = ("page", 0, 0x1234_5000, 0x7FFF_FFFF_F000, 1 << 47, 0xFFFF_8000_0000_0000, 0xFFFF_FFFF_FFFF_F000)

    def test_a_users_table_is_read_without_a_look_unless_smap_forbids_it(self, mmu: str) -> None:
        """RDX 0 is the kernel's own table; a page of the user's is what a lab can time."""
        expected = {
            (): [ARRAY[5], ARRAY[5], *[FAULT] * 5],
            ("smap",): [FAULT, ARRAY[5], *[FAULT] * 5],
            None: [FAULT, ARRAY[5], *[FAULT] * 5],
        }
        for names, wanted in expected.items():
            with hardened(names, mmu=mmu, show_secret=True) as machine:
                assert results(machine, [(READ, 5, place, 12, 0) for place in self.PLACES]) == wanted

    def test_after_a_fault_the_next_call_works(self, mmu: str) -> None:
        calls = [(READ, 5, 0x1234_5000, 12, 0), (READ, 5, KERNEL_TABLE, 3, 0), (CALL, 1, 0, 0, 0)] * 3
        with hardened((), kpti=True, mmu=mmu, show_secret=True) as machine:
            assert results(machine, calls) == [FAULT, ARRAY[5], 0x201] * 3

    def test_a_page_that_was_never_touched_is_brought_in(self, mmu: str) -> None:
        with hardened((), mmu=mmu, show_secret=True) as machine:
            before = machine.kernel.frames.used
            assert results(machine, [(READ, index, "page", 12, 0) for index in range(3)]) == [1, 2, 3]
            assert machine.kernel.frames.used - before >= 0


class TestTheSecret:
    def test_the_seed_decides(self) -> None:
        secrets = set()
        for seed in (1, 1, 2, 3):
            with Machine(seed=seed) as machine:
                secret = machine.kernel.secret
                assert len(secret) == SECRET_LENGTH
                assert secret.isalnum()
                assert all(one != other for one, other in itertools.pairwise(secret))
                assert secret in page(machine)
                secrets.add(secret)
        assert len(secrets) == 3

    @pytest.mark.parametrize("kpti", [False, True])
    def test_it_is_the_kernels(self, kpti: bool) -> None:
        with Machine(seed=1, kpti=kpti) as machine:
            machine.load(assemble("hlt\n", "t.s"), ["t"], {})
            table = machine.task.mm.page_table
            at = machine.kernel.memory.driver.data_symbols()["mmuemu_secret"]
            found = table.lookup(at)
            assert found.flags & (P | US | NX) == P | NX
            seen = PageTable(table.frames, root=table.user_root).lookup(at)
            assert (seen is None) is kpti

    @pytest.mark.parametrize("kpti", [False, True])
    def test_ring_3_cannot_read_it(self, kpti: bool, mmu: str) -> None:
        with Machine(seed=1, aslr=False, kpti=kpti, mmu=mmu) as machine:
            at = machine.kernel.memory.driver.data_symbols()["mmuemu_secret"]
            machine.load(assemble(f"mov rdi, {at}\nmov rax, [rdi]\nhlt\n", "t.s"), ["t"], {})
            assert machine.run(timeout=20).exit_code == 128 + 11
            assert machine.task.death.trap.error_code == (4 if kpti else 5)

    def text(self, machine: Machine, path: str) -> bytes:
        process = machine.spawn("/bin/cat", ["cat", path])
        process.wait(timeout=20)
        return process.stdout

    def test_symbols_are_for_root(self) -> None:
        with Machine(seed=1) as machine:
            lines = self.text(machine, "/proc/kallsyms").decode().splitlines()
            names = {line.split()[2]: int(line.split()[0], 16) for line in lines}
            assert names["mmuemu_secret"] == names["linux_proc_banner"] == 0
            assert "mmuemu_gadget" not in names
            symbols = {name: at for at, _, name in machine._tree.proc.symbols()}
            driver = machine.kernel.memory.driver
            assert symbols["mmuemu_secret"] == driver.data_symbols()["mmuemu_secret"] == driver.data + 0x80
            assert symbols["_etext"] <= symbols["_sdata"] < symbols["mmuemu_secret"] < symbols["_edata"]

    def test_labs_that_ask_are_told(self) -> None:
        with Machine(seed=1, show_secret=True) as machine:
            driver = machine.kernel.memory.driver
            secret = driver.data_symbols()["mmuemu_secret"]
            for name, place in (driver.data_symbols() | driver.text_symbols()).items():
                text = self.text(machine, f"/proc/mmuemu/{name.removeprefix('mmuemu_')}_address")
                assert text == b"%#x\n" % place
            assert self.text(machine, "/proc/mmuemu/secret_length") == b"32\n"
            assert self.text(machine, "/proc/safeside_meltdown/address") == b"%016x\n" % secret
            assert self.text(machine, "/proc/safeside_meltdown/length") == b"32\n"

    def test_nobody_else_is(self) -> None:
        with Machine(seed=1) as machine:
            process = machine.spawn("/bin/ls", ["ls", "-d", "/proc/mmuemu", "/proc/safeside_meltdown", "/proc/version"])
            process.wait(timeout=20)
            assert process.stdout == b"/proc/version\n"

    def test_the_banner_is_the_format_of_the_version(self) -> None:
        with Machine(seed=1) as machine:
            at = machine.kernel.memory.driver.data_symbols()["linux_proc_banner"]
            assert page(machine, at & 4095, len(BANNER) + 1) == BANNER + b"\0"
            version = self.text(machine, "/proc/version")
            assert version == BANNER % (b"Linux", b"6.1.0-mmuemu", b"#1 SMP mmuemu")

    @pytest.mark.parametrize(
        ("path", "symbol", "size"),
        [
            ("/proc/version", "linux_proc_banner", len(BANNER)),
            ("/proc/mmuemu/secret_length", "mmuemu_secret", 32),
            ("/proc/safeside_meltdown/length", "mmuemu_secret", 32),
            ("/proc/mmuemu/secret_address", "", 0),
        ],
    )
    def test_to_read_about_it_brings_it_into_the_caches(self, path: str, symbol: str, size: int) -> None:
        recorder = Recorder()
        with hardened((), show_secret=True) as machine:
            machine.kernel.hidden = recorder
            self.text(machine, path)
            memory = machine.kernel.memory
            inside = {
                (at - memory.data_frame, size, write)
                for at, size, write in recorder.touched
                if memory.data_frame <= at < memory.data_frame + 4096
            }
            symbols = memory.driver.data_symbols()
            assert inside == ({(symbols[symbol] & 4095, size, False)} if symbol else set())

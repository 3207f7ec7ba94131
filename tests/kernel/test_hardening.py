"""Mitigations: what they change in the kernel's ring-0 code and page tables, and when they are applied."""

from __future__ import annotations

import os

import capstone
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmuemu.guest.build import load
from mmuemu.kernel.alternatives import harden_entry, harden_vulnerable, mark
from mmuemu.kernel.faults import PROTNONE
from mmuemu.kernel.hardening import Hardening
from mmuemu.kernel.kernel import Kernel
from mmuemu.kernel.speculation_control import SpeculationControl
from mmuemu.memory.frames import FrameAllocator
from mmuemu.memory.kernel_half import KernelHalf
from mmuemu.memory.page_table import PageTable
from mmuemu.memory.ram import GuestRam
from mmuemu.sources import assemble
from mmuemu.x86.paging import ADDRESS_MASK, NX, RW, US, A, P
from mmuemu.x86.registers import CR4_SMAP
from tests.kernel import isolation
from tests.kernel.hardened import Recorder, hardened
from tests.kernel.test_kpti import TURNS

ENTRIES = ["syscall_entry", "syscall_entry_kpti", "trampoline"]


def listing(code: bytes) -> list[str]:
    """Every instruction, the bytes that nobody executes left out."""
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    found = [f"{one.mnemonic} {one.op_str}".strip() for one in engine.disasm(code, 0)]
    return [text for text in found if text != "int3"]


class TestCode:
    @pytest.mark.parametrize("name", ENTRIES)
    def test_without_mitigations_nothing_is_added(self, name: str) -> None:
        code = load(name)
        assert harden_entry(code, ()) == harden_entry(code, ("kpti", "smap", "lfence", "ssbd")) == code
        assert "nop" not in " ".join(listing(code))

    @pytest.mark.parametrize("name", ENTRIES)
    def test_verw_stands_before_each_way_out_and_nothing_else_changes(self, name: str) -> None:
        plain, hard = listing(load(name)), listing(harden_entry(load(name), {"verw"}))
        ends = [at for at, text in enumerate(hard) if text in ("sysretq", "iretq")]
        assert len(ends) == (0 if name == "syscall_entry_kpti" else 2)
        verw = "verw word ptr gs:[0x30]"
        assert [hard[at - 2 : at] for at in ends] == [[verw, "swapgs"]] * len(ends)
        assert [text for text in hard if text != verw] == plain
        assert len(harden_entry(load(name), {"verw"})) == len(load(name))

    @pytest.mark.parametrize(
        ("name", "words"), [("syscall_entry", []), ("syscall_entry_kpti", [0x18, 0x20]), ("trampoline", [0x10])]
    )
    def test_with_retpolines_no_jump_is_indirect(self, name: str, words: list[int]) -> None:
        targets = {word: 0x7000 + word for word in (0x10, 0x18, 0x20, 0x28)}
        code = harden_entry(load(name), {"retpoline"}, 0x1000, targets)
        assert [text for text in listing(load(name)) if text.startswith(("jmp qword", "call qword"))] == [
            f"jmp qword ptr gs:[{word:#x}]" for word in words
        ]
        assert "ptr gs:[0x10]" not in " ".join(text for text in listing(code) if text.startswith("jmp"))
        jumps = [text for text in listing(code) if text.startswith("jmp 0x6")]
        assert jumps == [f"jmp {0x6000 + word:#x}" for word in words]
        assert not any(text.startswith(("jmp qword", "call qword", "jmp r", "call r")) for text in listing(code))

    def test_the_driver_plain(self) -> None:
        code = load("vulnerable")
        assert harden_vulnerable(code, ("verw", "smap")) == code

    def test_a_fence_behind_the_check(self) -> None:
        code = harden_vulnerable(load("vulnerable"), {"lfence", "nospec"})
        assert listing(code[mark(code, "BNDS") :])[0] == "lfence"
        at = mark(code, "BNDS")
        assert (code[:at], code[at + 9 :]) == (load("vulnerable")[:at], load("vulnerable")[at + 9 :])

    def test_a_mask_for_the_index(self) -> None:
        code = harden_vulnerable(load("vulnerable"), {"nospec"})
        assert listing(code[mark(code, "BNDS") :])[:4] == [
            "cmp rsi, r9",
            "sbb rax, rax",
            "and rsi, rax",
            "movzx r9d, byte ptr [rbx + rsi + 0x200]",
        ]

    @pytest.mark.parametrize("name", ["vulnerable", "vulnerable_kpti"])
    def test_a_retpoline_for_the_indirect_call(self, name: str) -> None:
        code = harden_vulnerable(load(name), {"retpoline"})
        call = listing(code[mark(code, "CALL") :])[0]
        assert listing(load(name)[mark(code, "CALL") :])[0] == "call rax"
        assert call == f"call {mark(code, 'THNK') - mark(code, 'CALL'):#x}"
        # In [the thunk], what the return stack predicts is a loop, what is returned to is RAX.
        assert listing(code[mark(code, "THNK") :])[1:6] == [
            "pause", "lfence", "jmp 5", "mov qword ptr [rsp], rax", "ret",
        ]  # fmt: skip


class TestRunning:
    @pytest.mark.parametrize("kpti", [False, True])
    @pytest.mark.parametrize("mmu", ["python", "native"])
    def test_every_register_survives_hardened_entry_code(
        self, kpti: bool, mmu: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two processes that switch every few instructions, also while the return stack is filled."""
        monkeypatch.setattr("mmuemu.kernel.scheduler.SHORTEST", 1)
        monkeypatch.setattr("mmuemu.kernel.scheduler.LONGEST", 300)
        places = set()
        stop = Kernel._stopped_somewhere

        def watched(kernel: Kernel) -> None:
            places.add(kernel.cpu.rip)
            stop(kernel)

        monkeypatch.setattr(Kernel, "_stopped_somewhere", watched)
        with hardened({"verw", "rsb-fill", "retpoline", "pte-inversion"}, mmu=mmu, kpti=kpti) as machine:
            machine.load(assemble(TURNS, "test.s"), ["test"], {})
            assert machine.run(timeout=20).exit_code == 11
            kernel = machine.kernel
            text = bytes(kernel.ram.bytes[kernel.memory.text_frame :][: len(load("syscall_entry_kpti"))])
            at = kernel.memory.layout.text + text.index(bytes.fromhex("65803c253800000000"))
            assert any(at < place < at + 0x30 for place in places), "never stopped in the filling"
            assert kernel.scheduler.switches > 50

    @pytest.mark.parametrize("names", [(), ("rsb-fill",)])
    def test_the_return_stack_is_filled_once_a_switch(self, names: tuple[str, ...]) -> None:
        """32 calls for the only switch, a look behind each hypercall; nothing without the mitigation."""

        def instructions(names: tuple[str, ...] | None, calls: int) -> int:
            with hardened(names) as machine:
                machine.load(assemble("mov eax, 39\nsyscall\n" * calls + ".byte 0x0f, 0x0b\n", "test.s"), ["t"], {})
                machine.run(max_instructions=10_000, timeout=20)
                return machine.kernel.cpu.instructions

        more = [instructions(names, calls) - instructions(None, calls) for calls in (1, 2)]
        look = 4  # jmp, cmp, je, jmp
        filling = 1 + 16 * 5 + 2
        assert more == ([2 * look + filling, 3 * look + filling] if names else [0, 0])

    @pytest.mark.parametrize(("names", "on"), [(None, True), ((), False), (("verw",), False), (("smap",), True)])
    def test_smap_is_on_unless_a_cpu_that_speculates_goes_without(
        self, names: tuple[str, ...] | None, on: bool
    ) -> None:
        with hardened(names) as machine:
            assert bool(machine.kernel.cpu.paging.cr4 & CR4_SMAP) is on


class TestHiddenState:
    def run(self, names: tuple[str, ...], source: str = TURNS) -> tuple[list[tuple[object, ...]], Recorder]:
        recorder = Recorder()
        with hardened(names, schedule="coop") as machine:
            machine.kernel.hidden = recorder
            machine.load(assemble(source, "test.s"), ["test"], {})
            machine.run(timeout=20)
        return recorder.calls, recorder

    def test_a_switch_is_told_with_the_process(self) -> None:
        calls, _ = self.run(())
        switches = [call[1] for call in calls if call[0] == "switch"]
        assert len(switches) == 3, "parent, child, parent again"
        assert switches[0] == switches[2] != switches[1]
        assert {call[0] for call in calls} == {"switch", "ssbd"}
        assert ("ssbd", True) not in calls

    def test_the_barrier_comes_with_each_other_process(self) -> None:
        calls, _ = self.run(("ibpb",))
        assert [call[0] for call in calls if call[0] != "ssbd"] == ["switch", "ibpb"] * 3

    def test_l1_is_emptied_before_another_process_and_after_each_call(self) -> None:
        calls, _ = self.run(("l1d-flush",))
        assert [call[0] for call in calls[:2]] == ["switch", "flush_l1d"]
        assert sum(call[0] == "flush_l1d" for call in calls) > 500

    def test_stores_are_not_passed_when_the_mitigation_says_so(self) -> None:
        calls, _ = self.run(("ssbd",))
        assert {call[1] for call in calls if call[0] == "ssbd"} == {True}

    def test_what_a_task_asked_for_concerns_its_neighbours(self) -> None:
        class Fake:
            def __init__(self, pid: int, ibpb: bool = False, ssbd: bool = False) -> None:
                self.pid, self.ibpb, self.ssbd, self.l1d_flush = pid, ibpb, ssbd, pid == 3

        recorder, hardening = Recorder(), Hardening(())
        for task in (Fake(1), Fake(2, ibpb=True), Fake(2, ssbd=True), Fake(3), Fake(4, ibpb=True), Fake(5), Fake(6)):
            hardening.switch(recorder, task)  # type: ignore[arg-type]
        barriers = [recorder.calls[at - 1][1] for at, call in enumerate(recorder.calls) if call[0] == "ibpb"]
        assert barriers == [2, 4, 5], "before it runs, and after"
        assert recorder.calls.index(("flush_l1d",)) == recorder.calls.index(("switch", 4)) + 2, "after it has run"
        assert [call[1] for call in recorder.calls if call[0] == "ssbd"] == [False, False, True, *[False] * 4]

    def test_what_prctl_says_counts_at_once(self) -> None:
        def said(which: int, control: int) -> str:
            return f"mov edi, 53\nmov esi, {which}\nmov edx, {control}\n" + prctl

        prctl = "mov eax, 157\nxor r10d, r10d\nxor r8d, r8d\nsyscall\n"
        recorder = Recorder()
        source = said(0, 4) + said(0, 2) + said(1, 4) + said(1, 2) + said(2, 2) + "mov edi, eax\nmov eax, 60\nsyscall\n"
        with hardened(()) as machine:
            machine.kernel.options.speculation_control = SpeculationControl("prctl", "prctl", "prctl")
            machine.kernel.hidden = recorder
            machine.load(assemble(source, "test.s"), ["test"], {})
            assert machine.run(timeout=20).exit_code == 0
        switch, *calls = [call for call in recorder.calls if call[0] != "touch"]
        assert switch[0] == "switch"
        assert [call[1] for call in calls if call[0] == "ssbd"] == [False, True, *[False] * 4]
        assert calls.index(("ibpb",)) == 4
        assert calls.count(("ibpb",)) == 1

    def test_a_thread_is_no_other_process(self) -> None:
        thread = (
            "mov eax, 56\nmov edi, 0x10900\nlea rsi, [rsp-4096]\nxor edx, edx\nxor r10d, r10d\nsyscall\n"
            "test rax, rax\njz leave\nmov eax, 24\nsyscall\nmov eax, 24\nsyscall\nmov eax, 231\nxor edi, edi\nsyscall\n"
            "leave:\nmov eax, 60\nxor edi, edi\nsyscall\n"
        )
        calls, _ = self.run(("ibpb",), thread)
        assert sum(call[0] == "switch" for call in calls) == sum(call[0] == "ibpb" for call in calls) == 1
        assert sum(call[0] == "ssbd" for call in calls) > 1

    def test_copies_are_seen_by_the_caches(self) -> None:
        """write(1, buffer, 5) reads five bytes, uname() writes a structure of six times 65 bytes over two pages."""
        recorder = Recorder()
        source = (
            "mov eax, 1\nmov edi, 1\nlea rsi, [rsp-64]\npush 0x41\nmov edx, 5\nsyscall\n"
            "sub rsp, 0x2000\nand rsp, -4096\nlea rdi, [rsp-100]\nmov eax, 63\nsyscall\n.byte 0x0f, 0x0b\n"
        )
        with hardened(()) as machine, open(os.devnull, "wb") as sink:
            machine.kernel.hidden = recorder
            machine.load(assemble(source, "test.s"), ["test"], {}, stdout=sink)
            recorder.touched.clear()
            machine.run(timeout=20)
            table = machine.kernel.main.leader.mm.page_table
            registers = machine.kernel.main.leader.registers
            place = registers[14]
            sizes = [(size, write) for _, size, write in recorder.touched]
            assert sizes == [(5, False), (100, True), (290, True)]
            first, second = (table.lookup(at).physical | at & 4095 for at in (place, place + 100))
            assert [at for at, _, _ in recorder.touched[1:]] == [first, second]


class TestInvertedEntries:
    def tables(self) -> tuple[PageTable, PageTable]:
        """One that keeps frame numbers plainly, one that keeps them inverted."""
        made = []
        for inverts in (False, True):
            frames = FrameAllocator(GuestRam(2048 << 12), 0x1000)
            made.append(PageTable(frames, kernel=KernelHalf(frames, inverts=inverts)))
        return made[0], made[1]

    STEPS = st.lists(
        st.tuples(
            st.sampled_from(["map", "lose", "gain", "read-only", "unmap", "take", "clone"]),
            st.integers(0, 12),
            st.integers(1, 6),
            st.integers(1, 1 << 20),
        ),
        max_size=30,
    )

    @settings(max_examples=150, deadline=None)
    @given(STEPS)
    def test_nobody_sees_a_difference_but_the_bytes(self, steps: list[tuple[str, int, int, int]]) -> None:
        plain, inverted = self.tables()
        for kind, page, count, frame in steps:
            seen = []
            la, end = page << 12, page + count << 12
            for table in (plain, inverted):
                released: list[tuple[int, int, int]] = []
                result: object = None
                if kind == "map":
                    table.map_page(la, frame << 12 | (P if frame & 1 else PROTNONE) | US | RW | A)
                elif kind in ("lose", "gain", "read-only"):
                    change = {"lose": (PROTNONE, P), "gain": (P, PROTNONE), "read-only": (NX, RW)}[kind]
                    result = table.protect_range(la, end, *change)
                elif kind == "unmap":
                    table.unmap_range(la, end, lambda *what, released=released: released.append(what))
                elif kind == "take":
                    result = table.unmap(la)
                else:
                    twin = table.clone(lambda _la, entry, _size: (entry & ~RW, entry | NX))
                    result = list(twin.iterate(absent=True))
                    twin.free()
                seen.append((result, released, list(table.iterate(0, 1 << 47, absent=True))))
            assert seen[0] == seen[1]
        for la, entry, _ in inverted.iterate(0, 1 << 47, absent=True):
            raw = inverted.frames.ram.qwords[inverted.entry_address(la) >> 3]
            assert raw & ~ADDRESS_MASK == entry & ~ADDRESS_MASK
            assert raw == entry if entry & P else raw & ADDRESS_MASK == ~entry & ADDRESS_MASK

    @pytest.mark.parametrize("inverted", [False, True])
    @pytest.mark.parametrize("mmu", ["python", "native"])
    def test_a_page_that_nobody_may_use_keeps_its_frame_out_of_reach(self, inverted: bool, mmu: str) -> None:
        """mprotect(PROT_NONE) leaves a frame number in an entry that is not present; L1TF follows it."""
        source = (
            "mov eax, 9\nxor edi, edi\nmov esi, 4096\nmov edx, 3\nmov r10d, 0x22\nmov r8, -1\nxor r9d, r9d\nsyscall\n"
            "mov r15, rax\nmov qword ptr [r15], 0x1234567\n"
            "mov eax, 10\nmov rdi, r15\nmov esi, 4096\nxor edx, edx\nsyscall\n"
            "mov eax, 57\nsyscall\nmov r14, rax\n{stop}"
            "mov eax, 10\nmov rdi, r15\nmov esi, 4096\nmov edx, 3\nsyscall\n"
            "mov rbx, [r15]\ninc qword ptr [r15]\nmov rbp, [r15]\n.byte 0x0f, 0x0b\n"
        )
        with hardened({"pte-inversion"} if inverted else (), mmu=mmu, schedule="coop") as machine:
            kernel = machine.kernel
            stopped: list[tuple[int, int]] = []

            def look(event: object) -> None:
                isolation.check(kernel)
                task = kernel.current
                assert task is not None
                la = task.registers[0]
                raw = kernel.ram.qwords[task.mm.page_table.entry_address(la) >> 3]
                stopped.append(
                    (raw, next(entry for at, entry, _ in task.mm.page_table.iterate(absent=True) if at == la))
                )

            kernel.watch_syscall(39, look)
            machine.load(assemble(source.replace("{stop}", "mov eax, 39\nsyscall\n"), "test.s"), ["test"], {})
            machine.run(timeout=20)
            raw, meant = stopped[0]
            assert not raw & P
            assert raw & PROTNONE
            frame = meant & ADDRESS_MASK
            assert kernel.ram.qwords[frame >> 3] in (0x1234567, 0x1234568)
            assert (raw & ADDRESS_MASK < kernel.ram.size) is not inverted
            registers = kernel.main.leader.registers
            assert (registers[5], registers[4]) == (0x1234567, 0x1234568)

"""Snapshots: whoever goes on from one does what was done before, to the last instruction."""

from __future__ import annotations

import hashlib
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmuemu.errors import UsageError
from mmuemu.machine import Machine
from mmuemu.saving import snapshots
from mmuemu.sources import assemble

VARIANTS = {
    "python": (5, {"mmu": "python"}),
    "native": (4, {"mmu": "native"}),
    "cooperative": (2, {"schedule": "coop"}),
    "kpti": (2, {"kpti": True}),
    "told by the host": (2, {}),
    "transient": (1, {"cpu": "skylake"}),
}
"""Name -> how many points are tried, and what the machine is made with."""
LIMIT = 3_000_000


def state(machine, process):
    """What a program could notice of ``machine``, and what it has done."""
    kernel = machine.kernel
    counts, _ = kernel.frames.references()
    memory = hashlib.sha1(counts)
    for number, count in enumerate(memoryview(counts).cast("I")):
        if count:
            memory.update(kernel.ram.read(number << 12, 4096))
    return {
        "output": (process.stdout, process.stderr),
        "memory": memory.hexdigest(),
        "registers": kernel.cpu.registers(),
        "instructions": kernel.cpu.instructions,
        "time": kernel.clock.now(),
        "random": hash(kernel.random.getstate()),
        "switches": kernel.scheduler.switches,
        "faults": kernel.page_faults,
        "processes": (kernel.last_pid, sorted(kernel.processes)),
        "files": (machine.quota.used, machine.quota.files),
        "cycles": None if machine.speculation is None else machine.speculation.board.cycles,
    }


def to_the_end(machine, process):
    outcome = machine.run(max_instructions=LIMIT)
    return outcome, state(machine, process)


@pytest.mark.parametrize("variant", VARIANTS)
def test_who_is_restored_does_what_was_done_before(programs, monkeypatch, variant):
    path = str(programs("moments"))
    examples, options = VARIANTS[variant]
    if variant == "told by the host":
        monkeypatch.setattr(snapshots, "FEW_FRAMES", 0)

    @given(st.integers(1, 160_000), st.integers(1, 160_000))
    @settings(max_examples=examples)
    def check(first, second):
        with Machine(seed=7, memory="64M", **options) as machine:
            process = machine.spawn(path, ["moments"], {})
            machine.run(max_instructions=first)
            here = machine.snapshot()
            at_once = state(machine, process)
            expected = to_the_end(machine, process)
            assert expected[0].exit_code == 3
            machine.restore(here)
            assert state(machine, process) == at_once
            machine.run(max_instructions=second)
            there = machine.snapshot()
            later = to_the_end(machine, process)
            machine.restore(here)
            assert to_the_end(machine, process) == expected
            machine.restore(there)
            assert to_the_end(machine, process) == later

    check()


@pytest.mark.parametrize("few", [0, 1 << 30], ids=["told by the host", "compared"])
def test_memory_is_exact_whoever_tells_what_was_written(monkeypatch, few):
    monkeypatch.setattr(snapshots, "FEW_FRAMES", few)
    random = Random(few)
    with Machine(seed=1, memory="64M") as machine:
        frames, ram = machine.kernel.frames, machine.kernel.ram
        kept = []
        mine = [frames.allocate() for _ in range(30)]

        def content():
            counts, _ = frames.references()
            used = [n << 12 for n, count in enumerate(memoryview(counts).cast("I")) if count]
            return {frame: ram.read(frame, 4096) for frame in used}

        for _ in range(150):
            match random.randrange(6):
                case 0 | 1:
                    ram.write(random.choice(mine) + random.randrange(4000), random.randbytes(50))
                case 2:
                    mine.append(frames.allocate())
                case 3 if len(mine) > 5:
                    frames.release(mine.pop(random.randrange(len(mine))))
                    if random.random() < 0.3:
                        frames.flush()
                case 4:
                    kept.append((machine.snapshot(), content(), list(mine)))
                case 5 if kept:
                    here, wanted, owned = random.choice(kept)
                    machine.restore(here)
                    assert content() == wanted
                    mine[:] = owned
                    new = [frames.allocate() for _ in range(3)]
                    assert all(ram.read(frame, 4096) == bytes(4096) for frame in new)
                    mine += new
        assert len(kept) > 10


def test_three_hundred_restores_leave_nothing_behind(programs):
    with Machine(seed=1, memory="64M") as machine:
        process = machine.spawn(str(programs("moments")), ["moments"], {})
        machine.run(max_instructions=20_000)
        machine.snapshot()
        here = machine.snapshot()
        wanted = state(machine, process)
        records = len(here.records)
        for number in range(300):
            machine.run(max_instructions=number % 97 + 1)
            machine.restore(here)
        assert state(machine, process) == wanted
        assert machine.run(max_instructions=LIMIT).exit_code == 3
        machine.restore(here)
        assert len(machine.snapshot().records) == records


def test_code_that_was_written_over_is_the_old_again():
    source = """
    mov eax, 9
    xor edi, edi
    mov esi, 4096
    mov edx, 7
    mov r10d, 0x22
    mov r8, -1
    xor r9d, r9d
    syscall
    mov rbx, rax
    mov dword ptr [rbx], 0x000001b8
    mov dword ptr [rbx + 3], 0x00c30000
    mov byte ptr [rbx + 5], 0xc3
    call rbx
    mov ebp, 100
pause:
    dec ebp
    jnz pause
    call rbx
    mov r12d, eax
    mov byte ptr [rbx + 1], 2
    call rbx
    shl eax, 4
    or eax, r12d
    mov edi, eax
    mov eax, 60
    syscall
    """
    for engine in ("python", "native"):
        with Machine(seed=1, mmu=engine) as machine:
            machine.spawn(assemble(source, "w.s"), ["w"], {})
            machine.run(max_instructions=60)
            here = machine.snapshot()
            for _ in range(3):
                assert machine.run(max_instructions=LIMIT).exit_code == 0x21
                machine.restore(here)


def test_files_in_memory_and_their_room_come_back():
    script = (
        "echo one > /tmp/a; mkdir /tmp/d; ln -s a /tmp/l; read x; rm /tmp/a /tmp/l; rmdir /tmp/d; ls /tmp; echo done"
    )
    with Machine(seed=1) as machine:
        process = machine.spawn("/bin/sh", ["sh", "-c", script], {"PATH": "/bin:/usr/bin"}, stdin=b"go\n")
        ready = []

        @machine.on_syscall("read")
        def stop(event):
            if event.arguments[0] == 0 and not ready:
                ready.append(True)
                machine.pause()

        assert machine.run().limit == "pause"
        here = machine.snapshot()
        used = machine.quota.used
        outputs = set()
        for _ in range(3):
            assert machine.run().exit_code == 0
            outputs.add(process.stdout)
            machine.restore(here)
            assert machine.quota.used == used
        assert len(outputs) == 1
        assert outputs.pop().endswith(b"done\n")


def test_what_is_made_later_is_gone_after_a_restore():
    with Machine(seed=1) as machine:
        first = machine.spawn("/bin/echo", ["echo", "first"])
        here = machine.snapshot()
        second = machine.spawn("/bin/echo", ["echo", "second"])
        assert machine.run().exit_code == 0
        assert (first.stdout, second.stdout) == (b"first\n", b"second\n")
        machine.restore(here)
        assert [process.pid for process in machine.processes] == [first.pid]
        assert first.stdout == b""
        assert machine.run().exit_code == 0
        assert first.stdout == b"first\n"


def test_a_snapshot_belongs_to_one_machine_between_runs():
    with Machine(seed=1) as one, Machine(seed=1) as other:
        one.spawn("/bin/echo", ["echo"])
        other.spawn("/bin/echo", ["echo"])
        here = one.snapshot()
        with pytest.raises(UsageError, match="another machine"):
            other.restore(here)
        other.snapshot()
        with pytest.raises(UsageError, match="another machine"):
            other.restore(here)

        @one.on_syscall("write")
        def in_the_middle(_event):
            one.snapshot()

        with pytest.raises(UsageError, match="between runs"):
            one.run()


def test_what_no_snapshot_can_hold_is_refused():
    import fractions

    with Machine(seed=1) as machine:
        machine.spawn("/bin/echo", ["echo"])
        machine.kernel.foreign = fractions.Fraction(1, 2)
        with pytest.raises(UsageError, match=r"fractions\.Fraction"):
            machine.snapshot()
        del machine.kernel.foreign
        machine.restore(machine.snapshot())
        assert machine.run().exit_code == 0

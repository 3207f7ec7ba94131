"""The machine from Python: processes, memory, events, system calls answered by a script."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest

from mmuemu.errors import UsageError
from mmuemu.machine import Files, Machine
from mmuemu.mmu.state import PageFault, Translation
from mmuemu.sources import assemble

COUNTER = """
    mov r12, 0
again:
    inc r12
    mov [value], r12
    mov eax, 39
    syscall
    cmp r12, 1000
    jb again
    mov eax, 60
    mov edi, 7
    syscall
.data
value: .quad 0
"""

FORKER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void)
{
    char *secret = mmap((void *)0x10000000, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    char *shared = mmap((void *)0x20000000, 4096, 3, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    strcpy(secret, "parent");
    if (!fork()) {
        strcpy(secret, "child!");
        strcpy(shared, "hello");
        for (;;)
            sleep(1000);
    }
    while (!shared[0])
        usleep(1000);
    puts("ready");
    fflush(stdout);
    getppid();
    for (;;)
        sleep(1000);
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not here")

    def build(source: str, *options: str) -> str:
        directory = tmp_path_factory.mktemp("api")
        (directory / "p.c").write_text(source)
        subprocess.run(["gcc", "-static", "-O1", "-w", "-o", directory / "p", directory / "p.c", *options], check=True)
        return str(directory / "p")

    return build


@pytest.fixture(params=["python", "native"])
def machine(request):
    with Machine(mmu=request.param, seed=5, memory=256 << 20) as made:
        yield made


def test_a_program_is_spawned_and_waited_for(machine):
    process = machine.spawn("/bin/echo", ["echo", "hello", "there"])
    assert not process.ended
    assert process.exit_code is None
    assert process.wait(60).exit_code == 0
    assert process.stdout == b"hello there\n"
    assert process.stderr == b""
    assert process.ended
    assert process.exit_code == 0


def test_standard_input_is_bytes(machine):
    process = machine.spawn("/bin/cat", ["cat"], stdin=b"one\ntwo\n")
    assert process.wait(60).exit_code == 0
    assert process.stdout == b"one\ntwo\n"


def test_two_processes_run_side_by_side(machine):
    first = machine.spawn(assemble(COUNTER, "a.s"), ["a"])
    second = machine.spawn("/bin/echo", ["echo", "quick"])
    assert second.wait(60).exit_code == 0
    assert second.stdout == b"quick\n"
    assert first.wait(60).exit_code == 7
    assert machine.kernel.processes == {}


def test_a_wait_can_be_limited_and_taken_up(machine):
    process = machine.spawn(assemble(COUNTER, "a.s"), ["a"])
    outcome = process.wait(max_instructions=500)
    assert outcome.limit == "instructions"
    assert not process.ended
    (thread,) = process.threads
    assert thread.state == "R"
    assert 0 < thread.registers["r12"] < 1000
    assert process.wait(60).exit_code == 7
    assert process.threads == []


def test_memory_is_read_and_written(machine):
    process = machine.spawn(assemble(COUNTER, "a.s"), ["a"])
    process.wait(max_instructions=2000)
    data = next(area for area in process.areas if area.permissions.startswith("rw"))
    before = int.from_bytes(process.read(data.start, 8), "little")
    assert 0 < before < 1000
    process.write(data.start, b"\xee" * 8)
    assert process.read(data.start, 8) == b"\xee" * 8
    text = next(area for area in process.areas if "x" in area.permissions)
    assert f"{text.start:08x}-" in process.maps
    with pytest.raises(UsageError, match="nothing mapped"):
        process.read(0, 8)
    with pytest.raises(UsageError, match="nothing writable"):
        process.write(0xFFFF_8000_0000_0000, b"x")


def test_accesses_are_judged(machine):
    process = machine.spawn(assemble(COUNTER, "a.s"), ["a"])
    process.wait(max_instructions=2000)
    text = next(area for area in process.areas if "x" in area.permissions)
    read = process.translate(text.start)
    assert isinstance(read, Translation)
    assert process.page_table.lookup(text.start).physical == read.physical & ~0xFFF
    write = process.translate(text.start, "write")
    assert isinstance(write, PageFault)
    assert write.error_code == 7
    kernel = process.translate(machine.kernel.memory.entry)
    assert isinstance(kernel, PageFault)
    assert kernel.error_code == 5
    assert isinstance(process.translate(machine.kernel.memory.entry, user=False), Translation)
    with pytest.raises(UsageError, match="access 'jump'"):
        process.translate(0, "jump")


def test_fork_separates_and_shares(machine, compiled):
    parent = machine.spawn(compiled(FORKER), ["p"])
    children = []

    @machine.on_fork
    def forked(_parent, child):
        children.append(child.pid)

    @machine.on_syscall("getppid")
    def paused(event):
        if event.task.pid == parent.pid:
            machine.kernel.cpu.interrupt()

    with pytest.raises(KeyboardInterrupt):
        parent.wait(60)
    (child,) = parent.children
    assert [child.pid] == children
    assert parent.stdout == b"ready\n"
    assert parent.read(0x10000000, 6) == b"parent"
    assert child.read(0x10000000, 6) == b"child!"
    assert parent.read(0x20000000, 5) == child.read(0x20000000, 5) == b"hello"
    mine, its = parent.translate(0x10000000), child.translate(0x10000000)
    assert mine.physical != its.physical
    assert parent.translate(0x20000000).physical == child.translate(0x20000000).physical
    child.kill()
    parent.kill(15)
    assert parent.wait(60).signal == 15
    assert parent.exit_code == 143


def test_faults_are_told(machine):
    told = []
    machine.on_fault(told.append)
    process = machine.spawn(assemble("mov rax, 0x1234\nmov byte ptr [rax], 1\n", "a.s"), ["a"])
    assert process.wait(60).signal == 11
    assert told[-1].address == 0x1234
    assert told[-1].error_code == 6
    assert not told[-1].resolved
    assert any(event.resolved for event in told[:-1])


def test_maps_and_exits_are_told(machine):
    areas, ends = [], []
    machine.on_map(lambda task, vma: areas.append((task.pid, vma.end - vma.start)))

    @machine.on_exit
    def ended(process):
        ends.append((process.pid, process.exit_code, process.maps != ""))

    source = """
    mov eax, 9
    xor edi, edi
    mov esi, 0x5000
    mov edx, 3
    mov r10d, 0x22
    mov r8, -1
    xor r9d, r9d
    syscall
    mov eax, 231
    mov edi, 3
    syscall
    """
    process = machine.spawn(assemble(source, "a.s"), ["a"])
    assert process.wait(60).exit_code == 3
    assert (process.pid, 0x5000) in areas
    assert ends == [(process.pid, None, True)]


def test_system_calls_are_replaced_and_refused(machine):
    seen = []

    @machine.on_syscall("getpid")
    def answer(event):
        seen.append((event.name, event.task.pid))
        return 4711

    @machine.on_syscall("write")
    def refuse(event):
        event.refuse("EIO")

    @machine.on_syscall(999)
    def unknown(event):
        event.replace(event.arguments[0] + 1)

    source = """
    mov eax, 39
    syscall
    mov r12, rax
    mov eax, 1
    syscall
    mov r13, rax
    mov eax, 999
    mov edi, 41
    syscall
    mov rdi, rax
    cmp r12, 4711
    jne bad
    cmp r13, -5
    jne bad
    mov eax, 60
    syscall
bad:
    mov edi, 1
    mov eax, 60
    syscall
    """
    process = machine.spawn(assemble(source, "a.s"), ["a"])
    assert process.wait(60).exit_code == 42
    assert seen == [("getpid", process.pid)]
    with pytest.raises(UsageError, match="no system call 'frobnicate'"):
        machine.on_syscall("frobnicate")
    with pytest.raises(UsageError, match="name the calls"):
        machine.on_syscall()


def test_a_system_call_is_delayed(machine):
    @machine.on_syscall("getpid")
    def later(event):
        event.delay(2.5)

    before = machine.kernel.clock.now()
    process = machine.spawn(assemble("mov eax, 39\nsyscall\nmov edi, 5\nmov eax, 60\nsyscall\n", "a.s"), ["a"])
    assert process.wait(60).exit_code == 5
    assert machine.kernel.clock.now() - before >= 2_500_000_000


def test_two_machines_share_nothing():
    with Machine(seed=1) as one, Machine(seed=1) as two:
        one.on_syscall("getpid")(lambda event: 1)
        first = one.spawn(assemble(COUNTER, "a.s"), ["a"])
        second = two.spawn(assemble(COUNTER, "a.s"), ["a"])
        first.wait(max_instructions=1000)
        assert second.wait(60).exit_code == 7
        assert not first.ended
        assert first.maps == second.maps or second.ended
        assert two.kernel.events.syscall == {}
        assert one.kernel.ram is not two.kernel.ram
        assert first.wait(60).exit_code == 7


def test_memory_may_be_text():
    with Machine(seed=1, memory="48M") as machine:
        assert machine.kernel.ram.size == 48 << 20
    with pytest.raises(UsageError, match="not a size"):
        Machine(memory="much")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc of Linux")
def test_a_closed_machine_has_no_descriptors_of_the_host(tmp_path):
    """Not even those that are kept for good: nothing waits for the garbage collector."""
    (tmp_path / "f").write_bytes(b"text")
    before = os.listdir("/proc/self/fd")
    gc.disable()
    try:
        with Machine(memory="64M", seed=1, files=Files(cwd="/work", mounts=[f"{tmp_path}:/work:rw"])) as machine:
            machine.spawn(assemble(COUNTER, "a.s"), ["a"], {}).wait()
            assert len(os.listdir("/proc/self/fd")) > len(before)
        assert os.listdir("/proc/self/fd") == before
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs signals")
def test_a_signal_of_somebody_elses_does_not_end_a_run(machine):
    """Its handler in Python is called at once, and what it raises comes out of the run."""
    seen = []
    machine.load(assemble("again: jmp again\n", "a.s"), ["a"], {})
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(time.monotonic()))
    try:
        begun = time.monotonic()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert machine.run(timeout=2).limit == "timeout"
        assert len(seen) == 1
        assert seen[0] - begun < 1.5
        signal.signal(signal.SIGUSR1, lambda *_: {}["raised"])
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(KeyError, match="raised"):
            machine.run(timeout=20)
    finally:
        signal.signal(signal.SIGUSR1, before)

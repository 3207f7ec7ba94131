"""Lazy FPU: the registers stay with who used them last, and nobody notices but by what is transient."""

from __future__ import annotations

from unittest import mock

import pytest

from mmuemu.kernel import switching
from mmuemu.kernel.options import Options
from mmuemu.machine import Machine
from mmuemu.sources import assemble
from mmuemu.x86.registers import CR0_TS

OWN = """
    mov eax, 57
    syscall
    mov r12, rax
    mov r13, 0x1111111122222222
    test rax, rax
    jz ready
    mov r13, 0x3333333344444444
ready:
    movq xmm5, r13
    mov ebx, 400
    push rbx
    fild qword ptr [rsp]
again:
"""
CHECK = """
    movq rax, xmm5
    cmp rax, r13
    jne wrong
    dec ebx
    jnz again
    fistp qword ptr [rsp]
    pop rax
    cmp rax, 400
    jne wrong
    mov edi, 5
    test r12, r12
    jz leave
    push 0
    mov eax, 61
    mov rdi, -1
    mov rsi, rsp
    xor edx, edx
    xor r10d, r10d
    syscall
    pop rdi
    shr edi, 8
    add edi, 6
leave:
    mov eax, 60
    syscall
wrong:
    mov edi, 99
    mov eax, 60
    syscall
"""
WITH_CALLS = OWN + "mov eax, 24\nsyscall\n" + CHECK


def lazy_machine(**options: object) -> Machine:
    with mock.patch("mmuemu.machine.Options", lambda **given: Options(**{**given, "lazy_fpu": True})):
        return Machine(aslr=False, seed=1, memory=64 << 20, **options)


@pytest.fixture(params=["python", "native"])
def mmu(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("source", [OWN + CHECK, WITH_CALLS], ids=["interrupted", "yielding"])
def test_each_process_has_its_own_registers(source: str, mmu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmuemu.kernel.scheduler.SHORTEST", 1)
    monkeypatch.setattr("mmuemu.kernel.scheduler.LONGEST", 120)
    claims = []
    claim = switching.claim_floats
    monkeypatch.setattr(switching, "claim_floats", lambda kernel, task: (claims.append(task.pid), claim(kernel, task)))
    with lazy_machine(mmu=mmu) as machine:
        machine.load(assemble(source, "test.s"), ["test"], {})
        assert machine.run(timeout=20).exit_code == 11
        assert machine.kernel.scheduler.switches > 30
        assert len(claims) > 20
        assert len(set(claims)) == 2


def test_the_registers_of_another_stay_behind_the_guard(mmu: str) -> None:
    """What LazyFP reads: a task that has not touched them runs with TS set and the values of its neighbour."""
    seen = []
    child = "mov eax, 57\nsyscall\ntest rax, rax\njz child\nmov r13, 0x3333333344444444\nmovq xmm5, r13\n"
    rest = (
        "mov eax, 61\nmov rdi, -1\nxor esi, esi\nxor edx, edx\nxor r10d, r10d\nsyscall\nmovq rdi, xmm5\nand edi, 127\n"
    )
    leave = "mov eax, 231\nsyscall\nchild:\nmov eax, 39\nsyscall\nmovq rdi, xmm5\nmov eax, 39\nsyscall\njmp away\n"
    away = "away:\nmov eax, 231\nsyscall\n"
    with lazy_machine(mmu=mmu, schedule="coop") as machine:
        kernel = machine.kernel

        def look(_event: object) -> None:
            kernel.cpu.window.save()
            fp = kernel.cpu.fp.fxsave()
            seen.append((kernel.cpu.paging.cr0 & CR0_TS, fp[160 + 80 : 168 + 80]))

        kernel.watch_syscall(39, look)
        machine.load(assemble(child + rest + leave + away, "test.s"), ["test"], {})
        assert machine.run(timeout=20).exit_code == 0x44444444 & 127
    other = (0x3333333344444444).to_bytes(8, "little")
    assert seen == [(CR0_TS, other), (0, bytes(8))]


def test_a_new_program_starts_with_fresh_registers(mmu: str) -> None:
    """execve by a task that owns nothing, while another's values are in the CPU."""
    with lazy_machine(mmu=mmu) as machine:
        text = "for n in 1 2 3; do /bin/echo $n | /bin/cat; done; printf %.3f 1.5"
        process = machine.spawn("/bin/sh", ["sh", "-c", text])
        process.wait(timeout=50)
        assert process.stdout == b"1\n2\n3\n1.500"


TOUCHES = ("fxsave [rsp]", "ldmxcsr [rsp]", "movaps xmm0, xmm1", "emms", "fninit", "fwait", "fld1", "paddb xmm1, xmm2")
XSAVE = ("xsave [rsp]", "xrstor [rsp]", "xgetbv")


@pytest.mark.parametrize("instruction", [*TOUCHES, *XSAVE])
def test_no_instruction_reaches_the_registers_of_another(instruction: str, mmu: str) -> None:
    """Each either makes its task the owner, or does not exist (#UD)."""
    source = (
        "mov eax, 57\nsyscall\ntest rax, rax\njz child\nmovq xmm5, rax\n"
        "mov eax, 61\nmov rdi, -1\npush 0\nmov rsi, rsp\nxor edx, edx\nxor r10d, r10d\nsyscall\n"
        "pop rdi\ntest edi, 127\njnz away\nshr edi, 8\naway:\nmov eax, 231\nsyscall\n"
        "child:\nsub rsp, 4096\nand rsp, -64\nxor ecx, ecx\nmov eax, 3\nxor edx, edx\nmov dword ptr [rsp], 0x1f80\n"
        f"{instruction}\nmov eax, 39\nsyscall\nmov edi, 42\njmp away\n"
    )
    with lazy_machine(mmu=mmu, schedule="coop") as machine:
        kernel = machine.kernel
        owners = []
        kernel.watch_syscall(39, lambda _event: owners.append(kernel.fpu_owner is kernel.current))
        machine.load(assemble(source, "t.s"), ["t"], {})
        outcome = machine.run(timeout=20)
    if instruction in XSAVE:
        assert (outcome.exit_code & 127, owners) == (4, [])
    else:
        assert (outcome.exit_code, owners) == (42, [True])


def test_without_the_option_nothing_is_lazy() -> None:
    with Machine(aslr=False, seed=1, memory=64 << 20) as machine:
        machine.load(assemble(OWN + CHECK, "test.s"), ["test"], {})
        assert machine.run(timeout=20).exit_code == 11
        assert machine.kernel.fpu_owner is None

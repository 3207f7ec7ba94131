"""Small programs whose bytes are the same on every machine: assembly for Keystone, written with a few words."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Final

from mmuemu.kernel.syscalls import load_all
from mmuemu.kernel.syscalls.table import TABLE
from mmuemu.sources import assemble

_ARGUMENTS: Final = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
_NUMBERS: Final = count()
SCRATCH: Final = 0x70_0000_0000
"""Where the programs map memory of their own."""
_SEED: Final = 0x2545F4914F6CDD1D


def call(name: str, *arguments: object) -> str:
    """A system call: arguments are numbers, registers, ``[label]`` for the value there, ``&label`` for its address."""
    lines = []
    for register, value in zip(_ARGUMENTS, arguments, strict=False):
        text = str(value)
        if text.startswith("&"):
            lines.append(f"lea {register}, [rip + {text[1:]}]")
        elif text.startswith("["):
            lines.append(f"mov {register}, qword ptr [rip + {text[1:-1]}]")
        elif text == "0":
            lines.append(f"xor {register}, {register}")
        elif text != register:
            lines.append(f"mov {register}, {text}")
    load_all()
    number = next(one.number for one in TABLE.values() if one.name == name)
    return "\n".join([*lines, f"mov eax, {number}", "syscall\n"])


def loop(times: int, body: str, register: str = "r15") -> str:
    """``body`` that many times; ``register`` counts down."""
    label = f"loop{next(_NUMBERS)}"
    return f"mov {register}, {times}\n{label}:\n{body}\ndec {register}\njnz {label}\n"


def step(register: str = "rbx") -> str:
    """The next number of a sequence in ``register``; uses rax."""
    return f"mov rax, 6364136223846793005\nimul {register}, rax\nadd {register}, 1442695\n"


def show(label: str, size: int) -> str:
    """Write what is at ``label`` to standard output."""
    return call("write", 1, f"&{label}", size)


def fork(child: str, parent: str) -> str:
    """Two ways; the child's number is in r12 of the parent."""
    number = next(_NUMBERS)
    return (
        call("fork") + f"test rax, rax\njnz parent{number}\n{child}\n{call('exit_group', 0)}"
        f"parent{number}:\nmov r12, rax\n{parent}\n"
    )


def handler(signal: int, label: str, flags: int = 0) -> str:
    """Have ``label`` handle ``signal``."""
    return (
        f"lea rax, [rip + {label}]\nmov qword ptr [rip + action], rax\n"
        f"mov rax, {0x0400_0000 | flags}\nmov qword ptr [rip + action + 8], rax\n"
        "lea rax, [rip + restorer]\nmov qword ptr [rip + action + 16], rax\n"
        + call("rt_sigaction", signal, "&action", 0, 8)
    )


def map_scratch(pages: int, protection: int = 3, flags: int = 0x32) -> str:
    """Anonymous memory at SCRATCH."""
    return call("mmap", f"{SCRATCH:#x}", pages << 12, protection, flags, -1, 0)


WAIT: Final = call("wait4", -1, "&status", 0, 0) + show("status", 4)
_END: Final = call("exit_group", 0)
_RESTORER: Final = "restorer:\n" + call("rt_sigreturn")
_DATA: Final = """
.data
status: .quad 0
action: .quad 0, 0, 0, 0
time: .quad 0, 0
nap: .quad 0, 2000000
timer: .quad 0, 300, 0, 300
ends: .quad 0
counter: .quad 0
alive: .quad 0, 0, 0, 0
tid: .quad 0
word: .ascii "deterministic word, 32 bytes ok!"
path: .ascii "/tmp/note"
.byte 0
self: .ascii "/proc/self/exe"
.byte 0
maps: .ascii "/proc/self/maps"
.byte 0
cpuinfo: .ascii "/proc/cpuinfo"
.byte 0
meminfo: .ascii "/proc/meminfo"
.byte 0
dot: .ascii "/tmp"
.byte 0
argument: .ascii "again"
.byte 0
vector: .quad 0, 0, 0, 0, 0, 0, 0, 0
buffer: .fill 8192, 1, 0
"""


def program(text: str) -> bytes:
    """The ELF file of a program whose code is ``text``, with the data that they all share."""
    return assemble(f".text\n_start:\n{text}\n{_END}\n{_RESTORER}{_DATA}", "guest")


def _sums() -> str:
    return (
        f"mov rbx, {_SEED}\nxor r14, r14\n"
        + loop(20_000, step() + "rol r14, 7\nxor r14, rbx\nmov rax, rbx\nshr rax, 60\nimul r14, rax\nadd r14, rbx\n")
        + "mov qword ptr [rip + counter], r14\n"
        + show("counter", 8)
    )


def _pages() -> str:
    touch = step() + (
        "mov rax, rbx\nshr rax, 33\nand rax, 0x7ffff8\nmov rcx, r13\nadd rcx, rax\nadd qword ptr [rcx], rbx\n"
    )
    return map_scratch(2048) + f"mov rbx, {_SEED}\nmov r13, {SCRATCH:#x}\n" + loop(1_500, touch)


def _fault() -> str:
    return f"mov rbx, {SCRATCH + 123:#x}\nmov dword ptr [rbx], 1\n"


def _caught() -> str:
    """Each read of a page that is not there makes it, in the handler."""
    # The handler: siginfo in rsi, si_addr 16 bytes in it.
    handle = (
        "jmp over\ncatch:\npush rbx\nmov rdi, qword ptr [rsi + 16]\nand rdi, -4096\n"
        + call("mmap", "rdi", 4096, 3, 0x32, -1, 0)
        + "inc qword ptr [rip + counter]\npop rbx\nret\nover:\n"
    )
    touch = "mov rax, r15\nshl rax, 14\nadd rax, r13\ninc dword ptr [rax + 8]\n"
    return handle + handler(11, "catch", 4) + f"mov r13, {SCRATCH:#x}\n" + loop(25, touch) + show("counter", 8)


def _forks() -> str:
    child = loop(3, show("word", 5), "r14") + call("getpid") + "mov rdi, rax\nand rdi, 63\n" + call("exit", "rdi")
    return loop(4, fork(child, "")) + loop(4, WAIT)


def _pipe() -> str:
    child = f"mov rbx, {_SEED}\n" + loop(
        300, step() + "mov qword ptr [rip + time], rbx\nmov edi, dword ptr [rip + ends + 4]\n"
        + call("write", "rdi", "&time", 8), "r14",
    )  # fmt: skip
    close = "mov edi, dword ptr [rip + ends + 4]\n" + call("close", "rdi")
    read = (
        "more:\nmov edi, dword ptr [rip + ends]\n" + call("read", "rdi", "&buffer", 24)
        + "test rax, rax\njz done\nmov rcx, qword ptr [rip + buffer]\nadd qword ptr [rip + counter], rcx\njmp more\n"
        "done:\n"
    )  # fmt: skip
    return call("pipe", "&ends") + fork(child, close + read + WAIT + show("counter", 8))


def _threads() -> str:
    """Three threads add to one number without a lock: what is lost depends on who runs when."""
    race = "mov rax, qword ptr [rip + counter]\nadd rax, 1\npause\nmov qword ptr [rip + counter], rax\n"
    start = (
        "mov rsi, r15\nshl rsi, 14\nadd rsi, r13\n"
        "lea r10, [rip + alive]\nlea r10, [r10 + r15*8]\nmov qword ptr [r10], 1\n"
        + call("clone", 0x0125_0F00, "rsi", "&tid", "r10", 0)
        + "test rax, rax\njz thread\n"
    )
    wait = (
        "again%d:\nmov edx, dword ptr [rip + alive + 8*%d]\ntest edx, edx\njz gone%d\nlea rdi, [rip + alive + 8*%d]\n"
        + call("futex", "rdi", 0, "rdx", 0)
        + "jmp again%d\ngone%d:\n"
    )
    waits = "".join(wait % ((at,) * 6) for at in (1, 2, 3))
    thread = "jmp main\nthread:\n" + loop(9_000, race, "r14") + call("exit", 0) + "main:\n"
    return thread + map_scratch(32) + f"mov r13, {SCRATCH:#x}\n" + loop(3, start) + waits + show("counter", 8)


def _ticks() -> str:
    """A timer's signals come into a loop that counts until there were twenty."""
    catch = (
        "jmp over\ncatch:\nmov rax, r14\nadd qword ptr [rip + time], rax\ninc qword ptr [rip + counter]\nret\nover:\n"
    )
    spin = "spin:\ninc r14\ncmp qword ptr [rip + counter], 20\njb spin\n"
    return catch + handler(14, "catch") + call("setitimer", 0, "&timer", 0) + "xor r14, r14\n" + spin + show("time", 8)


def _chance() -> str:
    """All that programs can draw or read that changes from run to run elsewhere."""
    clocks = "".join(call("clock_gettime", one, "&time") + show("time", 16) for one in (0, 1, 2, 3, 4, 7))
    stamp = "rdtsc\nmov dword ptr [rip + time], eax\nmov dword ptr [rip + time + 4], edx\n" + show("time", 8)
    ids = "".join(call(name) + "mov qword ptr [rip + time], rax\n" + show("time", 8) for name in ("getpid", "getppid"))
    stack = call("write", 1, "rsp", 1024)
    draw = call("getrandom", "&buffer", 64, 0) + show("buffer", 64)
    return stack + draw + clocks + stamp + ids + call("uname", "&buffer") + show("buffer", 390)


def _cow() -> str:
    def change() -> str:
        add = "mov rax, r15\nshl rax, 12\nadd rax, r13\nadd qword ptr [rax], r15\n"
        return f"mov r13, {SCRATCH:#x}\n" + loop(40, add)

    return map_scratch(64) + change() + fork(change() + change(), change() + WAIT) + fork(change(), WAIT)


def _files() -> str:
    keep = "mov r13, rax\n"
    listing = call("open", "&dot", 0o200000) + keep + call("getdents64", "r13", "&buffer", 2048) + show("buffer", 512)
    return (
        call("open", "&path", 0o102, 0o640) + keep + loop(5, call("write", "r13", "&word", 20), "r14")
        + call("lseek", "r13", 7, 0) + call("read", "r13", "&buffer", 50) + show("buffer", 50)
        + call("fstat", "r13", "&buffer") + show("buffer", 144) + call("fcntl", "r13", 3) + listing
        + call("unlink", "&path") + call("stat", "&path", "&buffer") + call("getcwd", "&buffer", 100)
        + show("buffer", 8) + call("umask", 0) + call("access", "&path", 4)
    )  # fmt: skip


def link_text() -> str:
    """What /proc/self/fd says of standard output."""
    path = 'jmp over\nstdout: .ascii "/proc/self/fd/1"\n.byte 0\nover:\n'
    return path + call("readlink", "&stdout", "&buffer", 64) + show("buffer", 64)


def _streams() -> str:
    facts = "".join(call("fstat", fd, "&buffer") + show("buffer", 144) for fd in (0, 1, 2))
    return (
        link_text()
        + facts
        + call("read", 0, "&buffer", 64)
        + call("lseek", 1, 0, 1)
        + call("ioctl", 1, 0x5401, "&buffer")
    )


def _proc() -> str:
    def out(label: str) -> str:
        return (
            call("open", f"&{label}", 0) + "mov r13, rax\n" + call("read", "r13", "&buffer", 8192)
            + call("write", 1, "&buffer", "rax") + call("close", "r13")
        )  # fmt: skip

    return "".join(map(out, ("maps", "cpuinfo", "meminfo")))


def _changing() -> str:
    """Code that rewrites itself: ``mov eax, N; ret`` with another N each time."""
    body = f"mov rax, {SCRATCH:#x}\nmov dword ptr [rax + 1], r15d\ncall rax\nadd qword ptr [rip + counter], rax\n"
    write = f"mov rax, {SCRATCH:#x}\nmov byte ptr [rax], 0xb8\nmov byte ptr [rax + 5], 0xc3\n"
    return map_scratch(1, 7) + write + loop(60, body) + show("counter", 8)


def _deep() -> str:
    return "xor rbx, rbx\ndeeper:\ninc rbx\nsub rsp, 2000\nmov qword ptr [rsp], rbx\ncall deeper\n"


def _rights() -> str:
    close = call("mprotect", f"{SCRATCH:#x}", 8192, 1) + call("mprotect", f"{SCRATCH + 4096:#x}", 4096, 0)
    touch = f"mov r13, {SCRATCH:#x}\nmov rax, qword ptr [r13]\nmov byte ptr [r13 + 8191], 7\n"
    return map_scratch(4) + touch + close + "mov rax, qword ptr [r13]\nmov byte ptr [r13], 1\n"


def _again() -> str:
    """Starts itself until there are five arguments."""
    fill = "".join(f"lea rax, [rip + argument]\nmov qword ptr [rip + vector + {8 * at}], rax\n" for at in range(5))
    least = "mov rbx, qword ptr [rsp]\ncmp rbx, 5\njge stop\n"
    cut = "inc rbx\nlea rax, [rip + vector]\nmov qword ptr [rax + rbx*8], 0\n"
    return show("word", 9) + least + fill + cut + call("execve", "&self", "&vector", 0) + "stop:\n"


def _jobs() -> str:
    child = "turn:\n" + call("sched_yield") + "jmp turn\n"
    kill = [
        call("kill", "r12", number) + call("wait4", "r12", "&status", 10, 0) + show("status", 4) for number in (19, 18)
    ]
    return fork(child, "".join(kill) + call("kill", "r12", 9) + WAIT)


def _sleepers() -> str:
    def child() -> str:
        return loop(3, call("nanosleep", "&nap", 0) + show("word", 4), "r14")

    return fork(child(), "") + fork(child(), "") + WAIT + WAIT


def _talk() -> str:
    echo = "mov edi, dword ptr [rip + ends + 4]\n"
    near = "mov edi, dword ptr [rip + ends]\n"
    child = loop(20, echo + call("read", "rdi", "&buffer", 8) + "inc qword ptr [rip + buffer]\n" + echo
                 + call("write", "rdi", "&buffer", 8), "r14")  # fmt: skip
    parent = loop(20, near + call("write", "rdi", "&counter", 8) + near + call("read", "rdi", "&counter", 8), "r14")
    return call("socketpair", 1, 1, 0, "&ends") + fork(child, parent + WAIT) + show("counter", 8)


def _divides() -> str:
    return "xor ecx, ecx\nmov eax, 5\nxor edx, edx\ndiv ecx\n"


def _floats() -> str:
    """SSE and x87 arithmetic: results are the engine's own, bit for bit."""
    body = (
        "cvtsi2sd xmm1, r15\nsqrtsd xmm1, xmm1\naddsd xmm0, xmm1\n"
        "fild qword ptr [rip + counter]\nfsqrt\nfstp qword ptr [rip + time]\n"
        "addsd xmm0, qword ptr [rip + time]\ninc qword ptr [rip + counter]\n"
    )
    return "xorpd xmm0, xmm0\n" + loop(400, body) + "movsd qword ptr [rip + time], xmm0\n" + show("time", 8)


GUESTS: Final[dict[str, Callable[[], str]]] = {
    "sums": _sums, "pages": _pages, "fault": _fault, "caught": _caught, "forks": _forks, "pipe": _pipe,
    "threads": _threads, "ticks": _ticks, "chance": _chance, "cow": _cow, "files": _files, "streams": _streams,
    "proc": _proc,
    "changing": _changing, "deep": _deep, "rights": _rights, "again": _again, "jobs": _jobs, "sleepers": _sleepers,
    "talk": _talk, "divides": _divides, "floats": _floats,
}  # fmt: skip
"""By name: the code of each."""


def image(name: str) -> bytes:
    """The ELF file of the guest called ``name``."""
    return program(GUESTS[name]())

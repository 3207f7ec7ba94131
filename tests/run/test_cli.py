"""``mmuemu run`` as a command: options, exit codes, streams, limits, seeds, reports."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.run.harness import ENGINES, Programs, command_line, emulator_environment, mmuemu

SPIN = ".text\n_start:\njmp _start\n"
EXIT = "mov eax, 60\nsyscall\n"
WAIT = "_start:\nxor edi, edi\nlea rsi, [rsp - 64]\nmov edx, 1\nxor eax, eax\nsyscall\nmov edi, eax\n" + EXIT
COUNTED = "mov ecx, 1000\nagain:\ndec ecx\njnz again\nmov edi, 7\nmov eax, 60\nsyscall\n"
"""2,004 instructions up to and with ``syscall``."""
KERNEL_ENTRY = 61
"""Instructions of the kernel's entry code: 36 on the way out to the first, 25 up to and with the hypercall."""
RANDOM = r"""
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <time.h>
#include <x86intrin.h>
int main(void) {
    unsigned long a[2], b[2];
    memcpy(a, (void *)getauxval(AT_RANDOM), 16);
    getrandom(b, 16, 0);
    printf("%lx %lx %lx %lx %p %p ", a[0], a[1], b[0], b[1], (void *)a, (void *)main);
    printf("%ld %llx\n", (long)time(NULL), __rdtsc());
}
"""


def source(directory: Path, text: str, name: str = "program.s") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def start(*arguments: str | Path, cwd: Path, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command_line(*arguments),
        cwd=cwd,
        env=emulator_environment(),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


# Options and exit codes


def test_options_stop_at_the_program(busybox: Path) -> None:
    assert mmuemu("--seed", "1", busybox, "echo", "--strace", "-v", "--", "--seed").out == b"--strace -v -- --seed\n"
    assert mmuemu("--seed", "1", "--", busybox, "echo", "--stats").out == b"--stats\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--no-such-option", "true"], "--no-such-option"),
        (["--mmu", "quantum", "true"], "quantum"),
        (["--memory", "lots", "true"], "lots"),
        (["--memory", "0", "true"], "0"),
        (["--memory", "-5M", "true"], "--memory"),
        (["--memory", "999999T", "true"], "999999T"),
        (["--memory", "4K", "true"], "4K"),
        (["--timeout", "-1", "true"], "-1"),
        (["--timeout", "nan", "true"], "nan"),
        (["--max-instructions", "none", "true"], "none"),
        (["--max-instructions", "0", "true"], "0"),
        (["--seed", "x", "true"], "x"),
        (["--mount", "nowhere", "/bin/true"], "nowhere"),
        (["--mount", "/no/such/place:/data", "/bin/true"], "/no/such/place"),
        (["--mount", "/usr:relative", "/bin/true"], "relative"),
        (["--mount", "/usr:/data:sometimes", "/bin/true"], "sometimes"),
        (["--root", "/no/such/root", "/bin/true"], "/no/such/root"),
        (["--env", "NOEQUALS", "/bin/true"], "NOEQUALS"),
        (["--json", "/no/such/dir/out.json", "/bin/true"], "/no/such/dir/out.json"),
        (["--json", "/", "/bin/true"], "--json /"),
        ([], "PROGRAM"),
    ],
)
def test_wrong_options_are_125_and_one_line(options: list[str], words: str, tmp_path: Path) -> None:
    done = subprocess.run(
        command_line(*options), capture_output=True, text=True, cwd=tmp_path, env=emulator_environment()
    )
    assert done.returncode == 125, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("mmuemu")
    assert words in line


def test_help_and_version() -> None:
    for arguments, words in ((["--help"], "126"), (["--help"], "--max-instructions")):
        done = subprocess.run(command_line(*arguments), capture_output=True, text=True, env=emulator_environment())
        assert done.returncode == 0
        assert words in done.stdout


@pytest.mark.parametrize(
    "name", ["no-such-program-anywhere", "./missing", "/missing/too", "missing.s", "missing.c", ""]
)
def test_missing_programs_are_127(name: str, tmp_path: Path) -> None:
    found = mmuemu(name, cwd=tmp_path)
    assert (found.code, found.out, len(found.err.splitlines())) == (127, b"", 1)
    assert found.ours
    assert name.encode() in found.err


def test_a_name_without_slash_is_looked_up_on_path(busybox: Path, tmp_path: Path) -> None:
    assert mmuemu("busybox", "echo", "found", cwd=tmp_path).out == b"found\n"


# Streams


def test_all_bytes_pass_both_ways(busybox: Path) -> None:
    data = bytes(range(256)) * 4096
    found = mmuemu(busybox, "cat", stdin=data)
    assert (found.out, found.err, found.code) == (data, b"", 0)
    found = mmuemu(busybox, "sh", "-c", 'while read -r line; do echo "$line" >&2; done', stdin=b"to\xff\x80\nstderr\n")
    assert (found.out, found.err) == (b"", b"to\xff\x80\nstderr\n")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_closed_reader_ends_the_run(engine: str, busybox: Path, tmp_path: Path) -> None:
    process = start("--mmu", engine, busybox, "yes", cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.read(4) == b"y\ny\n"
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait(10) == 141
    assert b"Traceback" not in errors
    assert errors.count(b"\n") <= 1


def test_closed_standard_streams(busybox: Path, tmp_path: Path) -> None:
    line = " ".join(command_line(busybox, "echo", "x"))
    for closing, code in ((">&-", 1), ("<&-", 0), ("2>&-", 0)):
        done = subprocess.run(["sh", "-c", f"{line} {closing}"], capture_output=True, env=emulator_environment())
        expected = subprocess.run(["sh", "-c", f"{busybox} echo x {closing}"], capture_output=True)
        assert (done.returncode, done.stdout) == (expected.returncode, expected.stdout)
        assert done.returncode == code
        assert b"Traceback" not in done.stderr


# Seeds and layout


@pytest.fixture(scope="module")
def random_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("random")
    code = source(directory, RANDOM, "random.c")
    done = subprocess.run(["gcc", "-O1", "-static-pie", "-o", str(directory / "random"), str(code)])
    if done.returncode:
        pytest.skip("no gcc")
    return directory / "random"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_seed_repeats_everything(engine: str, random_program: Path, tmp_path: Path) -> None:
    options = ["--mmu", engine, "--seed", "42", "-v", "--strace", "--maps", "--stats"]
    first, second = (mmuemu(*options, random_program, cwd=tmp_path) for _ in range(2))
    assert first == second
    other = mmuemu("--mmu", engine, "--seed", "43", "-v", random_program, cwd=tmp_path)
    mine, its = first.out.split(), other.out.split()
    assert all(a != b for a, b in zip(mine[:6], its[:6], strict=True))


def test_both_engines_see_one_seed(random_program: Path, tmp_path: Path) -> None:
    python, native = (mmuemu("--mmu", engine, "--seed", "5", random_program, cwd=tmp_path) for engine in ENGINES)
    assert python.out.split()[:6] == native.out.split()[:6]


def test_no_seed_draws_one_that_v_prints_and_that_repeats(random_program: Path, tmp_path: Path) -> None:
    first = mmuemu("-v", "--clock", "virtual", random_program, cwd=tmp_path)
    second = mmuemu("-v", random_program, cwd=tmp_path)
    assert first.out != second.out
    seed = re.search(rb"seed (\d+) \(repeat with --seed \1\)", first.err)
    assert seed
    assert mmuemu("--seed", seed[1].decode(), random_program, cwd=tmp_path).out == first.out


def test_v_without_randomization(random_program: Path, tmp_path: Path) -> None:
    text = mmuemu("-v", "--no-aslr", random_program, cwd=tmp_path).err.decode()
    assert "kernel text 0xffffffff81000000" in text or "kernel text 0xffffffff80000000" in text
    assert "direct map 0xffff888000000000" in text
    assert "brk 0x555555555000" in text


# Limits


@pytest.mark.parametrize("engine", ENGINES)
def test_timeout(engine: str, tmp_path: Path) -> None:
    program = source(tmp_path, SPIN)
    began = time.monotonic()
    found = mmuemu("--mmu", engine, "--timeout", "0.7", program, cwd=tmp_path)
    assert 0.7 <= time.monotonic() - began < 5
    assert found.code == 124
    assert re.fullmatch(r"mmuemu: \S+: stopped after 0.7 s \(--timeout\) at 0x40100[0-9a-f]", found.ours[0])


def test_timeout_while_blocked_in_read(tmp_path: Path) -> None:
    process = start("--timeout", "0.7", source(tmp_path, WAIT), cwd=tmp_path, stdin=subprocess.PIPE)
    began = time.monotonic()
    assert process.wait(10) == 124
    assert time.monotonic() - began < 5
    assert process.stderr is not None
    errors = process.stderr.read()
    assert errors.count(b"\n") == 1
    assert b"(--timeout) while asleep in read" in errors


@pytest.mark.parametrize("engine", ENGINES)
def test_an_instruction_limit_is_exact(engine: str, tmp_path: Path) -> None:
    program = source(tmp_path, COUNTED)

    def run(limit: int) -> tuple[int, int, str]:
        out = tmp_path / "out.json"
        found = mmuemu("--mmu", engine, "--max-instructions", str(limit), "--json", out, program, cwd=tmp_path)
        facts = json.loads(out.read_text())
        return found.code, facts["instructions"], "".join(found.ours)

    code, executed, said = run(500)
    assert (code, executed) == (124, 500)
    assert "stopped after 500 instructions (--max-instructions) at 0x401005" in said or "at 0x401007" in said
    assert run(500) == (code, executed, said)
    code, executed, _ = run(10_000_000)
    assert (code, executed) == (7, 2004 + KERNEL_ENTRY)
    assert run(executed)[:2] == (7, executed)
    assert run(executed - 1)[:2] == (124, executed - 1)
    assert run(2003)[:2] == (124, 2003)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("text", [SPIN, WAIT], ids=["spinning", "blocked"])
def test_interrupt(text: str, engine: str, tmp_path: Path) -> None:
    process = start("--mmu", engine, "-v", source(tmp_path, text), cwd=tmp_path, stdin=subprocess.PIPE)
    assert process.stderr is not None
    lines = [process.stderr.readline() for _ in range(3)]
    assert lines[0].startswith(b"mmuemu: seed")
    time.sleep(0.2)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    code = process.wait(10)
    assert time.monotonic() - began < 2
    assert code in (130, -signal.SIGINT)
    assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("script", "presses", "code", "words"),
    [
        ("trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.05; done", 1, 7, b"caught\n"),
        ("echo ready; sleep 100 | cat", 1, 130, b""),
        ("trap '' INT; echo ready; while :; do :; done", 3, 130, b""),
    ],
    ids=["handler", "pipeline", "ignored"],
)
def test_interrupt_is_the_guests(script: str, presses: int, code: int, words: bytes, tmp_path: Path) -> None:
    process = start("/bin/dash", "-c", script, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    for _ in range(presses):
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
    assert process.wait(20) == code
    assert process.stdout.read() == words


def test_a_program_that_stops_stops_its_emulator(tmp_path: Path) -> None:
    process = start(
        "/bin/dash", "-c", "echo ready; kill -STOP $$; echo back; read x", cwd=tmp_path, stdin=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"ready\n"
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    process.send_signal(signal.SIGCONT)
    assert process.stdout.readline() == b"back\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGTSTP)
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    process.send_signal(signal.SIGCONT)
    process.stdin.write(b"\n")
    process.stdin.close()
    assert process.wait(10) == 0


# Reports


def test_json(programs: Programs, tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    found = mmuemu("--json", out, "--seed", "3", programs("faults", "glibc-static"), "null_write", cwd=tmp_path)
    facts = json.loads(out.read_text())
    assert found.code == facts["exit_code"] == 139
    assert (facts["signal"], facts["seed"], facts["mmu"], facts["limit"]) == (11, 3, "python", None)
    assert facts["arguments"][1:] == ["null_write"]
    fault = facts["fault"]
    assert (fault["address"], fault["access"], fault["ring"], fault["error_code"]) == (0x10, "write", 3, 6)
    assert any("[stack]" in line for line in facts["maps"])
    assert facts["statistics"]["system calls"] > 5


def test_maps_stats_strace(busybox: Path, tmp_path: Path) -> None:
    found = mmuemu("--maps", "--stats", "--strace", busybox, "echo", "hi", cwd=tmp_path)
    text = found.err.decode()
    assert found.out == b"hi\n"
    assert re.search(r"^[0-9a-f]+-[0-9a-f]+ r-xp 0\S+ .*/busybox$", text, re.M)
    assert re.search(r"^TLB fills +\d+$", text, re.M)
    assert re.search(r'^write\(1, "hi\\n", 3\) += 3$', text, re.M)
    assert re.search(r"^exit_group\(0\) += \?$", text, re.M)


def test_an_unknown_system_call_is_said_once(tmp_path: Path) -> None:
    text = "mov ebx, 3\nagain: mov eax, 999\nsyscall\ndec ebx\njnz again\nneg eax\nmov edi, eax\nmov eax, 60\nsyscall\n"
    found = mmuemu(source(tmp_path, text), cwd=tmp_path)
    assert (found.code, len(found.ours)) == (38, 1)
    assert "999" in found.ours[0]


# Files


def test_mounts(busybox: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("content\n")
    (tmp_path / "work").mkdir()
    script = "read x < /data/file; echo $x; echo more > /data/file; echo new > /data/new; read x < /data/file; echo $x"
    shown = f"{tmp_path / 'in'}:/data"
    found = mmuemu("--mount", shown, busybox, "sh", "-c", script, cwd=tmp_path / "work")
    assert (found.out, found.err) == (b"content\nmore\n", b"")
    assert sorted(p.name for p in (tmp_path / "in").iterdir()) == ["file"]
    found = mmuemu("--mount", f"{shown}:rw", busybox, "sh", "-c", script, cwd=tmp_path / "work")
    assert (found.out, found.err) == (b"content\nmore\n", b"")
    assert (tmp_path / "in" / "file").read_text() == "more\n"
    assert (tmp_path / "in" / "new").read_text() == "new\n"


def test_root(busybox: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "busybox").write_bytes(busybox.read_bytes())
    (tmp_path / "bin" / "busybox").chmod(0o755)
    (tmp_path / "note").write_text("inside\n")
    found = mmuemu("--root", tmp_path, "/bin/busybox", "cat", "/note")
    assert (found.out, found.err, found.code) == (b"inside\n", b"", 0)
    assert mmuemu("--root", tmp_path, "/bin/busybox", "cat", "/usr/bin/busybox").code == 1
    assert mmuemu("--root", tmp_path, "/bin/missing").code == 127


def test_isolate(busybox: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    found = mmuemu("--isolate", busybox, "cat", tmp_path / "secret", "/usr/share/common-licenses/MIT", cwd=tmp_path)
    assert (found.out, found.code) == (b"", 1)
    assert mmuemu("--isolate", busybox, "echo", "runs", cwd=tmp_path).out == b"runs\n"


def test_the_host_is_not_visible(busybox: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "link").symlink_to(outside)
    for name in (outside, "../outside", "link", "/proc/self/cwd/../outside", "/etc/shadow", "/root", "/home"):
        assert mmuemu(busybox, "cat", name, cwd=tmp_path / "work").out == b""


# Sources


def test_assembly_source(tmp_path: Path) -> None:
    text = ".text\n_start:\nmov edi, 1\nlea rsi, [rip + text]\nmov edx, 6\nmov eax, 1\nsyscall\nmov edi, 5\n" + EXIT
    found = mmuemu(source(tmp_path, text + '.data\ntext: .ascii "hello\\n"\n'), cwd=tmp_path)
    assert (found.out, found.code) == (b"hello\n", 5)


def test_bad_assembly_is_126_and_names_the_line(tmp_path: Path) -> None:
    found = mmuemu(source(tmp_path, "mov eax, 1\nfrobnicate rax, rbx\nsyscall\n"), cwd=tmp_path)
    assert (found.code, len(found.ours)) == (126, 1)
    assert "program.s" in found.ours[0]
    assert "frobnicate" in found.ours[0]


def test_c_source(tmp_path: Path) -> None:
    text = (
        "#include <stdio.h>\n#include <math.h>\n"
        'int main(int c, char **v) { printf("%s %d %.3f\\n", v[1], c, sqrt(c)); return 4; }'
    )
    found = mmuemu(source(tmp_path, text, "program.c"), "argument", cwd=tmp_path)
    assert (found.out, found.err, found.code) == (b"argument 2 1.414\n", b"", 4)


def test_c_that_does_not_compile_is_126_with_the_compilers_words(tmp_path: Path) -> None:
    found = mmuemu(source(tmp_path, "int main(void) { return nowhere; }", "bad.c"), cwd=tmp_path)
    assert found.code == 126
    assert b"nowhere" in found.err
    assert "bad.c" in found.ours[-1]


def test_no_compiler_says_what_to_install(tmp_path: Path) -> None:
    program = source(tmp_path, "int main(void) { return 0; }", "fine.c")
    environment = {**emulator_environment(), "PATH": str(tmp_path)}
    environment.pop("CC", None)
    done = subprocess.run(command_line(program), capture_output=True, text=True, env=environment)
    if done.returncode == 0:
        pytest.skip("ziglang is installed")
    assert done.returncode == 126
    assert "mmuemu[cc]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_descriptors_of_the_host_do_not_leak(busybox: Path, tmp_path: Path) -> None:
    found = mmuemu(busybox, "ls", "/proc/self/fd", cwd=tmp_path)
    assert found.out.split() == [b"0", b"1", b"2", b"3"]


# CPU models


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (("--cpu", "pentium"), "--cpu pentium: no such CPU: choose skylake, haswell"),
        (("--cpu", "none.json"), "--cpu none.json: No such file"),
        (("--cpu", "skylake", "--mitigations", "magic"), "unknown mitigation 'magic': choose from off, auto, kpti"),
        (("--cpu", "in-order", "--mitigations", "retpoline"), "branch target buffer, and in-order has none"),
        (("--cpu", "skylake", "--mitigations", "eibrs"), "skylake has no enhanced IBRS"),
        (("--cpu", "skylake", "--vulnerable", "v7"), "--vulnerable: unknown flaw 'v7': choose from v1"),
        (("--cpu", "skylake", "--not-vulnerable", "v7"), "--not-vulnerable: unknown flaw 'v7'"),
        (("--cpu", "haswell", "--vulnerable", "meltdown-pk"), "haswell has no protection keys"),
        (("--cpu", "skylake", "--mmu", "native"), "--cpu needs --mmu python"),
        (("--cpu", "haswell", "--layout", "linux-5level"), "CPU haswell walks 4"),
        (("--mitigations", "auto"), "--mitigations needs --cpu"),
        (("--noise", "1"), "--noise needs --cpu"),
        (("--noise", "loud"), "invalid int value"),
    ],
)
def test_wrong_cpu_options(options: tuple[str, ...], answer: str, tmp_path: Path) -> None:
    (tmp_path / "loop.s").write_text(SPIN)
    found = mmuemu(*options, "loop.s", cwd=tmp_path)
    assert found.code == 125
    assert answer in found.err.decode()
    assert found.err.count(b"\n") == 1


def cpus(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    command = [part for part in command_line() if part != "run"]
    return subprocess.run(
        [*command, "cpus", *arguments], capture_output=True, cwd=cwd, env=emulator_environment(), timeout=60
    )


def test_cpus_are_listed_and_written_as_files(tmp_path: Path) -> None:
    listed = cpus(cwd=tmp_path).stdout.decode()
    names = ["skylake", "haswell", "zen2", "icelake", "cascadelake", "in-order"]
    assert re.findall(r"^(\S+): ", listed, re.MULTILINE) == names
    assert [model["name"] for model in json.loads(cpus("--json", cwd=tmp_path).stdout)] == names
    (tmp_path / "mine.json").write_bytes(cpus("--json", "zen2", cwd=tmp_path).stdout)
    assert cpus("mine.json", cwd=tmp_path).stdout == cpus("zen2", cwd=tmp_path).stdout
    (tmp_path / "odd.json").write_text('{"like": "zen2", "rsb_entries": 5000}')
    wrong = cpus("odd.json", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (125, b"")
    assert b"rsb_entries is 5000: write a number from 0 to 1024" in wrong.stderr


def test_isolation_is_a_mitigation_and_an_option(busybox: Path, tmp_path: Path) -> None:
    show = (busybox, "cat", "/sys/devices/system/cpu/vulnerabilities/meltdown")
    for options in (("--kpti",), ("--mitigations", "kpti")):
        assert mmuemu("--cpu", "skylake", *options, *show, cwd=tmp_path).out == b"Mitigation: PTI\n"
    assert mmuemu("--cpu", "skylake", *show, cwd=tmp_path).out == b"Vulnerable\n"
    assert mmuemu("--kpti", *show, cwd=tmp_path).out == b"Not affected\n"

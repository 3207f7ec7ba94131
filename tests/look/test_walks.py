"""``mmuemu translate``: the walk that is shown is the walk that the processor makes."""

from __future__ import annotations

import pytest

from mmuemu.mmu.state import Access
from mmuemu.stopping import run_to
from mmuemu.view.walks import other_root, walk_of, walk_parts
from tests.look.conftest import SELF_MAPS, look, looked


def test_an_access_that_is_allowed(built):
    found = looked("translate", "--seed", 1, "--at", "main", built(SELF_MAPS), "main", "--access", "x")
    walk = found["walk"]
    assert walk["allowed"]
    assert walk["rights"] == "r-x"
    assert found["kernel_would"] is None
    assert [step["level"] for step in walk["steps"]] == ["PML4E", "PDPTE", "PDE", "PTE"]
    linear = int(walk["address"], 16)
    assert [step["index"] for step in walk["steps"]] == [linear >> shift & 511 for shift in (39, 30, 21, 12)]
    table = int(walk["cr3"], 16)
    for step in walk["steps"]:
        assert int(step["entry_at"], 16) == table + 8 * step["index"]
        assert "P" in step["bits"]
        assert "US" in step["bits"]
        table = int(step["frame"], 16)
    assert int(walk["physical"], 16) == table + (linear & 4095)


REFUSED = [
    (["main", "--access", "w"], "PTE is read-only (R/W = 0)", "PTE", ["P", "W", "U"], "the area is r-xp"),
    (["filled", "--access", "x"], "PTE is not executable (NX = 1)", "PTE", ["P", "U", "I"], "the area is rw-p"),
    (["entry_SYSCALL_64"], "PML4E is supervisor-only (U/S = 0)", "PML4E", ["P", "U"], "the kernel would send SIGSEGV"),
    (["[stack]"], "PTE is not present", "PTE", ["U"], "the area is rw-p: the kernel would map"),
    (["[stack]-0x200000"], "PDE is not present", "PDE", ["U"], "the area is rw-p: the kernel would grow the stack"),
    (
        ["[stack]-0x1000000"],
        "PDE is not present",
        "PDE",
        ["U"],
        "no area of the process is there: the kernel would send SIGSEGV",
    ),
    (["0x10"], "PDE is not present", "PDE", ["U"], "no area of the process is there: the kernel would send SIGSEGV"),
    (["main", "--as", "kernel", "--access", "x"], "SMEP forbids", None, ["P", "I"], None),
    (["main", "--as", "kernel", "--cpu", "skylake", "--mitigations", "auto"], "SMAP forbids", None, ["P"], None),
]


@pytest.mark.parametrize(("arguments", "reason", "level", "bits", "after"), REFUSED, ids=[str(r[0]) for r in REFUSED])
def test_an_access_that_is_refused(built, arguments, reason, level, bits, after):
    program = built(SELF_MAPS)
    found = looked("translate", "--seed", 1, "--at", "main", program, *arguments, code=1)
    walk = found["walk"]
    assert not walk["allowed"]
    assert walk["exception"] == "#PF"
    assert walk["error_bits"] == bits
    assert walk["reason"].startswith(reason)
    if level is not None:
        assert [step["level"] for step in walk["steps"] if step["refuses"]] == [level] == [walk["refused_by"]]
    if after is None:
        assert found["kernel_would"] is None
    else:
        assert found["kernel_would"].startswith(after)


def test_ac_lets_the_kernel_through(built):
    options = ["--seed", 1, "--at", "main", "--cpu", "skylake", "--mitigations", "auto", "--as", "kernel", "--ac"]
    assert looked("translate", *options, built(SELF_MAPS), "main")["walk"]["allowed"]


def test_not_canonical(built):
    walk = looked("translate", built(SELF_MAPS), "0x800000000000", code=1)["walk"]
    assert (walk["exception"], walk["steps"], walk["reason"]) == ("#GP", [], "0x800000000000 is not canonical")


def test_a_large_page_of_the_direct_map(built):
    walk = looked("translate", "--no-aslr", "--as", "kernel", built(SELF_MAPS), "0xffff888000123456")["walk"]
    assert (walk["physical"], walk["page_size"], len(walk["steps"])) == ("0x123456", 1 << 30, 2)
    assert walk["steps"][-1]["bits"] == ["P", "RW", "PS", "G", "NX"]


def test_five_levels(built):
    found = looked("translate", "--layout", "linux-5level", "--at", "main", built(SELF_MAPS), "main")
    assert [step["level"] for step in found["walk"]["steps"]] == ["PML5E", "PML4E", "PDPTE", "PDE", "PTE"]


def test_both_roots_of_page_table_isolation(built):
    found = looked("translate", "--kpti", "--at", "main", built(SELF_MAPS), "_sdata", "--as", "kernel")
    assert found["walk"]["allowed"]
    assert found["walk"]["root"].startswith("kernel root")
    found = looked("translate", "--kpti", "--at", "main", built(SELF_MAPS), "_stext", code=1)
    user, kernel = found["walk"], found["other_root"]
    assert int(user["cr3"], 16) == int(kernel["cr3"], 16) + 4096
    assert user["error_bits"] == ["U"], "not even present for ring 3"
    assert kernel["error_bits"] == ["P", "U"], "supervisor-only on the kernel's root"


def test_a_script_asks_the_tables_of_the_ring(machine):
    """With page-table isolation ring 3's tables do not have the kernel at all."""
    process = machine(kpti=True).spawn("/bin/true")
    kernel = process.machine.kernel.memory.layout.text
    assert process.translate(kernel).error_code == 0b100
    assert process.translate(kernel, user=False).physical == process.machine.kernel.memory.text_frame


def test_the_other_root_is_for_comparison(built):
    text = look("translate", "--kpti", "--at", "main", built(SELF_MAPS), "main", "--access", "x")
    assert text.returncode == 0
    verdicts = [line for line in text.stdout.splitlines() if "allowed" in line or "refused" in line]
    assert [line.partition(":")[0] for line in verdicts] == ["allowed", "on that root refused"]


def test_without_isolation_there_is_no_other_root(built, machine):
    one = machine()
    one.spawn(str(built(SELF_MAPS)))
    task = run_to(one, "main")
    walked = walk_of(one.kernel, task, one.kernel.cpu.rip, Access.FETCH, user=True)
    assert other_root(one.kernel, task, walked) is None
    assert walked.allowed
    texts = [part if isinstance(part, str) else part.text() for part in walk_parts(one.kernel, task, walked)]
    assert texts[0].startswith(f"execute of {one.kernel.cpu.rip:#x} (main) by user code (ring 3)")


def test_looking_changes_nothing(built, machine):
    """Not one byte of the page tables, nor how the run goes on."""
    one = machine()
    process = one.spawn(str(built(SELF_MAPS)))
    run_to(one, "main")
    before = bytes(one.kernel.ram.bytes[: 8 << 20])
    process.memory_map()
    process.page_tables()
    one.who_maps(process.page_table.root)
    for address in (one.kernel.cpu.rip, 0, one.kernel.memory.entry):
        process.translate(address, "write")
    assert bytes(one.kernel.ram.bytes[: 8 << 20]) == before
    assert process.wait(60).exit_code == 0
    assert process.stdout.endswith(b"[stack]\n") or b"[stack]" in process.stdout


def test_a_processes_own_protection_keys_count(machine, tmp_path):
    """PKRU of a process that is not on the CPU."""
    source = r"""
        #define _GNU_SOURCE
        #include <sys/mman.h>
        #include <unistd.h>
        char page[4096] __attribute__((aligned(4096)));
        int main(void) {
            page[0] = 1;
            int key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
            pkey_mprotect(page, 4096, PROT_READ | PROT_WRITE, key);
            if (!fork()) { pkey_set(key, 0); for (;;) sched_yield(); }
            usleep(1000);
            getppid();
            _exit(key < 0);
        }
    """
    import shutil
    import subprocess

    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    program = tmp_path / "keys"
    subprocess.run(
        ["gcc", "-O1", "-w", "-static", "-x", "c", "-", "-o", str(program)], input=source, text=True, check=True
    )
    for pid, code, bits in ((1000, 1, ["P", "U", "PK"]), (1001, 0, None)):
        found = looked("translate", "--seed", 1, "--at", "syscall:getppid", "--pid", pid, program, "page", code=code)
        assert found["walk"].get("error_bits") == bits
        assert "PK=1" in found["walk"]["steps"][-1]["bits"]


BAD = [
    (["maps"], "the following arguments are required: PROGRAM", 125),
    (["maps", "PROGRAM", "--at", "noon"], "choose from entry, main", 125),
    (["maps", "PROGRAM", "--at", "syscall:frobnicate"], "no system call 'frobnicate'", 125),
    (["maps", "PROGRAM", "--at", "syscall:write:x"], "'x' is no positive number", 125),
    (["maps", "PROGRAM", "--at", "instruction:0"], "'0' is no positive number", 125),
    (["maps", "PROGRAM", "--at", "address:nowhere"], "neither an address nor a symbol", 125),
    (["maps", "PROGRAM", "--at", "address:0x10"], "the program ended before that (exit code 0)", 125),
    (["maps", "PROGRAM", "--at", "instruction:900000000"], "the program ended before that", 125),
    (["maps", "PROGRAM", "--at", "exit", "--max-instructions", "5"], "not reached within the limit", 124),
    (["maps", "PROGRAM", "--at", "instruction:10", "--max-instructions", "5"], "not reached within the limit", 124),
    (["maps", "PROGRAM", "--pid", "7"], "no such process at this event (there are 1000)", 125),
    (["maps", "PROGRAM", "--runs", "0"], "not a positive number", 125),
    (["maps", "PROGRAM", "--runs", "2", "--all"], "leave out --all", 125),
    (["maps", "PROGRAM", "--json", "--format", "linux"], "leave out --format", 125),
    (["maps", "/nowhere/at/all"], "no such file", 127),
    (["maps", "/etc/hostname"], "/etc/hostname: ", 126),
    (["translate", "PROGRAM"], "the following arguments are required: PLACE", 125),
    (["translate", "PROGRAM", "nowhere"], "neither an address nor a symbol", 125),
    (["translate", "PROGRAM", "401000ab"], "write 0x401000ab for the number", 125),
    (["translate", "PROGRAM", "0x10000000000000000"], "an address has 64 bits", 125),
    (["translate", "PROGRAM", "0x0-1"], "an address has 64 bits", 125),
    (["translate", "PROGRAM", "main", "--ac"], "--ac is for --as kernel", 125),
    (["pagetable", "PROGRAM", "5000-4000"], "START below END", 125),
    (["pagetable", "PROGRAM", "--frame", "x"], "give a frame's number", 125),
    (["pagetable", "PROGRAM", "--frame", "0x7fffffffffffff"], "physical memory up to", 125),
    (["pagetable", "PROGRAM", "--frame", "-1"], "physical memory up to", 125),
    (["pagetable", "PROGRAM", "--frame-of", "0x0"], "has nothing mapped at 0x0", 125),
    (["pagetable", "PROGRAM", "--frame-of", "0x800000000000"], "has nothing mapped at", 125),
    (["pagetable", "PROGRAM", "user", "--frame", "1"], "give one of RANGE", 125),
    (["pagetable", "PROGRAM", "--user-root"], "without --kpti", 125),
]


@pytest.mark.parametrize(("arguments", "message", "code"), BAD, ids=[" ".join(bad[0]) for bad in BAD])
def test_bad_input_is_one_line(built, arguments, message, code):
    program = str(built(SELF_MAPS))
    done = look(*[program if argument == "PROGRAM" else argument for argument in arguments])
    mine = [line for line in done.stderr.splitlines() if line.startswith("mmuemu")]
    assert len(mine) == 1, done.stderr
    assert message in mine[0]
    assert done.returncode == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr

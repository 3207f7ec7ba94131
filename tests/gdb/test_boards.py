"""A kernel on a bare machine under gdb: the CPU, exceptions before they are delivered, its own handlers."""

from __future__ import annotations

import re
import time

import pytest

from tests.gdb.harness import GDB, PACKAGE, Raw, build, debuggee, pc_of, remote
from tests.gdb.test_protocol import symbol

EXIT = 5 << 1 | 1


@pytest.fixture
def kernel(program):
    return program("kernel.s", "-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x200000", "-Wl,--build-id=none")


@pytest.mark.skipif(GDB is None, reason="gdb is not installed")
def test_a_session(kernel, tmp_path):
    """Breakpoint, step, watchpoint; each fault before its handler runs; the handlers run when it goes on."""
    commands = [
        "break work", "continue", "print (int)counter", "stepi", "print (int)counter", "delete",
        "watch *(int *)&counter", "continue", "continue", "delete", "continue", "x/i $pc", "print (int)handled",
        "continue", "x/i $pc", "print (int)handled", "print/x $cr0 & 0x80000001", "print/x $efer & 0x500",
        "print $cs & 3", "continue", "print (int)handled", "set var *(char *)&go = 1", "break on_bp", "signal SIGTRAP",
        "delete", "continue",
    ]  # fmt: skip
    with debuggee(tmp_path, [kernel], verb="boot") as target:
        text = remote(kernel, target, commands)
        code = target.end()[0]
    values = [line.split(" = ")[1] for line in text.splitlines() if line.startswith("$")]
    assert values == ["0", "1", "0", "1", "0x80000001", "0x500", "0", "2"]
    assert text.count("Old value = ") == 2
    assert "received signal SIGILL" in text
    assert "received signal SIGSEGV" in text
    assert text.index("ud2") < text.index("(%rbx),%rax")
    assert re.search(r"Breakpoint \d, on_bp \(\)", text)
    assert "exited with code 013]" in text
    assert code == EXIT


@pytest.mark.skipif(GDB is None, reason="gdb is not installed")
def test_a_32_bit_kernel_has_32_bit_registers(tmp_path, program):
    flags = ["-m32", "-O1", "-ffreestanding", "-nostdlib", "-fno-pic", "-no-pie", "-static", "-Wl,-Ttext=0x101000"]
    path = build(tmp_path, str(PACKAGE / "samples" / "kernel" / "hello.c"), *flags, "-Wl,--build-id=none")
    commands = ["break kernel", "continue", "print $eip == kernel", "print/x $cs", "next", "next", "bt", "delete", "c"]
    with debuggee(tmp_path, ["--append", "there", path], verb="boot") as target:
        text = remote(path, target, commands)
        code, out, _ = target.end()
    assert "not compatible" not in text
    assert "$1 = 1" in text
    assert "$2 = 0x8" in text
    assert "kernel (information=0x" in text
    assert (code, out) == (1, b"Hello from ring 0. My command line is: there\n")


@pytest.mark.parametrize("engine", ["python", "native"])
def test_signals_that_are_passed_and_steps_into_handlers(engine, kernel, tmp_path):
    """Without stops the guest's own handlers take everything; a step on a fault ends at the handler's beginning."""
    with debuggee(tmp_path, ["--mmu", engine, kernel], verb="boot") as target, Raw.connect(target.port) as client:
        client.start()
        assert client.ask(b"Z0,%x,1" % symbol(kernel, "invalid")) == b"OK"
        assert pc_of(client.ask(b"vCont;c")) == symbol(kernel, "invalid")
        stop = client.ask(b"vCont;s")
        assert stop[:3] == b"T04"
        assert pc_of(stop) == symbol(kernel, "invalid")
        assert pc_of(client.ask(b"vCont;S04")) == symbol(kernel, "on_ud")
        assert client.ask(b"QPassSignals:b;5;") == b"OK"
        assert client.ask(b"Z0,%x,1" % symbol(kernel, "missing")) == b"OK"
        assert pc_of(client.ask(b"vCont;c")) == symbol(kernel, "missing")
        assert pc_of(client.ask(b"vCont;s")) == symbol(kernel, "on_pf")
        client.send(b"vCont;c")
        time.sleep(0.5)
        client.connection.sendall(b"\x03")
        stop = client.receive()
        assert stop[:3] == b"T02"
        assert pc_of(stop) >= symbol(kernel, "forever")
        handled = symbol(kernel, "handled")
        assert client.ask(b"m%x,4" % handled) == b"03000000"
        assert client.ask(b"m8000000000,8") == b"E0e"
        assert client.ask(b"M8000000000,1:00") == b"E0e"
        walk = bytes.fromhex(client.ask(b"qRcmd," + b"walk 0x8000000000".hex().encode()).decode()).decode()
        assert "PML4E" in walk
        assert "refused: PML4E is not present" in walk
        assert "RAM" in bytes.fromhex(client.ask(b"qRcmd," + b"maps".hex().encode()).decode()).decode()
        assert client.ask(b"M%x,1:01" % symbol(kernel, "go")) == b"OK"
        assert client.ask(b"D") == b"OK"
        assert target.end()[0] == EXIT


def test_a_kernel_that_is_left_alone_is_switched_off(kernel, tmp_path):
    with debuggee(tmp_path, [kernel], verb="boot") as target:
        with Raw.connect(target.port) as client:
            client.start()
            client.send(b"vCont;c")
            client.receive()
        code, _, err = target.end()
    assert code == 137
    assert err.decode().splitlines()[1:] == ["mmuemu: gdb has gone away: what it debugged is killed"]

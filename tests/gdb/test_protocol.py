"""A client that says what it likes, against a program that runs."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.gdb.harness import PACKAGE, Raw, debuggee, pc_of, thread_of


@pytest.fixture
def static(program):
    return program("plain.c", "-static")


@pytest.fixture
def steps(program):
    return program("steps.s", "-nostdlib", "-static")


_KINDS = [
    b"m", b"M", b"X", b"Z", b"z", b"G", b"P", b"H", b"qXfer:", b"vFile:", b"vCont;", b"Q", b"q", b"v", b"",
]  # fmt: skip


def symbol(path, name):
    out = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True).stdout
    return next(int(line.split()[0], 16) for line in out.splitlines() if line.split()[2:] == [name])


def test_what_is_wrong_is_answered_with_an_error(static, tmp_path):
    """Unmapped memory, huge lengths, numbers that are none, packets nobody knows: an E or nothing, and it goes on."""
    with debuggee(tmp_path, [static]) as target, Raw.connect(target.port) as client:
        client.start()
        counter = symbol(static, "counter")
        errors = [
            b"m0,10", b"m8000000000000000,8", b"mffffffffffffffff,ffffffffffffffff", b"M0,1:00", b"mzz,1", b"m1",
            b"m", b"m1,2,3", b"M%x,2:00" % counter, b"M%x,1:zz" % counter, b"p999", b"pzz", b"P1=00", b"P999=00", b"P",
            b"G00",
            b"Z0,ffffffff80000000,1", b"Z2,%x,0" % counter, b"Z2,%x,ffffffff" % counter, b"Z0", b"Z0,zz,1",
            b"Hgp7.7", b"Hx1", b"T7", b"D;7", b"vKill;7", b"vCont;", b"vCont;x", b"vCont;s:pq", b"vCont;Czz",
            b"vCont;r1",
            b"vCont;Cff:p-1.-1", b"qXfer:features:read:nothing.xml:0,100", b"qXfer:features:read:target.xml:x,y",
            b"qXfer:exec-file:read:777:0,100", b"QPassSignals:zz", b"QCatchSyscalls:2",
            b"qRcmd,zz", b"qThreadExtraInfo,p7.7",
            b"c1000", b"XfFfF",
        ]  # fmt: skip
        for packet in errors:
            answer = client.ask(packet)
            assert re.fullmatch(rb"E[0-9a-f]{2}", answer), (packet, answer)
        for packet in (b"", b"!", b"qNothing", b"vNothing", b"QNothing", b"R00", b"Z5,1,1", b"qXfer:nothing:read::0,1"):
            assert client.ask(packet) == b"", packet
        files = {
            b"vFile:open:2f6e6f7468696e67,0,0": b"F-1,2", b"vFile:open:2f,0,0": b"F-1,15",
            b"vFile:pread:9,10,0": b"F-1,9",
            b"vFile:close:0": b"F-1,9", b"vFile:open:zz,0,0": b"F-1,16", b"vFile:open:2f,1,0": b"F-1,1e",
            b"vFile:unlink:2f": b"F-1,1e", b"vFile:readlink:2f": b"F-1,16", b"vFile:pread:0": b"F-1,16",
        }  # fmt: skip
        assert {packet: client.ask(packet) for packet in files} == files
        assert client.ask(b"vFile:nothing:1") == b""
        assert client.ask(b"vCont;c")[:3] == b"T1e"
        assert client.ask(b"vCont;c")[:3] == b"T1e"
        assert client.ask(b"vCont;c") == b"W0c;process:3e8"
        assert target.end()[0] == 12


def test_memory_is_read_whole_or_up_to_its_end_and_written(static, tmp_path):
    """A read past the last page is shortened; all rings' memory is there; text that is written is executed."""
    with debuggee(tmp_path, [static]) as target, Raw.connect(target.port) as client:
        client.start()
        name = symbol(static, "name")
        assert client.ask(b"m%x,7" % name) == b"before\0".hex().encode()
        assert client.ask(b"x%x,7" % name) == b"bbefore\0"
        assert client.ask(b"X%x,3:xyz" % name) == b"OK"
        assert client.ask(b"M%x,1:57" % name) == b"OK"
        assert client.ask(b"m%x,6" % name) == b"Wyzore".hex().encode()
        maps = bytes.fromhex(
            client.ask(b"qRcmd," + b"monitor maps"[8:].hex().encode()).removeprefix(b"O").decode()
        ).decode()
        walks = [
            bytes.fromhex(client.ask(b"qRcmd," + f"walk {place}".encode().hex().encode()).decode()).decode()
            for place in ("name", hex(name), "nowhere", "name q", "")
        ]
        assert walks[0] == walks[1]
        assert re.search(r"^PTE .*\nphysical 0x", walks[0], re.M)
        assert walks[2] == "nowhere: neither an address nor a symbol or area of the process\n"
        assert walks[3] == walks[4] == "usage: monitor walk PLACE [r|w|x] [user|kernel]\n"
        lines = [line for line in maps.splitlines() if "[stack]" in line]
        end = int(lines[0].split("-")[1].split()[0], 16)
        assert len(client.ask(b"m%x,100" % (end - 16))) == 32
        kernel = next(line for line in maps.splitlines() if line.endswith("kernel text")).split("-")[0]
        assert client.ask(b"m%s,3" % kernel.encode()) == b"0f01f8"  # swapgs
        assert client.ask(b"M%s,1:00" % kernel.encode())[:1] == b"E"
        assert len(client.ask(b"m%x,ffffffff" % symbol(static, "main"))) <= 0x4000
        # on_usr1 becomes ret.
        assert client.ask(b"M%x,1:c3" % symbol(static, "on_usr1")) == b"OK"
        assert client.ask(b"QPassSignals:1e;") == b"OK"
        assert client.ask(b"vCont;c") == b"W0c;process:3e8"
        assert target.end()[:2] == (12, b"12 13 afzore\n")


def test_breakpoints_are_not_in_memory(steps, tmp_path):
    """Code that reads itself reads its own bytes; the breakpoint on it stops all the same, with RIP at it."""
    with debuggee(tmp_path, [steps]) as target, Raw.connect(target.port) as client:
        thread = client.start()
        place, last = symbol(steps, "self"), symbol(steps, "last")
        assert client.ask(b"Z0,%x,1" % place) == b"OK"
        assert client.ask(b"Z1,%x,1" % last) == b"OK"
        assert client.ask(b"QPassSignals:1e") == b"OK"
        stop = client.ask(b"vCont;c")
        assert pc_of(stop) == place
        assert b"swbreak:;" in stop
        assert client.ask(b"m%x,1" % place) == b"0f"
        assert pc_of(client.ask(b"vCont;c")) == place, "it is still there"
        assert pc_of(client.ask(b"vCont;s:" + thread)) == place + 7, "a step leaves it"
        assert int(client.ask(b"p3")[:2], 16) == 0x0F, "RDX: the first byte of its own instruction"
        stop = client.ask(b"vCont;c")
        assert pc_of(stop) == last
        assert b"hwbreak:;" in stop
        assert client.ask(b"z1,%x,1" % last) == b"OK"
        assert client.ask(b"vCont;c") == b"W07;process:3e8"
        assert target.end()[:2] == (7, b"ok\n")


def test_a_range_is_stepped_through_and_left(steps, tmp_path):
    """``r`` stops outside of the range, or at a breakpoint in it."""
    with debuggee(tmp_path, [steps]) as target, Raw.connect(target.port) as client:
        client.start()
        start, place, one = symbol(steps, "_start"), symbol(steps, "self"), symbol(steps, "one")
        assert client.ask(b"QPassSignals:1e") == b"OK"
        assert pc_of(client.ask(b"vCont;r%x,%x" % (start, place))) == one
        assert client.ask(b"Z0,%x,1" % place) == b"OK"
        assert pc_of(client.ask(b"vCont;r%x,%x" % (start, one))) not in range(start, one)
        assert pc_of(client.ask(b"vCont;r0,ffffffffffff")) == place
        client.send(b"k")
        assert target.end()[0] == 137


def test_half_a_packet_and_gone(static, tmp_path):
    """The client disconnects in the middle of a packet: one line, the program is killed, nothing is left."""
    with debuggee(tmp_path, [static]) as target:
        with Raw.connect(target.port) as client:
            client.start()
            client.connection.sendall(b"$m40")
        code, out, err = target.end()
    assert (code, out) == (137, b"")
    lines = err.decode().splitlines()
    assert lines[1] == "mmuemu: gdb has gone away: what it debugged is killed"
    assert "Traceback" not in err.decode()


def test_gone_while_the_program_runs(program, tmp_path):
    with debuggee(tmp_path, [program("family.c", "-pthread", "-static"), "loop"]) as target:
        with Raw.connect(target.port) as client:
            client.start()
            client.send(b"vCont;c")
            deadline = time.monotonic() + 30
            while b"joined" not in (tmp_path / "out").read_bytes() and time.monotonic() < deadline:
                time.sleep(0.05)
        code, out, err = target.end()
    assert code == 137
    assert out.endswith(b"joined 25\n")
    assert b"gdb has gone away" in err


@pytest.mark.parametrize("seed", range(4))
def test_garbage(static, tmp_path, seed):
    """Random bytes, and packets of random content: the machine answers or not, and ends with the connection."""
    chance = random.Random(seed)
    with debuggee(tmp_path, [static]) as target:
        with Raw.connect(target.port) as client, contextlib.suppress(OSError, EOFError):
            if seed & 1:
                client.start()
            for _ in range(300):
                kind = chance.choice(
                    [
                        b"m",
                        b"M",
                        b"X",
                        b"Z",
                        b"z",
                        b"G",
                        b"P",
                        b"H",
                        b"qXfer:",
                        b"vFile:",
                        b"vCont;",
                        b"Q",
                        b"q",
                        b"v",
                        b"",
                    ]
                )
                body = kind + chance.randbytes(chance.randrange(20)).translate(None, b"#$\x03")
                if chance.random() < 0.2:
                    client.connection.sendall(chance.randbytes(30))
                client.send(body)
            client.connection.shutdown(socket.SHUT_WR)
            while client.connection.recv(65536):
                pass
        code, _, err = target.end()
    assert code in (137, 12)
    assert b"Traceback" not in err
    assert b"defect" not in err


def test_acknowledgements(static, tmp_path):
    """Until they are switched off: + for a good packet, - for a bad one, which is not answered."""
    with debuggee(tmp_path, [static]) as target, Raw.connect(target.port) as client:
        client.connection.sendall(b"$?#00")
        assert client.connection.recv(1) == b"-"
        client.connection.sendall(b"$qC#b4")
        assert client.connection.recv(1) == b"+"
        assert client.receive() == b"QC3e8"
        client.send(b"k")
        assert target.end()[0] == 137


def test_a_watchpoint_follows_its_bytes(program, tmp_path):
    """After fork the page of the parent is a copy: its own stores are still seen, the child's are not."""
    path = program("family.c", "-pthread", "-static")
    with debuggee(tmp_path, [path]) as target, Raw.connect(target.port) as client:
        client.start()
        shared = symbol(path, "shared")
        assert client.ask(b"Z2,%x,4" % shared) == b"OK"
        stop = client.ask(b"vCont;c")
        assert b"watch:%x;" % shared in stop
        assert client.ask(b"m%x,4" % shared) == b"03000000", "not the child's 2"
        assert thread_of(stop) == b"p3e8.3e8"
        assert client.ask(b"z2,%x,4" % shared) == b"OK"
        assert client.ask(b"vCont;c") == b"W00;process:3e8"
        assert target.end()[:2] == (0, b"child 5\nprogram 36\njoined 25\n")


def test_one_thread_alone(program, tmp_path):
    """Threads without an action stand still: the loop of one goes on while the other does not."""
    path = program("family.c", "-pthread", "-static")
    with debuggee(tmp_path, [path]) as target, Raw.connect(target.port) as client:
        client.start(b"multiprocess+;no-resumed+")
        assert client.ask(b"Z0,%x,1" % symbol(path, "worker")) == b"OK"
        first = thread_of(client.ask(b"vCont;c"))
        assert client.ask(b"z0,%x,1" % symbol(path, "worker")) == b"OK"
        listed = client.ask(b"qfThreadInfo")[1:].split(b",")
        assert client.ask(b"qsThreadInfo") == b"l"
        assert first in listed
        assert len(listed) >= 2
        # It ends, and whoever joins it is not let on.
        assert client.ask(b"vCont;c:" + first) == b"N"
        assert client.ask(b"T" + first)[:1] == b"E"
        assert client.ask(b"vCont;c") == b"W00;process:3e8"
        assert target.end()[0] == 0


def test_a_step_over_a_call_that_sleeps_can_be_interrupted(program, tmp_path):
    path = program("family.c", "-pthread", "-static")
    with debuggee(tmp_path, [path, "loop"]) as target, Raw.connect(target.port) as client:
        client.start()
        assert client.ask(b"Z0,%x,1" % symbol(path, "sleeper")) == b"OK"
        thread = thread_of(client.ask(b"vCont;c"))
        client.send(b"vCont;r0,ffffffffffff:" + thread)
        time.sleep(1)
        client.connection.sendall(b"\x03")
        assert client.receive()[:3] == b"T02"
        assert client.ask(b"Hg" + thread) == b"OK"
        assert client.ask(b"p0") == (2**64 - 512).to_bytes(8, "little").hex().encode(), "as Linux shows it"
        client.send(b"k")
        assert target.end()[0] == 137


def test_files_are_those_of_the_guest(static, tmp_path):
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "note").write_bytes(b"#$}*" * 5)
    command = ["--isolate", "--mount", f"{tmp_path}/shown:/shown", static]
    with debuggee(tmp_path, command) as target, Raw.connect(target.port) as client:
        client.start()
        assert client.ask(b"vFile:setfs:0") == b"F0"
        assert client.ask(b"vFile:open:%s,0,0" % b"/shown/note".hex().encode()) == b"F0"
        answer = client.ask(b"vFile:pread:0,100,2")
        assert answer == b"F12;" + b"}]}\x0a" + b"}\x03}\x04}]}\x0a" * 4
        stat = client.ask(b"vFile:fstat:0")
        assert stat.startswith(b"F40;")
        assert client.ask(b"vFile:close:0") == b"F0"
        assert client.ask(b"vFile:open:%s,0,0" % str(tmp_path / "err").encode().hex().encode()) == b"F-1,2"
        client.send(b"k")
        target.end()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-g", "x"], "-g x: give [HOST:]PORT"),
        (["-g", "0", "--timeout", "3"], "-g does not go with --timeout"),
        (["-g", "0", "--max-instructions", "3"], "-g does not go with --max-instructions"),
        (["-g", "0", "--cpu", "skylake"], "-g does not go with --cpu"),
        (["-g", "no-such-host.invalid:1"], "-g no-such-host.invalid:1: "),
    ],
)
def test_options_that_are_refused(options, text, static):
    done = subprocess.run(
        [sys.executable, "-m", "mmuemu", "run", *options, str(static)], capture_output=True, text=True, cwd=PACKAGE,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 125
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"mmuemu: {text}")


def test_a_port_that_is_taken(static):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "mmuemu", "run", "-g", str(port), str(static)],
            capture_output=True, text=True, cwd=PACKAGE, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (125, f"mmuemu: -g {port}: Address already in use\n")


def test_the_keyboard_ends_the_wait(static, tmp_path):
    with debuggee(tmp_path, [static]) as target:
        target.process.send_signal(signal.SIGINT)
        assert target.end()[0] == 130

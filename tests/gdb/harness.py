"""A debugged program and its client: the real gdb (on the host's kernel too, as the oracle), or a raw socket."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).parent / "programs"
GDB = shutil.which("gdb")
PREAMBLE = (
    "set pagination off",
    "set confirm off",
    "set debuginfod enabled off",
    "set width 0",
    "set style enabled off",
)
_WAITING = re.compile(rb"waiting for gdb on (?:\[?[0-9a-f.:]+\]?):(\d+)\n")
NOISE = re.compile(
    r"^(Reading |warning: |Using host |\[Thread debugging|\[Switching to|Download failed|File transfers|This GDB|"
    r"Enable debuginfod|\s*$)"
)


def build(directory: Path, name: str, *flags: str) -> Path:
    """A program of ``programs``, compiled; shared by parallel workers."""
    key = hashlib.sha256((PROGRAMS / name).read_bytes() + repr(flags).encode()).hexdigest()[:8]
    target = directory / f"{Path(name).stem}-{key}"
    if not target.exists():
        temporary = target.with_name(f"{target.name}.{os.getpid()}")
        command = ["gcc", "-g", "-O0", "-w", *flags, str(PROGRAMS / name), "-o", str(temporary)]
        subprocess.run(command, check=True, timeout=60)
        os.replace(temporary, target)
    return target


class Debuggee:
    """A ``mmuemu`` that waits for gdb."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, directory: Path) -> None:
        self.process = process
        self.port = port
        self.directory = directory

    def end(self, timeout: float = 50) -> tuple[int, bytes, bytes]:
        """Exit code, output and error once it has ended."""
        code = self.process.wait(timeout)
        return code, (self.directory / "out").read_bytes(), (self.directory / "err").read_bytes()


@contextmanager
def debuggee(directory: Path, command: Sequence[object], *, verb: str = "run") -> Iterator[Debuggee]:
    """``mmuemu VERB -g 0 COMMAND``, waiting; it is killed at the end if it has not ended."""
    with open(directory / "out", "wb") as out, open(directory / "err", "wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "mmuemu", verb, "-g", "0", *map(str, command)],
            stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=PACKAGE, env=os.environ | {"MMUEMU_DEBUG": "1"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 50
        while (found := _WAITING.search((directory / "err").read_bytes())) is None:
            assert process.poll() is None, (directory / "err").read_text()
            assert time.monotonic() < deadline, "it does not wait for gdb"
            time.sleep(0.02)
        yield Debuggee(process, int(found[1]), directory)
    finally:
        process.kill()
        process.wait()


def gdb(program: Path, commands: Sequence[str], *, timeout: float = 50) -> str:
    """What gdb prints for some commands, in lines without what is different each time."""
    assert GDB is not None
    arguments = [GDB, "-nx", "-batch"]
    for command in (*PREAMBLE, *commands):
        arguments += ["-ex", command]
    done = subprocess.run([*arguments, str(program)], capture_output=True, text=True, timeout=timeout)
    return done.stdout + "".join(f"{line}\n" for line in done.stderr.splitlines() if line not in done.stdout)


def remote(program: Path, target: Debuggee, commands: Sequence[str]) -> str:
    """gdb against a waiting ``mmuemu``."""
    return gdb(program, [f"target remote 127.0.0.1:{target.port}", "echo @@\\n", *commands]).partition("@@\n")[2]


def native(program: Path, commands: Sequence[str], arguments: str = "") -> str:
    """The same on the host's kernel."""
    first = [f"set args {arguments} >/dev/null", "set disable-randomization on", "starti", "echo @@\\n"]
    return gdb(program, [*first, *commands]).partition("@@\n")[2]


def plain(text: str, *, addresses: bool = False) -> list[str]:
    """Lines to be compared: no process numbers, no noise, and no addresses unless they are wanted."""
    text = re.sub(r"\(process \d+\)|process \d+", "process N", text)
    if not addresses:
        text = re.sub(r"0x[0-9a-f]{5,}", "0x...", text)
    return [line.rstrip() for line in text.splitlines() if not NOISE.match(line)]


@dataclass
class Raw:
    """A client that says what it is told to."""

    connection: socket.socket
    held: bytes = b""

    @classmethod
    def connect(cls, port: int) -> Raw:
        """A connection without acknowledgements."""
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(connection)

    def send(self, body: bytes) -> None:
        self.connection.sendall(b"$%s#%02x" % (body, sum(body) & 0xFF))

    def receive(self) -> bytes:
        """The next packet's content."""
        while True:
            start = self.held.find(b"$")
            end = self.held.find(b"#", start) if start >= 0 else -1
            if end >= 0 and len(self.held) >= end + 3:
                body, checksum = self.held[start + 1 : end], self.held[end + 1 : end + 3]
                self.held = self.held[end + 3 :]
                assert int(checksum, 16) == sum(body) & 0xFF
                return body
            data = self.connection.recv(65536)
            if not data:
                raise EOFError
            self.held += data

    def ask(self, body: bytes) -> bytes:
        self.send(body)
        return self.receive()

    def start(self, features: bytes = b"multiprocess+;swbreak+;hwbreak+") -> bytes:
        """Tell features, do without acknowledgements; the thread's name."""
        self.ask(b"qSupported:" + features)
        assert self.ask(b"QStartNoAckMode") == b"OK"
        self.connection.sendall(b"+")
        return thread_of(self.ask(b"?"))

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def thread_of(stop: bytes) -> bytes:
    """The thread of a stop reply."""
    found = re.search(rb"thread:([^;]+);", stop)
    assert found is not None, stop
    return found[1]


def pc_of(stop: bytes) -> int:
    """RIP of a stop reply (register 0x10)."""
    found = re.search(rb"[;T0-9a-f]10:([0-9a-f]{16});", stop)
    assert found is not None, stop
    return int.from_bytes(bytes.fromhex(found[1].decode()), "little")

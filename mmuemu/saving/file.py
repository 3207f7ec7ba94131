"""A machine in a file: its objects as JSON, its memory as compressed pages, under a version and a checksum.

The file: ``MAGIC``, the lengths of what follows (two little-endian 64-bit words, the second one before compression),
zlib of the header and the pages, and the SHA-256 of everything before. Nothing in it is executed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat as host_stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from mmuemu import __version__
from mmuemu.cpu.window import carried, check_floats
from mmuemu.errors import MmuemuError, UsageError
from mmuemu.kernel.files.stream import HostStream, StreamInode, waiter
from mmuemu.saving.reader import Reader
from mmuemu.saving.snapshots import Parts, cpu_parts
from mmuemu.saving.writer import Writer
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu
    from mmuemu.machine import Machine

FORMAT: Final = 1
_FAMILY: Final = b"mmuemu snapshot "
MAGIC: Final = b"%s%d\n" % (_FAMILY, FORMAT)
_LENGTHS: Final = struct.Struct("<QQ")
_MOST: Final = 1 << 34
"""Bytes that a file may unpack to."""
_LONGEST_REASON: Final = 400
"""Characters of an error that are shown."""


def save(machine: Machine, path: str) -> None:
    """Write the machine, which is not running, to ``path``; it is there as a whole or not at all.

    Raises UsageError for what a file cannot hold, and for a path that cannot be written.
    """
    if machine.kernel.running:
        raise UsageError("a machine is saved between runs, not by a callback in one")
    header, pages = _describe(machine)
    _check(machine, header, pages)
    write_file(path, header, pages)


def write_file(path: str, header: dict[str, Any], pages: list[bytes]) -> None:
    """Put a header and pages into a file. Raises UsageError for a path that cannot be written."""
    text = json.dumps(header, separators=(",", ":")).encode()
    body = struct.pack("<Q", len(text)) + text + b"".join(pages)
    packed = zlib.compress(body, 1)
    content = MAGIC + _LENGTHS.pack(len(packed), len(body)) + packed
    scratch = f"{path}.{os.getpid()}.part"
    try:
        with open(scratch, "wb") as file:
            file.write(content + hashlib.sha256(content).digest())
        os.replace(scratch, path)
    except OSError as error:
        if os.path.exists(scratch):
            os.unlink(scratch)
        raise UsageError(f"{path}: {error.strerror}") from None


def _describe(machine: Machine) -> tuple[dict[str, Any], list[bytes]]:
    kernel = machine.kernel
    cpu = kernel.cpu
    if machine.tree is None:
        raise UsageError("no program is loaded: there is nothing to save")
    made = {**machine.made, "seed": kernel.seed, "virtual_time": kernel.clock.virtual}
    for name in ("layout", "cpu"):
        if made[name] is not None and not isinstance(made[name], str):
            raise UsageError(f"a file can hold a machine whose {name} was given by name, not as a description")
    made = {name: value if isinstance(value, str | int | None) else list(value) for name, value in made.items()}
    cpu.engine.flush()
    cpu.window.save()
    counts, unclean = kernel.frames.references()
    frames = [number << 12 for number, count in enumerate(memoryview(counts).cast("I")) if count]
    header = {
        "mmuemu": __version__,
        "kind": "machine",
        "made": made,
        "files": asdict(machine.files),
        "program": machine.program,
        "cwd": os.getcwd() if machine.files.cwd is None else machine.files.cwd,
        "frames": frames,
        "counts": text_of(counts),
        "unclean": sorted(unclean),
        "window": text_of(cpu.window.snapshot()),
        "cpu": parts_facts(cpu_parts(cpu)),
        "time": kernel.clock.now(),
        "objects": Writer(machine, kernel.ram).objects,
    }
    return header, [kernel.ram.read(frame, PAGE_SIZE) for frame in frames]


def text_of(data: bytes) -> str:
    """Bytes for JSON."""
    return base64.b64encode(data).decode()


def _check(machine: Machine, header: dict[str, Any], pages: list[bytes]) -> None:
    """Prove that the file can be resumed. Raises UsageError, saying what of the machine it cannot hold."""
    for inode in _of(Writer(machine, machine.kernel.ram).kept, StreamInode):
        if inode.fd > 2:
            raise UsageError(f"a file cannot hold the host's descriptor {inode.fd} that is a standard stream")
    from mmuemu.machine import Machine as Made

    with _construct(Made, json.loads(json.dumps(header))) as fresh:
        _put(fresh, json.loads(json.dumps(header)), b"".join(pages))


Content = tuple[dict[str, Any], memoryview]
"""The header and the pages of a file."""


def resume(kind: type[Machine], path: str, content: Content | None = None) -> Machine:
    """The machine that was saved to ``path``, whose ``content`` may be known. Raises UsageError for a file that cannot
    be read, is none of ours, of another version, cut off or changed."""
    header, pages = content or read_file(path)
    if header["kind"] != "machine":
        raise UsageError(f"{path}: it holds a bare machine, which Board.resume and mmuemu resume take up")
    with refusals(path), ExitStack() as stack:
        machine = stack.enter_context(_construct(kind, header))
        _put(machine, header, pages)
        stack.pop_all()
    return machine


@contextmanager
def refusals(path: str) -> Iterator[None]:
    """Whatever goes wrong with what a file says is told as an error of that file."""
    try:
        yield
    except MmuemuError as error:
        raise UsageError(f"{path}: it cannot be resumed here: {_brief(error)}") from None
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
        StopIteration,
    ) as error:
        raise UsageError(f"{path}: it is damaged ({type(error).__name__}: {_brief(error)})") from None


def _brief(error: Exception) -> str:
    """What ``error`` says; it may quote any length of a file that is damaged."""
    text = str(error)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def read_file(path: str) -> Content:
    """What a file holds. Raises UsageError for one that cannot be read, is not ours, of another version, damaged."""
    try:
        with open(path, "rb") as file:
            if not host_stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"{path}: not a snapshot of mmuemu")
            start = file.read(len(MAGIC))
            if not start.startswith(_FAMILY):
                raise UsageError(f"{path}: not a snapshot of mmuemu")
            if start != MAGIC:
                version = start[len(_FAMILY) :].decode("latin-1").strip()
                raise UsageError(f"{path}: a snapshot of format {version!r}; this mmuemu reads format {FORMAT}")
            rest = file.read()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if len(rest) < _LENGTHS.size + 32 or _LENGTHS.unpack_from(rest)[0] != len(rest) - _LENGTHS.size - 32:
        raise UsageError(f"{path}: it is cut off, or too long")
    if hashlib.sha256(start + rest[:-32]).digest() != rest[-32:]:
        raise UsageError(f"{path}: it was changed: the checksum is wrong")
    size = _LENGTHS.unpack_from(rest)[1]
    try:
        body = zlib.decompressobj().decompress(rest[_LENGTHS.size : -32], min(size, _MOST) + 1)
        if len(body) != size:
            raise ValueError("its size")
        length = struct.unpack_from("<Q", body)[0]
        header = json.loads(body[8 : 8 + length])
        if header["mmuemu"] != __version__:
            raise UsageError(f"{path}: a snapshot of mmuemu {header['mmuemu']!s:.20}; this is mmuemu {__version__}")
        if header["kind"] not in ("machine", "board") or len(header["frames"]) * PAGE_SIZE != len(body) - 8 - length:
            raise ValueError("its pages")
    except (zlib.error, struct.error, ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise UsageError(f"{path}: it is damaged ({_brief(error)})") from None
    return header, memoryview(body)[8 + length :]


def _construct(kind: type[Machine], header: dict[str, Any]) -> Machine:
    """A machine like the one that was saved, before any program was loaded into it."""
    from mmuemu.machine import Files

    made = dict(header["made"])
    made["user"] = tuple(made["user"])
    machine = kind(**made, files=Files(**{**header["files"], "cwd": header["cwd"]}))
    machine.open_files(header["program"])
    return machine


def _put(machine: Machine, header: dict[str, Any], pages: bytes | memoryview) -> None:
    """Make ``machine`` the one that was saved."""
    kernel = machine.kernel
    cpu = kernel.cpu
    counts = base64.b64decode(header["counts"])
    frames = header["frames"]
    references = memoryview(counts).cast("I")
    if any(frame & 4095 or not references[frame >> 12] for frame in frames) or len(counts) << 10 > kernel.ram.size:
        raise ValueError("its frames")
    kernel.frames.put_references(counts, frozenset(header["unclean"]))
    for number, frame in enumerate(frames):
        kernel.ram.write(frame, pages[number * PAGE_SIZE : (number + 1) * PAGE_SIZE])
    reader = Reader(header["objects"], machine, kernel.ram)
    for frame in cpu.engine.executed_frames() | kernel.frames.executed:
        cpu.engine.forget_code(frame)
    own = put_window(cpu, header["window"])
    for task in kernel.tasks.values():
        if task.snapshot:
            task.snapshot = carried(own, task.snapshot)
        if task.floats is not None:
            check_floats(task.floats)
    kernel.idle_state = carried(own, kernel.idle_state)
    put_parts(cpu_parts(cpu), header["cpu"])
    cpu.engine.flush()
    kernel.clock.set(header["time"])
    made = list(reader.made.values())
    for inode in _of(made, StreamInode):
        _reconnect(machine, inode)
    for stream in _of(made, HostStream):
        stream.reconnect()
    for mm in {task.mm: None for task in kernel.tasks.values()}:
        kernel.adopt(mm)
    kernel.scheduler.resumed()


def parts_facts(parts: Parts) -> list[list[Any]]:
    """Attributes of the CPU's own objects, for a file."""
    return [
        [number, name, getattr(part, name)]
        for number, (part, names) in enumerate(parts)
        for name in names
        if hasattr(part, name)
    ]


def put_parts(parts: Parts, facts: list[list[Any]]) -> None:
    """Put :func:`parts_facts` back. Raises ValueError for attributes that are none of those."""
    for number, name, value in facts:
        if name not in parts[number][1]:
            raise ValueError(f"the CPU's {name}")
        setattr(parts[number][0], name, tuple(value) if isinstance(value, list) else value)


def put_window(cpu: Cpu, text: str) -> bytes:
    """Give the CPU the registers of a file; the state that they were put into. Raises ValueError for no state."""
    own = cpu.window.snapshot()
    cpu.window.load(carried(own, base64.b64decode(text)))
    cpu.window.restore()
    return own


def _of(objects: list[Any], kind: type) -> list[Any]:
    return [one for one in objects if isinstance(one, kind)]


def _reconnect(machine: Machine, inode: StreamInode) -> None:
    """A standard stream is what this process has by that number."""
    if not 0 <= inode.fd <= 2:
        if inode.fd > 2:
            raise UsageError(f"a file cannot hold the host's descriptor {inode.fd}")
        return
    try:
        inode.mode = os.fstat(inode.fd).st_mode
    except OSError:
        inode.mode = host_stat.S_IFIFO | 0o600
    inode.modes = b""
    inode.waiter = None if host_stat.S_ISREG(inode.mode) else waiter(inode.fd)
    tree = machine.tree
    assert tree is not None
    terminal = os.isatty(inode.fd)
    inode.terminal = tree.terminal if terminal else None
    if terminal:
        tree.terminal_stream = tree.terminal_stream or inode
    elif tree.terminal_stream is inode:
        tree.terminal_stream = None

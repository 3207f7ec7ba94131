"""Snapshot files of a right form with wrong contents: a machine, or one line that refuses; nothing in them is executed.

An input is edits of a file that :meth:`Machine.save` wrote. Each goes down the header's JSON by numbers and changes
what it comes to (:func:`_edit`); 0xFF edits the bytes of the file instead, with (even) or without a new checksum,
0xFE cuts the pages off, 0xFD changes a word of the CPU's state.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib
import json
import os
import pkgutil
import struct
import sys
import sysconfig
import tempfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import mmuemu
from mmuemu import kernel, loader, memory, speculation
from mmuemu.errors import UsageError
from mmuemu.linked import linked_files
from mmuemu.machine import Machine
from mmuemu.saving.file import _LENGTHS, MAGIC
from tests.fuzz.draw import Draw
from tests.fuzz.machines import waiting
from tests.fuzz.targets import Slow, check_refusal

LONGEST: Final = 256
_MOST_EDITS: Final = 8
_INSTRUCTIONS: Final = 500
_VALUES: Final[tuple[Any, ...]] = (
    None, True, 0, 1, -1, 2, 255, 4095, 4096, 1 << 31, (1 << 32) - 1, 1 << 47, 1 << 63, 1 << 64, -(1 << 63), 1 << 200,
    0.5, 1e308, "", "x", "\0", "A" * 5000, "QUJD", "os:system", "builtins:eval", "mmuemu.cli:main", "subprocess:Popen",
    "mmuemu.machine:Machine", "mmuemu.kernel.task:Task", "mmuemu.kernel.task:State", "/etc/passwd", "..", "native",
    "64M", "9999999G", [], {}, [[]], {"o": 0}, {"o": 1 << 40}, {"o": -1}, {"b": "QUJD"}, {"b": "?"}, {"t": []},
    {"f": [[]]}, {"g": [0, 1 << 62]}, {"e": "os:system", "v": "x"}, {"n": "builtins:tuple", "v": []},
    {"y": "builtins:object"},
    {"k": "new", "c": "mmuemu.machine:Machine", "s": {}}, {"k": "function", "c": "os:system"}, {"k": "host", "c": "x"},
    {"k": "builtin", "o": {"o": 0}, "q": "__reduce__"}, {"k": "partial", "v": [1, 2, 3]},
    {"k": "list", "v": [{"o": 0}]},
)  # fmt: skip
_FORBIDDEN: Final = (
    "exec", "compile", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.remove", "os.rename", "os.mkdir",
    "os.rmdir", "os.kill", "os.putenv", "os.chmod", "os.truncate", "subprocess.Popen", "socket.connect", "socket.bind",
    "ctypes.dlopen", "pickle.find_class", "shutil.rmtree",
)  # fmt: skip
_IMPORTED: Final = (sysconfig.get_path("stdlib"), str(Path(mmuemu.__file__).parent))
"""Where modules lie that are imported when they are first used."""


class Executed(Exception):
    """A file made the host do something."""


class _Guard:
    """An audit hook, on while a file is read; it cannot be removed, so there is one."""

    def __init__(self) -> None:
        self.on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event == "exec" and arguments[0].co_filename.startswith(_IMPORTED):
            return
        if event in _FORBIDDEN or writes:
            self.on = False
            raise Executed(f"{event} {arguments!r:.200}")

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self.on = True
        try:
            yield
        finally:
            self.on = False


@cache
def _guard() -> _Guard:
    return _Guard()


@cache
def _original() -> tuple[bytes, bytes]:
    """The header's text and the pages of a valid file."""
    with tempfile.TemporaryDirectory() as top:
        path = Path(top) / "saved"
        with waiting("debugged", memory="16M", virtual_time=True) as machine:
            machine.save(str(path))
        Machine.resume(str(path)).close()
        content = path.read_bytes()
    # A class is imported when a file names it; that is not what is watched.
    for room in (kernel, loader, memory, speculation):
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            importlib.import_module(module.name)
    linked_files(sys.executable)
    body = zlib.decompress(content[len(MAGIC) + _LENGTHS.size : -32])
    length = struct.unpack_from("<Q", body)[0]
    return body[8 : 8 + length], body[8 + length :]


def forget() -> None:
    """The file stays what it is."""


def pack(text: bytes, pages: bytes) -> bytes:
    """A file with a right checksum."""
    body = struct.pack("<Q", len(text)) + text + pages
    packed = zlib.compress(body, 0)
    content = MAGIC + _LENGTHS.pack(len(packed), len(body)) + packed
    return content + hashlib.sha256(content).digest()


def _edit(draw: Draw, header: Any) -> None:
    """Go down to something and change it: replace, remove, repeat, or put another part of the file there."""
    place, key = header, None
    for _ in range(12):
        keys = list(place) if isinstance(place, dict) else range(len(place)) if isinstance(place, list) else ()
        if not keys:
            break
        key = draw.pick(keys)
        below = place[key]
        if not isinstance(below, dict | list) or not below or draw.number(1) < 24:
            break
        place = below
    if key is None or not place:
        return
    action = draw.number(1) % 8
    if action == 0:
        del place[key]
    elif action == 1 and isinstance(place, list):
        place.insert(0, place[key])
    elif action == 2:
        place[key] = draw.pick(list(header["objects"]))
    elif action == 3:
        place[key] = draw.number(8)
    elif action == 4 and isinstance(place[key], int):
        place[key] += draw.number(1) - 128
    else:
        place[key] = draw.pick(_VALUES)


def _turn(text: str, word: int, value: int) -> str:
    """Base64 of the CPU's state with another 32-bit word in it."""
    try:
        state = bytearray(base64.b64decode(text))
    except ValueError:
        return text
    if len(state) >= 4:
        struct.pack_into("<I", state, 4 * (word % (len(state) // 4)), value)
    return base64.b64encode(state).decode()


def decode(data: bytes) -> bytes:
    """The file that an input stands for."""
    text, pages = _original()
    draw = Draw(data)
    header = json.loads(text)
    raw: list[tuple[int, int, int]] = []
    for _ in range(_MOST_EDITS):
        if not draw.left:
            break
        kind = draw.number(1)
        if kind == 0xFF:
            raw.append((draw.number(1), draw.number(4), draw.number(1)))
        elif kind == 0xFE:
            pages = pages[: draw.number(3)]
        elif kind == 0xFD and isinstance(header.get("window"), str):
            header["window"] = _turn(header["window"], draw.number(2), draw.number(4))
        elif isinstance(header.get("objects"), list) and header["objects"]:
            _edit(draw, header)
    with contextlib.suppress(ValueError, RecursionError):  # an edit may have put a list into itself
        text = json.dumps(header).encode()
    content = bytearray(pack(text, pages))
    for how, at, value in raw:
        if how & 2:
            del content[at % len(content) :]
        elif content:
            content[at % (64 if how & 4 else len(content))] = value
        if not how & 1 and len(content) > 32:
            content[-32:] = hashlib.sha256(content[:-32]).digest()
    return bytes(content)


def one(data: bytes) -> None:
    """Resume it; a machine that comes out runs a little, and may go wrong, but not take this process with it."""
    content = decode(data)
    guard = _guard()
    with tempfile.NamedTemporaryFile(prefix="mmuemu-saved-") as file:
        file.write(content)
        file.flush()
        try:
            with guard.watching():
                machine = Machine.resume(file.name)
        except UsageError as refused:
            check_refusal(refused, f"{file.name}: ", 2000)
            return
    try:
        with contextlib.suppress(Exception, Slow):
            machine.run(max_instructions=_INSTRUCTIONS, timeout=2)
    finally:
        with contextlib.suppress(Exception):
            machine.close()


def seeds() -> list[bytes]:
    """No edit, one edit of each part of the header, edits of raw bytes."""
    header = json.loads(_original()[0])
    found = [b"", b"\xff\x00\x05\0\0\0\x41", b"\xff\x04\x12\0\0\0\x41", b"\xff\x02\xff\0\0\0\0", b"\xfe\0\x10\0"]
    found += [bytes((0xFD,)) + struct.pack("<HI", 10 + word, 1 << 20) for word in (44, 112, 151, 194, 202, 1366, 1390)]
    for number, key in enumerate(header):
        found += [bytes((0, number, 0, 5, value)) for value in (0, 2, 23, 37)]
        if isinstance(header[key], list | dict):
            found += [bytes((0, number, 255, 1, 0, action, 3, 4, 5, 6)) for action in range(6)]
    objects = list(header).index("objects")
    for at in range(0, len(header["objects"]), 37):
        found.append(bytes((0, objects, 255)) + at.to_bytes(2, "little") + bytes((255, 2, 255, 0, 5, at % 53)))
    return found

"""Programs given as source: assembly by Keystone, C by a compiler that targets x86-64 Linux."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from mmuemu.errors import BadImage
from mmuemu.x86.paging import PAGE_SIZE

_BASE: Final = 0x40_0000
_TEXT: Final = _BASE + PAGE_SIZE
_MARKER: Final = bytes.fromhex("6d6d75656d75 0f0b cc 5ec710a5 0f0b 737461727473".replace(" ", ""))
_SECTION: Final = re.compile(r"^\s*(?:\.section\s+)?\.(text|data|bss|rodata)\b.*$")
_SYNTAX: Final = re.compile(r"^\s*\.(intel_syntax|att_syntax|globl|global|type|size|section|file|ident)\b.*$")
_COMMENT: Final = re.compile(r"(?<!')[#;](?!')(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$).*$")
_READER: Final = re.compile(r"\binc(?:bin|lude)\b|\.altmacro\b|^\s*(?:[\w.$]+\s*:\s*)*\.?\\", re.IGNORECASE)
"""Directives that read files, also those whose name a macro's argument makes."""
_FILLER: Final = re.compile(
    r"^\s*(?:\w+\s*:\s*)?\.(?:fill|space|skip|zero|org|align|balign|p2align)\s+(0[xX][0-9a-fA-F]+|[1-9]\d*)\b"
)
_LABEL: Final = re.compile(r"^\s*([A-Za-z_]\w*)\s*:")
MOST_FILLED: Final = 64 << 20
"""The most bytes that one directive of an assembly source may fill."""
_ATTEMPTS: Final = 3
PATIENCE: Final = 5
"""Seconds that Keystone gets for a source."""
_C_FLAGS: Final = ("-static", "-O1", "-g")


def build(path: str) -> bytes:
    """The ELF program made from the source file at ``path``. Raises BadImage with the compiler's complaint."""
    return _compile(path) if path.endswith(".c") else assemble(_read(path), path)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except UnicodeDecodeError as error:
        raise BadImage(path, f"is no text file ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise BadImage(path, f"cannot be read: {error.strerror}") from None


def assemble(source: str, name: str) -> bytes:
    """A static ELF program from assembly ``source``: Intel syntax, or AT&T where registers are written ``%rax``.

    ``.text`` is mapped readable and executable, ``.data``, ``.rodata`` and ``.bss`` readable and writable on the
    next page. Execution begins at ``_start`` if there is such a label, else with the first instruction.
    """
    engine, keystone, lines, data = _prepared(source)
    _refuse_lines(name, lines)
    encoded, complaint = _in_time(lambda: _encode(engine, keystone, lines), name)
    if complaint:
        raise BadImage(name, complaint)
    if not encoded:
        raise BadImage(name, "holds no instructions")
    code, content = _split(encoded) if data else (encoded, b"")
    return _elf(code, content)


def labels(source: str, name: str) -> dict[str, int]:
    """Label -> address in the program that :func:`assemble` makes of ``source``. Raises BadImage as that does."""
    engine, keystone, lines, _ = _prepared(source)
    found = dict.fromkeys(match[1] for line in lines if (match := _LABEL.match(line)))
    if not found:
        return {}
    _refuse_lines(name, lines)
    table = [".byte " + ", ".join(map(str, reversed(_MARKER))), *(f".quad {label}" for label in found)]
    encoded, complaint = _in_time(lambda: _encode(engine, keystone, [*lines, *table]), name)
    if complaint:
        raise BadImage(name, complaint)
    values = struct.unpack(f"<{len(found)}Q", encoded[-8 * len(found) :])
    return dict(zip(found, values, strict=True))


def _prepared(source: str) -> tuple[Any, Any, list[str], list[str]]:
    """Keystone's engine and module, all lines for it, and those of data among them."""
    import keystone

    engine = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
    if re.search(r"%(?:[re]?[abcd]x|[re]?[sd]i|[re][sb]p|r\d+)\b", source):
        engine.syntax = keystone.KS_OPT_SYNTAX_ATT
    text, data = _sections(source)
    if any(re.match(r"^\s*_start\s*:", line) for line in text):
        text.insert(0, "jmp _start")
    marker = ".byte " + ", ".join(map(str, _MARKER))
    return engine, keystone, [*text, marker, f".balign {PAGE_SIZE}", *data] if data else text, data


def _encode(engine: Any, keystone: Any, lines: list[str]) -> tuple[bytes, str]:
    """The machine code, and what is wrong with the source if anything is.

    Keystone 0.9.2 now and then refuses a source that it takes the next time, so it is asked again.
    """
    for _ in range(_ATTEMPTS):
        try:
            return engine.asm("\n".join(lines), _TEXT, as_bytes=True)[0] or b"", ""
        except keystone.KsError as error:
            refusal = str(error)
    return b"", _complaint(engine, keystone, lines, refusal)


def _refuse_lines(name: str, lines: list[str]) -> None:
    """Refuse directives that would make Keystone read files of the host's, or fill its memory."""
    for line in lines:
        if _READER.search(line):
            raise BadImage(name, f"cannot be assembled: {line.strip()!r} may read another file, which is not done")
        found = _FILLER.match(line)
        if found and int(found[1], 0) > MOST_FILLED:
            raise BadImage(name, f"cannot be assembled: {line.strip()!r} asks for more than {MOST_FILLED >> 20} MiB")


def _in_time(work: Callable[[], tuple[bytes, str]], name: str) -> tuple[bytes, str]:
    """What ``work`` returns; BadImage when it takes too long (Keystone needs for ever for some sources)."""
    results: list[tuple[bytes, str]] = []
    thread = threading.Thread(target=lambda: results.append(work()), name="mmuemu assembler", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if not results:
        raise BadImage(name, f"cannot be assembled within {PATIENCE} seconds")
    return results[0]


def _complaint(engine: object, keystone: object, lines: list[str], message: str) -> str:
    """Keystone's message, and the first line that does not assemble by itself (it names none)."""
    reason = message.rsplit(" (", 1)[0]
    for line in lines:
        bare = line.strip()
        if not bare or bare.endswith(":") or bare.startswith("."):
            continue
        operation, _, operands = bare.partition(" ")
        if operation.startswith(("j", "call", "lea", "loop")) or re.search(r"\b[a-zA-Z_]\w*\b", operands) is None:
            continue
        try:
            engine.asm(bare, _TEXT)  # type: ignore[attr-defined]
        except keystone.KsError as error:  # type: ignore[attr-defined]
            if "symbol" not in str(error).lower():
                return f"cannot be assembled: {bare!r}: {str(error).rsplit(' (', 1)[0]}"
    return f"cannot be assembled: {reason}"


def _sections(source: str) -> tuple[list[str], list[str]]:
    """Lines of code and of data, without comments and the directives that Keystone does not know."""
    text: list[str] = []
    data: list[str] = []
    current = text
    for line in source.splitlines():
        line = _COMMENT.sub("", line).rstrip()
        section = _SECTION.match(line)
        if section:
            current = text if section[1] == "text" else data
        elif line.strip() and not _SYNTAX.match(line):
            current.append(line)
    return text, data


def _split(encoded: bytes) -> tuple[bytes, bytes]:
    end = encoded.index(_MARKER)
    start = (end + len(_MARKER) + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1)
    return encoded[:end], encoded[start:]


def _elf(code: bytes, data: bytes) -> bytes:
    """A static ELF file with ``code`` at its page and ``data`` on the page behind it."""
    data_offset = (PAGE_SIZE + len(code) + len(_MARKER) + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1)
    headers = [(1, 5, PAGE_SIZE, _TEXT, len(code))]
    if data:
        headers.append((1, 6, data_offset, _BASE + data_offset, len(data)))
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, _TEXT, 64, 0, 0, 64, 56, len(headers), 64, 0, 0)
    table = b"".join(
        struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, size, size, PAGE_SIZE)
        for kind, flags, offset, address, size in headers
    )
    image = (header + table).ljust(PAGE_SIZE, b"\0") + code
    return image.ljust(data_offset, b"\0") + data if data else image


def compiler() -> list[str] | None:
    """The command of a C compiler that makes x86-64 Linux programs, or None.

    ``$CC`` (which may have options), ``cc``, ``gcc`` and ``clang`` count when they run and target x86-64 Linux; else
    the ``ziglang`` package.
    """
    for command in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        found = _targeting(command)
        if found is not None:
            return found
    from importlib.util import find_spec

    if find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl"]
    return None


def _targeting(command: str) -> list[str] | None:
    """``command`` as words, with its full path; None for what is no compiler for x86-64 Linux, or does not run."""
    try:
        name, *options = shlex.split(command)
        found = shutil.which(name)
        if found is None:
            return None
        ask = [found, *options, "-dumpmachine"]
        target = subprocess.run(ask, capture_output=True, text=True, errors="replace", check=False).stdout
    except (ValueError, OSError):
        return None
    return [found, *options] if target.startswith(("x86_64", "amd64")) and "linux" in target else None


def _compile(path: str) -> bytes:
    if not os.path.isfile(path):
        raise BadImage(path, "is no file that can be compiled")
    command = compiler()
    if command is None:
        raise BadImage(
            path,
            "needs a C compiler that targets x86-64 Linux: install gcc, or pip install 'mmuemu[cc]'",
        )
    with tempfile.TemporaryDirectory(prefix="mmuemu-") as folder:
        out = os.path.join(folder, "program")
        done = subprocess.run(
            [*command, *_C_FLAGS, "-o", out, path, "-lm"],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            sys.stderr.write(done.stderr)
            raise BadImage(path, f"does not compile ({os.path.basename(command[0])} exits with {done.returncode})")
        return Path(out).read_bytes()

"""Files and words that people write: each is taken, or refused in a line that says what is wrong with it.

The first byte chooses the reader; the rest is what it reads.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from argparse import ArgumentTypeError
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

from mmuemu import options
from mmuemu.errors import MmuemuError
from mmuemu.gdbstub.link import parse_address
from mmuemu.kernel.files.namespace import ViewOptions, build_namespace
from mmuemu.loader import layout_file
from mmuemu.loader.layouts import LAYOUTS
from mmuemu.memory.ram import parse_size
from mmuemu.speculation import catalogue, settings
from mmuemu.view.transient_file import TraceReader
from tests.fuzz.targets import check_refusal

LONGEST: Final = 1 << 13


def _layout(text: str) -> None:
    found = layout_file.parse(text, "fuzzed")
    layout_file.check(found)
    assert layout_file.parse(json.dumps(layout_file.as_json(found)), "fuzzed") == found


def _cpu(text: str) -> None:
    found = catalogue.parse(text, "fuzzed")
    assert catalogue.parse(json.dumps(catalogue.as_json(found)), "fuzzed") == found


def _trace(text: str) -> None:
    with tempfile.NamedTemporaryFile("w", prefix="mmuemu-trace-", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        with TraceReader(file.name) as reader:
            for traced in reader:
                assert traced.window is not None


def _size(text: str) -> None:
    assert parse_size(text) > 0


@cache
def _shown() -> str:
    """A directory that can be mounted."""
    place = tempfile.TemporaryDirectory(prefix="mmuemu-mount-")
    _KEEP.append(place)
    (Path(place.name) / "d").mkdir()
    (Path(place.name) / "f").write_bytes(b"f")
    return place.name


_KEEP: Final[list[Any]] = []


def _mount(text: str) -> None:
    spec = text.replace("@", _shown(), 1)
    build_namespace(ViewOptions(mounts=[spec], isolate=True)).close()


def _speculation(text: str) -> None:
    cpu, mitigations, more, less = [*text.split("\n"), "", "", ""][:4]
    settings.resolve(cpu, mitigations=mitigations, vulnerable=more, not_vulnerable=less)


def _user(text: str) -> None:
    with contextlib.suppress(ArgumentTypeError):
        options.user(text)


READERS: Final[dict[str, Callable[[str], object]]] = {
    "layout": _layout, "cpu": _cpu, "trace": _trace, "size": _size, "mount": _mount, "gdb": parse_address,
    "speculation": _speculation, "user": _user,
}  # fmt: skip
_NAMES: Final = list(READERS)


def one(data: bytes) -> None:
    """Read it."""
    text = data[1:].decode("utf-8", "surrogateescape")
    try:
        READERS[_NAMES[data[0] % len(_NAMES)] if data else "size"](text)
    except MmuemuError as refused:
        check_refusal(refused, "", 2 * LONGEST + 1000, printable=False)


def forget() -> None:
    """Nothing is kept that could be broken."""


def seeds() -> list[bytes]:
    """Something right for each reader."""
    header = {"type": "header", "format": "mmuemu transient windows", "version": 1, "cpu": "skylake", "mitigations": [],
              "flaws": [], "seed": 1, "program": "p", "arguments": [], "mmuemu": "0"}  # fmt: skip
    end = {"type": "end", "windows": 0, "cycles": 1, "instructions": 1}
    texts = {
        "layout": [json.dumps(layout_file.as_json(one)) for one in LAYOUTS.values()]
        + ['{"like": "linux", "stack": {"lowest": "0x7f0000000000"}}'],
        "cpu": [json.dumps(catalogue.as_json(catalogue.named(name))) for name in catalogue.NAMES[:3]],
        "trace": [f"{json.dumps(header)}\n{json.dumps(end)}\n"],
        "size": ["64M", "512KiB", "4096", "1t"],
        "mount": ["@:/mnt", "@/f:/etc/f:ro", "@/d:/a/b/c:rw", "/nowhere:/x", "@:/proc/self/x:ro"],
        "gdb": ["1234", "[::1]:0", "127.0.0.1:65535", ":7"],
        "speculation": [f"{name}\nauto\nall\nmds" for name in catalogue.NAMES] + ["skylake\nretpoline,ibpb\nmeltdown"],
        "user": ["0", "1000:1000"],
    }
    return [
        bytes((_NAMES.index(name),)) + text.encode()[: LONGEST - 1] for name, all_ in texts.items() for text in all_
    ]

"""The page of a report: data, script and style in one file that needs nothing else."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Protocol

from mmuemu.errors import printable
from mmuemu.view.report.svg import GROWTH, PALETTE

if TYPE_CHECKING:
    from mmuemu.view.report.events import EventLog

VERSION: Final = 1
_SCRIPTS: Final = ("events.js", "memory.js", "start.js")
"""Parts of one script, in order."""


class Recorded(Protocol):
    """What a page is made of: the recording of a machine's kernel, or of a bare machine."""

    @property
    def log(self) -> EventLog: ...
    @property
    def processes(self) -> dict[int, dict[str, Any]]: ...
    @property
    def programs(self) -> dict[int, str]: ...
    @property
    def left_out(self) -> int: ...
    @property
    def kernel_tables(self) -> dict[str, Any] | None: ...

    def speculation(self) -> dict[str, Any] | None:
        """What is in caches and predictors."""


def _part(name: str) -> str:
    return (files(__package__ or "") / name).read_text(encoding="utf-8")


def _colours(which: int) -> str:
    return "".join(f"--k-{kind}:{colours[which]};" for kind, colours in PALETTE.items() if kind != "gap")


def page(recording: Recorded, facts: dict[str, Any], *, space: str = "process") -> str:
    """The page of what ``recording`` has; ``facts`` say how the run ended (``program``, ``summary``, and more).

    ``space`` is the word for what has a memory map of its own.
    """
    data = {
        "version": VERSION,
        "space": space,
        "facts": facts,
        "events": recording.log.packed(),
        "programs": {str(pid): printable(program) for pid, program in recording.programs.items()},
        "processes": [found for _, found in sorted(recording.processes.items())],
        "left_out": recording.left_out,
        "kernel": recording.kernel_tables,
        "speculation": recording.speculation(),
        "kinds": {kind: [words, GROWTH.get(kind, "")] for kind, (_, _, words) in PALETTE.items()},
    }
    # Nothing that a guest has written can end the element that the data is in.
    packed = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    style = _part("page.css").replace("/*light*/", _colours(0)).replace("/*dark*/", _colours(1))
    parts = {
        "TITLE": escape(printable(str(facts["program"]))),
        "STYLE": style,
        "SCRIPT": "\n".join(map(_part, _SCRIPTS)),
    }
    out = _part("page.html")
    for name, text in parts.items():
        out = out.replace(f"@{name}@", text)
    return out.replace("@DATA@", packed)

"""Traces of transient windows as JSON lines: the schema as tables, a writer that streams, a reader that checks all.

The format is described in docs/reference-trace.md; ``VERSION`` grows when a reader of the old would misread the new.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Final, NamedTuple, TypeVar

from mmuemu.errors import MmuemuError
from mmuemu.speculation.trace import NEVER, Fill, Step, Window
from mmuemu.view.listing import disassemble

FORMAT: Final = "mmuemu transient windows"
VERSION: Final = 1
EVENT_FORMAT: Final = "mmuemu trace"
"""Of a file that holds other events besides, or none but those."""
EVENT_TYPES: Final = ("fault", "tlb", "sched", "signal")
"""What those are: the records of :mod:`mmuemu.view.machine_trace`."""
LONGEST_LINE: Final = 16 << 20
"""Bytes of one line."""
_MOST: Final = 1 << 64
_HEX: Final = re.compile("0x[0-9a-f]{1,16}")
_Record = TypeVar("_Record")


class BadTrace(MmuemuError):
    """A file that is no trace this version reads; ``str(error)`` is ``"<file>: <what is wrong>"``."""


@dataclass(slots=True)
class Header:
    """What machine a trace is of."""

    cpu: str = ""
    mitigations: tuple[str, ...] = ()
    flaws: tuple[str, ...] = ()
    """Those in force."""
    seed: int | None = None
    program: str = ""
    arguments: tuple[str, ...] = ()
    mmuemu: str = ""
    """The version that wrote it."""


@dataclass(slots=True)
class Traced:
    """A window with what was known of its addresses when it closed."""

    window: Window
    symbols: dict[int, str] = field(default_factory=dict)
    """Names of addresses: ``victim+0x14``, ``[heap]+0x2a0``."""
    code: dict[int, bytes] = field(default_factory=dict)
    """Instructions outside of the window that it names: its opener, those it waited for."""

    def instruction(self, address: int) -> bytes:
        """The bytes of the instruction at ``address``; none when they are not in the trace."""
        found = self.code.get(address, b"")
        if found:
            return found
        steps = (step.code for step in (*self.window.before, *self.window.steps) if step.address == address)
        return next(steps, b"")


class _Wrong(Exception):
    """A value that does not fit its field: what was expected there, and the fields that lead to it."""

    def __init__(self, what: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(f"{'.'.join(path)}: expected {what}" if path else f"expected {what}")
        self.what = what
        self.path = path


class _Kind(NamedTuple):
    """How a field's value is written, and read back (raises _Wrong)."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise _Wrong("a number from 0 to 2^64 - 1")
    return value


def _signed(value: Any) -> int:
    if type(value) is not int or abs(value) >= _MOST:
        raise _Wrong("a whole number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Wrong("a string")
    return value


def _address(value: Any) -> int:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise _Wrong('an address like "0x401136"')
    return int(value, 16)


def _cycle(value: Any) -> int:
    if type(value) is not int or not 0 <= value < NEVER:
        raise _Wrong("a cycle, a number from 0 to 2^60 - 1")
    return value


def _bytes(value: Any) -> bytes:
    try:
        return bytes.fromhex(_text(value))
    except ValueError:
        raise _Wrong("bytes in hexadecimal") from None


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _Wrong("a list")
    return value


def _same(value: Any) -> Any:
    return value


def _several(kind: _Kind, make: Callable[[Iterator[Any]], Any] = tuple) -> _Kind:
    def read(value: Any) -> Any:
        return make(kind.read(one) for one in _list(value))

    return _Kind(lambda values: [kind.write(value) for value in values], read)


def _or_null(kind: _Kind, nothing: Any) -> _Kind:
    """As ``kind``, but ``nothing`` is written as null."""
    return _Kind(
        lambda value: None if value == nothing else kind.write(value),
        lambda value: nothing if value is None else kind.read(value),
    )


def _pair(first: _Kind, second: _Kind) -> _Kind:
    def read(value: Any) -> tuple[Any, Any]:
        if len(_list(value)) != 2:
            raise _Wrong("a list of two")
        return first.read(value[0]), second.read(value[1])

    return _Kind(lambda value: [first.write(value[0]), second.write(value[1])], read)


def _by_address(kind: _Kind) -> _Kind:
    def read(value: Any) -> dict[int, Any]:
        if not isinstance(value, dict):
            raise _Wrong("an object")
        return {_address(key): kind.read(one) for key, one in value.items()}

    return _Kind(lambda values: {hex(key): kind.write(value) for key, value in values.items()}, read)


_INT: Final = _Kind(_same, _number)
_TEXT: Final = _Kind(_same, _text)
_ADDRESS: Final = _Kind(hex, _address)
_ADDRESSES: Final = _several(_ADDRESS)
_TEXTS: Final = _several(_TEXT)
_BYTES: Final = _Kind(bytes.hex, _bytes)
_CYCLE: Final = _Kind(_same, _cycle)
_TIME: Final = _Kind(
    lambda value: value if value < NEVER else None, lambda value: NEVER if value is None else _cycle(value)
)
"""A cycle, or null for one that does not come."""

_Fields = tuple[tuple[str, _Kind], ...]
_FILL: Final[_Fields] = (
    ("line", _ADDRESS),
    ("linear", _ADDRESS),
    ("address", _ADDRESS),
    ("level", _INT),
    ("cycle", _CYCLE),
    ("arrives", _TIME),
    ("causes", _TEXTS),
)
_STEP: Final[_Fields] = (
    ("address", _ADDRESS),
    ("code", _BYTES),
    ("start", _TIME),
    ("done", _TIME),
    ("waits_for", _ADDRESSES),
    ("note", _TEXT),
    ("linear", _or_null(_ADDRESS, None)),
    ("level", _INT),
)
_HEADER: Final[_Fields] = (
    ("mmuemu", _TEXT),
    ("cpu", _TEXT),
    ("mitigations", _TEXTS),
    ("flaws", _TEXTS),
    ("seed", _or_null(_Kind(_same, _signed), None)),
    ("program", _TEXT),
    ("arguments", _TEXTS),
)


def _object(fields: _Fields, make: Callable[..., Any], extra: Callable[[Any], dict[str, Any]] | None = None) -> _Kind:
    def write(value: Any) -> dict[str, Any]:
        out = {name: kind.write(getattr(value, name)) for name, kind in fields}
        return out if extra is None else out | extra(value)

    return _Kind(write, lambda value: _read(fields, make, value))


def _read(fields: _Fields, make: Callable[..., _Record], value: Any) -> _Record:
    """A record out of a JSON object; a _Wrong names the field."""
    if not isinstance(value, dict):
        raise _Wrong("an object")
    values = {}
    for name, kind in fields:
        if name not in value:
            raise _Wrong(f"a field {name!r}")
        try:
            values[name] = kind.read(value[name])
        except _Wrong as wrong:
            raise _Wrong(wrong.what, (name, *wrong.path)) from None
    return make(**values)


def _shown(step: Step) -> dict[str, Any]:
    return {"instruction": disassemble(step.code, step.address)}


_STEPS: Final = _several(_object(_STEP, Step, _shown), list)
_WINDOW: Final[_Fields] = (
    ("number", _INT),
    ("flaw", _TEXT),
    ("opener", _ADDRESS),
    ("start", _ADDRESS),
    ("resumed", _ADDRESS),
    ("context", _INT),
    ("ring", _INT),
    ("opened", _CYCLE),
    ("closes", _CYCLE),
    ("reason", _TEXT),
    ("waited_for", _ADDRESSES),
    ("before", _STEPS),
    ("steps", _STEPS),
    ("fills", _several(_object(_FILL, Fill), list)),
    ("nested", _several(_pair(_ADDRESS, _TEXT), list)),
)
_AROUND: Final[_Fields] = (("symbols", _by_address(_TEXT)), ("code", _by_address(_BYTES)))


def encode(traced: Traced) -> dict[str, Any]:
    """The JSON object of one window."""
    out: dict[str, Any] = {"type": "window"}
    out |= {name: kind.write(getattr(traced.window, name)) for name, kind in _WINDOW}
    return out | {name: kind.write(getattr(traced, name)) for name, kind in _AROUND}


def decode(value: Any) -> Traced:
    """The window of one JSON object. Raises BadTrace (without a file's name) when it is none."""
    try:
        window = _read(_WINDOW, Window, value)
        return _read(_AROUND, lambda **around: Traced(window, **around), value)
    except _Wrong as wrong:
        raise BadTrace(f"not a window: {wrong}") from None


class TraceWriter:
    """Writes a trace to an open text file, a line at a time: nothing is kept. OSError is the caller's to handle.

    With ``kinds`` (of ``--trace``) it is one of events; ``more`` is what else its header says.
    """

    def __init__(
        self, file: IO[str], header: Header, kinds: Sequence[str] = (), more: Mapping[str, Any] | None = None
    ) -> None:
        self._file = file
        self.windows = 0
        self.events = 0 if kinds else None
        fields = {name: kind.write(getattr(header, name)) for name, kind in _HEADER} | dict(more or {})
        if kinds:
            fields["kinds"] = list(kinds)
        self._line({"type": "header", "format": EVENT_FORMAT if kinds else FORMAT, "version": VERSION, **fields})

    def event(self, record: Mapping[str, Any]) -> None:
        """Append an event."""
        self._line(record)
        self.events = (self.events or 0) + 1

    def window(self, traced: Traced) -> None:
        """Append a window."""
        self._line(encode(traced))
        self.windows += 1

    def end(self, cycles: int, instructions: int) -> None:
        """The last line, by which a reader knows that nothing is missing."""
        events = {} if self.events is None else {"events": self.events}
        self._line({"type": "end", "windows": self.windows, **events, "cycles": cycles, "instructions": instructions})
        self._file.flush()

    def _line(self, value: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(value, separators=(",", ":")) + "\n")


class TraceReader:
    """A saved trace: its header, then its windows one after another.

    Raises BadTrace, naming ``path``, for what is no trace, of another version, damaged, or cut off.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._number = 0
        try:
            self._file = open(path, "rb")  # noqa: SIM115
        except OSError as error:
            raise BadTrace(f"{path}: {error.strerror}") from None
        try:
            self.header = self._head()
        except BaseException:
            self._file.close()
            raise

    def _head(self) -> Header:
        value = self._next(first=True)
        known = value is not None and value.get("format") in (FORMAT, EVENT_FORMAT)
        if value is None or value.get("type") != "header" or not known:
            raise BadTrace(f"{self._path}: is not a trace of transient windows (mmuemu run --trace-file writes them)")
        self._mixed = value["format"] == EVENT_FORMAT
        version = value.get("version")
        if version != VERSION:
            raise BadTrace(f"{self._path}: is a trace of version {version!r:.40}; this mmuemu reads version {VERSION}")
        try:
            return _read(_HEADER, Header, value)
        except _Wrong as wrong:
            raise self._bad(str(wrong)) from None

    def __iter__(self) -> Iterator[Traced]:
        """The windows; BadTrace at the place where the file goes wrong, or when its last line is not the end."""
        for value in self.records():
            if value["type"] == "window":
                try:
                    yield decode(value)
                except BadTrace as wrong:
                    raise self._bad(str(wrong)) from None

    def records(self) -> Iterator[dict[str, Any]]:
        """Windows and events as they stand in the file, in their order; BadTrace as for the windows alone."""
        counts = {"windows": 0, "events": 0}
        while (value := self._next()) is not None:
            kind = value.get("type")
            if kind == "end":
                for name, count in counts.items():
                    if (name == "windows" or self._mixed) and value.get(name) != count:
                        raise self._bad(f"the end line speaks of {value.get(name)!r:.40} {name}, there are {count}")
                if self._next() is not None:
                    raise self._bad("something follows the end line")
                return
            event = self._mixed and kind in EVENT_TYPES
            if not event and kind != "window":
                raise self._bad('expected a line of "type" "window" or "end"')
            yield value
            counts["events" if event else "windows"] += 1
        raise BadTrace(f"{self._path}: is cut off after {counts['windows']} windows: the end line is missing")

    def _next(self, first: bool = False) -> dict[str, Any] | None:
        """The next line's object, None at the end of the file."""
        self._number += 1
        value: Any = None
        line = b""
        try:
            line = self._file.readline(LONGEST_LINE + 1)
            if not line:
                return None
            if len(line) <= LONGEST_LINE:
                value = json.loads(line.decode())
        except OSError as error:
            raise BadTrace(f"{self._path}: {error.strerror}") from None
        except (ValueError, RecursionError):
            if not first and line and not line.endswith(b"\n"):
                raise BadTrace(f"{self._path}: is cut off in line {self._number}") from None
        if isinstance(value, dict):
            return value
        if first:
            return {}
        raise self._bad("not a JSON object")

    def _bad(self, what: str) -> BadTrace:
        return BadTrace(f"{self._path}: line {self._number}: {what}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> TraceReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


__all__ = [
    "EVENT_FORMAT",
    "EVENT_TYPES",
    "FORMAT",
    "VERSION",
    "BadTrace",
    "Header",
    "TraceReader",
    "TraceWriter",
    "Traced",
    "decode",
    "encode",
]

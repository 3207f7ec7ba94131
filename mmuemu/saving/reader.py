"""What :mod:`mmuemu.saving.writer` has written, put into another machine of the same make."""

from __future__ import annotations

import base64
import functools
import io
import os
import random
import sys
import types
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from mmuemu.errors import UsageError
from mmuemu.kernel.files.hostfd import HostHandle
from mmuemu.kernel.syscalls import load_all
from mmuemu.kernel.syscalls.table import TABLE, Syscall
from mmuemu.saving.writer import DICTS, Json, Unsaveable, attributes, class_name, named, owns


def _new_block() -> dict[str, Any]:
    return {"generation": -1, "ops": None, "pointers": None, "points": [None, None], "segments": {}, "steps": None}


_FRESH: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "mmuemu.kernel.files.stream:StreamInode": lambda: {"waiter": None},
    "mmuemu.speculation.blocks:Block": _new_block,
}
"""What is worked out again starts like this, in objects that are made."""


class Reader:
    """Puts the objects of a :class:`Writer` into the machine that ``root`` is."""

    def __init__(self, objects: list[Json], root: Any, ram: Any) -> None:
        self._objects = objects
        self._ram = ram
        self.made: dict[int, Any] = {}
        self._paired: set[int] = set()
        self._pair(root)
        for number in range(len(objects)):
            self._make(number)
        for number, entry in enumerate(objects):
            self._fill(entry, self.made[number], number in self._paired)

    # -- what is there already -----------------------------------------------------------------------------------

    def _pair(self, root: Any) -> None:
        waiting: list[tuple[Json, Any]] = [({"o": 0}, root)]
        taken: set[int] = set()
        while waiting:
            value, there = waiting.pop(0)
            if isinstance(value, dict) and "t" in value and type(there) is tuple and len(there) == len(value["t"]):
                waiting += zip(value["t"], there, strict=True)
            if not isinstance(value, dict) or "o" not in value or value["o"] in self.made or id(there) in taken:
                continue
            entry = self._objects[value["o"]]
            if not _same_kind(entry, there):
                continue
            self.made[value["o"]] = there
            self._paired.add(value["o"])
            taken.add(id(there))
            waiting += self._pairs_inside(entry, there)

    def _pairs_inside(self, entry: Json, there: Any) -> list[tuple[Json, Any]]:
        """What is at the same place in both."""
        kind = entry["k"]
        if kind in ("new", "frozen", "handle"):
            names = entry["s"]
            return [(names[name], getattr(there, name)) for name in names if hasattr(there, name)]
        if kind in ("dict", "weakdict"):
            keys = [(self._key(key), item) for key, item in entry["v"]]
            return [(item, there[key]) for key, item in keys if key is not None and key in there]
        if kind == "local":
            return list(zip(entry["v"], [cell.cell_contents for cell in there.__closure__ or ()], strict=False))
        if kind == "method":
            return [(entry["o"], there.__self__), (entry["f"], there.__func__)]
        if kind == "ref":
            return [(entry["o"], there())]
        return []

    def _key(self, key: Json) -> Any:
        return base64.b64decode(key["b"]) if isinstance(key, dict) and "b" in key else key if _plain(key) else None

    # -- what is made --------------------------------------------------------------------------------------------

    def value(self, value: Json) -> Any:
        """What :meth:`Writer.value` was given."""
        if not isinstance(value, dict):
            return value
        if "o" in value:
            return self._make(value["o"])
        if "b" in value:
            return base64.b64decode(value["b"])
        if "e" in value:
            found = named(value["e"])
            return found[value["v"]] if issubclass(found, Enum) else None
        if "t" in value:
            return tuple([self.value(item) for item in value["t"]])
        if "f" in value:
            return frozenset([self.value(item) for item in value["f"]])
        if "g" in value:
            return range(*value["g"])
        if "n" in value:
            return tuple.__new__(_class(value["n"]), [self.value(item) for item in value["v"]])
        if "y" in value:
            return _class(value["y"])
        return os.stat_result(self.value(value["s"]), dict(self.value(value["m"])))

    def _make(self, number: int) -> Any:
        """Object ``number``; one that can change is empty as yet."""
        if number in self.made:
            return self.made[number]
        entry = self._objects[number]
        kind = entry["k"]
        if kind == "new":
            cls = _class(entry["c"])
            made = self.made[number] = cls.__new__(cls)
        elif kind == "frozen":
            cls = _class(entry["c"])
            made = self.made[number] = cls.__new__(cls)
            for name, value in entry["s"].items():
                object.__setattr__(made, name, self.value(value))
        else:
            make = _MAKE.get(kind)
            if make is None:
                raise Unsaveable(f"a file cannot hold a {entry['c']}")
            made = self.made[number] = make(self, entry)
        return made

    def local(self, entry: Json) -> types.FunctionType:
        """A function that was made in another: its code is that of this package."""
        module, _, path = entry["c"].partition(":")
        outer = path.split(".<locals>.")[0]
        if "<lambda>" in outer or not entry["i"]:
            raise Unsaveable(f"a file cannot hold the function {entry['c']}")
        code = named(f"{module}:{outer}").__code__
        for index in entry["i"]:
            code = code.co_consts[index]
        name = path.rpartition(".")[2]
        if code.co_name != name:
            raise UsageError(f"it names the function {entry['c']}, which is another one here")
        cells = tuple([types.CellType(self.value(value)) for value in entry["v"]])
        made = types.FunctionType(code, vars(sys.modules[module]), name, self.value(entry["d"]), cells)
        made.__qualname__ = path
        return made

    def handle(self, entry: Json) -> HostHandle:
        """A descriptor that is opened at the next use."""
        return HostHandle(
            self.value(entry["s"]["_pool"]), self.value(entry["s"]["_node"]), self.value(entry["s"]["_flags"])
        )

    def view(self, entry: Json) -> memoryview:
        """A view of guest memory."""
        whole: memoryview = self._ram.qwords if entry["f"] == "Q" else self._ram.bytes
        return whole if entry["f"] in "QB" else whole.cast(entry["f"])

    # -- what they hold ------------------------------------------------------------------------------------------

    def _fill(self, entry: Json, there: Any, paired: bool) -> None:
        kind = entry["k"]
        if kind == "new":
            names = {name: self.value(value) for name, value in entry["s"].items()}
            if paired:
                for name in attributes(there).keys() - names.keys():
                    delattr(there, name)
            elif entry["c"] in _FRESH:
                names.update(_FRESH[entry["c"]]())
            for name, value in names.items():
                setattr(there, name, value)
        elif kind in ("list", "deque"):
            there.clear()
            there.extend(self.value(item) for item in entry["v"])
        elif kind in ("set", "weakset"):
            there.clear()
            for item in entry["v"]:
                there.add(self.value(item))
        elif kind in ("dict", "weakdict"):
            there.clear()
            for key, item in entry["v"]:
                there[self.value(key)] = self.value(item)
        elif kind == "bytearray":
            there[:] = base64.b64decode(entry["v"])
        elif kind == "random":
            version, words, gauss = entry["v"]
            there.setstate((version, tuple(words), gauss))


def _plain(key: Json) -> bool:
    return key is None or isinstance(key, str | int)


def _class(name: str) -> Any:
    found = named(name)
    if not isinstance(found, type):
        raise UsageError(f"it names {name}, which is no class")
    return found


def _same_kind(entry: Json, there: Any) -> bool:
    """Whether an object of this machine can be the one that was written."""
    kind = entry["k"]
    if kind in ("new", "frozen"):
        return bool(class_name(type(there)) == entry["c"])
    if kind == "host":
        name = there.__name__ if isinstance(there, types.BuiltinMethodType) else class_name(type(there))
        return bool(name == entry["c"])
    if kind in ("local", "function"):
        return isinstance(there, types.FunctionType) and f"{there.__module__}:{there.__qualname__}" == entry["c"]
    if kind == "dict":
        return type(there) is DICTS[entry["c"]]
    return type(there) is _PYTHON[kind]


_PYTHON: Final[dict[str, type]] = {
    "list": list, "set": set, "deque": deque, "bytearray": bytearray, "weakdict": weakref.WeakValueDictionary,
    "weakset": weakref.WeakSet, "ref": weakref.ref, "random": random.Random, "stream": io.BytesIO,
    "method": types.MethodType, "builtin": types.BuiltinMethodType, "partial": functools.partial,
    "ram": memoryview, "handle": HostHandle, "syscall": Syscall,
}  # fmt: skip


def _make_dict(reader: Reader, entry: Json) -> dict[Any, Any]:
    made = DICTS[entry["c"]]
    return made(reader.value(entry["f"])) if made is defaultdict else made()


def _make_call(number: int) -> Syscall:
    load_all()
    return TABLE[number]


def _make_method(reader: Reader, entry: Json) -> types.MethodType:
    function = reader.value(entry["f"])
    if not isinstance(function, types.FunctionType):
        raise UsageError("it has a method that is no function")
    return types.MethodType(function, reader.value(entry["o"]))


def _make_builtin(reader: Reader, entry: Json) -> Any:
    owner = reader.value(entry["o"])
    method = getattr(owner, entry["q"]) if owns(owner) else None
    if type(method) is not types.BuiltinMethodType:
        raise UsageError("it has a method of something else than a container")
    return method


def _make_partial(reader: Reader, entry: Json) -> functools.partial[Any]:
    function, arguments, names = reader.value(entry["v"])
    return functools.partial(function, *arguments, **dict(names))


def _make_stream(reader: Reader, entry: Json) -> io.BytesIO:
    stream = io.BytesIO(reader.value(entry["b"]))
    stream.seek(entry["p"])
    return stream


def _make_function(_reader: Reader, entry: Json) -> types.FunctionType:
    found = named(entry["c"])
    if not isinstance(found, types.FunctionType):
        raise UsageError(f"it names {entry['c']}, which is no function")
    return found


_MAKE: Final[dict[str, Callable[[Reader, Json], Any]]] = {
    "list": lambda _, entry: [],
    "set": lambda _, entry: set(),
    "deque": lambda _, entry: deque(maxlen=entry["m"]),
    "dict": _make_dict,
    "bytearray": lambda _, entry: bytearray(),
    "weakdict": lambda _, entry: weakref.WeakValueDictionary(),
    "weakset": lambda _, entry: weakref.WeakSet(),
    "ref": lambda reader, entry: weakref.ref(reader.value(entry["o"])),
    "random": lambda _, entry: random.Random(0),
    "stream": _make_stream,
    "function": _make_function,
    "local": Reader.local,
    "method": _make_method,
    "builtin": _make_builtin,
    "partial": _make_partial,
    "ram": Reader.view,
    "handle": Reader.handle,
    "syscall": lambda _, entry: _make_call(entry["v"]),
}

"""A graph of Python objects as JSON, and back into another machine of the same make.

What is written: the classes of objects and their attributes, by name. Reading makes objects without running any of
their code, of classes of this package only. Objects that a new machine has at the same place (its CPU, its devices,
the files of /proc) are not made: they take on the state. What is the host's must have such a place.
"""

from __future__ import annotations

import base64
import functools
import importlib
import io
import mmap
import os
import random
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

from mmuemu.errors import UsageError
from mmuemu.kernel.files.hostfd import HostHandle
from mmuemu.kernel.syscalls.table import Syscall

Json = Any
_MODULES: Final = (
    *("mmuemu.devices.", "mmuemu.kernel.", "mmuemu.loader.", "mmuemu.memory.", "mmuemu.speculation.", "mmuemu.x86."),
)
"""Whose classes and functions a file may name, besides those of :data:`_OTHERS`."""
_OTHERS: Final = {
    "builtins:object": object, "builtins:int": int, "builtins:list": list, "builtins:set": set,
    "builtins:dict": dict, "builtins:bytearray": bytearray, "builtins:bytes": bytes, "random:Random": random.Random,
    "builtins:tuple": tuple,
}  # fmt: skip
_MACHINE: Final = ("mmuemu.machine:Machine", "mmuemu.standard:Capture", "mmuemu.machine:Files", "mmuemu.board:Board")
_HOST: Final = (
    "mmuemu.cpu.", "mmuemu.memory.ram.", "mmuemu.kernel.events.Events.", "mmuemu.kernel.options.Options.",
    "mmuemu.kernel.files.hostfd.HostDescriptors.", "mmuemu.kernel.scheduler.Ticker.", "_thread.", "ctypes.",
    "threading.", "mmuemu.machine.Files.", "mmuemu.speculation.models.", "mmuemu.booter.",
)  # fmt: skip
"""Classes whose objects the new machine must have already."""
DICTS: Final = {"dict": dict, "Counter": Counter, "OrderedDict": OrderedDict, "defaultdict": defaultdict}
_WITHOUT: Final[dict[str, frozenset[str]]] = {
    "mmuemu.kernel.kernel:Kernel": frozenset(
        {"events", "on_oom_kill", "on_stopped", "on_unknown_syscall", "options", "table", "tracer"}
    ),
    "mmuemu.kernel.files.stream:StreamInode": frozenset({"waiter"}),
    "mmuemu.board:Board": frozenset({"options", "running", "snapshots", "trace"}),
    "mmuemu.devices.bus:MmioBus": frozenset({"trace"}),
    "mmuemu.devices.bus:PortBus": frozenset({"trace"}),
    "mmuemu.devices.debug_exit:DebugConsole": frozenset({"_out"}),
    "mmuemu.devices.serial:Uart": frozenset({"_out"}),
    "mmuemu.machine:Machine": frozenset({"files", "made", "snapshots", "speculation_settings"}),
    "mmuemu.memory.frames:FrameAllocator": frozenset({"_counts", "on_exhausted", "on_free", "ram"}),
    "mmuemu.speculation.blocks:BlockCache": frozenset({"ops", "_ops_generation", "_read_at"}),
    "mmuemu.speculation.blocks:Block": frozenset({"generation", "ops", "pointers", "points", "segments", "steps"}),
    "mmuemu.speculation.core:Speculation": frozenset({"on_window", "trace"}),
    "mmuemu.speculation.scoreboard:Scoreboard": frozenset({"_numbers", "_state", "_states", "_seen"}),
    "mmuemu.speculation.translations:Translations": frozenset({"_generation", "_kept"}),
}
"""Attributes that are not written, by class: those of the machine that reads, and what is worked out again."""


_OWNERS: Final = (bytearray, list, deque, set, dict, io.BytesIO)
"""Whose methods may be held as such."""


def owns(value: Any) -> bool:
    """Whether bound methods of ``value`` that Python itself makes may be held."""
    return isinstance(value, _OWNERS) or class_name(type(value)) == "mmuemu.standard:Capture"


class Unsaveable(UsageError):
    """Something that a file cannot hold."""


def class_name(cls: type) -> str:
    """How a file names a class."""
    return f"{cls.__module__}:{cls.__qualname__}"


def named(name: str) -> Any:
    """The class or function of this package that ``name`` names. Raises UsageError for any other."""
    if name in _OTHERS:
        return _OTHERS[name]
    module, _, path = name.partition(":")
    ours = (module + ".").startswith(_MODULES) or name in _MACHINE
    if not ours or module not in _loaded():
        raise UsageError(f"it names {name}, which is none of mmuemu's")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = vars(found)[part]
        found = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        found = found.fget if isinstance(found, property) else found
        if getattr(found, "__module__", None) != module:
            raise UsageError(f"it names {name}, which is none of mmuemu's")
    return found


@functools.cache
def _loaded() -> frozenset[str]:
    """Every module of this package: no file makes another one be imported."""
    import pkgutil

    import mmuemu

    return frozenset(
        info.name for info in pkgutil.walk_packages(mmuemu.__path__, "mmuemu.") if "__main__" not in info.name
    )


def attributes(value: Any) -> dict[str, Any]:
    """The slots of ``value`` that are not empty, and its ``__dict__``, but for what is not written."""
    cls = type(value)
    found: dict[str, Any] = {}
    without: frozenset[str] = frozenset()
    for base in cls.__mro__:
        without |= _WITHOUT.get(class_name(base), frozenset())
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__weakref__", "__dict__") and hasattr(value, name):
                found[name] = getattr(value, name)
    found.update(getattr(value, "__dict__", {}))
    return {name: item for name, item in found.items() if name not in without}


def _is_host(value: Any) -> bool:
    cls = type(value)
    if cls in (mmap.mmap, types.ModuleType):
        return True
    return f"{cls.__module__}.{cls.__qualname__}.".startswith(_HOST)


class Writer:
    """Makes the list of objects that are reachable from ``root``, number 0."""

    def __init__(self, root: Any, ram: Any) -> None:
        self._ram = ram
        self._numbers: dict[int, int] = {}
        self.kept: list[Any] = []
        """The objects themselves, by number."""
        self.objects: list[Json] = []
        self._waiting: list[tuple[int, Any]] = []
        self.value(root)
        while self._waiting:
            number, value = self._waiting.pop()
            self.objects[number] = self._object(value)

    def value(self, value: Any) -> Json:
        """``value`` as it stands in attributes and lists."""
        cls = type(value)
        if value is None or cls in (bool, int, str, float):
            return value
        if cls is bytes:
            return {"b": base64.b64encode(value).decode()}
        if isinstance(value, Enum):
            return {"e": class_name(cls), "v": value.name}
        if cls is tuple:
            return {"t": [self.value(item) for item in value]}
        if cls is frozenset:
            return {"f": [self.value(item) for item in value]}
        if cls is range:
            return {"g": [value.start, value.stop, value.step]}
        if isinstance(value, type):
            return {"y": class_name(value)}
        if isinstance(value, tuple) and cls.__module__.startswith("mmuemu."):
            return {"n": class_name(cls), "v": [self.value(item) for item in value]}
        if cls is os.stat_result:
            return {"s": self.value(value.__reduce__()[1][0]), "m": self.value(tuple(value.__reduce__()[1][1].items()))}
        return {"o": self._number(value)}

    def _number(self, value: Any) -> int:
        found = self._numbers.get(id(value))
        if found is None:
            found = self._numbers[id(value)] = len(self.objects)
            self.kept.append(value)
            self.objects.append(None)
            self._waiting.append((found, value))
        return found

    def _object(self, value: Any) -> Json:
        if _is_host(value):
            return {"k": "host", "c": class_name(type(value))}
        for kind, write in _WRITE.items():
            if type(value) is kind or (kind is dict and isinstance(value, dict)):
                return write(self, value)
        cls = type(value)
        if isinstance(value, tuple):
            return {"k": "host", "c": class_name(cls)}
        if not cls.__module__.startswith("mmuemu."):
            return {"k": "host", "c": class_name(cls)}
        parameters = getattr(cls, "__dataclass_params__", None)
        form = "frozen" if parameters is not None and parameters.frozen else "new"
        return {"k": form, "c": class_name(cls), "s": {n: self.value(v) for n, v in attributes(value).items()}}

    def items(self, kind: str, values: Any) -> Json:
        """A container."""
        return {"k": kind, "v": [self.value(item) for item in values]}

    def mapping(self, value: Mapping[Any, Any]) -> Json:
        """A dictionary, or one of its kinds."""
        name = type(value).__name__
        if DICTS.get(name) is not type(value):
            return {"k": "host", "c": class_name(type(value))}
        made: dict[str, Json] = {"k": "dict", "c": name, "v": self._pairs(value)}
        if isinstance(value, defaultdict):
            made["f"] = self.value(value.default_factory)
        return made

    def _pairs(self, value: Mapping[Any, Any]) -> Json:
        return [[self.value(key), self.value(item)] for key, item in value.items()]

    def weak(self, value: Any) -> Json:
        """A WeakValueDictionary."""
        return {"k": "weakdict", "v": self._pairs(dict(value))}

    def function(self, value: types.FunctionType) -> Json:
        """A function: by name, or one that was made in another with what it took from there."""
        name = f"{value.__module__}:{value.__qualname__}"
        if "<locals>" not in value.__qualname__ and "<lambda>" not in value.__qualname__:
            return {"k": "function", "c": name}
        cells = [self.value(cell.cell_contents) for cell in value.__closure__ or ()]
        defaults = self.value(value.__defaults__)
        return {"k": "local", "c": name, "i": _way_to(value), "v": cells, "d": defaults}

    def builtin(self, value: types.BuiltinMethodType) -> Json:
        """A method of one of Python's own objects."""
        if owns(value.__self__):
            return {"k": "builtin", "o": self.value(value.__self__), "q": value.__name__}
        return {"k": "host", "c": value.__name__}

    def view(self, value: memoryview) -> Json:
        """A view of all guest memory; others are the host's."""
        if value.obj is self._ram.bytes.obj and value.nbytes == self._ram.size:
            return {"k": "ram", "f": value.format}
        return {"k": "host", "c": class_name(memoryview)}

    def handle(self, value: HostHandle) -> Json:
        """A descriptor of a host file, to be opened again."""
        return {"k": "handle", "s": {n: self.value(getattr(value, n)) for n in ("_pool", "_node", "_flags")}}


def _way_to(function: types.FunctionType) -> list[int]:
    """Where the code of a function stands among the constants of those that it is defined in; [] if that is unknown."""
    outer = function.__qualname__.split(".<locals>.")[0]
    try:
        ways = [(named(f"{function.__module__}:{outer}").__code__, list[int]())]
    except (UsageError, LookupError, AttributeError):
        return []
    while ways:
        code, way = ways.pop()
        if code is function.__code__:
            return way
        ways += [(one, [*way, i]) for i, one in enumerate(code.co_consts) if isinstance(one, types.CodeType)]
    return []


def _write_random(writer: Writer, value: random.Random) -> Json:
    version, words, gauss = value.getstate()
    return {"k": "random", "v": [version, list(words), gauss]}


_WRITE: Final[dict[type, Callable[[Writer, Any], Json]]] = {
    list: lambda writer, value: writer.items("list", value),
    set: lambda writer, value: writer.items("set", value),
    deque: lambda writer, value: {**writer.items("deque", value), "m": value.maxlen},
    dict: Writer.mapping,
    bytearray: lambda writer, value: {"k": "bytearray", "v": base64.b64encode(value).decode()},
    weakref.WeakValueDictionary: Writer.weak,
    weakref.WeakSet: lambda writer, value: writer.items("weakset", list(value)),
    weakref.ref: lambda writer, value: {"k": "ref", "o": writer.value(value())},
    random.Random: _write_random,
    io.BytesIO: lambda writer, value: {"k": "stream", "b": writer.value(value.getvalue()), "p": value.tell()},
    types.FunctionType: Writer.function,
    types.MethodType: lambda writer, value: {
        "k": "method", "o": writer.value(value.__self__), "f": writer.value(value.__func__),
    },
    types.BuiltinMethodType: Writer.builtin,
    functools.partial: lambda writer, value: {
        "k": "partial", "v": writer.value((value.func, value.args, tuple(value.keywords.items()))),
    },
    memoryview: Writer.view,
    HostHandle: Writer.handle,
    Syscall: lambda writer, value: {"k": "syscall", "v": value.number},
}  # fmt: skip

"""The state of a graph of Python objects, taken and put back in place: every object stays the one it was.

Whatever can be reached from the roots is looked at by its class. What can change is recorded (attributes, the items
of lists, dictionaries, sets), each object by itself, so that putting back is one assignment for each. Names of
classes decide what is the host's or never changes; a class that nobody has said anything about is refused.
"""

from __future__ import annotations

import functools
import io
import mmap
import random
import re
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from operator import is_
from struct import Struct
from typing import Any, Final

from mmuemu.errors import UsageError

_ATOMS: Final = frozenset(
    {int, str, bytes, bool, float, type(None), range, slice, type, types.ModuleType, memoryview, mmap.mmap,
     re.Pattern, Struct, weakref.ref, types.MappingProxyType, types.GetSetDescriptorType, types.MemberDescriptorType}
)  # fmt: skip
"""Types without anything inside that changes, or whose inside is recorded elsewhere."""

Getter = Callable[[Any], Any]
Putter = Callable[[Any, Any], None]


class Kind:
    """How objects of one class are recorded: ``get`` takes the state, ``put`` puts it back, ``same`` compares by
    identity, ``inside`` says what the state refers to."""

    __slots__ = ("get", "inside", "put", "same")

    def __init__(
        self, get: Getter, put: Putter, same: Callable[[Any, Any], bool], inside: Callable[[Any], Iterable[Any]]
    ) -> None:
        self.get = get
        self.put = put
        self.same = same
        self.inside = inside


# -- containers and other types of Python's own ----------------------------------------------------------------------


def _put_list(target: Any, state: Any) -> None:
    target[:] = state


def _same_items(target: Any, state: Any) -> bool:
    return len(target) == len(state) and all(map(is_, target, state))


def _put_dict(target: dict[Any, Any], state: dict[Any, Any]) -> None:
    if target:
        target.clear()
    if state:
        target.update(state)


def _same_dict(target: dict[Any, Any], state: dict[Any, Any]) -> bool:
    if not target:
        return not state
    return len(target) == len(state) and all(map(is_, target.values(), state.values())) and list(target) == list(state)


def _inside_dict(state: dict[Any, Any]) -> Iterable[Any]:
    yield from state
    yield from state.values()


def _put_set(target: set[Any], state: set[Any]) -> None:
    if target != state:
        target.clear()
        target.update(state)


def _put_deque(target: deque[Any], state: tuple[Any, ...]) -> None:
    target.clear()
    target.extend(state)


def _put_weak(target: Any, state: Any) -> None:
    target.clear()
    target.update(state)


def _put_bytes(target: bytearray, state: bytes) -> None:
    if target != state:
        target[:] = state


def _equal(target: Any, state: Any) -> bool:
    return bool(target == state)


def _nothing_inside(_state: Any) -> Iterable[Any]:
    return ()


def _random_get(source: random.Random) -> Any:
    state = source.__dict__
    return super(random.Random, source).getstate(), state["gauss_next"]


def _random_put(target: random.Random, state: Any) -> None:
    super(random.Random, target).setstate(state[0])
    target.__dict__["gauss_next"] = state[1]


def _never_same(_source: random.Random, _state: Any) -> bool:
    """To compare 625 words takes longer than to copy them."""
    return False


def _stream_get(stream: io.BytesIO) -> tuple[bytes, int]:
    return stream.getvalue(), stream.tell()


def _stream_put(stream: io.BytesIO, state: tuple[bytes, int]) -> None:
    if stream.getvalue() != state[0]:
        stream.seek(0)
        stream.truncate()
        stream.write(state[0])
    stream.seek(state[1])


BUILTIN: Final[dict[type, Kind]] = {
    list: Kind(tuple, _put_list, _same_items, iter),
    dict: Kind(dict, _put_dict, _same_dict, _inside_dict),
    set: Kind(set, _put_set, _equal, iter),
    deque: Kind(tuple, _put_deque, _same_items, iter),
    bytearray: Kind(bytes, _put_bytes, _equal, _nothing_inside),
    weakref.WeakValueDictionary: Kind(dict, _put_weak, lambda a, b: dict(a) == b, _inside_dict),
    weakref.WeakSet: Kind(set, _put_weak, lambda a, b: set(a) == b, iter),
    random.Random: Kind(_random_get, _random_put, _never_same, _nothing_inside),
    io.BytesIO: Kind(_stream_get, _stream_put, lambda a, b: _stream_get(a) == b, _nothing_inside),
}
"""Mutable types of Python's own; subclasses of dict are recorded as dict is."""


# -- classes of ours -------------------------------------------------------------------------------------------------


def _slots(cls: type, without: frozenset[str]) -> list[str]:
    names: list[str] = []
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name.startswith("__") and not name.endswith("__"):
                name = f"_{base.__name__.lstrip('_')}{name}"
            if name not in ("__weakref__", "__dict__") and name not in without:
                names.append(name)
    return names


def _partial_kind(names: list[str]) -> Kind:
    """For objects some of whose slots may be empty: the state is a dictionary."""

    def get(source: Any) -> dict[str, Any]:
        return {name: getattr(source, name) for name in names if hasattr(source, name)}

    def put(target: Any, state: dict[str, Any]) -> None:
        for name in names:
            if name in state:
                setattr(target, name, state[name])
            elif hasattr(target, name):
                delattr(target, name)

    return Kind(get, put, lambda target, state: _same_dict(get(target), state), lambda state: state.values())


def _slots_kind(names: list[str]) -> Kind:
    """Functions made for one class, as namedtuple makes them: a loop over names takes five times as long."""
    places = [f"v{number}" for number in range(len(names))]
    unpack = f"{', '.join(places)}, = s"
    source = f"""
def get(o):
    return ({" ".join(f"o.{name}," for name in names)})
def put(o, s):
    {unpack}
    {"; ".join(f"o.{name} = {place}" for name, place in zip(names, places, strict=True))}
def same(o, s):
    {unpack}
    return {" and ".join(f"o.{name} is {place}" for name, place in zip(names, places, strict=True))}
"""
    space: dict[str, Any] = {}
    exec(source, space)
    return Kind(space["get"], space["put"], space["same"], iter)


def _vars_kind(without: frozenset[str]) -> Kind:
    """For the ``__dict__`` of an object, which stays the same dictionary with the same order of keys."""
    if not without:

        def get_all(names: dict[str, Any]) -> dict[str, Any]:
            return names.copy()

        def put_all(names: dict[str, Any], state: dict[str, Any]) -> None:
            if len(names) != len(state):
                names.clear()
            names.update(state)

        return Kind(get_all, put_all, _same_dict, _values)

    def get(names: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in names.items() if name not in without}

    def put(names: dict[str, Any], state: dict[str, Any]) -> None:
        for name in [name for name in names if name not in state and name not in without]:
            del names[name]
        names.update(state)

    return Kind(get, put, lambda names, state: _same_dict(get(names), state), _values)


def _values(state: dict[str, Any]) -> Iterable[Any]:
    return state.values()


class Rules:
    """What is known of classes: ``constant`` names modules and classes (``module.Class``) that are left alone, and
    ``without`` attributes that are, by class; ``own`` is the package whose classes may be recorded."""

    def __init__(self, own: str, constant: Iterable[str], without: Mapping[str, Iterable[str]]) -> None:
        self._own = own + "."
        self._constant = tuple(constant)
        self._without = {name: frozenset(names) for name, names in without.items()}
        self._kinds: dict[type, tuple[Kind | None, Kind | None, Kind | None]] = {}

    def atom(self, cls: type) -> bool:
        """Whether nothing of such an object is recorded."""
        if cls in _ATOMS or issubclass(cls, Enum | type | io.IOBase | weakref.ref | BaseException):
            return cls is not io.BytesIO and not cls.__module__.startswith(self._own)
        return f"{cls.__module__}.{cls.__qualname__}.".startswith(self._constant)

    def kinds(self, cls: type) -> tuple[Kind | None, Kind | None, Kind | None]:
        """For the slots of an object, for some of them (when the others are empty), and for its ``__dict__``.

        Raises UsageError for a class that is not known.
        """
        found = self._kinds.get(cls)
        if found is None:
            found = self._kinds[cls] = self._make(cls)
        return found

    def _make(self, cls: type) -> tuple[Kind | None, Kind | None, Kind | None]:
        own = cls.__module__.startswith(self._own)
        base = next((BUILTIN[one] for one in cls.__mro__ if one in BUILTIN), None)
        if base is None and not own:
            raise UsageError(f"a snapshot cannot hold a {cls.__module__}.{cls.__qualname__}")
        parameters = getattr(cls, "__dataclass_params__", None)
        if parameters is not None and parameters.frozen:
            return None, None, None
        without: frozenset[str] = frozenset()
        for one in cls.__mro__:
            without |= self._without.get(f"{one.__module__}.{one.__qualname__}", frozenset())
        names = _slots(cls, without)
        if base is not None:
            return base, None, _vars_kind(without) if cls.__dictoffset__ and own else None
        slots = (_slots_kind(names), _partial_kind(names)) if names else (None, None)
        return (*slots, _vars_kind(without) if cls.__dictoffset__ else None)


Record = tuple[Any, Any, Kind]
"""An object, its state, and how to put that back."""


class Graph:
    """Everything that can be reached from ``roots``, under ``rules``."""

    def __init__(self, roots: Iterable[Any], rules: Rules) -> None:
        self._roots = list(roots)
        self._rules = rules
        self._known: dict[int, Record] = {}
        self._seen: dict[int, Any] = {}
        """Objects without a state of their own that were looked at, kept so that their numbers stay theirs."""
        self._grown = 0
        self._back: list[Record] | None = None
        """What was put back since :meth:`take`."""

    def take(self) -> list[Record]:
        """The state of everything. Raises UsageError for an object of a class that is not known.

        What was there the last time and has not changed is not recorded anew.
        """
        if self._back is not None:
            self._known = {id(record[0]): record for record in self._back}
            self._back = None
            # What only the time that was taken back has seen may be met again, and what it refers to is not known.
            self._seen.clear()
        known = self._known
        if not known or self._grown > len(known) // 2:
            known.clear()
            self._seen.clear()
            self._grown = 0
            self._follow(list(self._roots))
            return list(known.values())
        changed: list[Any] = []
        before = len(known)
        for key, record in known.items():
            target, state, kind = record
            try:
                if kind.same(target, state):
                    continue
                state = kind.get(target)
            except AttributeError:
                kind = self._rules.kinds(type(target))[1] or kind
                state = kind.get(target)
            known[key] = (target, state, kind)
            changed += kind.inside(state)
        try:
            self._follow(changed)
        except BaseException:
            known.clear()
            raise
        self._grown += len(known) - before
        return list(known.values())

    def _follow(self, waiting: list[Any]) -> None:
        """Record ``waiting`` and whatever they refer to, but for what is known."""
        known, seen, rules = self._known, self._seen, self._rules
        while waiting:
            item = waiting.pop()
            cls = type(item)
            if cls in _ATOMS or id(item) in known or id(item) in seen or rules.atom(cls):
                continue
            inside = _INSIDE.get(cls)
            if inside is not None:
                seen[id(item)] = item
                waiting += inside(item)
            elif isinstance(item, tuple | frozenset):
                seen[id(item)] = item
                waiting += item
            else:
                self._record(item, waiting)

    def _record(self, item: Any, waiting: list[Any]) -> None:
        slots, some, names = self._rules.kinds(type(item))
        if slots is None:
            self._seen[id(item)] = item
        else:
            kind = slots
            try:
                state = kind.get(item)
            except AttributeError:
                if some is None:
                    raise
                kind = some
                state = kind.get(item)
            self._known[id(item)] = (item, state, kind)
            waiting += kind.inside(state)
        if names is not None:
            target = vars(item)
            state = names.get(target)
            self._known[id(target)] = (target, state, names)
            self._seen[id(item)] = item
            waiting += names.inside(state)
        elif slots is None:
            waiting += [getattr(item, name) for name in _slots(type(item), frozenset())]
            waiting += getattr(item, "__dict__", {}).values()

    def put(self, records: list[Record]) -> None:
        """Make everything what it was when :meth:`take` returned ``records``."""
        for target, state, kind in records:
            kind.put(target, state)
        self._back = records


def _cells(function: types.FunctionType) -> list[Any]:
    """What a function has taken from where it was made; objects of others' classes there are the host's."""
    found = []
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:
            continue
        if _is_ours(value):
            found.append(value)
    return [*found, *(function.__defaults__ or ())]


def _is_ours(value: Any) -> bool:
    """Whether it may have a state of the machine: what a caller has given to read from or write to is the host's."""
    cls = type(value)
    return cls.__module__.startswith("mmuemu.") or cls in BUILTIN or cls in _INSIDE


def _method(method: Any) -> list[Any]:
    owner = getattr(method, "__self__", None)
    found = [owner] if _is_ours(owner) else []
    return [*found, method.__func__] if isinstance(method, types.MethodType) else found


_INSIDE: Final[dict[type, Callable[[Any], Iterable[Any]]]] = {
    types.FunctionType: _cells,
    types.MethodType: _method,
    types.BuiltinMethodType: _method,
    functools.partial: lambda call: (call.func, *call.args, *call.keywords.values()),
    frozenset: iter,
    tuple: iter,
}
"""What objects that never change refer to."""

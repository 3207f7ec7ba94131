"""A call's two parts of a line, each a function made for it: what is known when it is called, and what it leaves.

The functions are written out as source when a call is first seen: a loop over its types costs twice as much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any, Final

from mmuemu.view.strace.values import Call, Known, Type, Written

Text = Callable[[Call], str]
After = tuple[int, Type, bool, str]
"""Register, type, whether the call fills it in, what separates it from the one before."""
_REGISTERS: Final = 6
_code: Final[Callable[[str], CodeType]] = lru_cache(None)(lambda source: compile(source, "<strace>", "exec"))
"""Calls of one shape share it."""


class _Source:
    """A function under way: the registers and the names that its text needs."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {}
        self._used: set[int] = set()

    def value(self, at: int, show: Type) -> str:
        """The expression for the argument in register ``at``."""
        self._used.add(at)
        if isinstance(show, Written):
            return show.expression.replace("value", f"a{at}")
        name = f"t{len(self._names)}"
        self._names[name] = show
        return f"{name}[a{at}]" if isinstance(show, Known) else f"{name}(call, a{at})"

    def part(self, at: int, show: Type, separator: str, optional: bool) -> str:
        """The same with what stands before it, for an f-string; nothing of an argument that a call may not have."""
        value = self.value(at, show)
        if not optional or isinstance(show, Known | Written):
            return f"{separator}{{{value}}}"
        return f"{{'' if (x := {value}) is None else '{separator}' + x}}"

    def pointer(self, at: int, separator: str) -> str:
        """A bare address."""
        self._used.add(at)
        return f"{separator}{{hex(a{at}) if a{at} else 'NULL'}}"

    def function(self, body: str) -> Text:
        """The function that does ``body``."""
        used = ", ".join(f"a{at}" if at in self._used else "_" for at in range(_REGISTERS))
        unpack = f"    {used} = call.args\n" if self._used else ""
        exec(_code(f"def text(call):\n{unpack}{body}"), self._names)
        function: Text = self._names["text"]
        return function


def beginning(name: str, before: Sequence[tuple[int, Type]], comma: bool, *, sparse: bool) -> Text:
    """``name(`` and the arguments ``before``; behind them a comma if more follows for certain.

    ``sparse``: arguments may be left out, their types give None; the first one never is.
    """
    source = _Source()
    parts = [
        source.part(at, show, ", " if index else "", sparse and index > 0) for index, (at, show) in enumerate(before)
    ]
    return source.function(f'    return f"""{name}({"".join(parts)}{", " if comma else ""}"""\n')


def rest(after: Sequence[After], begun: bool, *, sparse: bool) -> Text | None:
    """What comes behind the beginning once the call has returned, with the bracket; None for nothing.

    ``begun``: an argument stands before it, without a comma; ``sparse`` as for the beginning.
    """
    if not after:
        return None
    source = _Source()
    whole, failed = [], []
    for index, (at, show, out, text) in enumerate(after):
        separator = text if begun or index else ""
        part = source.part(at, show, separator, (bool(separator) and sparse) or not text)
        whole.append(part)
        failed.append(source.pointer(at, separator) if out else part)
    body = f'    return f"""{"".join(whole)}) """\n'
    if failed != whole:
        body = f'    if -4096 < call.result < 0:\n        return f"""{"".join(failed)}) """\n{body}'
    return source.function(body)

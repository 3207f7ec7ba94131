"""A call's two parts of a line, each a function made once: what is known when it is called, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from mmuemu.view.strace.values import Call, Type, pointer

Text = Callable[[Call], str]
After = tuple[int, Type, bool, str]
"""Register, type, whether the call fills it in, what separates it from the one before."""


def _none(head: str, tail: str, _types: Sequence[Type]) -> Text:
    return lambda _call: head + tail


def _one(head: str, tail: str, types: Sequence[Type]) -> Text:
    (a,) = types
    return lambda call: f"{head}{a(call, call.args[0])}{tail}"


def _two(head: str, tail: str, types: Sequence[Type]) -> Text:
    a, b = types
    return lambda call: f"{head}{a(call, call.args[0])}, {b(call, call.args[1])}{tail}"


def _three(head: str, tail: str, types: Sequence[Type]) -> Text:
    a, b, c = types
    return lambda call: f"{head}{a(call, call.args[0])}, {b(call, call.args[1])}, {c(call, call.args[2])}{tail}"


_PLAIN: Final = (_none, _one, _two, _three)
"""For the first registers in their order, by how many."""


def beginning(name: str, before: Sequence[tuple[int, Type]], comma: bool, *, sparse: bool) -> Text:
    """``name(`` and the arguments ``before``; behind them a comma if more follows for certain.

    ``sparse``: arguments may be left out, their types give None; the first one never is.
    """
    head, tail = f"{name}(", ", " if comma else ""

    def joined(call: Call) -> str:
        args = call.args
        shown = [one for at, show in before if (one := show(call, args[at])) is not None]
        return f"{head}{', '.join(shown)}{tail}"

    if sparse or len(before) >= len(_PLAIN) or any(at != index for index, (at, _) in enumerate(before)):
        return joined
    return _PLAIN[len(before)](head, tail, [show for _, show in before])


def rest(after: Sequence[After], begun: bool, *, sparse: bool) -> Text | None:
    """What comes behind the beginning once the call has returned, None for nothing.

    ``begun``: an argument stands before it, without a comma; ``sparse`` as for the beginning.
    """
    separated = [(*one, begun or index > 0) for index, one in enumerate(after)]
    every = [(at, show, out, text if separate else "") for at, show, out, text, separate in separated]

    def whole(call: Call) -> str:
        args, failed = call.args, call.failed
        parts = [
            text + (pointer(args[at]) if out and failed else show(call, args[at]) or "")
            for at, show, out, text in every
        ]
        return "".join(parts)

    def joined(call: Call) -> str:
        args, failed, separate, parts = call.args, call.failed, begun, []
        for at, show, out, separator in after:
            text = pointer(args[at]) if out and failed else show(call, args[at])
            if text is not None:
                parts.append(separator + text if separate else text)
                separate = True
        return "".join(parts)

    if not after:
        return None
    return joined if sparse else whole

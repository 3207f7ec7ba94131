"""Assertions about guests. Their messages show the walk that went wrong, level by level."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from mmuemu.kernel.abi.signals import signal_name
from mmuemu.mmu.state import PageFault
from mmuemu.testing.results import Result
from mmuemu.testing.space import Space, space_of
from mmuemu.testing.walks import ACCESSES, error_bits, error_names, walk_text
from mmuemu.x86.exceptions import Vector, vector_name

if TYPE_CHECKING:
    from mmuemu.leaks import LeakReport
    from mmuemu.testing.faults import Fault

_SHOWN: Final = 8
_RINGS: Final = {"user": True, "kernel": False}


def _fail(*parts: str) -> NoReturn:
    __tracebackhide__ = True
    raise AssertionError("\n".join(part for part in parts if part))


# -- faults ------------------------------------------------------------------------------------------------------------


def assert_faults(
    result: Any,
    *,
    at: int | None = None,
    error: str | int | None = None,
    vector: str = "#PF",
    rip: int | None = None,
    access: str | None = None,
    rule: str | None = None,
    signal: int | None = None,
) -> Fault:
    """The run (of ``guest`` or ``bare``) met this exception; the fault.

    It is the one that ended the run, or else any page fault that a handler of the program's own took. ``at`` is the
    address (CR2), ``error`` the error code as ``"P|W|U"``, exactly; ``rule`` a piece of the rule in words; ``signal``
    what killed the program. What is not given may be anything. AssertionError; ValueError for names that do not exist.
    """
    __tracebackhide__ = True
    if access is not None and access not in ACCESSES:
        raise ValueError(f"access {access!r} is none of {', '.join(ACCESSES)}")
    name = _vector(vector)
    code = None if error is None else error_bits(error)
    wanted = {"vector": name, "address": at, "error": code, "rip": rip, "access": access, "rule": rule}
    found: list[Fault] = [result.fault] if result.fault is not None else list(getattr(result, "faults", ()))
    for fault in found:
        if not _differences(fault, wanted):
            killed = getattr(result, "signal", None)
            if signal is not None and killed != signal:
                _fail(f"expected {signal_name(signal)}, and {_killed(killed)}", str(fault), fault.walk_text)
            return fault
    if found:
        _fail(
            f"{found[-1].name} is another fault than expected:",
            *_differences(found[-1], wanted),
            f"it was {found[-1]}",
            found[-1].walk_text,
        )
    walk = ""
    if at is not None:
        kind = access or ("execute" if code and code & 16 else "write" if code and code & 2 else "read")
        user = code is None or bool(code & 4)
        walk = "what an access would meet now:\n" + walk_text(space_of(result).walk(at, ACCESSES[kind], user=user))
    _fail(f"expected {name}{'' if at is None else f' at {at:#x}'}, and nothing faulted: {result!r}", walk)


def _vector(name: str) -> str:
    bare = name.lstrip("#").upper()
    if bare not in Vector.__members__:
        raise ValueError(f"{name!r} is no exception: use #PF, #GP, #UD, ...")
    return vector_name(Vector[bare])


def _killed(signal: int | None) -> str:
    return "no signal killed it" if signal is None else f"it was killed by {signal_name(signal)}"


def _differences(fault: Fault, wanted: dict[str, Any]) -> list[str]:
    """How a fault differs from what is wanted (None: anything), a line each."""
    lines = []
    for what, want in wanted.items():
        if want is None:
            continue
        got: Any
        shown: Callable[[Any], str]
        if what == "vector":
            got, shown = fault.name, str
        elif what == "error":
            got, shown = fault.error_code, error_names
        elif what == "rule":
            if want not in fault.rule:
                lines.append(f"  rule: expected {want!r} in {fault.rule!r}")
            continue
        else:
            got, shown = getattr(fault, what), _shown
        if got != want:
            lines.append(f"  {what}: expected {shown(want)}, got {shown(got)}")
    return lines


def _shown(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) else str(value)


# -- access ------------------------------------------------------------------------------------------------------------


def _assert_access(target: Any, address: int, access: str, as_: str, expected: bool) -> None:
    __tracebackhide__ = True
    if as_ not in _RINGS:
        raise ValueError(f"as_ {as_!r} is none of {', '.join(_RINGS)}")
    space = space_of(target)
    allowed, walked, aside = space.judge(address, ACCESSES[access], user=_RINGS[as_])
    if allowed == expected:
        return
    can = "can" if allowed else "cannot"
    _fail(f"{as_} code of {space.name} {can} {access} {address:#x}", walk_text(walked), aside)


def assert_readable(target: Any, address: int, as_: str = "user") -> None:
    """Code may read the byte at ``address``: now, or after the kernel has mapped the page for it.

    ``target`` is a GuestProcess, the result of a run, or a bare machine; ``as_`` is ``"user"`` (ring 3) or
    ``"kernel"`` (ring 0, EFLAGS.AC = 0).
    """
    __tracebackhide__ = True
    _assert_access(target, address, "read", as_, True)


def assert_unreadable(target: Any, address: int, as_: str = "user") -> None:
    """It may not."""
    __tracebackhide__ = True
    _assert_access(target, address, "read", as_, False)


def assert_writable(target: Any, address: int, as_: str = "user") -> None:
    """Code may write there: now, or after the kernel has mapped or copied the page."""
    __tracebackhide__ = True
    _assert_access(target, address, "write", as_, True)


def assert_unwritable(target: Any, address: int, as_: str = "user") -> None:
    """It may not."""
    __tracebackhide__ = True
    _assert_access(target, address, "write", as_, False)


def assert_executable(target: Any, address: int, as_: str = "user") -> None:
    """Code there may be executed."""
    __tracebackhide__ = True
    _assert_access(target, address, "execute", as_, True)


def assert_unexecutable(target: Any, address: int, as_: str = "user") -> None:
    """It may not."""
    __tracebackhide__ = True
    _assert_access(target, address, "execute", as_, False)


# -- maps --------------------------------------------------------------------------------------------------------------


def assert_maps(target: Any, address: int, permissions: str | None = None, *, name: str | None = None) -> None:
    """``address`` lies in an area of the process with ``permissions`` (``"rw-p"``; ``"rw-"`` leaves sharing open) and
    ``name`` (``"[heap]"``, or a path's end).
    """
    __tracebackhide__ = True
    area = next((area for area in target.areas if area.start <= address < area.end), None)
    if area is None:
        _fail(f"nothing is mapped at {address:#x}", _around(target, address), _walk_at(target, address))
    if permissions is not None and not area.permissions.startswith(permissions):
        why = f"{address:#x} is mapped {area.permissions}, not {permissions}"
        _fail(why, _around(target, address), _walk_at(target, address))
    if name is not None and not area.name.endswith(name):
        _fail(f"{address:#x} lies in {area.name or 'anonymous memory'}, not in {name}", _around(target, address))


def assert_unmapped(target: Any, address: int) -> None:
    """No area of the process holds ``address``, and no page is there for ring 3."""
    __tracebackhide__ = True
    area = next((area for area in target.areas if area.start <= address < area.end), None)
    walked = space_of(target).walk(address, ACCESSES["read"], user=True)
    if area is not None or not isinstance(walked.result, PageFault):
        _fail(f"{address:#x} is mapped", _around(target, address), walk_text(walked))


def _walk_at(target: Any, address: int) -> str:
    return walk_text(space_of(target).walk(address, ACCESSES["read"], user=True))


def _around(target: Any, address: int) -> str:
    """The lines of maps next to ``address``, that with it marked."""
    areas = list(target.areas)
    lines = target.maps.splitlines()
    near = next((index for index, area in enumerate(areas) if area.end > address), len(areas))
    shown = range(max(near - 2, 0), min(near + 3, len(areas)))
    return "\n".join(f"{'>' if areas[i].start <= address < areas[i].end else ' '} {lines[i]}" for i in shown)


# -- isolation and leaks -----------------------------------------------------------------------------------------------


def assert_isolated(first: Any, second: Any, frame: int | None = None) -> None:
    """Ring 3 of neither process can write what the other can reach; with ``frame``, not both can reach that frame.

    ``frame`` is a physical address. Frames that both only read are common (files, the zero page, memory since a fork).
    ValueError for processes of two machines, which share nothing.
    """
    __tracebackhide__ = True
    one, other = space_of(first), space_of(second)
    if one.key != other.key:
        raise ValueError("assert_isolated: these are processes of two machines, which share nothing")
    mine, yours = _frames(one), _frames(other)
    if frame is not None:
        shared = [frame & -4096] if frame & -4096 in mine and frame & -4096 in yours else []
    else:
        shared = sorted(at for at in mine.keys() & yours.keys() if mine[at][1] or yours[at][1])
    if not shared:
        return
    at = shared[0]
    parts = [f"{one.name} and {other.name} share {len(shared)} frames, the first at physical {at:#x}:"]
    for space, pages in ((one, mine), (other, yours)):
        linear, writable = pages[at]
        parts += [f"{space.name}, {'writable' if writable else 'read-only'}:"]
        parts += [walk_text(space.walk(linear, ACCESSES["write" if writable else "read"], user=True))]
    _fail(*parts)


def _frames(space: Space) -> dict[int, tuple[int, bool]]:
    """Frame -> (a linear address of it, whether ring 3 may write it)."""
    found: dict[int, tuple[int, bool]] = {}
    for linear, physical, size, writable in space.user_pages():
        for offset in range(0, size, 4096):
            known = found.get(physical + offset)
            if known is None or (writable and not known[1]):
                found[physical + offset] = (linear + offset, writable)
    return found


def assert_no_leak(
    result: Result | LeakReport, *, causes: Iterable[str] | None = None, lines: tuple[int, int] | None = None
) -> None:
    """No transient access tells the secrets of a ``guest.leaks`` report apart; or, in a run, fetched a line.

    ``causes`` are the flaws that count (all), ``lines`` the linear addresses ``[start, end)`` that do (all).
    ValueError for a run without a CPU model.
    """
    __tracebackhide__ = True
    counted = None if causes is None else frozenset([causes] if isinstance(causes, str) else causes)

    def counts(chain: Iterable[str], line: int) -> bool:
        within = lines is None or lines[0] & -64 <= line < lines[1]
        return within and (counted is None or not counted.isdisjoint(chain))

    if not isinstance(result, Result):
        touches = [touch for touch in (*result.only_first, *result.only_second) if counts(touch.causes, touch.line)]
        if touches:
            _fail(f"{len(touches)} lines that transient accesses touch depend on the secret:", str(result))
        return
    if result.machine.speculation is None:
        raise ValueError("assert_no_leak: the machine has no CPU model, and nothing runs transiently: give cpu=")
    fills = [fill for group in result.leaked.values() for fill in group if counts(fill.causes, fill.line)]
    if fills:
        more = f"  and {len(fills) - _SHOWN} more" if len(fills) > _SHOWN else ""
        listed = [f"  {fill}" for fill in fills[:_SHOWN]]
        walk = walk_text(result.space.walk(fills[0].line, ACCESSES["read"], user=True))
        _fail(f"{len(fills)} lines were fetched transiently:", *listed, more, walk)

"""mmuemu: the x86-64 memory-management unit that Unicorn lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mmuemu.cpu.attach import attach as attach
    from mmuemu.errors import MmuemuError as MmuemuError
    from mmuemu.machine import Machine as Machine

__all__ = ["Machine", "MmuemuError", "__version__", "attach"]
_HOMES = {"Machine": "mmuemu.machine", "attach": "mmuemu.cpu.attach", "MmuemuError": "mmuemu.errors"}


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that ``import mmuemu`` costs nothing."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'mmuemu' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

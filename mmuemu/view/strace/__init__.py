"""System calls as strace(1) prints them: constants, types of arguments, a table of calls, the tracer."""

from mmuemu.view.strace.filters import selected
from mmuemu.view.strace.tracer import Strace

__all__ = ["Strace", "selected"]

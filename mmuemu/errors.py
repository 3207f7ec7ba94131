"""The errors every room may raise, and the exit codes the command line turns them into."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of ``mmuemu run`` besides the guest's own (the shell's and coreutils ``timeout``'s)."""

    LIMIT = 124
    """A limit was reached: ``--timeout`` or ``--max-instructions``."""
    OURS = 125
    """mmuemu itself failed, or its options were wrong."""
    CANNOT_LOAD = 126
    """The program exists but cannot be loaded."""
    NOT_FOUND = 127
    """The program does not exist."""


def printable(text: str) -> str:
    """``text`` with a question mark for whatever is not printed as itself (escape sequences, half characters)."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


class MmuemuError(Exception):
    """A failure with a message meant for a person: one line that names the thing and the way out."""

    exit_code: int = Exit.OURS

    def __str__(self) -> str:
        """The line; what it says of a file's or a guest's words is printable."""
        return printable(super().__str__())


class UsageError(MmuemuError):
    """An option, argument or call that cannot be meant."""


class BadImage(MmuemuError):
    """A program file that cannot be loaded; ``str(error)`` is ``"<file>: <what is wrong>"``."""

    exit_code = Exit.CANNOT_LOAD

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name
        self.why = why


class OutOfFrames(MmuemuError):
    """Guest physical memory is exhausted (the guest sees ENOMEM or SIGKILL, never the host)."""

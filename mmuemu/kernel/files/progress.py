"""What a read or write that slept has done so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import Caller


class Progress:
    """A transfer's bytes ``done``, and its ``deadline`` in monotonic nanoseconds where it has one."""

    __slots__ = ("deadline", "done")

    def __init__(self) -> None:
        self.done = 0
        self.deadline: int | None = None


def progress_of(caller: Caller) -> Progress:
    """The progress of the caller's present call, begun when this is its first time."""
    state = caller.call_state
    if not isinstance(state, Progress):
        caller.call_state = state = Progress()
    return state

"""Events of a run in packed columns, as a report keeps and shows them."""

from __future__ import annotations

import sys
from array import array
from base64 import b64encode
from typing import Any, Final

MOST_EVENTS: Final = 100_000
"""Events that are kept; of later ones only how many there were."""
MOST_TEXT: Final = 7 << 20
"""Letters of all texts together."""
LONGEST_TEXT: Final = 240

KINDS: Final = (
    *("fault", "syscall", "switch", "flush", "signal", "life", "window"),
    *("exception", "interrupt", "device", "control"),
)
"""What an event may be: a column holds the index. ``life``: a process or thread begins or ends; ``window``: transient
execution. Of bare machines: exceptions other than page faults, interrupts, accesses to devices, writes to control
registers other than CR3, whose changes are switches."""
FAULT, SYSCALL, SWITCH, FLUSH, SIGNAL, LIFE, WINDOW, EXCEPTION, INTERRUPT, DEVICE, CONTROL = range(len(KINDS))


class EventLog:
    """Kind, time (ns from the start), span (ns), track and text of each event, a column each, in order of their times.

    A track is a thread; the first one is the machine's own.
    """

    def __init__(self, most: int = MOST_EVENTS, most_text: int = MOST_TEXT) -> None:
        self._most = most
        self._left = most_text
        self._kinds = array("B")
        self._times = array("d")
        self._spans = array("f")
        self._tracks = array("H")
        self._texts = array("I")
        self._bands: dict[str, array[Any]] = {
            name: array(code) for name, code in (("track", "H"), ("row", "I"), ("begin", "d"), ("end", "d"))
        }
        self._numbers: dict[tuple[int, int], int] = {(0, 0): 0}
        self._words: dict[str, int] = {"": 0}
        self.lost = [0] * len(KINDS)
        """How many of each kind were not kept."""

    def __len__(self) -> int:
        return len(self._kinds)

    @property
    def full(self) -> bool:
        """Whether no more is kept."""
        return len(self._kinds) >= self._most

    def add(self, kind: int, time: int, pid: int, tid: int, text: str) -> int:
        """One more event of thread ``tid`` (0: of nobody); its row, or -1 when it is not kept."""
        number = self._numbers.get((pid, tid))
        if number is None and len(self._numbers) < 0xFFFF:
            number = self._numbers[pid, tid] = len(self._numbers)
        if number is None or self.full:
            self.lost[kind] += 1
            return -1
        self._kinds.append(kind)
        self._times.append(time)
        self._spans.append(0)
        self._tracks.append(number)
        self._texts.append(self._word(text))
        return len(self._kinds) - 1

    def finish(self, row: int, time: int, text: str) -> None:
        """The event of ``row`` ended at ``time``, and this is what it was."""
        self._spans[row] = time - self._times[row]
        self._texts[row] = self._word(text)

    def on_cpu(self, time: int, pid: int, tid: int) -> None:
        """The thread is put on the CPU before the next event."""
        number = self._numbers.get((pid, tid))
        if number is not None and not self.full:
            self._bands["track"].append(number)
            self._bands["row"].append(len(self))
            self._bands["begin"].append(time)
            self._bands["end"].append(-1)

    def off_cpu(self, time: int) -> None:
        """The thread that was on the CPU, if there was one, left it."""
        ends = self._bands["end"]
        if ends and ends[-1] < 0:
            ends[-1] = time

    def _word(self, text: str) -> int:
        text = text[:LONGEST_TEXT]
        number = self._words.get(text)
        if number is not None:
            return number
        if len(text) > self._left:
            return 0
        self._left -= len(text)
        number = self._words[text] = len(self._words)
        return number

    def packed(self) -> dict[str, Any]:
        """The columns as base64 of little-endian numbers, with tracks as [pid, tid], and texts.

        ``bands`` are the stretches on the CPU: a track, the row of the first event, times of begin and end.
        """
        columns: dict[str, array[Any]] = {
            "kind": self._kinds, "time": self._times, "span": self._spans, "track": self._tracks, "text": self._texts,
        }  # fmt: skip
        return {
            "count": len(self),
            "kinds": KINDS,
            "lost": self.lost,
            "tracks": list(self._numbers),
            "texts": list(self._words),
            "bands": {name: _base64(column) for name, column in self._bands.items()},
            **{name: _base64(column) for name, column in columns.items()},
        }


def _base64(column: array[Any]) -> str:
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return b64encode(column.tobytes()).decode("ascii")

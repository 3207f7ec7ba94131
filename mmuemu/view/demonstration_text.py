"""A demonstrated attack for people at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from math import log2
from typing import Final

from rich.console import Console
from rich.text import Text

from mmuemu.errors import printable
from mmuemu.guest.attacks import ATTACKS
from mmuemu.speculation.flaws import FLAWS
from mmuemu.view.demonstration import ARCHITECTURAL, Demonstration, chains

_BUCKETS: Final = 16
_NARROWEST: Final = 10
"""Columns of a bar."""
_TITLE: Final = 12


def verdict(shown: Demonstration) -> str:
    """How it ended, in a line."""
    if not shown.exit_code:
        return f"all {shown.size} bytes leaked"
    return shown.reason if any(shown.right) else f"nothing leaked: {shown.reason}"


def cause_words(cause: str | None) -> str:
    """A cause with what it means."""
    if cause is None:
        return "none"
    if cause == ARCHITECTURAL:
        return f"{cause}: what the program may do leaves traces; nothing transient took part"
    return f"{cause}: {FLAWS[cause]}"


def readable(data: bytes) -> str:
    """Bytes as text, what cannot be shown as dots."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)


def facts(shown: Demonstration) -> Iterator[tuple[str, str]]:
    """(title, text) of all there is to tell but the histogram."""
    attack = ATTACKS[shown.attack]
    owner = {"guest": "the program's own", "kernel": "the kernel's", "text": "where the kernel's text begins"}
    yield "cpu", f"{shown.cpu}, flaws: {', '.join(shown.flaws) or 'none'}"
    yield "mitigations", shown.mitigations
    noise = "" if shown.noise is None else f", noise {shown.noise}"
    yield "seed", f"{shown.seed}{noise}"
    text = "" if attack.secret == "text" else f"  {readable(shown.secret)!r}"
    yield "secret", f"{shown.secret.hex(' ')}{text}, {shown.size} bytes, {owner[attack.secret]}"
    yield "may read it", printable(shown.told.who) or "?"
    right = [
        byte.to_bytes(1, "big").hex() if sure else "--" for byte, sure in zip(shown.leaked, _sure(shown), strict=True)
    ]
    text = readable(shown.leaked) if shown.believed and text else ""
    yield "leaked", " ".join(right) + (f"  {text!r}" if text else "")
    yield "accuracy", f"{shown.accuracy:.0%}: {sum(shown.right)} of {shown.size} bytes, {shown.told.tries} attempts"
    yield "speed", _speed(shown)
    yield "cause", cause_words(shown.cause)
    for entry in chains(shown.fills):
        yield "", f"{' > '.join(entry['chain'])}: {entry['fills']} fills of lines that stand for the secret's bytes"


def _sure(shown: Demonstration) -> bytes:
    return shown.told.sure[: shown.size].ljust(shown.size, b"\0")


def _speed(shown: Demonstration) -> str:
    ran = f"{shown.instructions:,} instructions, {shown.windows:,} windows in {shown.seconds:.2f} s"
    if shown.cycles_per_byte is None:
        return ran
    return (
        f"{shown.bytes_per_second:.1f} bytes a second of host time, {shown.cycles_per_byte:,.0f} cycles a byte; {ran}"
    )


def buckets(shown: Demonstration, most: int = _BUCKETS) -> list[tuple[int, int, int]]:
    """The latencies in some ``most`` ranges that are not empty: (least, greatest, how many).

    The ranges have one width, and one begins at the threshold; what takes more than twice as long as a load from memory
    is in a last one.
    """
    told = shown.told
    far = 2 * told.flushed or max(told.histogram, default=0)
    near = {cycles: count for cycles, count in told.histogram.items() if cycles <= far}
    beyond = {cycles: count for cycles, count in told.histogram.items() if cycles > far}
    found = []
    if near:
        width = -(-(max(near) - min(near) + 1) // most)
        sums: dict[int, int] = {}
        for cycles, count in near.items():
            at = (cycles - told.threshold) // width
            sums[at] = sums.get(at, 0) + count
        for at in sorted(sums):
            least = told.threshold + width * at
            found.append((least, min(least + width - 1, far), sums[at]))
    return [*found, (min(beyond), max(beyond), sum(beyond.values()))] if beyond else found


def draw(shown: Demonstration, console: Console) -> None:
    """Print all of it."""
    title = ATTACKS[shown.attack].title
    console.print(Text.assemble((shown.attack, "bold"), f": {title}"), soft_wrap=True)
    for name, text in facts(shown):
        console.print(Text.assemble("  ", (f"{name:<{_TITLE}}", "cyan"), text), soft_wrap=True)
    _draw_histogram(shown, console)
    style = "bold green" if not shown.exit_code else "bold yellow"
    console.print(Text.assemble((shown.attack, "bold"), ": ", (verdict(shown), style)), soft_wrap=True)


def _draw_histogram(shown: Demonstration, console: Console) -> None:
    rows = buckets(shown)
    if not rows:
        return
    threshold = shown.told.threshold
    console.print(Text.assemble("  ", (f"{'latencies':<{_TITLE}}", "cyan"), _legend(threshold)), soft_wrap=True)
    most = log2(1 + max(count for _, _, count in rows))
    room = max(_NARROWEST, console.width - 34)
    for least, greatest, count in rows:
        hit = least < threshold
        bar = "█" * max(1, round(room * log2(1 + count) / most))
        span = f"{least}-{greatest}" if greatest > least else str(least)
        console.print(
            Text.assemble(f"    {span:>9} ", (bar, "green" if hit else "blue"), f" {count}", " hit" if hit else ""),
            soft_wrap=True,
        )


def _legend(threshold: int) -> str:
    return f"cycles of a reload (bars: logarithm of the count); a hit is quicker than {threshold}"


def listing() -> Iterator[str]:
    """The attacks there are, a line each."""
    for name, attack in ATTACKS.items():
        stopped = f"; stopped by {', '.join(attack.stopped_by)}" if attack.stopped_by else ""
        needs = f" (needs {' and '.join(attack.flaws)}{stopped})" if attack.flaws else ""
        yield f"{name:<20}{attack.title}{needs}"

"""The walk against the engine's own walker: the same tables and access, the same outcome in every respect.

Compared are whether an access is permitted, the physical address (by a marker read, written or executed there), the
vector and error code, CR2, RIP, and every accessed and dirty bit. A read followed by a write or a fetch on the same
page also compares the rights that a walk gives a TLB to keep.

``python -m tests.mmu.differential --cases 1000000 --seed 1`` runs as many as asked.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from random import Random
from typing import Any, NamedTuple

from mmuemu.mmu import state as state_module
from mmuemu.mmu import walk as walk_module
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import PS, A
from tests.mmu.cases import MAXPHYADDR, Case, make_case
from tests.mmu.layout import VARIANTS, Memory, Variant
from tests.mmu.oracle import CR2_UNTOUCHED, Oracle, Outcome, start

READ, WRITE, FETCH = range(3)
_ACCESSES = {
    "read": (READ,),
    "write": (WRITE,),
    "fetch": (FETCH,),
    "read, write": (READ, WRITE),
    "read, fetch": (READ, FETCH),
    "load segment": (READ,),
}
_STRAY_UPDATE = -(1 << 40)


class Answer(NamedTuple):
    """What the walk says: its last result, the number of the access that had it, and the page of the first one."""

    found: int
    step: int
    page: int


class Differential:
    """Compares a walk (``walk``: a module with ``page_walker``, ``state``: its module with ``PagingState``)."""

    def __init__(self, walk: Any = walk_module, state: Any = state_module, oracle: Oracle | None = None) -> None:
        self.oracle = oracle or Oracle(Memory())
        self.memory = self.oracle.memory
        self.outcomes: Counter[str] = Counter()
        self._page_walker = walk.page_walker
        self._state = state.PagingState
        self._non_canonical = walk.NON_CANONICAL
        self._walkers: dict[tuple[int, ...], Any] = {}
        self._marker = 0

    def check(self, case: Case) -> str | None:
        """None when both agree, else how they differ."""
        variant = VARIANTS[case.variant]
        words, shift = self.memory.words(variant)
        slots = [
            (table >> shift) + (case.linear >> level.shift & (1 << level.index_bits) - 1)
            for table, level in zip(variant.tables, variant.levels, strict=True)
        ]
        for slot, entry in zip(slots, case.entries, strict=True):
            words[slot] = entry
        answer = self._python(case, {slot << shift >> 3 for slot in slots})
        expected = [words[slot] for slot in slots]
        for slot, entry in zip(slots, case.entries, strict=True):
            words[slot] = entry
        self._marker = self._marker + 1 & 0xFF_FFFF
        written = self._marker | 0x5A00_0000
        try:
            cell = self._plant(case, answer)
        except KeyError:
            return f"the walk says physical {answer.page:#x}, where no entry points"
        actual = self.oracle.run(case, written)
        after = [words[slot] for slot in slots]
        for slot in slots:
            words[slot] = 0
        wanted = self._expect(case, answer)
        self.outcomes[_label(case, answer.found)] += 1
        if answer.found == _STRAY_UPDATE:
            return "the walk owes bits to an entry that it did not use"
        if wanted != actual:
            return f"the walk says {_show(wanted)}, the engine {_show(actual)}"
        if answer.found >= 0 and case.access.endswith("write") and cell[0][cell[1]] & 0xFFFF_FFFF != written:
            return "the write went elsewhere than the walk says"
        if answer.found < 0 and variant.long:
            _forgive_early_accessed_bit(variant, expected, after)
        if expected != after:
            return f"entries: the walk leaves {_hex(expected)}, the engine {_hex(after)}"
        return None

    def _walker(self, case: Case) -> Any:
        key = (case.cr0, case.cr4, case.efer, case.pkru)
        walker = self._walkers.get(key)
        if walker is None:
            if len(self._walkers) > 10_000:
                self._walkers.clear()
            state = self._state(0, case.cr0, case.cr4, case.efer, MAXPHYADDR, pkru=case.pkru)
            walker = self._walkers[key] = self._page_walker(self.memory.qwords, state)
        return walker

    def _python(self, case: Case, own: set[int]) -> Answer:
        """The walk's answer, its bits set; a right once given is kept, as a TLB does, and not walked for again."""
        walker = self._walker(case)
        implicit = case.access == "load segment"
        user = case.ring == 3 and not implicit
        ac = case.ac and case.ring == 0 and not implicit
        root = VARIANTS[case.variant].root | 0x18
        found, permissions, page, step = 0, 0, 0, 0
        for step, access in enumerate(_ACCESSES[case.access]):
            if permissions >> access & 1:
                continue
            updates: list[tuple[int, int]] = []
            found = walker(root, case.linear, access, user, ac, updates, None)
            for index, bits in updates:
                if index not in own:
                    return Answer(_STRAY_UPDATE, step, page)
                self.memory.qwords[index] |= bits
            if found < 0:
                break
            permissions, page = found & 7, found & ~0xFFF
        return Answer(found, step, page)

    def _plant(self, case: Case, answer: Answer) -> tuple[memoryview, int]:
        """Put something unmistakable at the physical address the walk names; where that is."""
        if not answer.page:
            return self.memory.qwords, 0
        cell = words, index = self.memory.cell(answer.page | case.linear & 0xFFF)
        if case.access.endswith("fetch"):
            code = b"\xb9" + (answer.page >> 12).to_bytes(4, "little") + b"\xcc\xcc\xcc"
            words[index] = int.from_bytes(code, "little")
        elif case.access == "load segment":
            words[index] = 0x00CF_F300_0000_FFFF | self._marker << 16
        else:
            words[index] = self._marker
        return cell

    def _expect(self, case: Case, answer: Answer) -> Outcome:
        """The outcome that the engine must have if the walk is right."""
        begin = start(case)
        fetches = case.access.endswith("fetch")
        value = 0 if case.access == "write" or not answer.page else self._marker
        if answer.found >= 0:
            if fetches:
                return Outcome(0, 0, CR2_UNTOUCHED, case.linear + 6, answer.page >> 12)
            return Outcome(0, 0, CR2_UNTOUCHED, begin + (5 if "," in case.access else 3), value)
        last = answer.step == len(_ACCESSES[case.access]) - 1
        rip = case.linear if fetches and last else begin + 2 * answer.step
        if fetches:
            value = 0
        if answer.found == self._non_canonical:
            return Outcome(Vector.GP, 0, CR2_UNTOUCHED, rip, value)
        return Outcome(Vector.PF, -1 - answer.found, case.linear, rip, value)


def _forgive_early_accessed_bit(variant: Variant, expected: list[int], after: list[int]) -> None:
    """The engine marks a 1 GiB entry accessed before it checks its rights; the SDM (4.8) only once it is used."""
    for number, level in enumerate(variant.levels):
        if level.shift == 30 and expected[number] & PS:
            expected[number] |= after[number] & A


def _label(case: Case, found: int) -> str:
    if found >= 0:
        return f"{case.variant}: permitted"
    return f"{case.variant}: " + ("not canonical" if found < -(1 << 16) else f"error code {-1 - found:#x}")


def _show(outcome: Outcome) -> str:
    what = f"vector {outcome.vector}, error code {outcome.error_code:#x}" if outcome.vector else "permitted"
    return f"{what} (CR2 {outcome.cr2:#x}, RIP {outcome.rip:#x}, value {outcome.value:#x})"


def _hex(entries: list[int]) -> str:
    return "[" + ", ".join(f"{entry:#x}" for entry in entries) + "]"


def run(cases: int, seed: int, *, most: int = 10, progress: Any = None) -> tuple[list[str], Differential]:
    """Check random cases; the mismatches (at most ``most``), each with what reproduces it, and the statistics."""
    random = Random(seed)
    differential = Differential()
    wrong: list[str] = []
    for number in range(cases):
        case = make_case(random)
        trouble = differential.check(case)
        if trouble is not None:
            wrong.append(f"case {number} of seed {seed}: {trouble}\n  --case '{case.describe()}'")
            if len(wrong) >= most:
                break
        if progress is not None and number & 0x3FF == 0:
            progress(number, len(wrong))
    return wrong, differential


def main() -> int:
    """The command line."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    parser = argparse.ArgumentParser(prog="python -m tests.mmu.differential", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000, help="how many (default: 20,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the random generator (default: 1)")
    parser.add_argument("--case", metavar="JSON", help="check this one case, as printed for a mismatch")
    parser.add_argument("--outcomes", action="store_true", help="count the outcomes of each mode")
    options = parser.parse_args()
    console = Console(stderr=True)
    started = time.perf_counter()
    if options.case:
        differential = Differential()
        trouble = differential.check(Case.parse(options.case))
        wrong, options.cases = ([trouble] if trouble else []), 1
    else:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[wrong]} wrong"))
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task("", total=options.cases, wrong=0)
            wrong, differential = run(
                options.cases, options.seed, progress=lambda done, bad: bar.update(task, completed=done, wrong=bad)
            )
            bar.update(task, completed=options.cases, wrong=len(wrong))
    for line in wrong:
        print(line)
    if options.outcomes:
        for label, count in sorted(differential.outcomes.items()):
            print(f"{count:9,}  {label}")
    took = time.perf_counter() - started
    checked = sum(differential.outcomes.values())
    print(f"{checked:,} cases in {took:.1f} s ({took / checked * 1e6:.0f} us each), {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

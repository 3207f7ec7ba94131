"""Is the proof a proof? The walk is broken on purpose, in one place at a time, and every break must be noticed.

A mutation is a change of the source of one module of ``mmuemu/mmu``; the room is then loaded again under another name
and put through a bounded run of the differential suite and the tables of the SDM's rules.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random

import pytest

import mmuemu.mmu
from tests.mmu.cases import make_case
from tests.mmu.differential import Differential
from tests.mmu.layout import Memory
from tests.mmu.oracle import Oracle
from tests.mmu.sdm import CHECKS

ROOM = Path(mmuemu.mmu.__file__).parent
CASES = 6_000
_numbers = count()
NEXT = "\n" + 16 * " "
"""From one statement of the loop over the levels to the next."""

MUTATIONS = {
    "U/S of the levels above the last is ignored": (
        "walk",
        f"allowed &= entry{NEXT}no_execute |= entry{NEXT}if entry & may",
        f"allowed &= entry | US{NEXT}no_execute |= entry{NEXT}if entry & may",
    ),
    "R/W of the last level is ignored": (
        "walk",
        f"allowed &= entry{NEXT}no_execute |= entry\n        except",
        f"allowed &= entry | RW{NEXT}no_execute |= entry\n        except",
    ),
    "XD of the levels above the last is ignored": (
        "walk",
        f"no_execute |= entry{NEXT}if entry & may",
        "if entry & may",
    ),
    "a clean page may be written without a walk": ("walk", "permissions &= 5", "permissions &= 7"),
    "a read sets the dirty bit": (
        "walk",
        "ACCESSED))\n            if not entry & DIRTY",
        "ACCESSED | DIRTY))\n            if not entry & DIRTY",
    ),
    "a write to an accessed page does not set D": ("walk", "entry & 0x60 != 0x60", "not entry & ACCESSED"),
    "a write sets D but not A": ("walk", "updates.append((index, ACCESSED | DIRTY))", "updates.append((index, DIRTY))"),
    "the accessed bit of a table entry is not set": (
        "walk",
        f"updates.append((index, ACCESSED)){NEXT}table",
        f"pass{NEXT}table",
    ),
    "the accessed bit of a PDPTE is not set": (
        "walk",
        f"ACCESSED:{NEXT}    updates",
        f"ACCESSED and shift != 30:{NEXT}    updates",
    ),
    "a table entry is marked accessed only when it is a page": (
        "walk",
        f"user, 9){NEXT}if not entry & ACCESSED",
        f"user, 9){NEXT}if entry & may_be_large",
    ),
    "reserved bits count in an absent entry": (
        "walk",
        f"return fault(access, user, 0){NEXT}if entry & leaf_reserved",
        f"return fault(access, user, 9 if entry & leaf_reserved else 0){NEXT}if entry & leaf_reserved",
    ),
    "a reserved bit is reported without P": (
        "walk",
        f"leaf_reserved:{NEXT}    return fault(access, user, 9)",
        f"leaf_reserved:{NEXT}    return fault(access, user, 8)",
    ),
    "I/D is always set for a fetch": ("walk", "access == 2 and reports_fetch", "access == 2"),
    "I/D needs NXE": ("walk", "reports_fetch = state.smep or state.no_execute", "reports_fetch = state.no_execute"),
    "W is missing from the error code": ("walk", "base |= 2", "base |= 0"),
    "the PK bit is missing": ("walk", "return fault(access, user, 33)", "return fault(access, user, 1)"),
    "protection keys forbid fetches": (
        "rules",
        "denied.append(READABLE | WRITABLE)",
        "denied.append(READABLE | WRITABLE | EXECUTABLE)",
    ),
    "a key's bits are found one place too low": ("x86.paging", "KEY_SHIFT: Final = 59", "KEY_SHIFT: Final = 58"),
    "write-disable ignores CR0.WP": ("rules", " and (user or state.write_protect)", ""),
    "write-disable does not bind user code while WP is clear": (
        "rules",
        "(user or state.write_protect)",
        "state.write_protect",
    ),
    "PKRU rules supervisor pages too": (
        "rules",
        "register = state.pkru if user_page else state.pkrs",
        "register = state.pkru",
    ),
    "keys work without CR4.PKE": ("state", "return bool(self.cr4 & CR4_PKE) and", "return"),
    "keys work outside long mode": (
        "state",
        "return bool(self.cr4 & CR4_PKE) and self.mode.has_keys",
        "return bool(self.cr4 & CR4_PKE)",
    ),
    "keys for supervisor pages work without CR4.PKS": ("state", "return bool(self.cr4 & CR4_PKS) and", "return"),
    "CR0.WP is inverted": ("state", "return bool(self.cr0 & CR0_WP)", "return not self.cr0 & CR0_WP"),
    "SMAP ignores EFLAGS.AC": ("rules", "and state.smap and not ac:", "and state.smap:"),
    "SMAP binds supervisor pages too": (
        "rules",
        "if not user and user_page and state.smap",
        "if not user and state.smap",
    ),
    "SMAP forbids fetches": ("rules", "if executable and not (not user", "if executable and rights and not (not user"),
    "SMEP is not looked at": ("rules", "user_page and state.smep", "user_page and False"),
    "SMEP binds user code": ("rules", "not (not user and user_page and state.smep)", "not (user_page and state.smep)"),
    "XD is not reserved without NXE": ("rules", "(0 if state.no_execute else NX)", "0"),
    "XD is always reserved in PAE paging": ("state", "and self.mode.entry_bytes == 8", "and self.mode.canonical"),
    "the lowest reserved bit of a 2 MiB page is not checked": (
        "rules",
        "below = level.size - 1 & ~0x1FFF",
        "below = level.size - 1 & ~0x3FFF",
    ),
    "the PAT bit of a large page is reserved": (
        "rules",
        "below = level.size - 1 & ~0x1FFF",
        "below = level.size - 1 & ~0xFFF",
    ),
    "a PML4E may map a page": (
        "modes",
        '_PML4E: Final = Level("PML4E", 39, reserved=_BIT_7)',
        '_PML4E: Final = Level("PML4E", 39)',
    ),
    "the first reserved address bit is not checked": (
        "rules",
        "~((1 << state.maxphyaddr) - 1)\n    return above",
        "~((1 << state.maxphyaddr + 1) - 1)\n    return above",
    ),
    "bits 62:52 are not reserved in PAE paging": ("modes", "entry_reserved=_BITS_62_52", "entry_reserved=0"),
    "PDPTEs of PAE paging have no reserved bits": (
        "modes",
        "has_rights=False, reserved=_PAE_PDPTE_RESERVED",
        "has_rights=False",
    ),
    "PDPTEs of PAE paging lie on page boundaries": ("modes", "root_mask=_BITS_31_5", "root_mask=_BITS_31_12"),
    "4 MiB pages do not need CR4.PSE": ("rules", "return state.page_size_extensions", "return True"),
    "PSE-36 forgets the high part of the address": ("walk", "(entry & high_part) << 19", "0"),
    "PSE-36 takes one bit too few": ("rules", "min(40, state.maxphyaddr) if", "min(39, state.maxphyaddr) if"),
    "A and D of odd 4-byte entries go to the even ones": ("walk", "bits << 32 * (index & 1)", "bits"),
    "the canonical check is off by one": (
        "walk",
        "(mode.linear_bits - 1, (1 << 65 - mode.linear_bits) - 1)",
        "(mode.linear_bits, (1 << 64 - mode.linear_bits) - 1)",
    ),
    "5-level addresses are checked as 4-level ones": ("modes", "linear_bits=57", "linear_bits=48"),
    "the offset in a large page loses its upper bits": ("walk", "linear & inside & ~PAGE_MASK", "0"),
    "1 GiB pages need no CPU that has them": ("rules", "return state.page_1g or level.size != SIZE_1G", "return True"),
    "LASS lets the supervisor fetch from the lower half": (
        "rules",
        "(fetch or (state.smap and not ac))",
        "(state.smap and not ac)",
    ),
    "LASS looks at supervisor data without SMAP": ("rules", "(fetch or (state.smap and not ac))", "(fetch or not ac)"),
    "LASS is not looked at": (
        "walk",
        "_with_separation(walker, state) if state.address_space_separation else walker",
        "walker",
    ),
}
"""What is broken: (module, source, what it becomes)."""


def load(module: str, old: str, new: str) -> tuple[types.ModuleType, types.ModuleType]:
    """The walk and state modules of a second copy of the room, with one change."""
    alias = f"mutant{next(_numbers)}"
    for name in ("x86.paging", "modes", "state", "rules", "reasons", "walk"):
        path = ROOM.parent / f"{name.replace('.', '/')}.py" if "." in name else ROOM / f"{name}.py"
        source = path.read_text()
        if name == module:
            assert source.count(old) == 1, f"the mutation's place in {path.name} is gone or not the only one"
            source = source.replace(old, new)
        source = source.replace("mmuemu.mmu.", f"{alias}_").replace("mmuemu.x86.paging", f"{alias}_x86_paging")
        made = types.ModuleType(f"{alias}_{name.replace('.', '_')}")
        sys.modules[made.__name__] = made
        exec(compile(source, str(path), "exec"), made.__dict__)
    return sys.modules[f"{alias}_walk"], sys.modules[f"{alias}_state"]


def complaints(walk: types.ModuleType, state: types.ModuleType, oracle: Oracle) -> Iterator[str]:
    """What the suites say of a walk."""
    differential = Differential(walk, state, oracle)
    random = Random(15)
    for _ in range(CASES):
        trouble = differential.check(make_case(random))
        if trouble is not None:
            yield f"differential: {trouble}"
    for name, check in CHECKS.items():
        for trouble in check(walk, state):
            yield f"{name}: {trouble}"


@pytest.fixture(scope="module")
def oracle():
    return Oracle(Memory())


def test_the_walk_as_it_is_passes(oracle):
    assert list(complaints(*load("none of them", "", ""), oracle)) == []


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_walk_is_noticed(oracle, name):
    walk, state = load(*MUTATIONS[name])
    assert next(complaints(walk, state, oracle), None) is not None

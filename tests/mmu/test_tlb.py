"""The TLB model: the manual's rules one by one, and a state machine against what the manual allows at each moment."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from mmuemu.mmu.cached import CachedTranslator
from mmuemu.mmu.state import Access
from mmuemu.mmu.tlb import GLOBAL, CachedTranslation, Tlb
from mmuemu.x86.paging import NX, PS, RW, SIZE_1G, SIZE_2M, US, A, D, G, P
from mmuemu.x86.registers import CR4_PAE, CR4_PCIDE, CR4_PGE, CR4_PKE, CR4_PSE, CR4_SMAP, CR4_SMEP

CR0 = 0x8001_0033
WP = 1 << 16
CR4 = CR4_PAE | CR4_PGE | CR4_PCIDE
EFER = 0xD01
NO_FLUSH = 1 << 63
READ, WRITE, FETCH = Access.READ, Access.WRITE, Access.FETCH


def entry(tag, linear, size=4096, physical=0x10_0000):
    return CachedTranslation(tag, linear, size, physical, RW | US)


CACHED = {
    "1 page": entry(1, 0x5000),
    "1 other page": entry(1, 0x6000),
    "1 large": entry(1, 0x4000_0000, SIZE_2M, 0x20_0000),
    "1 huge": entry(1, 0x8000_0000, SIZE_1G, 0x4000_0000),
    "2 page": entry(2, 0x5000),
    "0 page": entry(0, 0x5000),
    "global page": entry(GLOBAL, 0x5000),
    "global other": entry(GLOBAL, 0x7000),
}
ALL = frozenset(CACHED)


def having(*words):
    return {name for name in CACHED if any(name.startswith(word) for word in words)}


# What is done, what must be gone (and no more goes), the cause it counts under; SDM volume 3, section 4.10.4.1.
RULES = [
    ("mov cr3 drops its PCID", lambda t: t.mov_cr3(0x1001, pcide=True), having("1"), "mov cr3"),
    (
        "mov cr3 with bit 63 drops nothing",
        lambda t: t.mov_cr3(0x1001 | NO_FLUSH, pcide=True),
        set(),
        "mov cr3 no-flush",
    ),
    ("without PCIDs it is PCID 0", lambda t: t.mov_cr3(0x1001, pcide=False), having("0"), "mov cr3"),
    ("invlpg: this PCID and global", lambda t: t.invlpg(0x5678, 1), {"1 page", "global page"}, "invlpg"),
    ("invlpg of a 2 MiB page", lambda t: t.invlpg(0x401F_FFFF, 1), {"1 large"}, "invlpg"),
    ("invlpg of a 1 GiB page", lambda t: t.invlpg(0xBFFF_FFFF, 1), {"1 huge"}, "invlpg"),
    ("invlpg beyond it", lambda t: t.invlpg(0xC000_0000, 1), set(), "invlpg"),
    ("invpcid 0 spares global", lambda t: t.invpcid(0, 1, 0x5FFF), {"1 page"}, "invpcid 0"),
    ("invpcid 0 of another PCID", lambda t: t.invpcid(0, 2, 0x5000), {"2 page"}, "invpcid 0"),
    ("invpcid 1", lambda t: t.invpcid(1, 1, 0), having("1"), "invpcid 1"),
    ("invpcid 2", lambda t: t.invpcid(2, 0, 0), ALL, "invpcid 2"),
    ("invpcid 3", lambda t: t.invpcid(3, 0, 0), having("0", "1", "2"), "invpcid 3"),
    ("PGE on", lambda t: t.mov_cr4(CR4_PAE, CR4_PAE | CR4_PGE, 0), ALL, "cr4.pge"),
    ("PGE off", lambda t: t.mov_cr4(CR4, CR4 & ~CR4_PGE, 1), ALL, "cr4.pge"),
    ("PSE", lambda t: t.mov_cr4(CR4, CR4 | CR4_PSE, 1), ALL, "cr4.pse"),
    ("PAE", lambda t: t.mov_cr4(CR4, CR4 & ~CR4_PAE, 1), ALL, "cr4.pae"),
    ("PCIDE off", lambda t: t.mov_cr4(CR4, CR4 & ~CR4_PCIDE, 1), ALL, "cr4.pcide"),
    ("PCIDE on", lambda t: t.mov_cr4(CR4 & ~CR4_PCIDE, CR4, 0), set(), None),
    ("SMEP on", lambda t: t.mov_cr4(CR4, CR4 | CR4_SMEP, 1), having("1", "global"), "cr4.smep"),
    ("SMEP off", lambda t: t.mov_cr4(CR4 | CR4_SMEP, CR4, 1), set(), None),
    ("SMAP", lambda t: t.mov_cr4(CR4, CR4 | CR4_SMAP | CR4_PKE, 1), set(), None),
    ("PG off", lambda t: t.mov_cr0(CR0, CR0 & ~(1 << 31)), ALL, "cr0.pg"),
    ("WP", lambda t: t.mov_cr0(CR0, CR0 & ~WP), set(), None),
    ("page fault", lambda t: t.page_fault(0x5ABC, 1), {"1 page", "global page"}, "page fault"),
    ("page fault elsewhere", lambda t: t.page_fault(0x9000, 1), set(), None),
]


@pytest.mark.parametrize(("act", "gone", "cause"), [r[1:] for r in RULES], ids=[r[0] for r in RULES])
def test_an_invalidation_drops_what_the_manual_names(act, gone, cause):
    tlb = Tlb()
    for cached in CACHED.values():
        tlb.insert(cached)
    act(tlb)
    left = tlb.entries()
    assert {name for name, cached in CACHED.items() if cached not in left} == gone
    assert tlb.flushes == ({} if cause is None else {cause: 1})


def test_the_oldest_goes_when_there_is_no_room():
    tlb = Tlb(capacity=3)
    for page in (0x1000, 0x2000, 0x3000):
        tlb.insert(entry(0, page))
    tlb.insert(entry(0, 0x1000, physical=0x9000))
    tlb.insert(entry(0, 0x4000))
    assert [cached.linear for cached in tlb.entries()] == [0x3000, 0x1000, 0x4000]
    assert tlb.lookup(0, 0x1FFF).physical == 0x9000
    assert tlb.evictions == 1
    assert len(tlb) == 3


def test_a_pcids_own_translation_comes_before_a_global_one_and_small_pages_before_large():
    tlb = Tlb()
    for cached in (entry(GLOBAL, 0, SIZE_2M), entry(1, 0, SIZE_1G), entry(1, 0x5000)):
        tlb.insert(cached)
    assert tlb.lookup(1, 0x5000).size == 4096
    assert tlb.lookup(1, 0x6000).size == SIZE_1G
    assert tlb.lookup(2, 0x6000).tag == GLOBAL
    assert tlb.lookup(2, SIZE_2M) is None


# -- through a walk --------------------------------------------------------------------------------------------

TABLE = 512
ROOTS = (1, 5)
"""The first of four tables of an address space: PML4, PDPT, PD, PT. Its number of the PT page is root + 3."""


class World:
    """Two address spaces in one small RAM whose last level is edited by hand, and a TLB."""

    def __init__(self, capacity=None, on_stale=None):
        self.qwords = memoryview(bytearray(4096 * 16)).cast("Q")
        for root in ROOTS:
            for level in range(3):
                self.qwords[(root + level) * TABLE] = (root + level + 1) << 12 | P | RW | US | A
        self.translator = CachedTranslator(self.qwords, Tlb(capacity), on_stale)
        self.cr0, self.cr4, self.efer, self.pkru = CR0, CR4, EFER, 0
        self.cr3 = ROOTS[0] << 12

    @property
    def tlb(self):
        return self.translator.tlb

    def slot(self, page, root=None):
        return ((self.cr3 & ~0xFFF) // 4096 + 3 if root is None else root + 3) * TABLE + page

    def put(self, page, value, root=None):
        self.qwords[self.slot(page, root)] = value

    def get(self, page, root=None):
        return self.qwords[self.slot(page, root)]

    def access(self, page, access=READ, *, user=True, ac=False):
        """The physical page, or minus the error code less one."""
        updates = []
        rules = self.translator.rules((self.cr0, self.cr4, self.efer, self.pkru, 0))
        found = self.translator.translate(rules, self.cr3, page << 12, access, user, ac, updates)
        for index, bits in updates:
            self.qwords[index] |= bits
        return found if found < 0 else found & ~0xFFF


def test_a_translation_lives_until_invlpg():
    world = World()
    world.put(1, 0xA000 | P | US)
    assert world.access(1) == 0xA000
    world.put(1, 0xB000 | P | US)
    assert world.access(1) == 0xA000
    world.tlb.invlpg(0x1000, 0)
    assert world.access(1) == 0xB000
    assert (world.tlb.hits, world.tlb.misses) == (1, 2)


def test_what_is_not_present_is_not_cached():
    world = World()
    assert world.access(1) == -1 - 4
    world.put(1, 0xA000 | P | US)
    assert world.access(1) == 0xA000


def test_a_first_write_walks_and_sets_d():
    world = World()
    world.put(1, 0xA000 | P | US | RW)
    assert world.access(1) == 0xA000
    world.put(1, 0xB000 | P | US | RW)
    assert world.access(1) == 0xA000
    assert world.access(1, WRITE) == 0xB000
    assert world.get(1) & D
    world.put(1, 0xA000 | P | US | RW)
    assert world.access(1, WRITE) == 0xB000, "D is cached: no walk, and D stays clear in memory"
    assert not world.get(1) & D


def test_a_write_that_walks_and_is_refused_drops_the_translation():
    world = World()
    world.put(1, 0xA000 | P | US | RW)
    world.access(1)
    world.put(1, 0xB000 | P | US)
    assert world.access(1, WRITE) == -1 - 7
    assert world.access(1) == 0xB000


def test_a_write_that_walks_leaves_one_translation():
    world = World()
    world.put(1, 0xA000 | P | US | RW)
    world.access(1)
    world.put(1, 0xB000 | P | US | RW | G)
    assert world.access(1, WRITE) == 0xB000
    assert world.access(1) == 0xB000, "the one cached under the PCID has given way to the global one"
    assert len(world.tlb) == 1


def test_without_pcide_the_low_bits_of_cr3_are_no_pcid():
    world = World()
    world.cr4 &= ~CR4_PCIDE
    world.put(1, 0xA000 | P | US)
    world.access(1)
    world.put(1, 0)
    world.cr3 |= 0x18
    assert world.access(1) == 0xA000


def test_a_spurious_fault_comes_once():
    world = World()
    world.put(1, 0xA000 | P | US)
    world.access(1)
    world.put(1, 0xA000 | P | US | RW)
    assert world.access(1, WRITE) == -1 - 7
    assert world.access(1, WRITE) == 0xA000
    assert world.tlb.flushes == {"page fault": 1}


def test_rights_are_judged_at_each_use():
    world = World()
    world.put(1, 0xA000 | P | US | D | NX | 3 << 59)
    world.put(2, 0xB000 | P | RW | D)
    assert world.access(1) == 0xA000
    assert world.access(2, user=False) == 0xB000
    assert world.access(2, FETCH, user=False) == 0xB000
    world.put(1, 0)
    world.put(2, 0)
    world.cr0 &= ~WP
    assert world.access(1, WRITE, user=False) == 0xA000, "WP = 0"
    world.cr4 |= CR4_SMAP
    assert world.access(1, READ, user=False, ac=True) == 0xA000
    hits = world.tlb.hits
    assert world.access(2, READ, user=True) == -1 - 5, "U/S"
    assert world.access(1, READ, user=False) == -1 - 1, "SMAP"
    assert world.tlb.hits == hits + 2


@pytest.mark.parametrize(
    ("change", "access", "error"),
    [
        ({"pkru": 1 << 6}, READ, 0x25),
        ({"pkru": 2 << 6}, READ, None),
        ({"pkru": 2 << 6}, WRITE, 0x27),
        ({"pkru": 3 << 4}, WRITE, None),
        ({"pkru": 3 << 6, "cr4": CR4}, WRITE, None),
        ({}, FETCH, 0x15),
        ({"efer": EFER & ~0x800}, FETCH, None),
    ],
)
def test_keys_and_nxe_are_judged_at_each_use(change, access, error):
    world = World()
    world.cr4 |= CR4_PKE
    world.put(1, 0xA000 | P | US | RW | D | NX | 3 << 59)
    world.access(1)
    world.put(1, 0)
    for name, value in change.items():
        setattr(world, name, value)
    assert world.access(1, access) == (0xA000 if error is None else -1 - error)
    assert world.tlb.hits == 1


def test_pcids_and_global_pages():
    world = World()
    for root, physical in zip(ROOTS, (0xA000, 0xB000), strict=True):
        world.put(1, physical | P | US, root)
        world.put(2, physical | P | US | G, root)
    assert (world.access(1), world.access(2)) == (0xA000, 0xA000)
    world.cr3 = ROOTS[1] << 12 | 1
    assert (world.access(1), world.access(2)) == (0xB000, 0xA000), "one PCID each, the global page shared"
    world.put(1, 0, ROOTS[0])
    world.cr3 = ROOTS[0] << 12
    assert world.access(1) == 0xA000
    world.cr4 &= ~CR4_PGE
    world.tlb.mov_cr4(world.cr4 | CR4_PGE, world.cr4, 0)
    world.cr3 = ROOTS[1] << 12 | 1
    assert world.access(2) == 0xB000
    assert world.tlb.lookup(1, 0x2000).tag == 1, "with PGE = 0 the G bit means nothing"


@pytest.mark.parametrize("size", [SIZE_2M, SIZE_1G])
def test_a_large_page_is_one_translation(size):
    world = World()
    world.qwords[3 * TABLE if size == SIZE_2M else 2 * TABLE] = 0x4000_0000 | P | US | PS | A
    assert world.access(7) == 0x4000_7000
    assert world.access(300) == 0x4000_0000 + 300 * 4096
    assert (world.tlb.hits, world.tlb.misses, len(world.tlb)) == (1, 1, 1)
    assert world.tlb.entries()[0] == CachedTranslation(0, 0, size, 0x4000_0000, US)


def test_32_bit_paging_goes_through_the_tlb_too():
    world = World()
    words = world.qwords.cast("B").cast("I")
    words[1024] = 0x2000 | P | US | RW
    words[2048 + 5] = 0x9000 | P | US | RW
    world.cr4, world.efer, world.cr3 = CR4_PGE | CR4_PSE, 0, 0x1000
    assert world.access(5, WRITE) == 0x9000
    words[2048 + 5] = 0
    assert world.access(5 | 1 << 20) == 0x9000, "bits 32 and up of a linear address do not exist"


def test_without_paging_nothing_is_cached():
    world = World()
    world.cr0 &= ~(1 << 31)
    assert world.access(5) == 0x5000
    assert len(world.tlb) == world.tlb.misses == 0


def test_an_address_that_is_not_canonical_is_no_miss():
    world = World()
    assert world.access(1 << 50) == -(1 << 32)
    assert world.tlb.misses == 0


# -- strict ------------------------------------------------------------------------------------------------------

FIRST = 0xA000 | P | US | RW | A | D
CHANGES = [
    ("unmapped", 0, True),
    ("another frame", FIRST ^ 0x1000, True),
    ("less rights", FIRST & ~RW, True),
    ("supervisor now", FIRST & ~US, True),
    ("no execution", FIRST | NX, True),
    ("another key with other rights", FIRST | 1 << 59, True),
    ("another key with the same rights", FIRST | 2 << 59, False),
    ("A and D clear", FIRST & ~(A | D), False),
    ("software bits", FIRST | 0xE00, False),
    ("global now", FIRST | G, False),
    ("the same", FIRST, False),
]


@pytest.mark.parametrize(("now", "reported"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_strict_reports_a_stale_use(now, reported):
    seen = []
    world = World(on_stale=seen.append)
    world.cr4 |= CR4_PKE
    world.pkru = 2 << 2
    world.put(1, FIRST)
    world.access(1)
    assert seen == []
    world.put(1, now)
    assert world.access(1) == 0xA000
    assert len(seen) == reported
    if reported:
        assert (seen[0].linear, seen[0].access, seen[0].cached.physical) == (0x1000, READ, 0xA000)
        assert (seen[0].memory is None) == (not now)
    world.tlb.invlpg(0x1000, 0)
    world.access(1)
    assert len(seen) == reported


def test_strict_reports_a_right_that_is_not_there_yet():
    seen = []
    world = World(on_stale=seen.append)
    world.put(1, FIRST & ~RW)
    world.access(1)
    world.put(1, FIRST)
    assert world.access(1, WRITE) == -1 - 7
    assert str(seen[0]) == (
        "stale TLB entry used by a user write at 0x1000: cached as 0xa000 r-xu, is 0xa000 rwxu in the tables"
    )


def test_a_split_large_page_is_not_stale():
    seen = []
    world = World(on_stale=seen.append)
    world.qwords[3 * TABLE] = 0x4000_0000 | P | US | PS | A
    world.access(7)
    world.qwords[3 * TABLE] = 4 << 12 | P | US | RW
    world.put(7, 0x4000_7000 | P | US)
    world.put(8, 0x4000_7000 | P | US)
    assert world.access(7) == 0x4000_7000
    assert seen == []
    assert world.access(8) == 0x4000_8000
    assert len(seen) == 1


# -- what the manual allows, at every moment ---------------------------------------------------------------------

PAGES = range(3)
VALUES = st.builds(
    lambda frame, bits: (frame << 12 | bits) if bits & P else 0,
    st.integers(0x10, 0x14),
    st.sampled_from([0, P | US | RW, P | US | RW, P | US, P | RW, P | US | RW | G, P | US | RW | G | D, P | RW | G]),
)


def outcome(value, access, user):
    """What an access gives by one last-level entry, rules written anew: frame, or minus the error code less one."""
    code = (2 if access is WRITE else 0) | (4 if user else 0)
    if not value & P:
        return -1 - code
    if (user and not value & US) or (access is WRITE and not value & RW):
        return -1 - (code | 1)
    return value & 0xF_F000


class AllowedTranslations(RuleBasedStateMachine):
    """For each PCID and page, every entry seen in memory since the last invalidation may be in use, no other."""

    capacity = 2

    @initialize()
    def begin(self):
        self.world = World(self.capacity)
        self.context = 0
        self.local = {}
        self.everywhere = {}
        self.note()

    def note(self):
        """What memory says now may be cached for the current PCID from now on."""
        for page in PAGES:
            value = self.world.get(page)
            self.local.setdefault((self.context, page), set()).add(value)
            if value & G and self.world.cr4 & CR4_PGE:
                self.everywhere.setdefault(page, set()).add(value)

    def forget(self, contexts, pages=PAGES, everywhere=False):
        for page in pages:
            for context in contexts:
                # Without PGE there is nothing global; with it, entries with G set are tagged so.
                self.local.pop((context, page), None)
            if everywhere:
                self.everywhere.pop(page, None)
        self.note()

    @rule(page=st.sampled_from(PAGES), value=VALUES, space=st.sampled_from((0, 1)))
    def edit(self, page, value, space):
        self.world.put(page, value, ROOTS[space])
        self.note()

    @rule(page=st.sampled_from(PAGES), access=st.sampled_from((READ, WRITE)), user=st.booleans())
    def touch(self, page, access, user):
        allowed = self.local[self.context, page] | self.everywhere.get(page, set())
        found = self.world.access(page, access, user=user)
        assert found in {outcome(value, access, user) for value in allowed}
        self.judge(page, access, user, found)
        if found < 0:
            self.forget([self.context], [page], everywhere=True)
        else:
            self.note()

    def judge(self, page, access, user, found):
        """More to say of an access, in a subclass."""

    @rule(space=st.sampled_from((0, 1)), keep=st.booleans())
    def mov_cr3(self, space, keep):
        value = ROOTS[space] << 12 | (space if self.world.cr4 & CR4_PCIDE else 0)
        pcide = bool(self.world.cr4 & CR4_PCIDE)
        self.world.tlb.mov_cr3(value | (NO_FLUSH if keep and pcide else 0), pcide=pcide)
        self.world.cr3 = value
        self.context = space if pcide else 0
        self.forget([] if keep and pcide else [self.context])

    @rule(page=st.sampled_from(PAGES))
    def invlpg(self, page):
        self.world.tlb.invlpg(page << 12, self.context)
        self.forget([self.context], [page], everywhere=True)

    @rule(kind=st.sampled_from(range(4)), pcid=st.sampled_from((0, 1)), page=st.sampled_from(PAGES))
    def invpcid(self, kind, pcid, page):
        self.world.tlb.invpcid(kind, pcid, page << 12)
        contexts = [pcid] if kind < 2 else [0, 1]
        self.forget(contexts, [page] if kind == 0 else PAGES, everywhere=kind == 2)

    @rule()
    def toggle_pge(self):
        old = self.world.cr4
        self.world.tlb.mov_cr4(old, old ^ CR4_PGE, self.context)
        self.world.cr4 = old ^ CR4_PGE
        self.forget([0, 1], everywhere=True)

    @rule()
    def toggle_pcide(self):
        old = self.world.cr4
        if not old & CR4_PCIDE and self.world.cr3 & 0xFFF:
            return
        self.world.tlb.mov_cr4(old, old ^ CR4_PCIDE, self.context)
        self.world.cr4 = old ^ CR4_PCIDE
        if old & CR4_PCIDE:
            self.context = 0
            self.world.cr3 &= ~0xFFF
            self.forget([0, 1], everywhere=True)


class StaleTranslations(AllowedTranslations):
    """With room for all, a page that was read keeps its frame until something invalidates it."""

    capacity = None

    @initialize()
    def begin(self):
        self.kept = {}
        super().begin()

    def judge(self, page, access, user, found):
        where = self.context, page
        if access is READ and found >= 0 and where in self.kept:
            assert found == self.kept[where]
        if access is READ and found >= 0:
            self.kept.setdefault(where, found)
        else:
            for context in (0, 1):
                self.kept.pop((context, page), None)

    def forget(self, contexts, pages=PAGES, everywhere=False):
        for page in pages:
            for context in (0, 1) if everywhere else contexts:
                self.kept.pop((context, page), None)
        super().forget(contexts, pages, everywhere)


TestAllowedTranslations = AllowedTranslations.TestCase
TestStaleTranslations = StaleTranslations.TestCase
for _machine in (TestAllowedTranslations, TestStaleTranslations):
    _machine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None, derandomize=True)
del _machine

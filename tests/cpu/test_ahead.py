"""What comes into the engine's TLB with a page: the pages behind it that are like it, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from mmuemu.cpu.ahead import GROUP, USER_MODE
from mmuemu.cpu.structures import StructureCache
from mmuemu.machine import Machine
from mmuemu.sources import assemble
from mmuemu.x86.paging import PAGE_SIZE, SIZE_2M
from tests.soak.checks import TlbShadow, engine_tlb

AT = 0x7E00_0000_0000
END = AT + 8 * SIZE_2M
GROUPS = {AT + page * PAGE_SIZE for page in range(1500 - 1500 % -GROUP)}
"""Those that hold 1,500 pages."""
FAR = 1 << 32
"""As far as this, two pages have the same place in a TLB of any size."""
TOUCHES = f"""
.globl _start
_start: mov eax, 9
    mov rdi, {AT:#x}
    mov rsi, {FAR + 8 * SIZE_2M:#x}
    mov edx, 3
    mov r10d, 0x4032
    mov r8, -1
    xor r9d, r9d
    syscall
    mov rdi, rax
    mov rbx, {{first}}
    mov byte ptr [rdi + rbx], 1
    mov rbx, {{far}}
    add rdi, {{start}}
    mov ecx, 1500
more: mov byte ptr [rdi], 1
    mov byte ptr [rdi + rbx], 2
    cmp byte ptr [rdi], dl
    add rdi, {{step}}
    dec ecx
    jnz more
    mov eax, 39
    syscall
    mov eax, 231
    xor edi, edi
    syscall
"""


@dataclass
class Seen:
    """What was found when 1,500 pages had been stored to, one each ``step`` bytes."""

    missed: list[int] = field(default_factory=list)
    cached: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    filled: list[int] = field(default_factory=list)
    entries: int = 0
    streams: int = 0


class _Fills(TlbShadow):
    """Notes what it is told besides."""

    def __init__(self, kernel: Any) -> None:
        self.told: list[int] = []
        super().__init__(kernel)

    def filled(self, page: int, access: int, frame: int, permissions: int, ring: int) -> None:
        self.told.append(page)
        super().filled(page, access, frame, permissions, ring)


def _touched(step: int, *, first: int = 0, far: int = 0, watched: bool = False, **options: Any) -> Seen:
    seen, look_up = Seen(), StructureCache.look_up
    with Machine(memory="64M", mmu="python", seed=1, **options) as machine, pytest.MonkeyPatch.context() as patch:
        start = 0 if step > 0 else -1499 * step
        machine.load(assemble(TOUCHES.format(step=step, start=start, first=first, far=far), "touches"))
        engine = machine.kernel.cpu.engine
        shadow = _Fills(machine.kernel) if watched else None

        def counted(cache: StructureCache, root: int, page: int, *rest: Any) -> int:
            if AT <= page < END:
                seen.missed.append(page)
            return look_up(cache, root, page, *rest)

        @machine.on_syscall("getpid")
        def look(_call: object) -> None:
            if shadow is not None:
                shadow.check()
                seen.filled = [page for page in shadow.told if AT <= page < END]
            seen.streams = len(engine.ahead._next)
            seen.entries = engine.size.entries[USER_MODE]
            seen.cached = {page: held for page, held in engine_tlb(engine).items() if AT <= page < END}

        patch.setattr(StructureCache, "look_up", counted)
        assert machine.run().exit_code == 0
    return seen


def test_pages_come_in_by_groups() -> None:
    seen = _touched(PAGE_SIZE)
    assert len(seen.missed) <= 1500 // GROUP + 2 * 3 + 5, "one for a group, two for a block, five flushes to grow"
    assert set(seen.cached) <= GROUPS
    assert seen.entries == 1024, "it grows by what is used"
    assert seen.streams < 1500 // GROUP, "one is known by where it has got to"


@pytest.mark.parametrize(("first", "far"), [(SIZE_2M, 0), (2 * SIZE_2M + 9, 0), (0, FAR), (FAR, FAR)])
def test_the_page_before_may_be_elsewhere(first: int, far: int) -> None:
    """In another block, or gone from the TLB for a page that has its place."""
    assert len(_touched(PAGE_SIZE, first=first, far=far, watched=True).cached) > 500


def test_whoever_watches_is_told_of_each() -> None:
    seen, watched = _touched(PAGE_SIZE), _touched(PAGE_SIZE, watched=True)
    assert watched.cached.keys() == seen.cached.keys()
    assert watched.missed == seen.missed
    assert set(watched.filled) == GROUPS
    assert len(watched.filled) > len(seen.missed) * 20


@pytest.mark.parametrize("step", [2 * PAGE_SIZE, -PAGE_SIZE])
def test_alone_comes_what_no_stream_reaches(step: int) -> None:
    seen = _touched(step)
    assert len(set(seen.missed)) == 1500


def test_pages_of_their_own_frames_come_alone() -> None:
    seen = _touched(PAGE_SIZE, thp="never")
    assert len(set(seen.missed)) == 1500

"""Frames: reference counts against a model, order, zeroing, and giving back to the host."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmuemu.errors import OutOfFrames
from mmuemu.memory.frames import FrameAllocator
from mmuemu.memory.ram import GuestRam

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives pages back")


def make(frames: int, start: int = 0x1000) -> FrameAllocator:
    ram = GuestRam(start + (frames << 12))
    return FrameAllocator(ram, start, ram.size)


def test_fresh_frames_are_sequential_zero_and_counted() -> None:
    frames = make(8)
    assert [frames.allocate() for _ in range(3)] == [0x1000, 0x2000, 0x3000]
    assert (frames.used, frames.free, frames.peak, frames.limit) == (3, 5, 3, 8)
    assert frames.refcount(0x2000) == 1
    assert frames.refcount(0x4000) == frames.refcount(0x2001) == frames.refcount(1 << 40) == 0


def test_a_frame_comes_back_zero() -> None:
    frames = make(100)
    for _ in range(3):
        got = [frames.allocate() for _ in range(100)]
        for frame in got:
            assert frames.ram.read(frame, 4096) == bytes(4096)
            frames.ram.write(frame, b"\xaa" * 4096)
        with pytest.raises(OutOfFrames):
            frames.allocate()
        for frame in got:
            frames.release(frame)
    assert (frames.used, frames.peak) == (0, 100)


@pytest.mark.parametrize("frame", [0, 0x3000, 0x1001, -0x1000, 0x9000, 0x9000 + (1 << 40), 1 << 60])
def test_a_foreign_address_is_refused(frame: int) -> None:
    frames = make(8)
    frames.allocate()
    frames.allocate()
    for operation in (frames.release, frames.share):
        with pytest.raises(ValueError, match="no frame in use"):
            operation(frame)
    assert frames.used == 2


def test_a_double_release_is_refused() -> None:
    frames = make(2)
    frame = frames.allocate()
    frames.share(frame)
    frames.release(frame)
    frames.release(frame)
    with pytest.raises(ValueError, match="no frame in use"):
        frames.release(frame)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (0x1000, 0x1000), (0x800, 0x2000), (0, 0x9000), (-0x1000, 0x2000)])
def test_a_bad_range_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="no range"):
        FrameAllocator(GuestRam(0x8000), start, end)


def test_runs_are_contiguous_aligned_and_zero() -> None:
    frames = make(1024)
    first = frames.allocate()
    run = frames.allocate_run(16, 0x10000)
    assert run % 0x10000 == 0
    assert all(frames.refcount(run + (i << 12)) == 1 for i in range(16))
    assert frames.used == 17
    frames.ram.write(run, b"\xff" * 0x10000)
    for i in range(16):
        frames.release(run + (i << 12))
    again = frames.allocate_run(16, 0x10000)
    assert again == run
    assert frames.ram.read(run, 0x10000) == bytes(0x10000)
    # What lies between the first frame and the run is not lost.
    rest = [frames.allocate() for _ in range(frames.free)]
    assert len({first, *rest, *range(run, run + 0x10000, 0x1000)}) == 1024


@pytest.mark.parametrize(("count", "align"), [(0, 4096), (-1, 4096), (1, 2048), (1, 0x3000), (1, 0)])
def test_a_senseless_run_is_refused(count: int, align: int) -> None:
    with pytest.raises(ValueError, match="no run"):
        make(8).allocate_run(count, align)


def test_a_run_that_does_not_fit_changes_nothing() -> None:
    frames = make(8)
    kept = [frames.allocate() for _ in range(8)]
    for frame in kept[::2]:
        frames.release(frame)
    with pytest.raises(OutOfFrames):
        frames.allocate_run(2)
    assert frames.free == 4
    assert sorted(frames.allocate() for _ in range(4)) == kept[::2]


def test_the_zero_frame_is_one_and_shared() -> None:
    frames = make(8)
    zero = frames.zero_frame
    assert frames.zero_frame == zero
    frames.share(zero)
    frames.release(zero)
    assert frames.refcount(zero) == 1


def test_callbacks_are_for_executed_frames_only() -> None:
    frames = make(8)
    freed: list[int] = []
    frames.on_free.append(freed.append)
    plain, code = frames.allocate(), frames.allocate()
    frames.mark_executed(code)
    frames.share(code)
    assert frames.is_executed(code)
    assert not frames.is_executed(plain)
    frames.release(plain)
    frames.release(code)
    assert freed == []
    frames.release(code)
    assert freed == [code]
    assert not frames.is_executed(code)
    assert frames.allocate() == code
    frames.release(code)
    assert freed == [code]


@linux
def test_released_frames_go_back_to_the_host() -> None:
    frames = make(4096)
    got = [frames.allocate() for _ in range(1000)]
    for frame in got:
        frames.ram.bytes[frame] = 1
    assert 1000 << 12 <= frames.ram.resident() <= 1032 << 12
    for frame in got[::2] + got[1::2]:
        frames.release(frame)
    assert frames.ram.resident() < 64 + 32 << 12
    frames.flush()
    assert frames.ram.resident() == 0


@linux
def test_the_counts_of_much_memory_cost_little() -> None:
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1])
    frames = FrameAllocator(GuestRam(64 << 30))
    frames.allocate()
    with open("/proc/self/statm") as file:
        assert int(file.read().split()[1]) - before < 256


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("AASRRFN"), st.integers(0, 200)), max_size=300))
def test_references_follow_a_model(steps: list[tuple[str, int]]) -> None:
    frames = make(96)
    counts: Counter[int] = Counter()
    for step, number in steps:
        live = sorted(frame for frame in counts if counts[frame])
        if step == "A":
            if len(live) == 96:
                with pytest.raises(OutOfFrames):
                    frames.allocate()
            else:
                frame = frames.allocate()
                assert counts[frame] == 0
                assert frames.ram.read(frame, 4096) == bytes(4096)
                frames.ram.bytes[frame + number] = 1
                counts[frame] = 1
        elif step == "N":
            run = number % 5 + 1
            try:
                base = frames.allocate_run(run)
            except OutOfFrames:
                free = {0x1000 + (i << 12) for i in range(96)} - set(live)
                assert not any(all(f + (i << 12) in free for i in range(run)) for f in free)
                continue
            for frame in range(base, base + (run << 12), 4096):
                assert counts[frame] == 0
                assert frames.ram.read(frame, 4096) == bytes(4096)
                counts[frame] = 1
        elif step == "F":
            frames.flush()
        elif live:
            frame = live[number % len(live)]
            counts[frame] += 1 if step == "S" else -1
            (frames.share if step == "S" else frames.release)(frame)
        assert frames.used == sum(1 for count in counts.values() if count)
    for frame, count in counts.items():
        assert frames.refcount(frame) == count


def test_the_same_calls_give_the_same_frames() -> None:
    def run() -> list[int]:
        frames = make(300)
        got = [frames.allocate() for _ in range(200)]
        for frame in got[10:150:3]:
            frames.release(frame)
        frames.allocate_run(4, 0x4000)
        for frame in got[11:150:3]:
            frames.release(frame)
        return [frames.allocate() for _ in range(120)]

    assert run() == run()

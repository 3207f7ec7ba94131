"""A guest that asks for more than there is gets its error; the host's memory and descriptors stay bounded."""

from __future__ import annotations

import pytest

from tests.hostile.trial import compiled, emulate

FEW = ("--max-processes", "200", "--max-files", "1000", "--memory", "128M")
BOMBS: dict[str, tuple[int, tuple[str, ...]]] = {
    "forks": (137, ("forks: 199, EAGAIN",)),
    "doubling": (0, ("doubling: 1, 0",)),
    "zombies": (0, ("zombies: 199, EAGAIN",)),
    "threads": (0, ("threads: 199, EAGAIN",)),
    "splits": (0, ("splits: 32760, ENOMEM",)),
    "sizes": (0, ("sizes: 1, ENOMEM", "populate: 1, 0")),
    "touching": (137, ()),
    "dups": (0, ("dups: 4093, EMFILE",)),
    "pipes": (0, ("pipes: 498, ENFILE",)),
    "pairs": (0, ("pairs: 498, ENFILE",)),
    "epolls": (0, ("epolls: 997, ENFILE",)),
    "eventfds": (0, ("eventfds: 997, ENFILE",)),
    "timerfds": (0, ("timerfds: 997, ENFILE",)),
    "memfds": (0, ("memfds: 997, ENFILE",)),
    "opens": (0, ("opens: 997, ENFILE",)),
    "creations": (0, ("creations: 997, ENFILE",)),
    "ptys": (0, ("ptys: 997, ENFILE",)),
    "tables": (137, ("tables: 1, 0",)),
    "nesting": (0, ("nesting: 4, ELOOP", "circle: -1, ELOOP")),
    "names": (
        0,
        (
            "long name: -1, ENAMETOOLONG",
            "long path: -1, ENAMETOOLONG",
            "loop: -1, ELOOP",
            "forty links: -1, ELOOP",
            "depth: 3000, 0",
            "getcwd: 0, ERANGE",
            "getcwd, long: -1, ENAMETOOLONG",
            "up: 1, 0",
            "fchdir: 0, 0",
        ),
    ),
    "recursion": (139, ("recursion: 0, 0",)),
    "storm": (139, ("raised: 5000, 0", "queued: 4096, EAGAIN")),
    "arguments": (0, ("a long argument: 0, E2BIG", "long arguments: 0, E2BIG", "bad environment: 0, EFAULT")),
    "vectors": (
        0,
        (
            "1025 pieces: -1, EINVAL",
            "-1 pieces: -1, EINVAL",
            "1024 pieces: 65536, 0",
            "huge pieces: -1, EAGAIN",
            "never read: 0, EAGAIN",
            "giant getdents: 1, 0",
            "getdents, all: -1, EINVAL",
        ),
    ),
    "passing": (0, ("circles: 498, ENFILE",)),
}
"""What each bomb of guest/bombs.c ends with (128 + signal) and says, under the limits of FEW."""
LONG: dict[str, tuple[str, ...]] = {
    "areas": ("areas: 65522, ENOMEM",),
    "files": ("files: 100000, 0",),
}


def explode(name: str, top, guests, **more):
    place = top / "work"
    place.mkdir()
    return emulate("--seed", "1", *FEW, compiled("bombs", guests), name, cwd=place, **more)


@pytest.mark.parametrize("name", BOMBS)
def test_bomb(name, tmp_path, compiled_guests):
    code, said = BOMBS[name]
    ending = explode(name, tmp_path, compiled_guests)
    assert not ending.broke, ending.err
    assert ending.out.splitlines()[: len(said)] == list(said)
    assert ending.code == code
    assert ending.peak < 256
    assert not any((tmp_path / "work").iterdir()), "the working directory is not the guest's to change"


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_long_bomb(name, tmp_path, compiled_guests):
    ending = explode(name, tmp_path, compiled_guests)
    assert not ending.broke, ending.err
    assert ending.out.splitlines() == list(LONG[name])
    assert ending.peak < 256


def test_timers_fire_and_end(tmp_path, compiled_guests):
    ending = explode("timers", tmp_path, compiled_guests)
    assert not ending.broke, ending.err
    assert ending.out.splitlines()[-1].endswith(", EAGAIN")


@pytest.mark.slow
def test_files_in_memory_are_bounded(tmp_path, compiled_guests):
    ending = explode("disk", tmp_path, compiled_guests)
    assert not ending.broke, ending.err
    assert ending.out.splitlines()[0] == "disk: 1, ENOSPC"
    assert ending.peak < 1400, "in-memory files may take 1 GiB"


@pytest.mark.parametrize("descriptors", [60, 256])
def test_a_host_with_few_descriptors(descriptors, tmp_path, compiled_guests):
    place = tmp_path / "work"
    place.mkdir()
    for number in range(120):
        (place / f"file{number}").write_bytes(b"x")
    ending = emulate("--seed", "1", compiled("bombs", compiled_guests), "different", cwd=place, descriptors=descriptors)
    assert not ending.broke, ending.err
    assert ending.code == 0, ending.err
    assert ending.out in ("different: 1, 0\n", "different: 0, EMFILE\n")

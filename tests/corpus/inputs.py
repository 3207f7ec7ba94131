"""The files that stand in the working directory of every case."""

from __future__ import annotations

from pathlib import Path

_SYLLABLES = ["ba", "co", "di", "fu", "ga", "he", "ji", "ko", "lu", "ma", "pi", "qo", "ru", "sa", "te", "vu", "zo"]


def _words(count: int) -> list[str]:
    """Made-up words, some of them more than once."""
    state, words = 12345, []
    for _ in range(count):
        word = ""
        for _ in range(1 + state % 3):
            state = (state * 1103515245 + 12345) & 0x7FFF_FFFF
            word += _SYLLABLES[(state >> 16) % len(_SYLLABLES)]
        words.append(word)
    return words


def _inputs() -> dict[str, str]:
    words = _words(400)
    people = [
        f"{word},{index * 37 % 91},{('red', 'green', 'blue')[index % 3]}" for index, word in enumerate(words[:60])
    ]
    lines = [" ".join(words[at : at + 9]) for at in range(0, 360, 9)]
    return {
        "words.txt": "\n".join(words) + "\n",
        "numbers.txt": "".join(f"{number * 7919 % 1009 - 300}\n" for number in range(200)),
        "people.csv": "name,age,colour\n" + "\n".join(people) + "\n",
        "text.txt": ".\n".join(lines) + ".\n\nThe end,\tsaid the fox.\n",
        "tree/a.txt": "alpha\n",
        "tree/b.sh": "#!/bin/sh\necho from b\n",
        "tree/deep/er/c.txt": "gamma\n" * 20,
        "tree/deep/empty": "",
    }


INPUTS = _inputs()


def place(directory: Path, more: dict[str, str | bytes]) -> None:
    """Write the inputs and ``more`` under ``directory``; names that end in ``.sh`` become executable."""
    for name, content in {**INPUTS, **more}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o755 if name.endswith(".sh") else 0o644)
    (directory / "tree" / "link").symlink_to("deep/er/c.txt")

"""Descriptions that people write as JSON files: reading them, and complaints that name the key and what would do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn

from mmuemu.errors import UsageError

_MOST_SHOWN: Final = 200
"""Letters of a value that a complaint shows."""
_LARGEST_FILE: Final = 1 << 20


class Reader:
    """Reads one description, called ``what``; every complaint is a UsageError that names it, the key, the value and
    what would do. A key is a path like ``limits.memory``.
    """

    def __init__(self, what: str) -> None:
        self.what = what

    def shown(self, key: str, value: object) -> str:
        """``value`` of ``key`` for people."""
        import json

        text = json.dumps(value)
        return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."

    def bad(self, key: str, value: object, why: str) -> NoReturn:
        """Refuse a value."""
        raise UsageError(f"{self.what}: {key} is {self.shown(key, value)}: {why}")

    def unknown(self, key: str, known: Iterable[str]) -> NoReturn:
        """Refuse a key that none of ``known`` is."""
        names = list(known)
        from difflib import get_close_matches

        near = get_close_matches(key.rpartition(".")[2], names, 1)
        hint = f"did you mean {near[0]}?" if near else "there are " + ", ".join(names)
        raise UsageError(f"{self.what}: {key}: no such key; {hint}")

    def members(self, key: str, value: object, known: Iterable[str]) -> dict[str, Any]:
        """``value``, an object that has no keys but ``known``; ``key`` is empty for the whole description."""
        names = list(known)
        if not isinstance(value, dict):
            self.bad(key, value, "write an object: " + ", ".join(names))
        for name in value:
            if name not in names:
                self.unknown(f"{key}.{name}" if key else name, names)
        return value

    def items(self, key: str, value: object, what: str) -> list[Any]:
        """``value``, a list (of ``what``, in words)."""
        if not isinstance(value, list):
            self.bad(key, value, f"write a list of {what}")
        return value

    def range(self, key: str, value: object, low: int, high: int) -> int:
        """``value``, an integer from ``low`` to ``high``."""
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.bad(key, value, f"write a number from {low} to {high}")
        return value

    def text(self, key: str, value: object) -> str:
        """``value``, a line of text that can be shown."""
        if not isinstance(value, str) or not value.isprintable() or not value:
            self.bad(key, value, "write a line of text in quotes")
        return value

    def flag(self, key: str, value: object) -> bool:
        """``value``, true or false."""
        if not isinstance(value, bool):
            self.bad(key, value, "write true or false")
        return value

    def document(self, text: str, hint: str) -> dict[str, Any]:
        """The object that the JSON ``text`` is; ``hint`` says what to write otherwise."""
        import json

        try:
            given = json.loads(text, object_pairs_hook=self._pairs)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{self.what}: no JSON: {error}") from None
        if not isinstance(given, dict):
            self.bad("the file", type(given).__name__, hint)
        return given

    def like(self, given: dict[str, Any], names: Iterable[str], default: str | None) -> str | None:
        """Take ``"like"`` out of a description: the name of what fills in the rest, one of ``names``."""
        like = given.pop("like", default)
        known = list(names)
        if like is not None and (not isinstance(like, str) or like not in known):
            self.bad("like", like, "name one of " + ", ".join(known))
        return like

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"{self.what}: {self.shown('', twice)} is there twice")
        return found


def find_or_read(name: str, known: Mapping[str, object], option: str, noun: str, listing: str) -> tuple[str, str]:
    """The text of the file ``name`` and what it calls itself by its own name; UsageError for no such file.

    ``known`` are those that come with the package, ``option`` is what ``name`` was given to, ``noun`` what it is, and
    ``listing`` the command that lists them.
    """
    if os.sep not in name and not name.endswith(".json"):
        names = ", ".join(known)
        raise UsageError(f"{option} {name}: no such {noun}: choose {names}, or give a FILE.json (see {listing})")
    return read_text(name, option, noun), os.path.basename(name).removesuffix(".json") or name


def read_text(path: str, option: str, noun: str) -> str:
    """The text of a file that describes a ``noun``. Raises UsageError, naming ``option``."""
    label = f"{option} {path}"
    try:
        return read_bytes(path, label, _LARGEST_FILE, f"a {noun} file").decode()
    except UnicodeDecodeError:
        raise UsageError(f"{label}: not UTF-8 text") from None


def read_bytes(path: str, label: str, most: int, noun: str) -> bytes:
    """A file's content. Raises UsageError, which begins with ``label``, also for more than ``most`` bytes."""
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{label}: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > most:
        raise UsageError(f"{label}: {noun} has at most {most >> 20} MiB")
    return content


__all__ = ["Reader", "find_or_read", "read_bytes", "read_text"]

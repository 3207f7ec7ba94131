"""The results of a sweep: one SQLite file (docs/reference-sweep.md has its tables)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from mmuemu.errors import UsageError

SCHEMA: Final = 1
"""``PRAGMA user_version``: files of another one are refused."""
_APPLICATION: Final = 0x6D6D7377
"""``PRAGMA application_id``: "mmsw"."""
COLUMNS: Final[dict[str, str]] = {
    "key": "TEXT PRIMARY KEY", "kind": "TEXT", "program": "TEXT", "test": "TEXT", "arguments": "TEXT",
    "seed": "TEXT", "engine": "TEXT", "layout": "TEXT", "cpu": "TEXT", "mitigations": "TEXT",
    "state": "TEXT", "exit_code": "INTEGER", "signal": "INTEGER", "limit_reached": "TEXT", "error": "TEXT",
    "matches": "INTEGER", "points": "INTEGER", "max_points": "INTEGER",
    "stdout_sha256": "TEXT", "stdout_bytes": "INTEGER", "stdout": "BLOB",
    "stderr_sha256": "TEXT", "stderr_bytes": "INTEGER", "stderr": "BLOB",
    "instructions": "INTEGER", "cpu_seconds": "REAL", "wall_seconds": "REAL",
    "peak_frames": "INTEGER", "faults": "INTEGER", "syscalls": "INTEGER",
    "leaked": "INTEGER", "asked": "INTEGER", "bytes_per_cpu_second": "REAL", "bytes_per_virtual_second": "REAL",
    "cause": "TEXT", "reason": "TEXT",
}  # fmt: skip
"""Of the table ``cells``, with their types."""
_MADE: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    f"CREATE TABLE cells ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})",
    "CREATE TABLE bases (key TEXT, region TEXT, address TEXT, distance TEXT, possible_bits REAL, "
    "PRIMARY KEY (key, region)) WITHOUT ROWID",
)
_INSERT: Final = f"INSERT OR REPLACE INTO cells ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_TEXTS: Final = ("seed",)
"""Columns of numbers that SQLite's 64 bits with a sign may not hold."""
_MOST_TOLD: Final = 60


class Store:
    """A results file, open for one sweep at a time. To be closed; a context manager.

    Raises UsageError for a file that is something else, of another version, in use, or not to be written.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = self._locked()
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            os.close(self._lock)
            raise UsageError(f"--out {path}: {error}") from None
        except BaseException:
            os.close(self._lock)
            raise

    def _locked(self) -> int:
        """A descriptor that holds the file; a lock of another kind than SQLite's, who has its own."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except (OSError, ValueError) as error:
            raise UsageError(f"--out {self.path}: {getattr(error, 'strerror', None) or error}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise UsageError(f"--out {self.path}: another sweep writes to it") from None
        return descriptor

    def _open(self) -> None:
        # First: who reads the header of what is no database is told so.
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != _APPLICATION:
            raise UsageError(f"--out {self.path}: a database, but none of mmuemu sweep")
        if tables and version != SCHEMA:
            raise UsageError(f"--out {self.path}: results of version {version}, this mmuemu writes {SCHEMA}")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        if not tables:
            self._db.execute("BEGIN IMMEDIATE")
            for statement in _MADE:
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id={_APPLICATION}")
            self._db.execute(f"PRAGMA user_version={SCHEMA}")
            self._db.execute("COMMIT")

    # -- the matrix --------------------------------------------------------------------------------------------------

    @property
    def matrix(self) -> dict[str, Any] | None:
        """What the file's results are of; None when it is new."""
        found = self._db.execute("SELECT value FROM meta WHERE name = 'matrix'").fetchone()
        return None if found is None else json.loads(found[0])

    def begin(self, facts: Mapping[str, Any], *, extend: bool = False) -> None:
        """Say what the results are of. Raises UsageError when those in the file are of another matrix, unless it is
        to ``extend``.
        """
        before = self.matrix
        if before is not None and not extend and before != json.loads(json.dumps(facts)):
            raise UsageError(
                f"--out {self.path} holds another matrix: {difference(before, facts)}; "
                "name another file, or --extend this one"
            )
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('matrix', ?)", (json.dumps(facts),))

    # -- results -----------------------------------------------------------------------------------------------------

    def put(self, key: str, names: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """One result, in one transaction: on the disk's side of a process that is killed when this returns."""
        row = {**names, **found, "key": key, "limit_reached": found.get("limit")}
        values = [str(row[name]) if name in _TEXTS and row.get(name) is not None else row.get(name) for name in COLUMNS]
        bases = [
            (key, region, f"{address:#x}", None if distance is None else f"{distance:#x}", bits)
            for region, address, distance, bits in found.get("bases", ())
        ]
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(_INSERT, values)
        self._db.execute("DELETE FROM bases WHERE key = ?", (key,))
        self._db.executemany("INSERT INTO bases VALUES (?, ?, ?, ?, ?)", bases)
        self._db.execute("COMMIT")

    def states(self) -> dict[str, tuple[str, str | None]]:
        """Of each cell that has a result: its state, and the limit that ended it."""
        found = self._db.execute("SELECT key, state, limit_reached FROM cells")
        return {key: (state, limit) for key, state, limit in found}

    def rows(self, keys: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The results of ``keys`` that there are, in that order."""
        reader = self._db.cursor()
        query = f"SELECT {', '.join(COLUMNS)} FROM cells WHERE key = ?"
        for key in keys:
            found = reader.execute(query, (key,)).fetchone()
            if found is not None:
                row = dict(zip(COLUMNS, found, strict=True))
                yield {**row, **{name: None if row[name] is None else int(row[name]) for name in _TEXTS}}

    def all_bases(self) -> Iterator[tuple[str, str, int, int | None, float]]:
        """Where things lay: cell, region, address, distance from the fixed place, bits that the layout gives it."""
        query = "SELECT key, region, address, distance, possible_bits FROM bases ORDER BY key, region"
        for key, region, address, distance, bits in self._db.execute(query):
            yield key, region, int(address, 16), None if distance is None else int(distance, 16), bits

    def close(self) -> None:
        """Everything is in the one file then."""
        # Somebody who reads it now has it stay as it is, with its log beside it.
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA journal_mode=DELETE")
        self._db.close()
        # Not before: closing any descriptor of a file gives back SQLite's locks on it.
        os.close(self._lock)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What is not the same in two matrices, in words."""
    parts = []
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name), json.loads(json.dumps(after.get(name)))
        if old == new:
            continue
        if name == "programs":
            parts.append(_programs(old or [], new))
        else:
            parts.append(f"{name} (there {_short(old)}, here {_short(new)})")
    return ", ".join(parts)


def _programs(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> str:
    there, here = ([program for program in some if program not in other] for some, other in ((old, new), (new, old)))
    names = [program["name"] for program in [*here, *there]]
    several = f" and {len(set(names)) - 1} more" if len(set(names)) > 1 else ""
    return f"programs ({names[0]}{several})" if names else "programs (their order)"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MOST_TOLD else f"{text[:_MOST_TOLD]}..."


__all__ = ["COLUMNS", "SCHEMA", "Store", "difference"]

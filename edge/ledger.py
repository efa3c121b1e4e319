"""The station's own record of every verdict: an append-only SQLite table, a commit per batch."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspection.errors import StationError
from inspection.messages import VerdictMessage

FILE = "ledger.sqlite"

BUSY_S = 5.0
"""How long another process, a backup say, may hold the file before the station gives up."""

_SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS verdicts (
    station_seq INTEGER PRIMARY KEY,
    received_unix_ns INTEGER NOT NULL,
    camera TEXT NOT NULL,
    session TEXT NOT NULL,
    seq INTEGER NOT NULL,
    part TEXT,
    product TEXT,
    verdict TEXT NOT NULL,
    reason TEXT,
    detail TEXT,
    score REAL,
    p_value REAL,
    threshold REAL,
    reject_threshold REAL,
    bundle TEXT NOT NULL,
    bank TEXT NOT NULL,
    latency_total_ms REAL NOT NULL
) STRICT
"""

_INSERT = "INSERT INTO verdicts VALUES (" + ", ".join("?" * 17) + ")"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row to be: a verdict, and when its frame came.

    Attributes:
        message: Its `latency_ms["total"]` is up to recording.
        received_unix_ns: Wall clock, for people.
    """

    message: VerdictMessage
    received_unix_ns: int


class Ledger:
    """Appends verdicts and counts them; used only in the thread that opened it."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._file = _identity(path)

    def record(self, entries: Sequence[Entry]) -> None:
        """Append a batch: all of it, or none.

        Raises:
            StationError: The disk is full or gone, the file was taken away, or another process
                holds it. Nothing of the batch may be published, for nobody could ever prove it.
        """
        rows = [_row(entry) for entry in entries]
        try:
            with self._connection:
                self._connection.executemany(_INSERT, rows)
        except sqlite3.Error as error:
            raise StationError(
                f"cannot record {len(rows)} verdicts in {self._path}: {error}; "
                "free the disk or the file, then start the station again"
            ) from error
        self._check_place()

    def last_seq(self) -> int:
        """The highest `station_seq` ever recorded; 0 for an empty ledger.

        Raises:
            StationError: The file is damaged.
        """
        try:
            (last,) = self._connection.execute("SELECT MAX(station_seq) FROM verdicts").fetchone()
        except sqlite3.Error as error:
            raise StationError(f"cannot read the ledger {self._path}: {error}") from error
        return int(last or 0)

    def counts(self) -> dict[str, int]:
        """How many of each verdict, over the ledger's whole life."""
        counted = self._connection.execute("SELECT verdict, COUNT(*) FROM verdicts GROUP BY 1")
        return {str(verdict): int(n) for verdict, n in counted}

    def _check_place(self) -> None:
        """SQLite goes on in a file that was deleted, and what it writes there is gone at the end.

        Raises:
            StationError: The path no longer leads to the file that was opened.
        """
        found = _identity(self._path)
        if found is None or found != self._file:
            raise StationError(
                f"the ledger {self._path} was deleted or replaced while the station ran; "
                "put it back if it was moved, then start the station again"
            )


@contextmanager
def open_ledger(state_dir: Path, busy_s: float = BUSY_S) -> Iterator[Ledger]:
    """Hold the ledger of a station, made if it is not there.

    Write-ahead log and `synchronous=NORMAL`: what is committed survives the death of the process;
    a power cut may take the last commits, never the file.

    Raises:
        StationError: It cannot be made, opened or read.
    """
    path = state_dir / FILE
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=busy_s)
    except (OSError, sqlite3.Error) as error:
        raise StationError(f"cannot open the ledger {path}: {error}") from error
    with closing(connection):
        try:
            _set_up(connection, path)
        except sqlite3.Error as error:
            raise StationError(f"{path} cannot be used as a ledger: {error}") from error
        yield Ledger(connection, path)


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode, which tell a file from another under its name; None if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _set_up(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, _SCHEMA_VERSION):
        raise StationError(f"{path} is a ledger of version {version}, expected {_SCHEMA_VERSION}")
    with connection:
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")


def _row(entry: Entry) -> tuple[Any, ...]:
    """Give the columns in order; SQLite stores NaN as NULL, and the reason says why."""
    said = entry.message
    return (
        said.station_seq,
        entry.received_unix_ns,
        said.camera,
        said.session,
        said.seq,
        said.part,
        said.product,
        said.verdict.value,
        said.reason.value if said.reason else None,
        said.detail,
        said.score,
        said.p_value,
        said.threshold,
        said.reject_threshold,
        said.bundle,
        said.bank,
        said.latency_ms["total"],
    )

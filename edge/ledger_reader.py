"""Reads a ledger while its station writes it, or when there is none. Never writes.

Every question is a short transaction of its own: a reader that held one for long would keep SQLite
from shortening its log.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from edge.ledger_table import (
    BUSY_S,
    COLUMNS,
    FILE,
    NAMED_ONCE,
    UNREADABLE,
    VERSION,
    said_in,
    version_of,
)
from inspection.errors import StationError
from inspection.wire import MessageError

CHUNK_ROWS = 1000
"""What `walk` holds at once, about a megabyte."""

_RECORDED = "SELECT station_seq, received_unix_ns, record, chain FROM verdicts"

_FIND = f"{_RECORDED} WHERE camera = ? AND session = ? AND seq = ? AND {NAMED_ONCE}"

# Steps from camera to camera through the index, instead of over all their rows.
_LAST_BY_CAMERA = f"""
WITH RECURSIVE cameras (camera) AS (
    SELECT min(camera) FROM verdicts
    UNION ALL
    SELECT (SELECT min(camera) FROM verdicts WHERE camera > cameras.camera)
    FROM cameras WHERE camera IS NOT NULL
)
{_RECORDED} WHERE station_seq IN (
    SELECT (SELECT max(station_seq) FROM verdicts WHERE camera = cameras.camera) FROM cameras
)
ORDER BY station_seq DESC LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A verdict in the ledger.

    Attributes:
        station_seq: From 1, without a gap.
        received_unix_ns: When its frame came; wall clock.
        record: The `VerdictMessage` as it was published, packed.
        chain: Digest of this row and all before it, 32 bytes.
    """

    station_seq: int
    received_unix_ns: int
    record: bytes
    chain: bytes


class Row(NamedTuple):
    """A whole row: `edge.ledger_table.COLUMNS`; in a damaged file it may not be `whole`."""

    station_seq: int
    received_unix_ns: int
    camera: str
    session: str
    seq: int
    part: str | None
    verdict: str
    reason: str | None
    transport: str
    record: bytes
    chain: bytes

    @property
    def whole(self) -> bool:
        """Whether number, time, record and digest are of the types they should be."""
        numbers = isinstance(self.station_seq, int) and isinstance(self.received_unix_ns, int)
        return numbers and isinstance(self.record, bytes) and isinstance(self.chain, bytes)

    def said(self) -> dict[str, Any]:
        """Give the fields of the record as they are on the wire.

        Raises:
            StationError: The row is damaged.
        """
        try:
            if self.whole:
                return said_in(self.record)
            wrong = "a column is of another type"
        except MessageError as error:
            wrong = str(error)
        raise StationError(
            f"row {self.station_seq} cannot be read: {wrong}; `dualbank-edge ledger verify` tells "
            "what else is wrong"
        )


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows `walk` gives; all, if nothing is said.

    Attributes:
        since_unix_ns: Not those that were received before.
        until_unix_ns: Nor those from then on.
        camera: Only this one's.
    """

    since_unix_ns: int | None = None
    until_unix_ns: int | None = None
    camera: str | None = None


class LedgerReader:
    """Answers from the ledger; used only in the thread that opened it.

    All of its methods raise StationError when the file is damaged or gone.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def find(self, camera: str, session: str, seq: int) -> Recorded | None:
        """Give the verdict of a frame; what `name_reused` answered is not of that frame.

        Takes 9 µs among 300,000 rows, 4 µs if there is none (measured, medians).
        """
        found = self._recorded(_FIND, (camera, session, seq))
        return found[0] if found else None

    def after(self, station_seq: int, most: int, camera: str | None = None) -> list[Recorded]:
        """Give up to `most` verdicts that follow a number, in their order."""
        of_camera, values = ("", ()) if camera is None else ("camera = ? AND ", (camera,))
        return self._recorded(
            f"{_RECORDED} WHERE {of_camera}station_seq > ? ORDER BY station_seq LIMIT ?",
            (*values, station_seq, most),
        )

    def latest(self, most: int) -> list[Recorded]:
        """Give the last `most` verdicts, in their order."""
        return self._recorded(f"{_RECORDED} ORDER BY station_seq DESC LIMIT ?", (most,))[::-1]

    def last_by_camera(self, most: int) -> list[Recorded]:
        """Give the last verdict of each camera, of the `most` latest cameras, in their order."""
        return self._recorded(_LAST_BY_CAMERA, (most,))[::-1]

    def last_seq(self) -> int:
        """The highest `station_seq`; 0 for an empty ledger."""
        ((last,),) = self._rows("SELECT coalesce(max(station_seq), 0) FROM verdicts", ())
        return int(last)

    def walk(self, selected: Selection | None = None) -> Iterator[Row]:
        """Give rows from the first to the last, also those that are recorded meanwhile."""
        chosen = selected or Selection()
        conditions, values = ["station_seq > ?"], []
        for condition, value in (
            ("received_unix_ns >= ?", chosen.since_unix_ns),
            ("received_unix_ns < ?", chosen.until_unix_ns),
            ("camera = ?", chosen.camera),
        ):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        asked = (
            f"SELECT {', '.join(COLUMNS)} FROM verdicts WHERE {' AND '.join(conditions)} "
            f"ORDER BY station_seq LIMIT {CHUNK_ROWS}"
        )
        last = 0
        while rows := self._rows(asked, (last, *values)):
            yield from map(Row._make, rows)
            if rows[-1][0] <= last:
                raise StationError(f"the rows of {self._path} go in circles; the file is damaged")
            last = rows[-1][0]

    def schema(self) -> dict[str, str]:
        """Give the statement that made each table, index and trigger, by name."""
        kept = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
        return {str(name): str(statement) for name, statement in self._rows(kept, ())}

    def _recorded(self, asked: str, values: Sequence[Any]) -> list[Recorded]:
        return [Recorded(*row) for row in self._rows(asked, values)]

    def _rows(self, asked: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(asked, values).fetchall()
        except UNREADABLE as error:
            raise StationError(
                f"cannot read the ledger {self._path}: {error}; the file is damaged or gone"
            ) from error


@contextmanager
def open_reader(state_dir: Path, busy_s: float = BUSY_S) -> Iterator[LedgerReader]:
    """Read the ledger of a station, in one thread.

    Raises:
        StationError: There is none, or it cannot be read, or it is of another version.
    """
    path = state_dir / FILE
    try:
        if not path.is_file():
            raise StationError(f"there is no ledger {path}; give the state_dir of a station")
        connection = sqlite3.connect(_address(path), timeout=busy_s, uri=True, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise StationError(f"cannot open the ledger {path}: {error}") from error
    with closing(connection):
        try:
            # A file from elsewhere: its schema is not to run anything.
            connection.execute("PRAGMA trusted_schema=OFF")
            version = version_of(connection, path)
        except UNREADABLE as error:
            raise StationError(f"{path} cannot be read as a ledger: {error}") from error
        if version != VERSION:
            raise StationError(
                f"{path} is a ledger of version {version}, expected {VERSION}; a station carries "
                "it over when it starts"
            )
        # A damaged text is to differ from its record, not to end the reading.
        connection.text_factory = _text
        yield LedgerReader(connection, path)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _address(path: Path) -> str:
    """Name the file for reading only.

    Readers and writer share a file beside it. On a disk that cannot be written there is none to
    make, and without a log beside the ledger nobody writes: SQLite may take it as it lies there.
    """
    address = f"{path.resolve().as_uri()}?mode=ro"
    log = path.with_name(f"{path.name}-wal")
    if os.access(path.parent, os.W_OK) or (log.exists() and log.stat().st_size > 0):
        return address
    return f"{address}&immutable=1"

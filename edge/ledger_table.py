"""What the ledger is on disk: one append-only table of SQLite, whose rows are chained by digests.

`docs/ledger.md` is this module in prose, for whoever checks a ledger without our code.
`edge.ledger` appends, `edge.ledger_reader` reads, `edge.ledger_audit` proves.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inspection.errors import StationError
from inspection.messages import VerdictMessage
from inspection.wire import unpack

FILE = "ledger.sqlite"

VERSION = 2
"""`PRAGMA user_version`. Version 1 had no chain and no records: `edge.ledger_carry_over`."""

BUSY_S = 5.0
"""How long another process, a backup say, may hold the file before the station gives up."""

MAX_RECORD_BYTES = 1 << 20
"""A verdict is some hundred bytes; sixteen regions and a long detail are a few thousand."""

NO_CHAIN = bytes(32)
"""What the first row's digest goes on from."""

UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
"""What a damaged file raises: SQLite's complaint may quote bytes of it that are no text."""

FROM_VERSION_1 = "version_1"
"""`transport` of what was carried over: how it came, nobody wrote down."""

NAMED_ONCE = f"reason IS NOT 'name_reused' AND transport IS NOT '{FROM_VERSION_1}'"
"""Rows that are alone with their camera, session and seq. Version 1 judged a frame that was sent
twice twice. A query finds the index only if it says these words."""

COLUMNS = (
    *("station_seq", "received_unix_ns", "camera", "session", "seq", "part"),
    *("verdict", "reason", "transport", "record", "chain"),
)

_TABLE = """CREATE TABLE verdicts (
    station_seq INTEGER PRIMARY KEY,
    received_unix_ns INTEGER NOT NULL,
    camera TEXT NOT NULL,
    session TEXT NOT NULL,
    seq INTEGER NOT NULL,
    part TEXT,
    verdict TEXT NOT NULL,
    reason TEXT,
    transport TEXT NOT NULL,
    record BLOB NOT NULL,
    chain BLOB NOT NULL
) STRICT"""

# Against accidents: who can write the file can take them away, and only the chain tells. The third
# also keeps INSERT OR REPLACE from a row, for which SQLite asks no trigger of DELETE.
_RULES = {
    "verdicts_by_name": "CREATE UNIQUE INDEX verdicts_by_name ON verdicts (camera, session, seq) "
    f"WHERE {NAMED_ONCE}",
    "verdicts_by_part": "CREATE INDEX verdicts_by_part ON verdicts (part) WHERE part IS NOT NULL",
    "verdicts_by_camera": "CREATE INDEX verdicts_by_camera ON verdicts (camera)",
    "verdicts_stay": "CREATE TRIGGER verdicts_stay BEFORE DELETE ON verdicts "
    "BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END",
    "verdicts_never_change": "CREATE TRIGGER verdicts_never_change BEFORE UPDATE ON verdicts "
    "BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END",
    "verdicts_have_no_gap": "CREATE TRIGGER verdicts_have_no_gap BEFORE INSERT ON verdicts "
    "WHEN NEW.station_seq IS NOT (SELECT coalesce(max(station_seq), 0) + 1 FROM verdicts) "
    "BEGIN SELECT RAISE(ABORT, 'station_seq must go on by one'); END",
}

SCHEMA = {"verdicts": _TABLE, **_RULES}
"""Statement that makes each table, index and trigger, word for word as SQLite keeps it."""

INSERT = f"INSERT INTO verdicts VALUES ({', '.join('?' * len(COLUMNS))})"


def ledger_files(state_dir: Path) -> tuple[Path, ...]:
    """Give the files that a ledger takes: its own, and the log that comes and goes beside it."""
    return state_dir / FILE, state_dir / f"{FILE}-wal"


def link(before: bytes, station_seq: int, received_unix_ns: int, record: bytes) -> bytes:
    """Chain a row to the one before it: 32 bytes that change when any row up to it does."""
    numbers = struct.pack(">qq", station_seq, received_unix_ns)
    return hashlib.sha256(before + numbers + record).digest()


def row_of(
    message: VerdictMessage, record: bytes, received_unix_ns: int, transport: str, chain: bytes
) -> tuple[Any, ...]:
    """Give the columns in their order."""
    return (
        message.station_seq,
        received_unix_ns,
        message.camera,
        message.session,
        message.seq,
        message.part,
        message.verdict.value,
        message.reason.value if message.reason else None,
        transport,
        record,
        chain,
    )


def said_in(record: bytes) -> dict[str, Any]:
    """Give the fields of a record as they are on the wire.

    Raises:
        MessageError: It is not msgpack, or no map.
    """
    return unpack(record, max_bytes=MAX_RECORD_BYTES)


def make_table(connection: sqlite3.Connection) -> None:
    """Make the table, empty and not yet guarded."""
    connection.execute(_TABLE)


def guard_table(connection: sqlite3.Connection) -> None:
    """Add indexes and triggers, and stamp the version."""
    for statement in _RULES.values():
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version={VERSION}")


def version_of(connection: sqlite3.Connection, path: Path) -> int:
    """Give the version of a ledger; 0 if there is nothing in the file yet.

    Raises:
        StationError: The file is something else, or of a version that is not known here.
        `UNREADABLE`: It is no database, or damaged.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if version not in (0, 1, VERSION):
        raise StationError(
            f"{path} is a ledger of version {version}, expected {VERSION}; "
            "use the release that wrote it, or a later one"
        )
    if (version == 0 and tables) or (version > 0 and "verdicts" not in tables):
        raise StationError(
            f"{path} is a database of something else, with {', '.join(sorted(tables)) or 'nothing'}"
            " in it; give the state_dir of a station"
        )
    return int(version)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write all of it, or none. The connection's `isolation_level` is None."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has undone it already
            connection.execute("ROLLBACK")
        raise

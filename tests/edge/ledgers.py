"""Ledgers for tests: entries to record, and what a ledger says."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from edge.ledger import Entry, open_ledger
from edge.ledger_reader import open_reader
from edge.ledger_table import FILE, said_in
from inspection.messages import VerdictMessage
from inspection.verdicts import Reason, Verdict
from inspection.wire import pack

NOON_NS = 1_764_331_200_000_000_000
"""2025-11-28T12:00:00Z."""

VERSION_1 = """
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
"""As the station of version 1 wrote it."""


def entry(
    station_seq: int, verdict: Verdict = Verdict.PASS, score: float | None = 1.0, **said: Any
) -> Entry:
    """An entry whose frame came a second after that of the entry before."""
    message = VerdictMessage(
        **{
            "camera": "cam",
            "session": "s",
            "seq": station_seq,
            "verdict": verdict,
            "reason": None if verdict is Verdict.PASS else Reason.SCORE_ABOVE_REVIEW,
            "score": score,
            "bundle": "b",
            "bank": "k",
            "station_seq": station_seq,
            "latency_ms": {"total": 1.5},
            **said,
        }
    )
    return Entry(message, pack(message), NOON_NS + station_seq * 1_000_000_000, "push")


def write_ledger(state_dir: Path, count: int, **said: Any) -> bytes:
    """Record so many entries; gives the head."""
    with open_ledger(state_dir) as ledger:
        ledger.record([entry(seq, **said) for seq in range(1, count + 1)])
        return ledger.head


def write_version_1(state_dir: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a ledger as version 1 left it; what a row does not say is that of a good bolt."""
    state_dir.mkdir(exist_ok=True)
    with closing(sqlite3.connect(state_dir / FILE)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(VERSION_1)
        connection.execute("PRAGMA user_version=1")
        for number, row in enumerate(rows, 1):
            known = {
                "station_seq": number,
                "received_unix_ns": NOON_NS + number,
                "camera": "cam",
                "session": "s",
                "seq": number,
                "part": None,
                "product": "bolt",
                "verdict": "PASS",
                "reason": None,
                "detail": None,
                "score": 0.25,
                "p_value": 0.5,
                "threshold": 3.0,
                "reject_threshold": 4.0,
                "bundle": "b",
                "bank": "k",
                "latency_total_ms": 20.5,
                **row,
            }
            connection.execute(
                f"INSERT INTO verdicts VALUES ({', '.join('?' * 17)})", tuple(known.values())
            )
        connection.commit()
    return state_dir / FILE


def messages_in(state_dir: Path) -> list[VerdictMessage]:
    """What a ledger says, in the order of `station_seq`."""
    with open_reader(state_dir) as ledger:
        return [VerdictMessage.model_validate(said_in(row.record)) for row in ledger.walk()]


def tamper(state_dir: Path, *statements: str) -> None:
    """Change a ledger as somebody would who can write the file."""
    with closing(sqlite3.connect(state_dir / FILE)) as connection:
        for trigger in ("verdicts_stay", "verdicts_never_change", "verdicts_have_no_gap"):
            kept = "SELECT sql FROM sqlite_master WHERE name = ?"
            (made,) = connection.execute(kept, (trigger,)).fetchone()
            connection.execute(f"DROP TRIGGER {trigger}")
            statements = (*statements, made)  # put back, so that only the rows tell
        for statement in statements:
            connection.execute(statement)
        connection.commit()

"""Writes a ledger for others: CSV for spreadsheets, JSON lines for programs, a row at a time."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any, Literal, TextIO

from edge.ledger_reader import Row

Format = Literal["csv", "jsonl"]

COLUMNS = (
    *("station_seq", "received_utc", "camera", "session", "seq", "part", "product", "verdict"),
    *("reason", "detail", "score", "p_value", "threshold", "reject_threshold", "regions"),
    *("latency_total_ms", "bundle", "bank", "frame_sha256", "transport", "received_unix_ns"),
    "chain",
)
"""Of the CSV; `regions` is how many."""

# A spreadsheet takes a cell that begins so for a formula, and names come from whoever sends frames.
_FORMULA = re.compile(r"[=+\-@\t\r]")


def document_of(row: Row) -> dict[str, Any]:
    """Give everything a row says: the record's fields as on the wire, and what lies beside it.

    Raises:
        StationError: The record cannot be read.
    """
    return {
        **row.said(),
        "received_utc": utc(row.received_unix_ns),
        "received_unix_ns": row.received_unix_ns,
        "transport": row.transport,
        "chain": row.chain.hex(),
    }


def export(rows: Iterable[Row], out: TextIO, format_: Format) -> int:
    """Write rows; returns how many.

    Raises:
        StationError: A record cannot be read, or the ledger.
    """
    write = _csv_writer(out) if format_ == "csv" else _json_writer(out)
    count = 0
    for row in rows:
        write(document_of(row))
        count += 1
    return count


def utc(unix_ns: int) -> str:
    """Write a time to the microsecond: 2026-11-28T08:25:50.123456Z."""
    seconds, ns = divmod(unix_ns, 1_000_000_000)
    when = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{ns // 1000:06d}Z"


def _csv_writer(out: TextIO) -> Callable[[dict[str, Any]], None]:
    writer = csv.writer(out)
    writer.writerow(COLUMNS)

    def write(said: dict[str, Any]) -> None:
        said["regions"] = len(said.get("regions", ()))
        said["latency_total_ms"] = said.get("latency_ms", {}).get("total")
        writer.writerow([_cell(said.get(column)) for column in COLUMNS])

    return write


def _json_writer(out: TextIO) -> Callable[[dict[str, Any]], None]:
    def write(said: dict[str, Any]) -> None:
        out.write(json.dumps(_without_nan(said), ensure_ascii=False) + "\n")

    return write


def _cell(value: Any) -> Any:
    if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value):
        return f"'{value}"
    return "" if value is None else value


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]+([.,][0-9]+)?", text) is not None


def _without_nan(value: Any) -> Any:
    """JSON has no word for what is not a number: null, and the reason says why."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    return [_without_nan(each) for each in value] if isinstance(value, list) else value

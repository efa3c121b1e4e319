"""Does a ledger hold? Every row chained to the one before, none missing, columns as in the record.

The chain proves that rows are as they were when somebody noted down a head. Without such an anchor
it proves that they fit together, and whoever can write the file could have made it fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge.ledger_reader import LedgerReader, Row
from edge.ledger_table import NO_CHAIN, SCHEMA, link, said_in
from inspection.errors import InputError
from inspection.wire import MessageError

MOST_PROBLEMS = 20
"""So many are told in words, and all are counted."""

_IN_RECORD = ("station_seq", "camera", "session", "seq", "part", "verdict", "reason")


@dataclass(frozen=True, slots=True)
class Anchor:
    """A head that somebody noted down: the digest of one row and all before it.

    Attributes:
        station_seq: Of the row; 0 is before the first.
        chain: 32 bytes.
    """

    station_seq: int
    chain: bytes

    def __str__(self) -> str:
        return f"{self.station_seq}:{self.chain.hex()}"


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found.

    Attributes:
        rows: How many were looked at.
        head: The last row's; what to note down as an anchor for the next time.
        problems: The first of them, in words, in the order of the ledger.
        problem_count: All of them.
        anchored: The anchors that hold.
    """

    rows: int
    head: Anchor
    problems: tuple[str, ...]
    problem_count: int
    anchored: tuple[Anchor, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem_count == 0

    def as_json(self) -> dict[str, Any]:
        """Write it for programs."""
        return {
            "holds": self.holds,
            "rows": self.rows,
            "head": str(self.head),
            "anchored": [str(anchor) for anchor in self.anchored],
            "problems": list(self.problems),
            "problem_count": self.problem_count,
        }


class _Findings:
    """Collects problems: the first in words, the rest as a number."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.count = 0

    def add(self, problem: str) -> None:
        self.count += 1
        if len(self.told) < MOST_PROBLEMS:
            self.told.append(problem)


def parse_anchor(text: str) -> Anchor:
    """Read `SEQ:HEX`, as `verify` prints it.

    Raises:
        InputError: It is none.
    """
    number, _, digest = text.strip().partition(":")
    try:
        anchor = Anchor(int(number), bytes.fromhex(digest))
    except ValueError:
        anchor = Anchor(-1, b"")
    if anchor.station_seq < 0 or len(anchor.chain) != len(NO_CHAIN):
        raise InputError(
            f"expected an anchor as SEQ:HEX, a station_seq and 64 hex digits, got {text!r}; "
            "`dualbank-edge ledger verify` prints one as head"
        )
    return anchor


def audit(ledger: LedgerReader, anchors: Sequence[Anchor] = ()) -> Audit:
    """Walk a ledger from its first row to its last, holding a thousand at once.

    A station may append meanwhile. A wrong row is counted once; what follows it is compared with
    what it says, so that one damaged row does not make all after it wrong.

    Raises:
        StationError: The file cannot be read to its end.
    """
    findings = _Findings()
    for problem in _schema_problems(ledger.schema()):
        findings.add(problem)
    wanted: dict[int, list[Anchor]] = {}
    for anchor in anchors:
        wanted.setdefault(anchor.station_seq, []).append(anchor)
    held = _compare(wanted.pop(0, []), NO_CHAIN, findings)
    rows, last, head = 0, 0, NO_CHAIN
    for row in ledger.walk():
        if wrong := _problem(row, last, head):
            findings.add(wrong)
        rows, last, head = rows + 1, row.station_seq, row.chain
        if last in wanted:
            held += _compare(wanted.pop(last), head, findings)
    for anchor in (each for missing in wanted.values() for each in missing):
        cut = (
            f"the ledger ends at {last}: its tail was cut off" if anchor.station_seq > last else ""
        )
        findings.add(f"there is no row {anchor.station_seq} to anchor; {cut or 'it was taken out'}")
    found = Anchor(last, head if isinstance(head, bytes) else b"")
    return Audit(rows, found, tuple(findings.told), findings.count, tuple(held))


def _compare(anchors: Sequence[Anchor], chain: bytes, findings: _Findings) -> list[Anchor]:
    """Give the anchors that a row's digest is equal to."""
    for anchor in anchors:
        if anchor.chain != chain:
            findings.add(
                f"row {anchor.station_seq}: its digest is not the anchor's, so it or a row before "
                "it is not what it was when the anchor was noted"
            )
    return [anchor for anchor in anchors if anchor.chain == chain]


def _problem(row: Row, last: int, head: bytes) -> str | None:
    """Say what is wrong with a row, given what the one before it says; the first thing only."""
    if row.station_seq != last + 1:
        return f"row {row.station_seq}: expected {last + 1}, rows between were taken out"
    if not row.whole or not isinstance(head, bytes):
        return f"row {row.station_seq}: a column is of another type; the file is damaged"
    if link(head, row.station_seq, row.received_unix_ns, row.record) != row.chain:
        return (
            f"row {row.station_seq}: its digest does not follow from the row before, its number, "
            "time and record"
        )
    try:
        said = said_in(row.record)
    except MessageError as error:
        return f"row {row.station_seq}: its record cannot be read: {error}"
    for column in _IN_RECORD:
        if said.get(column) != getattr(row, column):
            return (
                f"row {row.station_seq}: column {column} is {getattr(row, column)!r}, "
                f"its record says {said.get(column)!r}"
            )
    return None


def _schema_problems(found: dict[str, str]) -> list[str]:
    """Compare the schema with ours; what a plant has added beside it is its own."""
    return [
        f"schema: {name} {'is not what a station makes' if name in found else 'was taken out'}"
        for name, statement in SCHEMA.items()
        if found.get(name) != statement
    ]

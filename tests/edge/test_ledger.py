"""The ledger: what is committed stays, and what is not is never said."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from edge.ledger import FILE, Entry, open_ledger
from inspection.errors import StationError
from inspection.messages import VerdictMessage
from inspection.verdicts import Reason, Verdict
from tests.line.processes import ROOT


def entry(station_seq: int, verdict: Verdict = Verdict.PASS, score: float = 1.0) -> Entry:
    message = VerdictMessage(
        camera="cam",
        session="s",
        seq=station_seq,
        verdict=verdict,
        reason=None if verdict is Verdict.PASS else Reason.SCORE_ABOVE_REVIEW,
        score=score,
        bundle="b",
        bank="k",
        station_seq=station_seq,
        latency_ms={"total": 1.5},
    )
    return Entry(message, 1_700_000_000_000_000_000)


def test_a_new_ledger_begins_at_nothing_and_makes_its_folder(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "new" / "state") as ledger:
        assert ledger.last_seq() == 0
        assert ledger.counts() == {}


def test_what_was_recorded_is_there_after_reopening(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([entry(1), entry(2, Verdict.FAIL), entry(3)])

    with open_ledger(tmp_path) as ledger:
        assert ledger.last_seq() == 3
        assert ledger.counts() == {"PASS": 2, "FAIL": 1}


def test_a_batch_is_recorded_whole_or_not_at_all(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([entry(1)])

        with pytest.raises(StationError, match="cannot record 2 verdicts"):
            ledger.record([entry(2), entry(1)])

        assert ledger.last_seq() == 1


def test_a_score_that_is_not_a_number_is_stored_as_none(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([entry(1, Verdict.REVIEW, math.nan)])

    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        assert connection.execute("SELECT score FROM verdicts").fetchall() == [(None,)]


def test_a_full_disk_is_a_station_error_and_keeps_what_was_there(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([entry(1)])
        (pages,) = ledger._connection.execute("PRAGMA page_count").fetchone()
        ledger._connection.execute(f"PRAGMA max_page_count={pages}")

        with pytest.raises(StationError, match="full"):
            ledger.record([entry(seq) for seq in range(2, 500)])

        assert ledger.last_seq() == 1


def test_a_ledger_that_another_process_holds_is_a_station_error(tmp_path: Path) -> None:
    with open_ledger(tmp_path, busy_s=0.05) as ledger:
        with closing(sqlite3.connect(tmp_path / FILE)) as other:
            other.execute("BEGIN IMMEDIATE")

            with pytest.raises(StationError, match="locked"):
                ledger.record([entry(1)])

            other.rollback()
        ledger.record([entry(1)])


def test_a_reader_does_not_stop_the_station(tmp_path: Path) -> None:
    with open_ledger(tmp_path, busy_s=0.05) as ledger:
        ledger.record([entry(1)])
        with closing(sqlite3.connect(tmp_path / FILE)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM verdicts").fetchone()

            ledger.record([entry(2)])

        assert ledger.last_seq() == 2


@pytest.mark.parametrize("replaced", [False, True])
def test_a_ledger_that_is_no_longer_where_it_was_records_nothing_more(
    tmp_path: Path, replaced: bool
) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([entry(1)])
        (tmp_path / FILE).unlink()
        if replaced:
            (tmp_path / FILE).write_bytes(b"")

        with pytest.raises(StationError, match="deleted or replaced"):
            ledger.record([entry(2)])


@pytest.mark.parametrize(
    "content", [b"this is no database, but text" * 50, b"SQLite format 3\0" + b"\xff" * 4000]
)
def test_a_file_that_is_no_ledger_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)

    with pytest.raises(StationError, match="ledger"), open_ledger(tmp_path):
        pass

    assert (tmp_path / FILE).read_bytes() == content


def test_a_ledger_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("PRAGMA user_version=99")

    with pytest.raises(StationError, match="version 99"), open_ledger(tmp_path):
        pass


def test_what_was_recorded_survives_kill_9(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from itertools import count\n"
        "from tests.edge.test_ledger import entry; from edge.ledger import open_ledger\n"
        "with open_ledger(Path(sys.argv[1])) as ledger:\n"
        "    for seq in count(1):\n"
        "        ledger.record([entry(seq)])\n"
        "        print(seq, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(50)]
        process.kill()
        told += [int(line) for line in process.stdout if line.endswith("\n")]

    with open_ledger(tmp_path) as ledger:
        assert ledger.last_seq() >= told[-1]
        assert ledger._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

"""The ledger: what is committed stays, and what is not is never said."""

from __future__ import annotations

import hashlib
import math
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge.ledger import Entry, Ledger, open_ledger
from edge.ledger_audit import audit
from edge.ledger_reader import open_reader
from edge.ledger_table import FILE, NO_CHAIN, SCHEMA
from inspection.errors import StationError
from inspection.verdicts import Reason, Verdict
from tests.edge.ledgers import (
    NOON_NS,
    entry,
    messages_in,
    write_ledger,
    write_version_1,
)
from tests.line.processes import ROOT

MIB = 1 << 20


def reused(station_seq: int, seq: int) -> Entry:
    """An entry of a frame whose name another one has had."""
    return entry(station_seq, Verdict.UNKNOWN, None, seq=seq, reason=Reason.NAME_REUSED)


def holds(state_dir: Path) -> bool:
    with open_reader(state_dir) as ledger:
        return audit(ledger).holds


def test_a_new_ledger_begins_at_nothing_and_makes_its_folder(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "new" / "state") as ledger:
        assert ledger.last_seq() == 0
        assert ledger.head == NO_CHAIN


def test_what_was_recorded_is_there_after_reopening_byte_for_byte(tmp_path: Path) -> None:
    entries = [entry(1), entry(2, Verdict.FAIL), entry(3, part="Ø 7 \0")]
    with open_ledger(tmp_path) as ledger:
        ledger.record(entries[:2])
        ledger.record(entries[2:])
        head = ledger.head

    with open_ledger(tmp_path) as ledger, open_reader(tmp_path) as reader:
        assert (ledger.last_seq(), ledger.head) == (3, head)
        assert [row.record for row in reader.walk()] == [each.record for each in entries]
        assert [row.part for row in reader.walk()] == [None, None, "Ø 7 \0"]


def test_the_head_is_the_digest_of_all_that_came_before(tmp_path: Path) -> None:
    entries = [entry(1), entry(2, Verdict.FAIL)]
    with open_ledger(tmp_path) as ledger:
        ledger.record(entries)

        chain = bytes(32)
        for number, each in enumerate(entries, 1):
            numbers = number.to_bytes(8, "big") + each.received_unix_ns.to_bytes(8, "big")
            chain = hashlib.sha256(chain + numbers + each.record).digest()
        assert ledger.head == chain


def test_the_chain_does_not_depend_on_how_verdicts_were_batched(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "one") as ledger:
        for number in range(1, 6):
            ledger.record([entry(number)])

        assert ledger.head == write_ledger(tmp_path / "all", 5)


def test_no_verdicts_change_nothing(tmp_path: Path) -> None:
    head = write_ledger(tmp_path, 2)

    with open_ledger(tmp_path) as ledger:
        ledger.record([])

        assert (ledger.last_seq(), ledger.head) == (2, head)


def test_a_commit_is_on_the_disk_before_anything_is_said(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        (synchronous,) = ledger._connection.execute("PRAGMA synchronous").fetchone()
        (mode,) = ledger._connection.execute("PRAGMA journal_mode").fetchone()

    assert (synchronous, mode) == (2, "wal")  # 2 is FULL


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(entry(1, seq=7), id="a number that there is"),
        pytest.param(entry(4), id="a number too far"),
        pytest.param(entry(3, seq=1), id="a frame that has a verdict"),
    ],
)
def test_a_batch_is_recorded_whole_or_not_at_all(tmp_path: Path, second: Any) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([entry(1)])
        head = ledger.head

        with pytest.raises(StationError, match="cannot record 2 verdicts"):
            ledger.record([entry(2), second])

        assert (ledger.last_seq(), ledger.head) == (1, head)
        ledger.record([entry(2)])
    assert [said.station_seq for said in messages_in(tmp_path)] == [1, 2]
    assert holds(tmp_path)


def test_a_name_has_one_verdict_and_any_number_of_refusals(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([entry(1, seq=9), reused(2, 9), reused(3, 9)])

        with pytest.raises(StationError, match="has a verdict of that frame"):
            ledger.record([entry(4, seq=9)])


def test_the_same_number_of_another_camera_or_session_is_another_frame(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([entry(1, seq=9), entry(2, seq=9, camera="x"), entry(3, seq=9, session="t")])

        assert ledger.last_seq() == 3


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM verdicts WHERE station_seq = 2",
        "UPDATE verdicts SET verdict = 'PASS' WHERE station_seq = 2",
        "INSERT OR REPLACE INTO verdicts SELECT * FROM verdicts WHERE station_seq = 2",
        "REPLACE INTO verdicts SELECT 9, received_unix_ns, camera, session, seq, part, verdict, "
        "reason, transport, record, chain FROM verdicts WHERE station_seq = 2",
    ],
)
def test_no_statement_changes_what_was_recorded(tmp_path: Path, statement: str) -> None:
    write_ledger(tmp_path, 3, verdict=Verdict.FAIL)

    with (
        closing(sqlite3.connect(tmp_path / FILE)) as connection,
        pytest.raises(sqlite3.IntegrityError),
    ):
        connection.execute(statement)

    assert holds(tmp_path)
    assert len(messages_in(tmp_path)) == 3


def test_a_score_that_is_not_a_number_is_kept_as_one(tmp_path: Path) -> None:
    nan = entry(1, Verdict.REVIEW, math.nan, reason=Reason.SCORE_NOT_A_NUMBER)
    with open_ledger(tmp_path) as ledger:
        ledger.record([nan])

    (said,) = messages_in(tmp_path)
    assert said.score is not None
    assert math.isnan(said.score)


# --- disks and other processes --------------------------------------------------------------------


FILL = """
import resource, signal, sys
from itertools import count
from pathlib import Path
from edge.ledger import open_ledger
from inspection.errors import StationError
from tests.edge.ledgers import entry

state_dir, limit = Path(sys.argv[1]), int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open_ledger(state_dir) as ledger:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        for seq in count(1):
            ledger.record([entry(seq, detail="x" * 2000)])
    except StationError as error:
        assert "cannot record 1 verdicts" in str(error), error
    kept = ledger.last_seq()
    try:
        ledger.record([entry(kept + 1, detail="x" * 2000)])
        raise SystemExit("a full disk has taken a verdict")
    except StationError:
        pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ledger.record([entry(kept + 1)])
with open_ledger(state_dir) as ledger:
    ledger.record([entry(kept + 2)])
print(kept)
"""


def test_a_disk_that_takes_no_more_loses_nothing_and_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path), str(MIB)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    kept = int(done.stdout)
    assert kept > 10, "a ledger that records nothing would pass too"
    assert len(messages_in(tmp_path)) == kept + 2
    assert holds(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one mebibyte, where this process may mount one."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(where)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this process may not mount a file system; the limit of file sizes is tested")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def fill(ledger: Ledger) -> int:
    """Record until the disk is full; gives how many it took."""
    for seq in range(1, 500):
        try:
            ledger.record([entry(seq, detail="x" * 2000)])
        except StationError:
            return seq - 1
    raise AssertionError("the disk is not full")


def test_a_full_disk_costs_the_batch_and_room_on_it_takes_the_next(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(MIB // 2))
    with open_ledger(small_disk) as ledger:
        kept = fill(ledger)
        with pytest.raises(StationError, match="full"):
            ledger.record([entry(kept + 1, detail="x" * 2000)])
        assert holds(small_disk)

        ballast.unlink()
        ledger.record([entry(kept + 1)])

    with open_ledger(small_disk) as ledger:
        ledger.record([entry(kept + 2)])
    assert kept > 10
    assert len(messages_in(small_disk)) == kept + 2
    assert holds(small_disk)


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


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("PRAGMA user_version=99", "version 99, expected 2; use the release that wrote it"),
        ("CREATE TABLE recipes (cake TEXT)", "something else, with recipes in it"),
        ("PRAGMA user_version=2", "something else, with nothing in it"),
    ],
)
def test_a_database_of_others_or_of_a_later_version_is_refused_and_left_alone(
    tmp_path: Path, statement: str, said: str
) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute(statement)
        connection.commit()
    content = (tmp_path / FILE).read_bytes()

    for opened in (open_ledger, open_reader):
        with pytest.raises(StationError, match=said), opened(tmp_path):
            pass

    assert (tmp_path / FILE).read_bytes() == content


def test_what_was_recorded_survives_kill_9(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from itertools import count\n"
        "from tests.edge.ledgers import entry; from edge.ledger import open_ledger\n"
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
    assert holds(tmp_path)


# --- version 1 ------------------------------------------------------------------------------------


def test_a_ledger_of_version_1_is_carried_over_whole(tmp_path: Path) -> None:
    review = {"verdict": "REVIEW", "reason": "score_not_a_number", "score": None, "p_value": None}
    late = {"verdict": "UNKNOWN", "reason": "deadline_passed", "detail": "5 ms were allowed"}
    nothing = {"score": None, "p_value": None, "threshold": None, "reject_threshold": None}
    write_version_1(tmp_path, [{"part": "p"}, review, {**late, **nothing}])

    with open_ledger(tmp_path) as ledger:
        assert ledger.last_seq() == 3

    good, strange, unknown = messages_in(tmp_path)
    assert good.model_dump(exclude_defaults=True, mode="json") == {
        "camera": "cam",
        "session": "s",
        "seq": 1,
        "part": "p",
        "product": "bolt",
        "verdict": "PASS",
        "score": 0.25,
        "p_value": 0.5,
        "threshold": 3.0,
        "reject_threshold": 4.0,
        "bundle": "b",
        "bank": "k",
        "station_seq": 1,
        "latency_ms": {"total": 20.5},
    }
    assert strange.score is not None
    assert math.isnan(strange.score)
    assert (unknown.reason, unknown.detail) == (Reason.DEADLINE_PASSED, "5 ms were allowed")
    with open_reader(tmp_path) as reader:
        assert [row.received_unix_ns - NOON_NS for row in reader.walk()] == [1, 2, 3]
        assert {row.transport for row in reader.walk()} == {"version_1"}
        assert reader.schema().keys() >= SCHEMA.keys()
        assert "verdicts_1" not in reader.schema()
    assert holds(tmp_path)


def test_what_is_carried_over_goes_on_where_it_was(tmp_path: Path) -> None:
    write_version_1(tmp_path, [{}, {}])

    with open_ledger(tmp_path) as ledger:
        ledger.record([entry(3)])
    with open_ledger(tmp_path) as ledger:
        ledger.record([entry(4)])

    assert [said.station_seq for said in messages_in(tmp_path)] == [1, 2, 3, 4]
    assert holds(tmp_path)


def test_a_frame_that_version_1_judged_twice_stays_judged_twice(tmp_path: Path) -> None:
    write_version_1(tmp_path, [{"seq": 7}, {"seq": 7, "verdict": "PASS", "score": 0.5}])

    with open_ledger(tmp_path):
        pass

    assert [(said.seq, said.score) for said in messages_in(tmp_path)] == [(7, 0.25), (7, 0.5)]
    assert holds(tmp_path)


def version_1_rows(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        return connection.execute("SELECT * FROM verdicts").fetchall()


CRASH = """
import os, sys
from pathlib import Path
from edge import ledger_carry_over
from edge.ledger import open_ledger
step, real = sys.argv[2], getattr(ledger_carry_over, sys.argv[2])
left = [int(sys.argv[3])]
def dies(*arguments):
    left[0] -= 1
    if left[0] < 0:
        os._exit(9)
    return real(*arguments)
setattr(ledger_carry_over, step, dies)
with open_ledger(Path(sys.argv[1])):
    pass
"""


@pytest.mark.parametrize(
    ("step", "times"), [("make_table", 0), ("link", 0), ("link", 3000), ("guard_table", 0)]
)
def test_a_crash_half_way_leaves_the_old_ledger_whole_and_the_next_start_carries_it_over(
    tmp_path: Path, step: str, times: int
) -> None:
    path = write_version_1(tmp_path, [{}] * 4000)
    before = version_1_rows(path)

    died = subprocess.run([sys.executable, "-c", CRASH, str(tmp_path), step, str(times)], cwd=ROOT)

    assert died.returncode == 9
    assert version_1_rows(path) == before
    with open_ledger(tmp_path) as ledger:
        assert ledger.last_seq() == 4000
    assert holds(tmp_path)


def test_a_disk_too_small_to_carry_over_leaves_the_old_ledger_whole(small_disk: Path) -> None:
    path = write_version_1(small_disk, [{"detail": "x" * 500}] * 1000)
    before = version_1_rows(path)

    with pytest.raises(StationError, match="full"), open_ledger(small_disk):
        pass

    assert version_1_rows(path) == before


def test_a_row_of_version_1_that_is_no_verdict_is_named_and_nothing_is_changed(
    tmp_path: Path,
) -> None:
    path = write_version_1(tmp_path, [{}, {"verdict": "PERHAPS"}])
    before = version_1_rows(path)

    with pytest.raises(StationError, match="its row 2 is no verdict"), open_ledger(tmp_path):
        pass

    assert version_1_rows(path) == before


def test_a_reader_leaves_carrying_over_to_the_station(tmp_path: Path) -> None:
    path = write_version_1(tmp_path, [{}])

    with pytest.raises(StationError, match="a station carries it over"), open_reader(tmp_path):
        pass

    assert len(version_1_rows(path)) == 1

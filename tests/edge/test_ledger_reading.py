"""Reading the ledger: answers beside a running station, and what verify finds in a damaged one."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import random
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest

from edge.cli import DONE, FAILED, GATE, USAGE, main
from edge.ledger import open_ledger
from edge.ledger_audit import MOST_PROBLEMS, Audit, audit, parse_anchor
from edge.ledger_export import COLUMNS as EXPORTED
from edge.ledger_reader import CHUNK_ROWS, Recorded, open_reader
from edge.ledger_stats import MOST_NAMES, OTHERS, Durations, count
from edge.ledger_table import FILE, FROM_VERSION_1
from inspection.errors import InputError, StationError
from inspection.verdicts import Reason, Verdict
from tests.edge.ledgers import (
    NOON_NS,
    entry,
    tamper,
    write_ledger,
    write_version_1,
)
from tests.line.processes import ROOT

REGION = {"x_px": 1, "y_px": 2, "width_px": 3, "height_px": 4, "score": 5.5}


def numbers(found: list[Recorded]) -> list[int]:
    return [each.station_seq for each in found]


def audited(state_dir: Path, *anchors: str) -> Audit:
    with open_reader(state_dir) as ledger:
        return audit(ledger, [parse_anchor(anchor) for anchor in anchors])


def two_cameras(state_dir: Path) -> None:
    """Ten verdicts: odd ones of the left camera, even ones of the right."""
    with open_ledger(state_dir) as ledger:
        ledger.record([entry(n, camera=("right", "left")[n % 2], seq=n // 2) for n in range(1, 11)])


# --- questions ------------------------------------------------------------------------------------


def test_a_frame_is_found_by_its_name_as_it_was_recorded(tmp_path: Path) -> None:
    two_cameras(tmp_path)

    with open_reader(tmp_path) as ledger:
        found = ledger.find("left", "s", 1)

        assert found is not None
        assert found.station_seq == 3
        assert found.record == entry(3, camera="left", seq=1).record
        assert found.received_unix_ns == NOON_NS + 3_000_000_000
        assert len(found.chain) == 32


@pytest.mark.parametrize("name", [("left", "s", 9), ("left", "t", 1), ("lef", "s", 1)])
def test_a_frame_that_was_not_recorded_is_not_found(
    tmp_path: Path, name: tuple[str, str, int]
) -> None:
    two_cameras(tmp_path)

    with open_reader(tmp_path) as ledger:
        assert ledger.find(*name) is None


def test_a_frame_is_found_and_not_what_answered_another_of_its_name(tmp_path: Path) -> None:
    refused = entry(2, Verdict.UNKNOWN, None, seq=1, reason=Reason.NAME_REUSED)
    with open_ledger(tmp_path) as ledger:
        ledger.record([entry(1), refused])

    with open_reader(tmp_path) as reader:
        assert numbers([reader.find("cam", "s", 1)]) == [1]  # type: ignore[list-item]


def test_finding_goes_through_the_index_of_names(tmp_path: Path) -> None:
    write_ledger(tmp_path, 1)
    asked: list[str] = []

    with open_reader(tmp_path) as ledger:
        ledger._connection.set_trace_callback(asked.append)
        ledger.find("cam", "s", 1)
        (statement,) = asked
        ledger._connection.set_trace_callback(None)
        plan = ledger._connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()

    assert "USING INDEX verdicts_by_name (camera=? AND session=? AND seq=?)" in plan[0][-1]


def test_what_followed_is_given_in_order_and_in_portions(tmp_path: Path) -> None:
    two_cameras(tmp_path)

    with open_reader(tmp_path) as ledger:
        assert numbers(ledger.after(0, 3)) == [1, 2, 3]
        assert numbers(ledger.after(8, 3)) == [9, 10]
        assert numbers(ledger.after(10, 3)) == []
        assert numbers(ledger.after(3, 2, camera="left")) == [5, 7]
        assert numbers(ledger.after(0, 2, camera="nobody")) == []


def test_the_latest_of_all_and_the_last_of_each_camera_come_in_order(tmp_path: Path) -> None:
    two_cameras(tmp_path)

    with open_reader(tmp_path) as ledger:
        assert numbers(ledger.latest(3)) == [8, 9, 10]
        assert numbers(ledger.latest(99)) == list(range(1, 11))
        assert numbers(ledger.last_by_camera(9)) == [9, 10]
        assert numbers(ledger.last_by_camera(1)) == [10]
        assert ledger.last_seq() == 10


def test_an_empty_ledger_answers_everything_with_nothing(tmp_path: Path) -> None:
    with open_ledger(tmp_path), open_reader(tmp_path) as ledger:
        assert ledger.find("cam", "s", 1) is None
        assert ledger.after(0, 9) == ledger.latest(9) == ledger.last_by_camera(9) == []
        assert ledger.last_seq() == 0
        assert list(ledger.walk()) == []


def test_a_reader_sees_what_the_station_commits_meanwhile(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger, open_reader(tmp_path) as reader:
        for number in range(1, 5):
            ledger.record([entry(number)])

            assert reader.last_seq() == number
            assert reader.find("cam", "s", number) is not None


def test_a_walk_over_several_portions_gives_every_row_once_and_the_new_ones(
    tmp_path: Path,
) -> None:
    some = 2 * CHUNK_ROWS + 5
    with open_ledger(tmp_path) as ledger, open_reader(tmp_path) as reader:
        ledger.record([entry(number) for number in range(1, some + 1)])
        walk = reader.walk()
        seen = [next(walk).station_seq]
        ledger.record([entry(some + 1)])
        seen += [row.station_seq for row in walk]

    assert seen == list(range(1, some + 2))


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    write_ledger(tmp_path, 1)

    with open_reader(tmp_path) as ledger, pytest.raises(sqlite3.OperationalError, match="readonly"):
        ledger._connection.execute("DROP TABLE verdicts")


def test_without_a_ledger_there_is_nothing_to_read_and_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(StationError, match="there is no ledger"), open_reader(tmp_path):
        pass

    assert list(tmp_path.iterdir()) == []


def test_a_ledger_on_a_disk_that_cannot_be_written_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = write_ledger(tmp_path, 3)
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    assert audited(tmp_path).head.chain == head
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_ledger_whose_station_was_killed_is_read_with_its_last_commits(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from edge.ledger import open_ledger\n"
        "from tests.edge.ledgers import entry\n"
        "with open_ledger(Path(sys.argv[1])) as ledger:\n"
        "    ledger.record([entry(1), entry(2)])\n"
        "    os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT)

    assert audited(tmp_path).rows == 2


# --- does it hold? --------------------------------------------------------------------------------


def test_a_ledger_that_nobody_touched_holds_and_its_head_is_an_anchor(tmp_path: Path) -> None:
    head = write_ledger(tmp_path, 5)
    found = audited(tmp_path)
    with open_ledger(tmp_path) as ledger:
        ledger.record([entry(6)])

    later = audited(tmp_path, str(found.head))

    assert found.holds
    assert (found.rows, found.head.station_seq, found.head.chain) == (5, 5, head)
    assert later.holds
    assert later.anchored == (found.head,)


@pytest.mark.parametrize(
    ("statements", "first"),
    [
        pytest.param(
            ["UPDATE verdicts SET record = zeroblob(9) WHERE station_seq = 3"],
            "row 3: its digest does not follow",
            id="a record",
        ),
        pytest.param(
            ["UPDATE verdicts SET chain = zeroblob(32) WHERE station_seq = 3"],
            "row 3: its digest does not follow",
            id="a digest",
        ),
        pytest.param(
            ["UPDATE verdicts SET received_unix_ns = received_unix_ns + 1 WHERE station_seq = 3"],
            "row 3: its digest does not follow",
            id="a time",
        ),
        pytest.param(
            ["UPDATE verdicts SET verdict = 'PASS' WHERE station_seq = 3"],
            "row 3: column verdict is 'PASS', its record says 'FAIL'",
            id="a column",
        ),
        pytest.param(
            ["UPDATE verdicts SET part = 'q' WHERE station_seq = 3"],
            "row 3: column part is 'q', its record says None",
            id="a column that was empty",
        ),
        pytest.param(
            ["DELETE FROM verdicts WHERE station_seq = 3"],
            "row 4: expected 3, rows between were taken out",
            id="a row is gone",
        ),
        pytest.param(
            ["DELETE FROM verdicts WHERE station_seq = 1"],
            "row 2: expected 1, rows between were taken out",
            id="the first row is gone",
        ),
        pytest.param(
            [
                "UPDATE verdicts SET station_seq = 99 WHERE station_seq = 3",
                "UPDATE verdicts SET station_seq = 3 WHERE station_seq = 4",
                "UPDATE verdicts SET station_seq = 4 WHERE station_seq = 99",
            ],
            "row 3: its digest does not follow",
            id="two rows have changed places",
        ),
        pytest.param(
            ["DROP INDEX verdicts_by_name"], "schema: verdicts_by_name was taken out", id="an index"
        ),
    ],
)
def test_the_first_thing_that_is_wrong_is_named(
    tmp_path: Path, statements: list[str], first: str
) -> None:
    write_ledger(tmp_path, 6, verdict=Verdict.FAIL, reason=Reason.SCORE_ABOVE_REJECT)
    tamper(tmp_path, *statements)

    found = audited(tmp_path)

    assert not found.holds
    assert found.problems[0].startswith(first)


def test_a_trigger_that_is_gone_is_told_and_what_a_plant_adds_is_its_own(tmp_path: Path) -> None:
    write_ledger(tmp_path, 2)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("CREATE INDEX by_time ON verdicts (received_unix_ns)")
        assert audited(tmp_path).holds
        connection.execute("DROP TRIGGER verdicts_stay")

    assert audited(tmp_path).problems == ("schema: verdicts_stay was taken out",)


def test_one_wrong_row_does_not_make_all_after_it_wrong(tmp_path: Path) -> None:
    write_ledger(tmp_path, 50)
    tamper(tmp_path, "UPDATE verdicts SET record = zeroblob(9) WHERE station_seq = 3")

    assert audited(tmp_path).problem_count == 1


def test_all_wrong_rows_are_counted_and_the_first_are_told(tmp_path: Path) -> None:
    write_ledger(tmp_path, 50)
    tamper(tmp_path, "UPDATE verdicts SET camera = 'x'")

    found = audited(tmp_path)

    assert found.problem_count == 50
    assert len(found.problems) == MOST_PROBLEMS


def test_a_tail_that_was_cut_off_shows_by_an_anchor_alone(tmp_path: Path) -> None:
    write_ledger(tmp_path, 6)
    noted = str(audited(tmp_path).head)
    tamper(tmp_path, "DELETE FROM verdicts WHERE station_seq > 4")

    assert audited(tmp_path).holds
    found = audited(tmp_path, noted)
    assert not found.holds
    assert "the ledger ends at 4: its tail was cut off" in found.problems[0]


def test_a_ledger_that_was_written_anew_shows_by_an_anchor_alone(tmp_path: Path) -> None:
    write_ledger(tmp_path / "true", 6, verdict=Verdict.FAIL)
    noted = str(audited(tmp_path / "true").head)

    write_ledger(tmp_path / "forged", 6)

    assert audited(tmp_path / "forged").holds
    found = audited(tmp_path / "forged", noted)
    assert found.problems[0].startswith("row 6: its digest is not the anchor's")
    assert found.anchored == ()


def test_before_the_first_row_there_is_one_anchor(tmp_path: Path) -> None:
    write_ledger(tmp_path, 1)

    assert audited(tmp_path, f"0:{'0' * 64}").holds
    assert not audited(tmp_path, f"0:{'1' * 64}").holds


@pytest.mark.parametrize("text", ["", "7", "7:", "7:ab", f"-1:{'0' * 64}", f"x:{'0' * 64}"])
def test_what_is_no_anchor_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected an anchor as SEQ:HEX"):
        parse_anchor(text)


def test_a_ledger_holds_while_its_station_writes(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([entry(number) for number in range(1, 501)])
        stop, found = threading.Event(), []

        def look() -> None:
            while not stop.is_set():
                found.append(audited(tmp_path))

        looking = threading.Thread(target=look)
        looking.start()
        number = 500
        while len(found) < 5:
            ledger.record([entry(number := number + 1)])
        stop.set()
        looking.join()

    assert all(each.holds for each in found)
    assert found[-1].rows > found[0].rows, "nothing was written meanwhile"


def test_a_truncated_file_is_never_taken_for_a_ledger_that_holds(tmp_path: Path) -> None:
    write_ledger(tmp_path, 200)
    path = tmp_path / FILE
    whole = path.read_bytes()

    for size in [0, 1, 99, 100, 4096, len(whole) // 2, len(whole) - 4096, len(whole) - 1]:
        path.write_bytes(whole[:size])
        with suppress(StationError):  # that it cannot be read is honest too
            assert not audited(tmp_path).holds, size


def test_a_flipped_byte_is_found_wherever_it_changes_what_is_read(tmp_path: Path) -> None:
    write_ledger(tmp_path, 60, part="p", regions=[REGION])
    with open_reader(tmp_path) as ledger:
        rows = list(ledger.walk())
    path, random_ = tmp_path / FILE, random.Random(0)
    whole = path.read_bytes()
    answers = {"holds": 0, "wrong": 0, "unreadable": 0}

    for _ in range(400):
        place = random_.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random_.randrange(8)
        path.write_bytes(damaged)
        try:
            holds = audited(tmp_path).holds
        except StationError:
            answers["unreadable"] += 1
            continue
        answers["holds" if holds else "wrong"] += 1
        if holds:
            with open_reader(tmp_path) as ledger:
                # Of all that is read, `transport` alone is in no record.
                found = [row._replace(transport="push") for row in ledger.walk()]
            assert found == rows, f"byte {place}"

    assert answers["wrong"] > 50
    assert min(answers.values()) > 0


@pytest.mark.parametrize("content", [b"", b"no database" * 100, b"SQLite format 3\0" + bytes(4000)])
def test_a_file_of_others_cannot_be_read_as_a_ledger(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)

    with pytest.raises(StationError), open_reader(tmp_path):
        pass
    assert main(["ledger", "verify", "--state-dir", str(tmp_path)]) == FAILED


def test_a_table_that_only_looks_like_a_ledger_does_not_hold(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute(
            "CREATE VIEW verdicts AS SELECT 1 station_seq, 'x' received_unix_ns, 1 camera, "
            "2 session, 3 seq, 4 part, 5 verdict, 6 reason, 7 transport, 8 record, NULL chain"
        )
        connection.execute("PRAGMA user_version=2")

    found = audited(tmp_path)

    assert found.problems[0] == "schema: verdicts is not what a station makes"
    assert "row 1: a column is of another type; the file is damaged" in found.problems


# --- the command ----------------------------------------------------------------------------------


def said_by(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["ledger", *map(str, arguments)]) == DONE
    return capsys.readouterr().out


def test_verify_exits_0_3_or_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = write_ledger(tmp_path, 3)
    asked = ["ledger", "verify", "--state-dir", str(tmp_path)]

    assert main([*asked, "--anchor", f"3:{head.hex()}"]) == DONE
    out = capsys.readouterr().out
    assert "the ledger holds: 3 verdicts" in out
    assert f"head    3:{head.hex()}" in out
    assert f"anchor  3:{head.hex()}  holds" in out
    tamper(tmp_path, "DELETE FROM verdicts WHERE station_seq = 2")
    assert main(asked) == GATE
    out = capsys.readouterr().out
    assert "THE LEDGER DOES NOT HOLD" in out
    assert "row 3: expected 2" in out
    (tmp_path / FILE).write_bytes(b"nothing of the kind")
    assert main(asked) == FAILED
    assert "cannot be read as a ledger" in capsys.readouterr().err


def test_verify_as_json_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ledger(tmp_path, 3)
    tamper(tmp_path, "UPDATE verdicts SET verdict = 'FAIL' WHERE station_seq = 2")

    assert main(["ledger", "verify", "--state-dir", str(tmp_path), "--json"]) == GATE

    said = json.loads(capsys.readouterr().out)
    assert not said["holds"]
    assert said["rows"] == 3
    assert said["problem_count"] == 1
    assert "row 2" in said["problems"][0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["ledger"],
        ["ledger", "shred"],
        ["ledger", "verify", "--anchor", "7"],
        ["ledger", "export", "--since", "yesterday"],
        ["ledger", "export", "--format", "xlsx"],
    ],
)
def test_a_wrong_call_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == USAGE
    assert "usage" in capsys.readouterr().err


def test_names_from_a_camera_cannot_move_the_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ledger(tmp_path, 1, camera="\x1b[2J[bold]", product="\n\r")
    tamper(tmp_path, "UPDATE verdicts SET camera = char(27) || '[31m'")

    stats = said_by(capsys, "stats", "--state-dir", tmp_path)
    assert main(["ledger", "verify", "--state-dir", str(tmp_path)]) == GATE

    assert "\x1b" not in stats + capsys.readouterr().out
    assert "\ufffd[2J[bold]" in stats


# --- export ---------------------------------------------------------------------------------------


def test_csv_has_a_row_a_verdict_with_the_fields_of_the_wire(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"regions": [REGION], "frame_sha256": "ab" * 32, "product": "nut", "part": "7,5"}
    write_ledger(tmp_path, 2, verdict=Verdict.FAIL, threshold=3.0, **said)

    rows = list(csv.DictReader(io.StringIO(said_by(capsys, "export", "--state-dir", tmp_path))))

    assert len(rows) == 2
    assert tuple(rows[0]) == EXPORTED
    shown = {key: rows[1][key] for key in ("station_seq", "part", "verdict", "regions", "product")}
    assert shown == {
        "station_seq": "2",
        "part": "7,5",
        "verdict": "FAIL",
        "regions": "1",
        "product": "nut",
    }
    assert rows[1]["received_utc"] == "2025-11-28T12:00:02.000000Z"
    assert rows[1]["latency_total_ms"] == "1.5"
    assert rows[1]["frame_sha256"] == "ab" * 32
    assert rows[1]["chain"] == audited(tmp_path).head.chain.hex()


@pytest.mark.parametrize(
    ("part", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("@x", "'@x"),
        ("-1+1", "'-1+1"),
        ("-17", "-17"),
        ("+4.5", "+4.5"),
        ("a=b", "a=b"),
    ],
)
def test_no_name_becomes_a_formula_of_a_spreadsheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, cell: str
) -> None:
    write_ledger(tmp_path, 1, part=part)

    (row,) = csv.DictReader(io.StringIO(said_by(capsys, "export", "--state-dir", tmp_path)))

    assert row["part"] == cell


def test_json_lines_are_the_whole_record_and_no_nan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nan = entry(
        1, Verdict.REVIEW, math.nan, reason=Reason.SCORE_NOT_A_NUMBER, part="=Ø", regions=[REGION]
    )
    with open_ledger(tmp_path) as ledger:
        ledger.record([nan])

    (line,) = said_by(capsys, "export", "--state-dir", tmp_path, "--json").splitlines()

    assert "NaN" not in line
    said = json.loads(line)
    assert said["score"] is None
    assert said["part"] == "=Ø"
    assert said["regions"] == [REGION]
    assert said["transport"] == "push"
    assert set(said) == {
        *nan.message.model_dump(),
        *("received_utc", "received_unix_ns", "transport", "chain"),
    }


def test_an_export_takes_a_span_of_time_and_a_camera(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_cameras(tmp_path)
    chosen = ["--since", "2025-11-28T12:00:03", "--until", "2025-11-28T12:00:08Z"]

    out = said_by(capsys, "export", "--state-dir", tmp_path, "--json", *chosen, "--camera", "left")

    assert [json.loads(line)["station_seq"] for line in out.splitlines()] == [3, 5, 7]


def test_a_time_of_another_zone_is_the_same_moment(tmp_path: Path) -> None:
    two_cameras(tmp_path)
    rows = []
    for since in ("2025-11-28T12:00:05", "2025-11-28T14:00:05+02:00"):
        out = tmp_path / "out"
        assert (
            main(
                [
                    "ledger",
                    "export",
                    "--state-dir",
                    str(tmp_path),
                    "--since",
                    since,
                    "--out",
                    str(out),
                ]
            )
            == DONE
        )
        rows.append(out.read_text())

    assert rows[0] == rows[1]
    assert rows[0].count("\n") == 7  # with a heading


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ledger(tmp_path, 3)
    out = tmp_path / "verdicts.csv"
    asked = ["export", "--state-dir", tmp_path, "--out", out]
    assert "3 verdicts written to" in said_by(capsys, *asked)
    before = out.read_bytes()
    tamper(tmp_path, "UPDATE verdicts SET record = zeroblob(9) WHERE station_seq = 3")

    assert main(["ledger", *map(str, asked)]) == FAILED

    assert "row 3 cannot be read" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.glob("*verdicts*")) == ["verdicts.csv"]


def test_an_export_to_where_nothing_can_be_written_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ledger(tmp_path, 1)
    out = tmp_path / "missing" / "file"

    assert main(["ledger", "export", "--state-dir", str(tmp_path), "--out", str(out)]) == FAILED
    assert "cannot write" in capsys.readouterr().err


def test_what_came_from_version_1_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_version_1(tmp_path, [{}])
    with open_ledger(tmp_path):
        pass

    assert (
        json.loads(said_by(capsys, "export", "--state-dir", tmp_path, "--json"))["transport"]
        == FROM_VERSION_1
    )


# --- stats ----------------------------------------------------------------------------------------


def mixed(state_dir: Path) -> None:
    late = {"reason": Reason.DEADLINE_PASSED, "latency_ms": {"queue": 9.0, "total": 9.0}}
    with open_ledger(state_dir) as ledger:
        ledger.record(
            [
                entry(1, product="bolt", latency_ms={"score": 2.0, "total": 4.0}),
                entry(2, Verdict.REVIEW, product="bolt"),
                entry(3, Verdict.UNKNOWN, None, camera="other", bundle="c", **late),
            ]
        )


def test_stats_count_what_was_said_of_whom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed(tmp_path)

    said = json.loads(said_by(capsys, "stats", "--state-dir", tmp_path, "--json"))

    assert said["rows"] == 3
    assert said["verdicts"] == {"PASS": 1, "REVIEW": 1, "UNKNOWN": 1}
    assert said["reasons"] == {"score_above_review": 1, "deadline_passed": 1}
    assert said["cameras"] == {"cam": {"PASS": 1, "REVIEW": 1}, "other": {"UNKNOWN": 1}}
    assert said["products"] == {"bolt": {"PASS": 1, "REVIEW": 1}, "(none)": {"UNKNOWN": 1}}
    assert said["bundles"] == {"b": {"PASS": 1, "REVIEW": 1}, "c": {"UNKNOWN": 1}}
    assert (said["first_unix_ns"], said["last_unix_ns"]) == (NOON_NS + 10**9, NOON_NS + 3 * 10**9)
    assert said["per_minute"] == 60.0
    assert said["busiest_hour"] == {"began_unix_ns": NOON_NS, "verdicts": 3}
    assert set(said["latency_ms"]) == {"score", "queue", "total"}
    assert said["latency_ms"]["total"]["max"] == 9.0


def test_the_table_of_stats_has_every_verdict_and_is_not_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed(tmp_path)

    out = said_by(capsys, "stats", "--state-dir", tmp_path)

    for word in ("3 verdicts", "REVIEW", "FAIL", "deadline_passed", "other", "bolt", "p99"):
        assert word in out
    assert "…" not in out


def test_stats_of_a_span_without_verdicts_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed(tmp_path)
    late = ["--since", "2031-01-01"]

    assert "no verdicts" in said_by(capsys, "stats", "--state-dir", tmp_path, *late)
    said = json.loads(said_by(capsys, "stats", "--state-dir", tmp_path, *late, "--json"))
    assert (said["rows"], said["per_minute"], said["busiest_hour"]) == (0, None, None)


def test_cameras_without_end_take_no_memory_without_end(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([entry(n, camera=f"c{n}") for n in range(1, MOST_NAMES + 11)])

    with open_reader(tmp_path) as reader:
        stats = count(reader.walk())

    assert len(stats.cameras) == MOST_NAMES + 1
    assert stats.cameras[OTHERS].total() == 10


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99, 1.0])
def test_percentiles_are_right_to_a_hundredth(share: float) -> None:
    random_ = random.Random(3)
    durations = [random_.lognormvariate(3, 1) for _ in range(5000)]
    counted = Durations()
    for each in durations:
        counted.add(each)

    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]
    assert exact <= counted.percentile(share) <= exact * 1.01 + 1e-9


def test_nothing_has_no_percentile_and_no_time_is_no_crash() -> None:
    counted = Durations()
    assert math.isnan(counted.percentile(0.5))

    counted.add(0.0)

    assert counted.percentile(0.5) == 0.0


def test_what_cannot_be_read_is_named_by_its_row(tmp_path: Path) -> None:
    write_ledger(tmp_path, 2)
    tamper(tmp_path, "UPDATE verdicts SET record = x'c1' WHERE station_seq = 2")

    with open_reader(tmp_path) as reader, pytest.raises(StationError, match="row 2 cannot be read"):
        count(reader.walk())

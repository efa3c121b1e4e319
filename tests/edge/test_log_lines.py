"""Log lines: what a camera sends stays inside its own line."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from pathlib import Path

import pytest

from edge.log_lines import JsonLines, TextLines, fields_of, log_to_stderr

FORGED = "x\n<0>2026-01-01T00:00:00Z CRITICAL line stopped\r\u2028\x85\x1b[31m"


def _record(**extra: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "edge.x", "msg": "event", "levelno": 30, "levelname": "WARNING", **extra}
    )


def _failed(text: str) -> logging.LogRecord:
    try:
        raise ValueError(text)
    except ValueError:
        return _record(exc_info=sys.exc_info())


def test_fields_of_a_log_line_cannot_begin_a_line_of_their_own() -> None:
    record = _record(camera="a\nb", n=3, text="two words")

    assert fields_of(record) == ' camera="a\\nb" n=3 text="two words"'


def test_a_line_of_json_has_time_level_event_logger_and_typed_fields() -> None:
    record = _record(camera="cam0", forgotten=10, share=float("nan"), path=Path("/x"), none=None)
    record.created, record.msecs = 1_764_590_400.25, 250.0

    assert json.loads(JsonLines(to_journal=False).format(record)) == {
        "ts": "2025-12-01T12:00:00.250Z",
        "level": "warning",
        "event": "event",
        "logger": "edge.x",
        "fields": {
            "camera": "cam0",
            "forgotten": 10,
            "share": "nan",
            "path": "/x",
            "none": None,
        },
    }


@pytest.mark.parametrize("formatter", [TextLines, JsonLines])
@pytest.mark.parametrize(
    "record",
    [
        pytest.param(_record(camera=FORGED), id="in a field"),
        pytest.param(_record(msg=FORGED), id="in the event"),
    ],
)
def test_no_camera_can_forge_a_line(
    formatter: type[TextLines] | type[JsonLines], record: logging.LogRecord
) -> None:
    line = formatter(to_journal=False).format(record)

    assert line.splitlines() == [line]
    assert line.isprintable()


def test_nor_in_the_text_of_an_error_whose_trace_is_written() -> None:
    (as_json,) = JsonLines(to_journal=False).format(_failed(FORGED)).splitlines()
    first, *trace = TextLines(to_journal=False).format(_failed(FORGED)).splitlines()

    assert "ValueError" in json.loads(as_json)["exception"]
    assert "WARNING event" in first
    assert trace
    assert all(line.startswith("    ") for line in trace)


@pytest.mark.parametrize("formatter", [TextLines, JsonLines])
def test_the_journal_is_told_the_priority_of_every_line(
    formatter: type[TextLines] | type[JsonLines],
) -> None:
    lines = formatter(to_journal=True).format(_failed("two\nlines")).splitlines()

    assert {line[:3] for line in lines} == {"<4>"}


def test_stderr_is_the_journal_only_where_systemd_connected_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "stderr").open("w+") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        found = os.fstat(stderr.fileno())
        for stream in (f"{found.st_dev}:{found.st_ino}", "1:1", ""):
            log_to_stderr(log_format="json", environment={"JOURNAL_STREAM": stream})
            logging.getLogger("edge.x").error("e")
        stderr.seek(0)

        assert [line[:2] for line in stderr] == ["<3", '{"', '{"']


def test_a_stderr_without_a_file_is_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", heard := io.StringIO())

    log_to_stderr(environment={"JOURNAL_STREAM": "1:1"})
    logging.getLogger("edge.x").warning("e", extra={"n": 1})

    assert heard.getvalue().endswith("WARNING e n=1\n")

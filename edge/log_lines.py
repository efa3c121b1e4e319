"""Logs as lines on stderr, so that stdout stays for answers: `event key=value`, or JSON.

Whatever a camera sends, it cannot write a line of its own, nor make one look like another.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal

LogFormat = Literal["text", "json"]

_STANDARD = {*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "message", "asctime", "taskName"}

# As syslog counts; journald reads `<N>` at the beginning of a line as its priority.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


class TextLines(logging.Formatter):
    """`2026-01-31T06:00:00Z WARNING frames forgotten forgotten=10`; a traceback is indented."""

    def __init__(self, to_journal: bool) -> None:
        super().__init__()
        self._to_journal = to_journal

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; see `logging.Formatter`."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        said = _one_line(record.getMessage())
        lines = [f"{when} {record.levelname} {said}{fields_of(record)}"]
        if record.exc_info:
            lines += [f"    {_one_line(line)}" for line in _trace(self, record).splitlines()]
        prefix = _priority(record.levelno) if self._to_journal else ""
        return "\n".join(prefix + line for line in lines)


class JsonLines(logging.Formatter):
    """One object a line: ts, level, event, logger, fields, and exception if there is one."""

    def __init__(self, to_journal: bool) -> None:
        super().__init__()
        self._to_journal = to_journal

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; see `logging.Formatter`."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "ts": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            "fields": {key: _plain(value) for key, value in _extra(record).items()},
        }
        if record.exc_info:
            line["exception"] = _trace(self, record)
        return (_priority(record.levelno) if self._to_journal else "") + json.dumps(line)


def log_to_stderr(
    level: int = logging.INFO,
    log_format: LogFormat = "text",
    environment: Mapping[str, str] | None = None,
) -> None:
    """Send this process's log to stderr; a second call changes how.

    Args:
        level: The least that is logged.
        log_format: Of a line.
        environment: Tells whether stderr is the journal; None means this process's.
    """
    environment = os.environ if environment is None else environment
    formatter = JsonLines if log_format == "json" else TextLines
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(to_journal=_is_journal(environment)))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def fields_of(record: logging.LogRecord) -> str:
    """Write what was given as `extra`: ` key=value key="two words"`."""
    return "".join(f" {key}={_shown(value)}" for key, value in _extra(record).items())


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _shown(value: object) -> str:
    """Quote what would not be one word."""
    text = str(value)
    plain = text.isprintable() and text and not set(text) & {" ", '"', "="}
    return text if plain else json.dumps(text)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _plain(value: object) -> object:
    """Leave numbers what they are; JSON has no NaN."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and abs(value) < float("inf"):
        return value
    return str(value)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    assert record.exc_info
    return formatter.formatException(record.exc_info)


def _priority(level: int) -> str:
    return f"<{next((n for least, n in _PRIORITIES if level >= least), _DEBUG)}>"


def _is_journal(environment: Mapping[str, str]) -> bool:
    """Whether stderr is what systemd connected to the journal: device and inode tell.

    The variable alone does not: whoever redirects stderr of a service's child inherits it.
    """
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # stderr is closed, or no file
        return False
    return environment.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"

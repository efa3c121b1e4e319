"""Logs as lines of `event key=value`, on stderr, so that stdout stays for answers."""

from __future__ import annotations

import json
import logging
import sys
import time

_STANDARD = {*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "message", "asctime"}


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send this process's log to stderr."""
    formatter = logging.Formatter(
        "%(asctime)s %(levelname)s %(message)s%(fields)s", "%Y-%m-%dT%H:%M:%SZ"
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(_add_fields)
    logging.basicConfig(level=level, handlers=[handler], force=True)


def fields_of(record: logging.LogRecord) -> str:
    """Write what was given as `extra`: ` key=value key="two words"`."""
    extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    return "".join(f" {key}={_shown(value)}" for key, value in extra.items() if key != "fields")


def _add_fields(record: logging.LogRecord) -> bool:
    record.fields = fields_of(record)
    return True


def _shown(value: object) -> str:
    """Quote what would not be one word; no camera can write a line of its own into the log."""
    text = str(value)
    plain = text.isprintable() and text and not set(text) & {" ", '"', "="}
    return text if plain else json.dumps(text)

"""`ledger`: does it hold, what is in it, and a copy for others."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

from edge.commands.ledger_tables import print_audit, print_stats
from edge.commands.options import DONE, GATE, add_json, print_json
from edge.ledger_audit import Anchor, audit, parse_anchor
from edge.ledger_export import Format, export
from edge.ledger_reader import Selection, open_reader
from edge.ledger_stats import count, stats_as_json
from inspection.errors import InputError, StationError


def add_ledger(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb, and what it does."""
    ledger = verbs.add_parser("ledger", help="verify, export or count recorded verdicts")
    ledger.description = "Reads the ledger of a station, which may run meanwhile."
    does = ledger.add_subparsers(required=True, metavar="verify|export|stats")

    verify = _add(does, "verify", "prove that no row was changed, taken out or put in", _verify)
    verify.description = (
        "Exit 0 if the ledger holds, 1 if it cannot be read, 3 if it does not hold. Note the head "
        "that is printed, elsewhere: given as --anchor the next time, it also proves that the end "
        "was not cut off, nor everything up to it written anew."
    )
    verify.add_argument(
        "--anchor",
        action="append",
        default=[],
        type=_anchor,
        metavar="SEQ:HEX",
        help="a head noted earlier; may be given several times",
    )
    add_json(verify, "what was found as JSON")

    exported = _add(does, "export", "write verdicts as CSV or JSON lines", _export)
    _add_selection(exported)
    exported.add_argument(
        "--format", choices=("csv", "jsonl"), default="csv", help="[%(default)s]; jsonl has it all"
    )
    exported.add_argument("--out", type=Path, metavar="FILE", help="instead of stdout")
    add_json(exported, "the same as --format jsonl, and with --out the count as JSON")

    stats = _add(does, "stats", "count verdicts, and how fast and late they were", _stats)
    _add_selection(stats)
    add_json(stats, "the counts as JSON")


def _add(
    does: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    verb = does.add_parser(name, help=text)
    verb.set_defaults(verb=run)
    verb.add_argument(
        "--state-dir",
        type=Path,
        default=Path("station"),
        metavar="DIR",
        help="a station's [%(default)s]",
    )
    return verb


def _add_selection(verb: argparse.ArgumentParser) -> None:
    when = "UTC, as 2026-11-28 or 2026-11-28T14:30"
    verb.add_argument(
        "--since", type=_unix_ns, metavar="TIME", help=f"received from then on; {when}"
    )
    verb.add_argument("--until", type=_unix_ns, metavar="TIME", help="received before")
    verb.add_argument("--camera", metavar="NAME", help="only this one's")


def _verify(given: argparse.Namespace) -> int:
    with open_reader(given.state_dir) as ledger:
        found = audit(ledger, given.anchor)
    if given.json:
        print_json(found.as_json())
    else:
        print_audit(found)
    return DONE if found.holds else GATE


def _export(given: argparse.Namespace) -> int:
    format_: Format = "jsonl" if given.json else given.format
    with open_reader(given.state_dir) as ledger, _opened(given.out) as out:
        rows = export(ledger.walk(_selection(given)), out, format_)
    if given.out and given.json:
        print_json({"rows": rows, "file": str(given.out)})
    elif given.out:
        print(f"{rows} verdicts written to {given.out}")
    return DONE


def _stats(given: argparse.Namespace) -> int:
    with open_reader(given.state_dir) as ledger:
        counted = count(ledger.walk(_selection(given)))
    if given.json:
        print(json.dumps(stats_as_json(counted), ensure_ascii=False))
    else:
        print_stats(counted)
    return DONE


def _selection(given: argparse.Namespace) -> Selection:
    return Selection(given.since, given.until, given.camera)


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    """Give stdout, or a file that appears whole or not at all."""
    if out is None:
        yield sys.stdout
        return
    half = out.with_name(f".{out.name}.new")
    try:
        with half.open("w", encoding="utf-8", newline="") as opened:
            yield opened
        os.replace(half, out)
    except OSError as error:
        raise StationError(f"cannot write {out}: {error}") from error
    finally:
        half.unlink(missing_ok=True)


def _anchor(text: str) -> Anchor:
    try:
        return parse_anchor(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _unix_ns(text: str) -> int:
    """Parse a time in UTC, whatever the machine's time zone is."""
    try:
        when = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected a time as 2026-11-28 or 2026-11-28T14:30, got {text!r}"
        ) from error
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return int(when.timestamp()) * 1_000_000_000 + when.microsecond * 1000

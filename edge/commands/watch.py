"""`watch`: verdicts as they come."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from edge.commands.options import DONE, FAILED, not_negative, positive
from edge.watch import VERDICTS, line_of, missed, subscribe
from inspection.messages import VerdictMessage
from inspection.verdicts import Verdict

_STYLES = {
    Verdict.PASS: "green",
    Verdict.REVIEW: "yellow",
    Verdict.FAIL: "bold red",
    Verdict.UNKNOWN: "magenta",
}


def add_watch(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser("watch", help="print verdicts as they come")
    verb.set_defaults(verb=_watch)
    verb.add_argument(
        "--from", dest="from_", default=VERDICTS, metavar="ADDRESS", help="[%(default)s]"
    )
    verb.add_argument("--count", type=positive, help="stop after so many verdicts")
    verb.add_argument(
        "--timeout", type=not_negative, metavar="S", help="stop after so long without a verdict"
    )
    verb.add_argument("--camera", metavar="NAME", help="only this one's")
    verb.add_argument("--json", action="store_true", help="verdicts as JSON lines")


def _watch(given: argparse.Namespace) -> int:
    heard, before = 0, None
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    try:
        for said in subscribe(given.from_, camera=given.camera, silence_s=given.timeout):
            if gap := missed(before, said) if given.camera is None else 0:
                print(f"{gap} verdicts were not heard; the ledger has them", file=sys.stderr)
            _print_verdict(said, console, as_json=given.json)
            heard, before = heard + 1, said
            if heard == given.count:
                return DONE
    except KeyboardInterrupt:
        return DONE
    print(f"no verdict from {given.from_} for {given.timeout:g} s", file=sys.stderr)
    return DONE if given.count is None and heard else FAILED


def _print_verdict(said: VerdictMessage, console: Console, *, as_json: bool) -> None:
    if as_json:
        print(said.model_dump_json(), flush=True)
    else:
        console.print(line_of(said), style=_STYLES[said.verdict])

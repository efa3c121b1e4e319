"""`watch`: verdicts as they come, or every one of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial

from rich.console import Console

from edge.catch_up import CATCH_UP
from edge.commands.options import (
    DONE,
    FAILED,
    add_keys,
    client_keys,
    not_negative,
    number,
    positive,
)
from edge.follow import follow
from edge.sockets import apply_client_keys
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
    verb.add_argument(
        "--follow", action="store_true", help="miss none: ask the station for what was not heard"
    )
    verb.add_argument(
        "--after", type=number, metavar="SEQ", help="follow, beginning behind this station_seq"
    )
    verb.add_argument(
        "--catch-up", default=CATCH_UP, metavar="ADDRESS", help="what is asked [%(default)s]"
    )
    add_keys(verb)
    verb.add_argument("--json", action="store_true", help="verdicts as JSON lines")


def _watch(given: argparse.Namespace) -> int:
    heard, before = 0, None
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    try:
        for said in _verdicts(given):
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


def _verdicts(given: argparse.Namespace) -> Iterator[VerdictMessage]:
    keys = client_keys(given)
    if not given.follow and given.after is None:
        return subscribe(given.from_, camera=given.camera, silence_s=given.timeout, keys=keys)
    secure = partial(apply_client_keys, keys=keys)
    everything = follow(
        given.from_, given.catch_up, given.after, silence_s=given.timeout, secure=secure
    )
    return (said for said in everything if given.camera in (None, said.camera))


def _print_verdict(said: VerdictMessage, console: Console, *, as_json: bool) -> None:
    if as_json:
        print(said.model_dump_json(), flush=True)
    else:
        console.print(line_of(said), style=_STYLES[said.verdict])

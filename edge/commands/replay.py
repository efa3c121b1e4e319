"""`replay`: what the ledger says, asked again of the same bundle."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edge.bundle_folder import open_bundle
from edge.commands.ledger_tables import console, plain_table, shown
from edge.commands.options import DONE, FAILED, GATE, add_json, positive, print_json
from edge.ledger_export import utc
from edge.ledger_reader import LedgerReader, Recorded, open_reader
from edge.replay import Replayed, State, replay
from inspection.engines import PRECISIONS, TOLERANCE
from inspection.errors import InputError
from inspection.golden import EXACT
from inspection.messages import VerdictMessage

_LAST = 100

_HINTS = {
    State.NO_FRAME: "the label queue keeps frames of flagged parts; --frames DIR names more",
    State.OTHER_BUNDLE: "give the folder of that bundle",
}


def add_replay(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser("replay", help="score recorded frames again and compare verdicts")
    verb.set_defaults(verb=_replay)
    verb.description = (
        "Same entry, same bundle, same verdict: scores frames of the label queue, or of an "
        "archive, again on the CPU. Exit 0 if all that could be asked is the same, 1 if nothing "
        "could be, 3 if a verdict, reason, score, threshold or region differs."
    )
    verb.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="that judged")
    verb.add_argument(
        "--state-dir", type=Path, default=Path("station"), metavar="DIR", help="[%(default)s]"
    )
    verb.add_argument(
        "--frames",
        type=Path,
        metavar="DIR",
        help="image files, or .npy of raw frames, found by the SHA-256 of their pixels",
    )
    which = verb.add_mutually_exclusive_group()
    which.add_argument(
        "--entry", type=positive, action="append", metavar="SEQ", help="this station_seq"
    )
    which.add_argument(
        "--last", type=positive, default=_LAST, metavar="N", help="the last N [%(default)s]"
    )
    verb.add_argument(
        "--engine",
        choices=PRECISIONS,
        help="precision of the engine that judged on a GPU, whose scores may be further apart",
    )
    add_json(verb, "every entry as JSON")


def _replay(given: argparse.Namespace) -> int:
    bundle = open_bundle(given.bundle)
    tolerance = TOLERANCE[given.engine] if given.engine else EXACT
    with open_reader(given.state_dir) as ledger:
        entries = _entries(ledger, given.entry) if given.entry else ledger.latest(given.last)
    replayed = list(replay(entries, bundle, given.state_dir, given.frames, tolerance))
    counts = Counter(each.state for each in replayed)
    if given.json:
        print_json(
            {
                **{state.name.lower(): counts[state] for state in State},
                "bundle": bundle.id,
                "entries": [each.as_json() for each in replayed],
            }
        )
    else:
        _print(replayed, counts)
    if counts[State.DIFFERS]:
        return GATE
    return DONE if counts[State.SAME] else FAILED


def _entries(ledger: LedgerReader, numbers: Sequence[int]) -> list[Recorded]:
    found = {number: ledger.after(number - 1, 1) for number in sorted(set(numbers))}
    for number, entries in found.items():
        if [entry.station_seq for entry in entries] != [number]:
            raise InputError(f"the ledger has no entry {number}; its last is {ledger.last_seq()}")
    return [entry for entries in found.values() for entry in entries]


def _print(replayed: Sequence[Replayed], counts: Counter[State]) -> None:
    out = console()
    asked = [each for each in replayed if each.again is not None]
    if asked:
        right = ("seq", "score", "score now", "apart")
        table = plain_table(
            "seq",
            "received, UTC",
            "camera",
            "part",
            "recorded",
            "score",
            "now",
            "score now",
            "apart",
            "",
            right=right,
        )
        for each in asked:
            assert each.again is not None
            table.add_row(
                str(each.recorded.station_seq),
                utc(each.received_unix_ns)[:19].replace("T", " "),
                shown(each.recorded.camera, 16),
                shown(each.recorded.part or "", 24),
                _verdict(each.recorded),
                _score(each.recorded),
                _verdict(each.again),
                _score(each.again),
                "" if each.score_error != each.score_error else f"{each.score_error:.1e}",
                each.state.value.upper() if each.state is State.DIFFERS else each.state.value,
                style="bold red" if each.state is State.DIFFERS else "",
            )
        out.print(table)
        out.print()
    for each in replayed:
        if each.state is State.DIFFERS:
            out.print(shown(f"{each.recorded.station_seq}: {each.why}", 2000), soft_wrap=True)
    for state in State:
        _print_count(state, counts[state], [each.why for each in replayed if each.state is state])


def _print_count(state: State, count: int, reasons: Sequence[str]) -> None:
    out = console()
    if not count and state not in (State.SAME, State.DIFFERS):
        return
    styles = {State.SAME: "green", State.DIFFERS: "bold red" if count else ""}
    out.print(f"{count:>7,}  {state.value}", style=styles.get(state, ""))
    if state in (State.SAME, State.DIFFERS):
        return
    told = Counter(reasons).most_common(3)
    for why, times in told:
        out.print(shown(f"{'':>9}{times:,} × {why}", 400), soft_wrap=True)
    if more := len(set(reasons)) - len(told):
        out.print(f"{'':>9}and {more:,} other reasons")
    if hint := _HINTS.get(state):
        out.print(f"{'':>9}{hint}")


def _verdict(said: VerdictMessage) -> str:
    return said.verdict.value


def _score(said: VerdictMessage) -> str:
    return "" if said.score is None else f"{said.score:.4f}"

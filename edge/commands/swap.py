"""`swap`: another bundle for a station that runs, and what has become of the last one."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from pydantic import ValidationError

from edge.commands.options import DONE, FAILED, GATE, add_keys, client_keys, not_negative
from edge.control import ask_station, control_address
from edge.settings import SettingsError, read_settings
from edge.swap_report import progress_of, report_of
from inspection.control_messages import AT_REST, ControlReply, ControlRequest, SwapState, Terms
from inspection.wire import first_of

LOOK_S = 0.2
"""Between two looks at a swap that is waited for."""


def add_swap(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser("swap", help="give a running station another bundle")
    verb.set_defaults(verb=_swap)
    verb.description = (
        "The bundle is copied, verified, loaded and proven beside the running one, judges some "
        "frames in shadow, takes over between two frames, and is rolled back if it fails or if the "
        "share of verdicts that are not PASS leaves its bounds. Exit 0 done (without --wait: taken "
        "up), 1 no station or no answer, 3 refused or rolled back."
    )
    verb.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE_DIR", help="the new bundle")
    asked = verb.add_mutually_exclusive_group()
    for ask, text in (
        ("status", "only say where the station stands"),
        ("activate", "end the shadow now, and let the bundle take over"),
        ("abort", "end a swap whose bundle has not taken over"),
        ("rollback", "bring the bundle before back"),
    ):
        asked.add_argument(f"--{ask}", dest="ask", action="store_const", const=ask, help=text)
    where = verb.add_argument_group("which station")
    where.add_argument("--config", type=Path, metavar="TOML", help="its settings file")
    where.add_argument("--state-dir", type=Path, metavar="DIR", help="its state_dir [station]")
    where.add_argument("--control", metavar="ADDRESS", help="its control socket [in state_dir]")
    _add_terms(verb)
    verb.add_argument(
        "--wait", action="store_true", help="until it is kept, refused or rolled back"
    )
    verb.add_argument(
        "--timeout",
        type=not_negative,
        default=10.0,
        metavar="S",
        help="for an answer [%(default)s]",
    )
    add_keys(verb)
    verb.add_argument("--json", action="store_true", help="the state as JSON")


def _add_terms(verb: argparse.ArgumentParser) -> None:
    default, terms = Terms(), verb.add_argument_group("on which terms")
    terms.add_argument(
        "--shadow",
        type=int,
        dest="shadow_frames",
        metavar="FRAMES",
        help=f"judged beside the running bundle first; 0 = none [{default.shadow_frames}]",
    )
    for name, metavar, text in (
        ("shadow_s", "S", "wait for them at most so long"),
        ("most_flipped", "SHARE", "refuse the bundle if more of them get another verdict"),
        ("probation_s", "S", "watch the bundle so long"),
        ("margin", "SHARE", "by which the share of verdicts that are not PASS may move then"),
    ):
        flag = "--" + name.removesuffix("_s" if name == "probation_s" else "").replace("_", "-")
        shown = getattr(default, name)
        text += "" if shown is None else f" [{shown:g}]"
        terms.add_argument(flag, type=float, dest=name, metavar=metavar, help=text)


def _swap(given: argparse.Namespace) -> int:
    request = _request_of(given)
    address = _address_of(given)
    reply = ask_station(address, request, given.timeout, client_keys(given))
    if reply.granted and given.wait and request.ask != "status":
        reply = _wait(address, given, reply)
    if given.json:
        print(reply.model_dump_json(), flush=True)
    else:
        _print(reply, given.ask)
    if not reply.granted:
        return GATE
    return _code(reply.state, request) if given.wait else DONE


def _request_of(given: argparse.Namespace) -> ControlRequest:
    if (given.bundle is None) == (given.ask is None):
        raise SettingsError(
            "expected a BUNDLE_DIR, or one of --status, --activate, --abort and --rollback"
        )
    if given.ask is not None:
        return ControlRequest(ask=given.ask)
    chosen = {
        name: getattr(given, name)
        for name in Terms.model_fields
        if getattr(given, name) is not None
    }
    try:
        terms = Terms(**chosen)
    except ValidationError as error:
        raise SettingsError(f"terms cannot be kept: {first_of(error)}") from error
    # The station's working directory is another one.
    return ControlRequest(ask="swap", bundle=str(given.bundle.resolve()), terms=terms)


def _address_of(given: argparse.Namespace) -> str:
    layer = {"state_dir": given.state_dir, "control": given.control}
    settings = read_settings(given.config, {k: v for k, v in layer.items() if v is not None})
    return control_address(settings.state_dir, settings.control)


def _wait(address: str, given: argparse.Namespace, reply: ControlReply) -> ControlReply:
    """Ask until nothing is under way; prints every step once."""
    shown: str | None = None
    while True:
        line = progress_of(reply.state)
        if line != shown and not given.json:
            print(line, file=sys.stderr, flush=True)
        shown = line
        if reply.state.step in AT_REST:
            return reply
        time.sleep(LOOK_S)
        reply = ask_station(
            address, ControlRequest(ask="status"), given.timeout, client_keys(given)
        )


def _code(state: SwapState, request: ControlRequest) -> int:
    """Tell the end of what was waited for: a rollback that was asked for is done."""
    if state.step == "rolled_back":
        return DONE if request.ask == "rollback" else GATE
    if state.step == "refused":
        return DONE if request.ask == "abort" else GATE
    return DONE if state.step == "steady" else FAILED


def _print(reply: ControlReply, ask: str | None) -> None:
    if not reply.granted:
        print(f"dualbank-edge: the station refuses: {reply.why}", file=sys.stderr)
        return
    if ask is None and reply.state.step not in AT_REST:
        print("taken up; `dualbank-edge swap --status` says how it goes")
    for line in report_of(reply.state):
        print(line)

"""`dualbank-edge`: run a station, play a camera, watch verdicts, check a bundle or a machine."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from edge.camera import STATION, Camera
from edge.doctor import examine
from edge.findings import Finding, State
from edge.log_lines import log_to_stderr
from edge.proof import print_proof, proof_as_json, prove
from edge.replay import find_images, replay
from edge.service import serve
from edge.settings import SettingsError, StationSettings, read_settings
from edge.watch import VERDICTS, line_of, missed, subscribe
from inspection.errors import DualbankError, ParityError
from inspection.messages import VerdictMessage
from inspection.verdicts import Verdict

DONE, FAILED, USAGE, GATE = 0, 1, 2, 3

_STYLES = {
    Verdict.PASS: "green",
    Verdict.REVIEW: "yellow",
    Verdict.FAIL: "bold red",
    Verdict.UNKNOWN: "magenta",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    given = _parser().parse_args(arguments)
    log_to_stderr()
    verb: Callable[[argparse.Namespace], int] = given.verb
    try:
        return verb(given)
    except SettingsError as error:
        return _fail(error, USAGE)
    except ParityError as error:
        return _fail(error, GATE)
    except DualbankError as error:
        return _fail(error, FAILED)
    except BrokenPipeError:
        # Whoever read stdout has gone, as `head` does; the interpreter must not flush into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _fail(error: DualbankError, code: int) -> int:
    print(f"dualbank-edge: {error}", file=sys.stderr)
    return code


def _run(given: argparse.Namespace) -> int:
    serve(_settings(given), _print_json if given.json else _print_account)
    return DONE


def _settings(given: argparse.Namespace) -> StationSettings:
    command_line = {
        name: getattr(given, name) for name in StationSettings.model_fields if name in given
    }
    return read_settings(given.config, command_line)


def _doctor(given: argparse.Namespace) -> int:
    findings = examine(_settings(given))
    if given.json:
        _print_json({each.what: [each.state.value, each.found, each.remedy] for each in findings})
    else:
        _print_findings(findings)
    return FAILED if any(each.state is State.BROKEN for each in findings) else DONE


def _print_findings(findings: Sequence[Finding]) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    styles = {State.FINE: "green", State.LACKING: "yellow", State.BROKEN: "bold red"}
    for each in findings:
        console.print(f"{each.state.value:<8}", style=styles[each.state], end="")
        console.print(f"{each.what:<14}{each.found}")
        if each.remedy:
            console.print(f"{'':<22}→ {each.remedy}")


def _camera(given: argparse.Namespace) -> int:
    images = find_images(given.paths)
    with Camera(given.to, given.name, product=given.product, timeout_s=given.timeout) as camera:
        try:
            replay(
                camera,
                images,
                given.rate,
                count=given.count,
                loop=given.loop,
                encoding=given.encoding,
                deadline_ms=given.deadline_ms,
            )
        except KeyboardInterrupt:
            pass  # how a loop ends; what was sent is still told
        finally:
            sent = {"camera": camera.name, "session": camera.session, "sent": camera.sent}
            if given.json:
                _print_json(sent)
            else:
                print(f"{camera.sent} frames sent to {given.to} as {camera.name}")
    return DONE


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


def _check(given: argparse.Namespace) -> int:
    chosen = {} if given.gpu is None else {"gpu": given.gpu}
    proof = prove(given.bundle, read_settings(None, chosen))
    if given.json:
        _print_json(proof_as_json(proof))
    else:
        print_proof(proof)
    return DONE if proof.holds else GATE


def _print_verdict(said: VerdictMessage, console: Console, *, as_json: bool) -> None:
    if as_json:
        print(said.model_dump_json(), flush=True)
    else:
        console.print(line_of(said), style=_STYLES[said.verdict])


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


def _print_account(report: dict[str, Any]) -> None:
    for name, value in report.items():
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {_number(each)}" for key, each in value.items())
            print(f"{name:<13} {shown or '-'}")
        else:
            print(f"{name:<13} {value}")


def _number(value: Any) -> str:
    return f"{value['p50']:g} (p99 {value['p99']:g})" if isinstance(value, dict) else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dualbank-edge", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _add_run(verbs.add_parser("run", help="run a station until SIGTERM"))
    _add_camera(verbs.add_parser("camera", help="send images as a camera would"))
    _add_watch(verbs.add_parser("watch", help="print verdicts as they come"))
    _add_check(verbs.add_parser("check", help="prove a bundle on this machine"))
    _add_doctor(verbs.add_parser("doctor", help="look at what a station needs of this machine"))
    return parser


def _add_run(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(verb=_run)
    verb.add_argument("--json", action="store_true", help="at the end, counters as JSON on stdout")
    _add_settings(verb)


def _add_doctor(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(verb=_doctor)
    verb.add_argument("--json", action="store_true", help="findings as JSON")
    _add_settings(verb)
    verb.description = (
        "Nothing is changed. Exit 1 if a station with these settings cannot run here. What only a "
        "GPU needs may be lacking, unless --scorer gpu insists on one."
    )


def _add_settings(verb: argparse.ArgumentParser) -> None:
    verb.description = "Command line > EDGE_… in the environment > TOML > defaults."
    verb.add_argument("--config", type=Path, metavar="TOML", help="settings file")
    for name, field in StationSettings.model_fields.items():
        flag = "--" + name.replace("_", "-")
        text = f"{field.description}"
        if field.default is not None:
            text += f" [{field.default}]"
        if isinstance(field.default, bool):
            verb.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
            )
        else:
            verb.add_argument(flag, default=argparse.SUPPRESS, metavar=_metavar(name), help=text)


def _add_camera(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(verb=_camera)
    verb.add_argument("paths", nargs="+", type=Path, metavar="DIR|FILE", help="images to send")
    verb.add_argument("--to", default=STATION, help="the station [%(default)s]")
    verb.add_argument(
        "--rate", type=_not_negative, default=10.0, metavar="HZ", help="[%(default)s]; 0 = at once"
    )
    verb.add_argument("--name", default="cam0", help="of the camera [%(default)s]")
    verb.add_argument("--product", help="what the camera looks at")
    verb.add_argument("--count", type=_positive, help="stop after so many frames")
    verb.add_argument("--loop", action="store_true", help="start again after the last image")
    verb.add_argument(
        "--encoding",
        choices=("as-is", "jpeg", "png", "raw"),
        default="as-is",
        help="as-is sends JPEG and PNG unchanged, other files as raw pixels [%(default)s]",
    )
    verb.add_argument("--deadline-ms", type=_above_zero, help="when a verdict comes too late")
    verb.add_argument(
        "--timeout",
        type=_not_negative,
        default=30.0,
        metavar="S",
        help="give up when no station takes frames for so long [%(default)s]",
    )
    verb.add_argument("--json", action="store_true", help="at the end, the count as JSON")


def _add_watch(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(verb=_watch)
    verb.add_argument(
        "--from", dest="from_", default=VERDICTS, metavar="ADDRESS", help="[%(default)s]"
    )
    verb.add_argument("--count", type=_positive, help="stop after so many verdicts")
    verb.add_argument(
        "--timeout", type=_not_negative, metavar="S", help="stop after so long without a verdict"
    )
    verb.add_argument("--camera", metavar="NAME", help="only this one's")
    verb.add_argument("--json", action="store_true", help="verdicts as JSON lines")


def _add_check(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(verb=_check)
    verb.description = (
        "Asks full.onnx on the CPU and every engine of the bundle that can run here. Exit 0 if "
        "every digest and golden frame holds, 1 damaged, 3 other answers."
    )
    verb.add_argument("--bundle", type=Path, required=True, help="folder of the model bundle")
    verb.add_argument("--gpu", help="which GPU, as the driver counts [0]")
    verb.add_argument("--json", action="store_true", help="the table as JSON")


def _metavar(name: str) -> str:
    """The unit that ends the name of a setting, if one does."""
    unit = name.rpartition("_")[2]
    return unit.upper() if unit in ("bytes", "s") else "…"


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text}")
    return value


def _above_zero(text: str) -> float:
    value = _not_negative(text)
    if value == 0:
        raise argparse.ArgumentTypeError("expected more than 0")
    return value


if __name__ == "__main__":
    sys.exit(main())

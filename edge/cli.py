"""`dualbank-edge`: a station and all that one does with it: cameras, verdicts, bundles, records."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from edge.commands.bridge import add_bridge
from edge.commands.camera import add_camera
from edge.commands.check import add_check
from edge.commands.doctor import add_doctor
from edge.commands.keys import add_keys
from edge.commands.ledger import add_ledger
from edge.commands.options import DONE, FAILED, GATE, USAGE
from edge.commands.replay import add_replay
from edge.commands.run import add_run
from edge.commands.swap import add_swap
from edge.commands.watch import add_watch
from edge.log_lines import log_to_stderr
from edge.settings import SettingsError
from inspection.errors import DualbankError, ParityError


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dualbank-edge", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for add in (
        *(add_run, add_camera, add_watch, add_bridge, add_swap, add_check, add_doctor),
        *(add_keys, add_ledger, add_replay),
    ):
        add(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())

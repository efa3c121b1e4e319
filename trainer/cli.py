"""`dualbank-train`: fit a bundle, evaluate it, and look at what it says of images."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence

from inspection.errors import DualbankError, ParityError
from trainer.commands.evaluate import add_evaluate
from trainer.commands.fit import add_fit
from trainer.commands.predict import add_predict
from trainer.commands.report import add_report
from trainer.commands.weights import add_weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0 done, 1 failed, 2 wrong usage, 3 the runtimes of a bundle disagree."""
    words = sys.argv[1:] if arguments is None else arguments
    args = _parser().parse_args(words, argparse.Namespace(words=words))
    # Stopped like Ctrl-C, so that the features on disk are removed: they may be gigabytes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        result: int = args.run(args)
        return result
    except DualbankError as error:
        print(f"dualbank-train: {error}", file=sys.stderr)
        return 3 if isinstance(error, ParityError) else 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"dualbank-train: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dualbank-train: stopped; nothing was written", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dualbank-train", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    add_fit(verbs)
    add_evaluate(verbs)
    add_report(verbs)
    add_predict(verbs)
    add_weights(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())

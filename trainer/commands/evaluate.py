"""`evaluate`: figures of a bundle on test images, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console

from trainer.bundle_folder import open_bundle
from trainer.commands.options import add_quiet, add_tested, learned_by
from trainer.dataset import find_categories
from trainer.evaluate import evaluate
from trainer.evaluation_table import table
from trainer.progress import Progress
from trainer.runtime import Runtime


def add_evaluate(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser("evaluate", help="measure a bundle on test images")
    add_tested(verb)
    verb.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the figures there; - for standard output",
    )
    add_quiet(verb)
    verb.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    bundle = open_bundle(args.bundle)
    categories = find_categories(args.data, need_train=False)
    progress = Progress(shown=not args.quiet)
    report = evaluate(Runtime(bundle), categories, progress, learned_by(args.without))
    text = json.dumps(report, indent=1, allow_nan=False)
    if args.json == Path("-"):
        print(text)
        return 0
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n")
    Console().print(table(report))
    for name, row in report["categories"].items():
        if row["left_out"]:
            print(f"{name}: {row['left_out']} test images left out: a bundle learned from them")
    return 0

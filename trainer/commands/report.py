"""`report`: an evaluation as one HTML file, with the pictures of what was judged wrongly."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from trainer.bundle_folder import open_bundle
from trainer.commands.options import add_json, add_quiet, add_tested, learned_by
from trainer.dataset import find_categories
from trainer.evaluate import figures_of, inspect_tests
from trainer.progress import Progress
from trainer.report.mistakes import false_accepts, false_rejects
from trainer.report.page import report_page
from trainer.results import CategoryResults
from trainer.runtime import Runtime


def add_report(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser("report", help="evaluate, and write one HTML file with pictures")
    add_tested(verb)
    verb.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="where the page is written (default %(default)s)",
    )
    add_json(verb, "figures")
    add_quiet(verb)
    verb.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    bundle = open_bundle(args.bundle)
    categories = find_categories(args.data, need_train=False)
    progress = Progress(shown=not args.quiet)
    results = inspect_tests(Runtime(bundle), categories, progress, learned_by(args.without))
    figures = figures_of(bundle, results)
    command = shlex.join(("dualbank-train", *args.words))
    page = report_page(bundle, results, figures, args.data, command)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(page, "utf-8")
    if args.json:
        print(json.dumps({"report": str(args.out), **figures}, indent=1, allow_nan=False))
    else:
        print(f"{args.out}: {_mistakes(results)}")
    return 0


def _mistakes(results: Sequence[CategoryResults]) -> str:
    defective = sum(int(each.defects.sum()) for each in results)
    good = sum(len(each.images) for each in results) - defective
    return (
        f"defective parts passed: {len(false_accepts(results))} of {defective}; "
        f"good parts not passed: {len(false_rejects(results))} of {good}"
    )

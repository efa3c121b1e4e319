"""`predict`: verdicts of single images, with pictures of what was found."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trainer.bundle_folder import open_bundle
from trainer.commands.options import add_json, add_quiet
from trainer.predict import predict
from trainer.runtime import Runtime


def add_predict(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser("predict", help="score images and write heatmap overlays")
    verb.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    verb.add_argument("--bundle", type=Path, required=True, metavar="B")
    verb.add_argument(
        "--product",
        metavar="NAME",
        help="whose route judges the images (default: what each looks like)",
    )
    verb.add_argument(
        "--out",
        type=Path,
        default=Path("out/predict"),
        metavar="DIR",
        help="where overlays are written (default %(default)s)",
    )
    add_json(verb)
    add_quiet(verb)
    verb.set_defaults(run=_predict)


def _predict(args: argparse.Namespace) -> int:
    runtime = Runtime(open_bundle(args.bundle))
    answers = predict(runtime, args.images, args.product, args.out)
    if args.json:
        print(json.dumps(answers, indent=1))
    else:
        for answer in answers:
            print(
                f"{answer['verdict']:<7}{answer['score']:8.2f}  p = {answer['p_value']:.3f}  "
                f"{answer['image']} → {answer['overlay']}"
            )
    return 0

"""`dualbank-train`: fit a bundle, evaluate it, and look at what it says of images."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from inspection.errors import DualbankError, ParityError
from inspection.preprocessing import Preprocessing
from trainer.backbones.catalogue import NAMES
from trainer.bundle_folder import check_target, open_bundle, write_bundle
from trainer.commands.evaluate import add_evaluate
from trainer.commands.options import add_json, add_quiet
from trainer.commands.predict import add_predict
from trainer.commands.report import add_report
from trainer.commands.weights import add_weights
from trainer.dataset import find_categories
from trainer.fit import FitSettings, fit
from trainer.foreground import read_foregrounds
from trainer.labelled import Labelled, draw_defects
from trainer.labelled_folder import find_labelled
from trainer.packing import make_bundle
from trainer.progress import Progress


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
    defaults = FitSettings()

    verb = verbs.add_parser("fit", help="learn good parts from a folder and write a bundle")
    verb.add_argument("data", type=Path, metavar="DIR", help="categories, at any depth")
    verb.add_argument("--out", type=Path, required=True, metavar="BUNDLE")
    verb.add_argument(
        "--size",
        type=int,
        default=defaults.size_px,
        metavar="PX",
        help="side of the network input (default %(default)s)",
    )
    verb.add_argument(
        "--rows",
        type=int,
        default=defaults.rows_each,
        metavar="N",
        help="normal bank rows of each category (default %(default)s)",
    )
    verb.add_argument(
        "--abnormal-rows",
        type=int,
        default=defaults.abnormal_rows_each,
        metavar="N",
        help="abnormal bank rows of each category (default %(default)s)",
    )
    verb.add_argument(
        "--abnormal-weight",
        type=float,
        default=defaults.abnormal_weight,
        metavar="W",
        help="how much the abnormal side may raise a score "
        "(default %(default)s: without labelled defects it does not help)",
    )
    taught = verb.add_mutually_exclusive_group()
    taught.add_argument(
        "--defects",
        type=int,
        metavar="K",
        help="learn from K defective test images of each category too, drawn by the seed",
    )
    taught.add_argument(
        "--labelled",
        type=Path,
        metavar="DIR",
        help="learn from labelled defects too: CATEGORY/TYPE/ with images, and masks, boxes "
        "(annotations.json, COCO) or neither",
    )
    verb.add_argument(
        "--foreground",
        type=Path,
        metavar="DIR",
        help="masks <category>.png, white where parts are inspected (default: everywhere)",
    )
    verb.add_argument(
        "--seed",
        type=int,
        default=defaults.seed,
        metavar="N",
        help="of every random draw (default %(default)s)",
    )
    verb.add_argument(
        "--backbone",
        default=defaults.backbone,
        metavar="NAME|onnx:FILE",
        help=f"{', '.join(NAMES)}, or onnx:FILE#OUTPUT,… (default %(default)s)",
    )
    verb.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="the backbone's checkpoint, .safetensors or .pth "
        "(default: that of the installed package)",
    )
    add_json(verb)
    add_quiet(verb)
    verb.set_defaults(run=_fit)

    add_evaluate(verbs)
    add_report(verbs)
    add_predict(verbs)
    add_weights(verbs)
    return parser


def _fit(args: argparse.Namespace) -> int:
    settings = FitSettings(
        size_px=args.size,
        rows_each=args.rows,
        abnormal_rows_each=args.abnormal_rows,
        abnormal_weight=args.abnormal_weight,
        seed=args.seed,
        backbone=args.backbone,
        weights=args.weights,
    )
    check_target(args.out)
    categories = find_categories(args.data)
    labelled: Labelled = {}
    if args.defects is not None:
        labelled, categories = draw_defects(categories, args.defects, args.seed)
    elif args.labelled is not None:
        labelled = find_labelled(args.labelled, categories)
    spec = Preprocessing(settings.size_px)
    masked = read_foregrounds(args.foreground, categories, spec) if args.foreground else {}
    progress = Progress(shown=not args.quiet)
    model = fit(categories, settings, progress, labelled=labelled, masked=masked)
    write_bundle(args.out, make_bundle(model, categories))
    bundle = open_bundle(args.out)
    thresholds = {name: route.statement for name, route in bundle.manifest.routes.items()}
    report = {
        "bundle": bundle.id,
        "path": str(args.out),
        "categories": {category.name: len(category.train) for category in categories},
        "labelled": {name: len(defects) for name, defects in labelled.items()},
        "thresholds": thresholds,
    }
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        print(f"{args.out}: bundle {bundle.id[:12]}")
        for name, statement in thresholds.items():
            print(f"  {name}: {statement}")
        for name, defects in labelled.items():
            print(f"  {name}: {len(defects)} labelled defects")
    return 0


if __name__ == "__main__":
    sys.exit(main())

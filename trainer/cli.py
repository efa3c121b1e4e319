"""`dualbank-train`: fit a bundle, evaluate it, and look at what it says of single images."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich.console import Console

from inspection.bundle import LINEAGE
from inspection.errors import DualbankError, ParityError
from inspection.lineage import lineage_from_bytes
from inspection.preprocessing import Fit
from trainer import weights
from trainer.augment import KINDS, Augmentation
from trainer.backbones.catalogue import NAMES
from trainer.backbones.published import PUBLISHED
from trainer.bundle_folder import check_target, open_bundle, write_bundle
from trainer.dataset import find_categories
from trainer.evaluate import evaluate, table
from trainer.fit import FitSettings, fit
from trainer.foreground import read_foregrounds
from trainer.labelled import Labelled, draw_defects
from trainer.labelled_folder import find_labelled
from trainer.packing import make_bundle
from trainer.predict import predict
from trainer.progress import Progress
from trainer.runtime import Runtime


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0 done, 1 failed, 2 wrong usage, 3 the runtimes of a bundle disagree."""
    args = _parser().parse_args(arguments)
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
        help="side of the network input, or of a tile (default %(default)s)",
    )
    verb.add_argument(
        "--fit",
        choices=get_args(Fit),
        default=defaults.fit,
        metavar="HOW",
        help="stretch: frames are resized to a square; letterbox: resized and padded, so that they "
        "keep their aspect; tiles: cut into squares at their own resolution, for small defects on "
        "large frames (default %(default)s)",
    )
    verb.add_argument(
        "--overlap",
        type=int,
        metavar="PX",
        help="by which tiles overlap at least (default: a quarter of their side)",
    )
    verb.add_argument(
        "--shrink",
        type=int,
        default=defaults.shrink,
        metavar="N",
        help="cut tiles from frames N times smaller, N² times faster (default %(default)s)",
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
    verb.add_argument(
        "--augment",
        default="",
        metavar="KIND,…",
        help=f"learn from copies of good images too that differ in {', '.join(KINDS)} "
        "(default: none)",
    )
    _common(verb)
    verb.set_defaults(run=_fit)

    verb = verbs.add_parser("evaluate", help="measure a bundle on test images")
    verb.add_argument("data", type=Path, metavar="DIR", help="categories, at any depth")
    verb.add_argument("--bundle", type=Path, required=True, metavar="B")
    verb.add_argument(
        "--without",
        type=Path,
        action="append",
        default=[],
        metavar="B",
        help="leave out the test images that this bundle learned from, as those of --bundle always "
        "are; may be given again",
    )
    _common(verb, json_to_file=True)
    verb.set_defaults(run=_evaluate)

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
    _common(verb)
    verb.set_defaults(run=_predict)

    verb = verbs.add_parser("weights", help="where backbones' weights come from, and get them")
    tasks = verb.add_subparsers(required=True, metavar="list|get")
    task = tasks.add_parser("list", help="every backbone, its source, licence and size")
    task.add_argument("--json", action="store_true", help="print the list as JSON")
    task.set_defaults(run=_weights_list)
    task = tasks.add_parser("get", help="fetch a backbone's weights, check and convert them")
    task.add_argument("name", choices=tuple(PUBLISHED), metavar="NAME", help="see weights list")
    task.add_argument(
        "--out",
        type=Path,
        default=Path("weights"),
        metavar="DIR",
        help="where the file is written (default %(default)s)",
    )
    task.add_argument(
        "--from", dest="fetched", type=Path, metavar="FILE", help="already fetched by hand"
    )
    task.add_argument("--json", action="store_true", help="print the report as JSON")
    task.set_defaults(run=_weights_get)
    return parser


def _common(verb: argparse.ArgumentParser, *, json_to_file: bool = False) -> None:
    if json_to_file:
        verb.add_argument(
            "--json",
            type=Path,
            metavar="FILE",
            help="write the figures there; - for standard output",
        )
    else:
        verb.add_argument("--json", action="store_true", help="print the report as JSON")
    verb.add_argument("--quiet", action="store_true", help="no progress bars")


def _fit(args: argparse.Namespace) -> int:
    settings = FitSettings(
        size_px=args.size,
        fit=args.fit,
        overlap_px=args.overlap,
        shrink=args.shrink,
        rows_each=args.rows,
        abnormal_rows_each=args.abnormal_rows,
        abnormal_weight=args.abnormal_weight,
        seed=args.seed,
        backbone=args.backbone,
        weights=args.weights,
        augmentation=Augmentation(tuple(filter(None, args.augment.split(",")))),
    )
    check_target(args.out)
    categories = find_categories(args.data)
    labelled: Labelled = {}
    if args.defects is not None:
        labelled, categories = draw_defects(categories, args.defects, args.seed)
    elif args.labelled is not None:
        labelled = find_labelled(args.labelled, categories)
    masked = (
        read_foregrounds(args.foreground, categories, settings.preprocessing)
        if args.foreground
        else {}
    )
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


def _evaluate(args: argparse.Namespace) -> int:
    bundle = open_bundle(args.bundle)
    categories = find_categories(args.data, need_train=False)
    others = [open_bundle(folder) for folder in args.without]
    without = {
        digest for other in others for digest in lineage_from_bytes(other.file(LINEAGE)).digests
    }
    report = evaluate(Runtime(bundle), categories, Progress(shown=not args.quiet), without)
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


def _weights_list(args: argparse.Namespace) -> int:
    rows = weights.listed()
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        state = "installed" if row["installed"] else f"weights get {row['name']}"
        print(f"{row['name']:<20}{row['size_bytes'] / 1e6:6.1f} MB  {row['licence']:<13}{state}")
        print(f"  {row['url']}")
    return 0


def _weights_get(args: argparse.Namespace) -> int:
    path = weights.get(args.name, args.out, args.fetched)
    if args.json:
        print(json.dumps({"name": args.name, "path": str(path), "sha256": weights.digest(path)}))
    else:
        print(f"{path}: dualbank-train fit … --backbone {args.name} --weights {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

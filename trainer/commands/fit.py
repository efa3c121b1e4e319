"""`fit`: learn good parts, and labelled defects if there are any, and write a bundle."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, get_args

from inspection.preprocessing import Fit
from trainer.augment import KINDS, Augmentation
from trainer.backbones.catalogue import NAMES
from trainer.bundle_folder import check_target, open_bundle, write_bundle
from trainer.commands.options import add_json, add_quiet
from trainer.dataset import find_categories
from trainer.fit import fit
from trainer.foreground import read_foregrounds
from trainer.labelled import Labelled, draw_defects
from trainer.labelled_folder import find_labelled
from trainer.packing import make_bundle
from trainer.progress import Progress
from trainer.settings import SETTINGS, FitSettings

T = TypeVar("T")


def add_fit(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
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
        help="normal bank rows of each category (default %(default)s; not for --recipe paper)",
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
        metavar="W",
        help="how much the abnormal side may raise a score (default: what cross-validation on the "
        "labelled defects of a product says, and 0 without any)",
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
        metavar="NAME|onnx:FILE",
        help=f"{', '.join(NAMES)}, or onnx:FILE#OUTPUT,… (default {defaults.backbone}; "
        "wide-resnet50-2 with --recipe paper)",
    )
    verb.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="the backbone's checkpoint, .safetensors or .pth "
        "(default: that of the installed package)",
    )
    verb.add_argument(
        "--recipe",
        choices=tuple(SETTINGS),
        default=defaults.recipe.name,
        help="paper: DMAD as published: WideResNet-50-2, one neighbour, 2 %% of patches as rows "
        "(default %(default)s)",
    )
    verb.add_argument(
        "--augment",
        default="",
        metavar="KIND,…",
        help=f"learn from copies of good images too that differ in {', '.join(KINDS)} "
        "(default: none)",
    )
    add_json(verb)
    add_quiet(verb)
    verb.set_defaults(run=_fit)


def _given(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value


def _fit(args: argparse.Namespace) -> int:
    start = SETTINGS[args.recipe]
    settings = replace(
        start,
        size_px=args.size,
        fit=args.fit,
        overlap_px=args.overlap,
        shrink=args.shrink,
        rows_each=args.rows,
        abnormal_rows_each=args.abnormal_rows,
        abnormal_weight=_given(args.abnormal_weight, start.abnormal_weight),
        seed=args.seed,
        backbone=_given(args.backbone, start.backbone),
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
        "abnormal_weights": {name: bundle.route(name).abnormal_weight for name in labelled},
        "thresholds": thresholds,
    }
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        print(f"{args.out}: bundle {bundle.id[:12]}")
        for name, statement in thresholds.items():
            print(f"  {name}: {statement}")
        for name, defects in labelled.items():
            weight = bundle.route(name).abnormal_weight
            print(f"  {name}: {len(defects)} labelled defects, weight {weight:g}")
    return 0

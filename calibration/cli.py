"""`dualbank-calibrate`: choose how many good parts may be looked at and ejected."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from calibration.rethreshold import open_bundle, summary, with_thresholds, write_child
from inspection.errors import DualbankError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0 done, 1 failed, 2 wrong usage."""
    args = _parser().parse_args(arguments)
    try:
        result: int = args.run(args)
    except DualbankError as error:
        print(f"dualbank-calibrate: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"dualbank-calibrate: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dualbank-calibrate", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    verb = verbs.add_parser(
        "thresholds", help="write a bundle with other thresholds, without training again"
    )
    verb.add_argument("bundle", type=Path, metavar="BUNDLE")
    verb.add_argument("--out", type=Path, required=True, metavar="BUNDLE")
    verb.add_argument(
        "--review-frr",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="share of good parts that may be sent to a person (default %(default)s)",
    )
    verb.add_argument(
        "--reject-frr",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="share of good parts that may be ejected (default %(default)s)",
    )
    verb.add_argument("--json", action="store_true", help="print the report as JSON")
    verb.set_defaults(run=_thresholds)
    return parser


def _thresholds(args: argparse.Namespace) -> int:
    parent = open_bundle(args.bundle)
    manifest = with_thresholds(parent, args.review_frr, args.reject_frr)
    child = write_child(args.bundle, parent, manifest, args.out)
    routes = summary(child)
    if args.json:
        print(json.dumps({"bundle": child.id, "parent": parent.id, "thresholds": routes}, indent=1))
        return 0
    print(f"{args.out}: bundle {child.id[:12]}, from {parent.id[:12]}")
    for product, route in routes.items():
        print(
            f"  {product}: review above {route['review']:.2f}, reject above {route['reject']:.2f}"
            f" ({route['statement']})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

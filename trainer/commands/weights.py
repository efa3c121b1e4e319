"""`weights`: where backbones' weights come from, and how to get them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trainer import weights
from trainer.backbones.published import PUBLISHED
from trainer.commands.options import add_json


def add_weights(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb and its two tasks."""
    verb = verbs.add_parser("weights", help="where backbones' weights come from, and get them")
    tasks = verb.add_subparsers(required=True, metavar="list|get")
    task = tasks.add_parser("list", help="every backbone, its source, licence and size")
    add_json(task, "list")
    task.set_defaults(run=_list)
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
    add_json(task)
    task.set_defaults(run=_get)


def _list(args: argparse.Namespace) -> int:
    rows = weights.listed()
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        state = "installed" if row["installed"] else f"weights get {row['name']}"
        print(f"{row['name']:<20}{row['size_bytes'] / 1e6:6.1f} MB  {row['licence']:<13}{state}")
        print(f"  {row['url']}")
    return 0


def _get(args: argparse.Namespace) -> int:
    path = weights.get(args.name, args.out, args.fetched)
    if args.json:
        print(json.dumps({"name": args.name, "path": str(path), "sha256": weights.digest(path)}))
    else:
        print(f"{path}: dualbank-train fit … --backbone {args.name} --weights {path}")
    return 0

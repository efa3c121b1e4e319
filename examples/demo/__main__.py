"""The whole line in one command: train, calibrate, serve, replay two cameras, report.

    python -m examples.demo [--data DIR] [--out out/demo]

Every program runs as its own process, through the same commands a plant would use.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console

from examples.demo.images import elpv_folder
from examples.demo.line import play, start_station, tool
from examples.demo.report import contact_sheet, summarise, table
from inspection.errors import DatasetError, DualbankError
from trainer.dataset import find_categories

RATE_HZ = 12.0
"""Of each of the two cameras; together well under what two cores score."""


def main() -> int:
    """Run the demonstration; 0 when every frame sent came back as one verdict."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="categories; default: the package elpv-dataset")
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    args = parser.parse_args()
    try:
        return _run(args.data, args.out)
    except DualbankError as error:
        print(f"make demo: {error}", file=sys.stderr)
        return 1


def _run(data: Path | None, out: Path) -> int:
    console = Console(stderr=True)
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    for name in ("fitted", "bundle", "station", "images"):
        shutil.rmtree(out / name, ignore_errors=True)
    if data is None:
        console.rule("1 of 5 · images: solar cells from the package elpv-dataset (CC BY-NC-SA 4.0)")
        data = elpv_folder(out / "images")
    else:
        console.rule(f"1 of 5 · images: {data}")
    categories = find_categories(data)
    for category in categories:
        console.print(
            f"{category.name}: {len(category.train)} to learn, {len(category.test)} to test"
        )

    if not any(category.test for category in categories):
        raise DatasetError(
            f"{data} has no test images, so there is nothing to play to the station; add test/good "
            "(and test/<defect>), or use dualbank-train fit by itself"
        )

    console.rule("2 of 5 · dualbank-train fit: learn what good parts look like")
    tool("dualbank-train", "fit", data, "--out", out / "fitted")

    console.rule("3 of 5 · dualbank-calibrate: thresholds from good parts outside the bank")
    tool("dualbank-calibrate", "thresholds", out / "fitted", "--out", out / "bundle")

    console.rule("4 of 5 · dualbank-edge: a station, two cameras, one subscriber")
    with start_station(out / "bundle", out / "station") as station:
        sent, heard = play(station, categories, RATE_HZ)
    account = station.account()

    console.rule("5 of 5 · what came of it")
    summary = summarise(categories, sent, heard, account)
    summary["seconds"] = round(time.monotonic() - started, 1)
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    contact_sheet(categories, heard, out / "contact.png")
    Console().print(table(summary))
    print(f"{out / 'summary.json'}\n{out / 'contact.png'}")
    whole = summary["sent"] == summary["received"] == summary["recorded"] == summary["published"]
    expected = sum(len(category.test) for category in categories)
    if not whole or summary["heard"] != summary["sent"] or summary["sent"] != expected:
        print("make demo: frames and verdicts do not add up", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

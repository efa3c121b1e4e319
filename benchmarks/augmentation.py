"""What copies of good images bring, by kind.

    python -m benchmarks.augmentation DATA [--categories NAME …] [--seeds 1]

Every category is a model of its own, fitted and evaluated through the command line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.recording import record
from trainer.augment import KINDS
from trainer.dataset import find_categories

VARIANTS = ("", *KINDS)


def main() -> int:
    """Fit, evaluate, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--categories", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    found = {category.name: category for category in find_categories(args.data)}
    for name in args.categories or found:
        folder = found[name].train[0].parents[2]  # of <category>/train/good/<image>
        for kinds in VARIANTS:
            runs = [_fit_and_evaluate(folder, kinds, seed) for seed in range(args.seeds)]
            told = {figure: _mean([run[figure] for run in runs]) for figure in runs[0]}
            figures.setdefault(name, {})[kinds or "none"] = told
            print(name, kinds or "none", json.dumps(told), flush=True)
        # After every category: hours may be lost otherwise.
        print(record("augmentation", {"seeds": args.seeds, "categories": figures}), flush=True)
    return 0


def _fit_and_evaluate(folder: Path, kinds: str, seed: int) -> dict[str, float | None]:
    with tempfile.TemporaryDirectory() as scratch:
        bundle, report = Path(scratch) / "bundle", Path(scratch) / "report.json"
        words = ["--augment", kinds] if kinds else []
        started = time.perf_counter()
        _train("fit", folder, "--out", bundle, "--seed", seed, *words)
        fit_s = time.perf_counter() - started
        _train("evaluate", folder, "--bundle", bundle, "--json", report)
        (row,) = json.loads(report.read_text())["categories"].values()
    percent = {
        name: None if row[name] is None else 100 * row[name]
        for name in ("image_auroc", "aupro", "frr", "escape_rate")
    }
    return {**percent, "fit_s": fit_s}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(mean(known), 2) if known else None


def _train(*words: object) -> None:
    # Of this interpreter and this source tree, whatever else is installed.
    command = [sys.executable, "-m", "trainer.cli", *map(str, words), "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())

"""How well one model of all categories tells defects from good parts, and what a fit costs.

    python -m benchmarks.accuracy DATA [--seeds 3] [--keep BUNDLE]

Each seed fits one bundle of every category below DATA with the default settings and evaluates it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.recording import record


def main() -> int:
    """Fit, evaluate, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="keep the bundle of the last seed there")
    args = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(args.seeds):
            bundle = Path(scratch) / f"bundle-{seed}"
            started = time.perf_counter()
            _train("fit", args.data, "--out", bundle, "--seed", seed)
            fit_s = time.perf_counter() - started
            report = Path(scratch) / "report.json"
            _train("evaluate", args.data, "--bundle", bundle, "--json", report)
            runs.append({"fit_s": round(fit_s, 1), **json.loads(report.read_text())})
        if args.keep is not None:
            shutil.rmtree(args.keep, ignore_errors=True)
            shutil.copytree(bundle, args.keep)
    figures = {"summary": _summary(runs), "runs": runs}
    print(json.dumps(figures["summary"], indent=1))
    print(record("accuracy", figures))
    return 0


def _train(*words: object) -> None:
    command = Path(sys.executable).with_name("dualbank-train")
    subprocess.run([str(command), *map(str, words)], check=True)


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over the seeds, in percent."""
    rows = {
        "mean image AUROC": [run["mean"]["image_auroc"] for run in runs],
        "mean AUPRO": [run["mean"]["aupro"] for run in runs],
        "class-blind image AUROC": [run["class_blind"]["image_auroc"] for run in runs],
        "mean good parts not passed": [run["mean"]["frr"] for run in runs],
        "mean defects passed": [run["mean"]["escape_rate"] for run in runs],
    }
    for name in runs[0]["categories"]:
        rows[f"{name} image AUROC"] = [run["categories"][name]["image_auroc"] for run in runs]
    return {
        name: {
            "mean": round(100 * mean(values), 2),
            "spread": round(100 * stdev(values), 2) if len(values) > 1 else None,
        }
        for name, values in rows.items()
        if None not in values
    }


if __name__ == "__main__":
    sys.exit(main())

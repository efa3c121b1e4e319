"""What a few labelled defects bring, on the identical reduced test set, and for unseen types.

    python -m benchmarks.few_labelled DATA [--seeds 3] [--defects 5 10] [--left-out 1]

For each seed good parts are learned once; the unsupervised model, those taught with K defects of
each category, and those taught without one type all stand on it. All are measured on the test
images that the largest K leaves. Leave one type out: each category of several types is taught with
the largest K of the others, and the type left out is measured against all good parts. Scores are
those of torch, which every fit holds to the graph that ships, to 1e-4.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.looking import LookedAt, image_scores, look, measure
from benchmarks.recording import record
from inspection.metrics import auroc
from trainer.dataset import Category, find_categories
from trainer.fit import learn_defects
from trainer.good_parts import GoodParts, learn_good_parts
from trainer.labelled import draw_defects
from trainer.progress import Progress
from trainer.settings import FitSettings
from trainer.teaching import AbnormalSide

Sides = dict[str, AbnormalSide]


def main() -> int:
    """Learn, teach, measure, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--defects", type=int, nargs="+", default=[5, 10], metavar="K")
    parser.add_argument(
        "--left-out", type=int, default=1, help="seeds that types are left out of too, one by one"
    )
    args = parser.parse_args()
    categories = find_categories(args.data)
    runs = []
    for seed in range(args.seeds):
        runs.append(_run(categories, sorted(args.defects), seed, seed < args.left_out))
        print(json.dumps({"seed": seed, **_means(runs[-1])}), flush=True)
        figures = {"summary": summary_of(runs), "runs": runs}
        print(record("few_labelled", figures), flush=True)
    print(json.dumps(figures["summary"], indent=1))
    return 0


def _run(
    categories: Sequence[Category], defects: Sequence[int], seed: int, leave_out: bool
) -> dict[str, Any]:
    settings = FitSettings(seed=seed)
    progress = Progress(shown=False)
    drawn = {k: draw_defects(categories, k, seed) for k in defects}
    tested = {each.name: each for each in drawn[defects[-1]][1]}
    with (
        learn_good_parts(categories, settings, progress, {}) as good,
        tempfile.TemporaryDirectory() as scratch,
    ):
        looked = {
            each.name: look(good, each, Path(scratch) / str(i)) for i, each in enumerate(categories)
        }
        taught: dict[str, Sides | None] = {"0": None}
        for k in defects:
            taught[str(k)] = learn_defects(good, settings, progress, drawn[k][0])
        return {
            "models": {
                k: {
                    name: measure(good, looked[name], tested[name], sides[name] if sides else None)
                    for name in tested
                }
                for k, sides in taught.items()
            },
            "weights": {
                k: {name: side.weight for name, side in sides.items()}
                for k, sides in taught.items()
                if sides is not None
            },
            "types": _left_out(good, looked, categories, settings, defects[-1])
            if leave_out
            else {},
        }


def _left_out(
    good: GoodParts,
    looked: dict[str, LookedAt],
    categories: Sequence[Category],
    settings: FitSettings,
    k: int,
) -> dict[str, dict[str, float]]:
    """Image AUROC of every type that a model was not taught, without and with what it was taught.

    In each round one type of every category that has several is left out.
    """
    types = {
        each.name: sorted({sample.defect for sample in each.test if sample.defect})
        for each in categories
    }
    several = [each for each in categories if len(types[each.name]) > 1]
    found: dict[str, dict[str, float]] = {}
    for turn in range(max((len(types[each.name]) for each in several), default=0)):
        now = [each for each in several if turn < len(types[each.name])]
        labelled = {}
        for each in now:
            drawn, _ = draw_defects([each], k, settings.seed, [types[each.name][turn]])
            labelled[each.name] = drawn[each.name]
        sides = learn_defects(good, settings, Progress(shown=False), labelled)
        for each in now:
            missing, shown = types[each.name][turn], looked[each.name]
            kept = [i for i, sample in enumerate(shown.samples) if sample.defect in (None, missing)]
            row: dict[str, float] = {"weight": sides[each.name].weight}
            for title, side in (("before", None), ("after", sides[each.name])):
                maps = [shown.map_of(i, side, good, each.name) for i in kept]
                row[title] = auroc(*image_scores(good, shown, each.name, kept, maps))
            found[f"{each.name}/{missing}"] = row
    return found


def _means(run: dict[str, Any]) -> dict[str, Any]:
    """Means over the categories, in percent."""
    rows: dict[str, Any] = {}
    for k, categories in run["models"].items():
        for figure in ("image_auroc", "aupro"):
            values = [row[figure] for row in categories.values() if row[figure] is not None]
            rows[f"{figure} {k}"] = round(100 * mean(values), 2)
    if run["types"]:
        for title in ("before", "after"):
            rows[f"unseen types {title}"] = round(
                100 * mean(row[title] for row in run["types"].values()), 2
            )
    return rows


def summary_of(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over the seeds, in percent, and what is lost at worst."""
    means = [_means(run) for run in runs]
    summary: dict[str, Any] = {}
    for title in means[0]:
        values = [each[title] for each in means if title in each]
        spread = round(stdev(values), 2) if len(values) > 1 else None
        summary[title] = {"mean": round(mean(values), 2), "spread": spread}
    left_out = [run["types"] for run in runs if run["types"]]
    for k in runs[0]["weights"]:
        changes = {
            name: mean(
                100 * (run["models"][k][name]["image_auroc"] - row["image_auroc"])
                for run in runs
                for row in [run["models"]["0"][name]]
            )
            for name in runs[0]["models"]["0"]
        }
        summary[f"change by category {k}"] = {name: round(x, 2) for name, x in changes.items()}
    summary["change by unseen type"] = {
        name: round(
            mean(100 * (types[name]["after"] - types[name]["before"]) for types in left_out), 2
        )
        for name in (left_out[0] if left_out else ())
    }
    return summary


if __name__ == "__main__":
    sys.exit(main())

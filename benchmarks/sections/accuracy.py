"""How well one model of all categories does: the result of `benchmarks.accuracy`."""

from __future__ import annotations

from typing import Any

from benchmarks import BOXED


def section(result: dict[str, Any]) -> str:
    """Per category and in the mean, over the seeds."""
    runs, summary = result["runs"], result["summary"]
    seeds = len(runs)
    lines = [
        f"One model of all categories, unsupervised, product known, default settings for all, {seeds} seeds; mean and standard "
        "deviation over the seeds, in %. Masks at the size of the images. The seed moves the coreset; the images are the same. "
        "The recipe was chosen on these images, so expect one or two points less on others.",
        "",
        "| category | image AUROC | image AP | AUPRO | good not passed | defects passed | good | defective |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, first in runs[0]["categories"].items():
        cells = [
            _over(runs, name, figure)
            for figure in ("image_auroc", "image_ap", "aupro", "frr", "escape_rate")
        ]
        row = (name, *cells, str(first["n_good"]), str(first["n_defect"]))
        lines.append(f"| {' | '.join(row)} |")
    four = [
        100 * sum(run["categories"][name]["aupro"] for name in _outlined(run)) / len(_outlined(run))
        for run in runs
    ]
    lines += [
        "",
        "| | figure | bar |",
        "|---|--:|--:|",
        f"| mean image AUROC | {_pair(summary['mean image AUROC'])} | ≥ 90 |",
        f"| image AUROC, all categories under one threshold | "
        f"{_pair(summary['class-blind image AUROC'])} | ≥ 86 |",
        f"| mean AUPRO of categories outlined by the pixel | {sum(four) / len(four):.1f} | ≥ 91 |",
        f"| mean good parts not passed (5 % intended) | "
        f"{_pair(summary['mean good parts not passed'])} | |",
        f"| fit, seconds | {', '.join(str(round(run['fit_s'])) for run in runs)} | |",
    ]
    return "\n".join(lines)


def _outlined(run: dict[str, Any]) -> list[str]:
    return [
        name
        for name, row in run["categories"].items()
        if row["aupro"] is not None and name not in BOXED
    ]


def _over(runs: list[dict[str, Any]], category: str, figure: str) -> str:
    values = [run["categories"][category][figure] for run in runs]
    if None in values:
        return "–"
    mean = sum(values) / len(values)
    spread = (sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)) ** 0.5
    return f"{100 * mean:.1f} ± {100 * spread:.1f}"


def _pair(entry: dict[str, float]) -> str:
    return f"{entry['mean']:.1f} ± {entry['spread']:.1f}"

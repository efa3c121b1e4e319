"""Write BENCHMARKS.md from the results, so that no figure is copied by hand.

python -m benchmarks.page
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.recording import RESULTS

PAGE = Path(__file__).parents[1] / "BENCHMARKS.md"

HEAD = """\
# Benchmarks

Every figure on this page was printed by the command above it and lies in `benchmarks/results/`; the page itself is written by
`python -m benchmarks.page`. Times depend on the machine, and this one is shared: trust ratios, which were measured in turn within one run.
"""

TAIL = """
## Not measured yet

Anything on a GPU: engines and kernels are not built yet. Other methods on the same images and weights: with the next step.
"""


def main() -> int:
    """Read every result and write the page."""
    parts = [HEAD, _accuracy(_read("accuracy")), _station(_read("station")), TAIL]
    PAGE.write_text("\n".join(parts))
    print(PAGE.name)
    return 0


def _read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return result


def _accuracy(result: dict[str, Any]) -> str:
    runs, summary = result["runs"], result["summary"]
    seeds = len(runs)
    lines = [
        "## Accuracy",
        "",
        f"`{result['command']}`",
        "",
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
        f"| mean image AUROC | {_pair(summary['mean image AUROC'])} | ≥ 86 |",
        f"| image AUROC, all categories under one threshold | "
        f"{_pair(summary['class-blind image AUROC'])} | |",
        f"| mean AUPRO of categories outlined by the pixel | {sum(four) / len(four):.1f} | |",
        f"| mean good parts not passed (5 % intended) | "
        f"{_pair(summary['mean good parts not passed'])} | |",
        f"| fit, seconds | {', '.join(str(round(run['fit_s'])) for run in runs)} | |",
    ]
    return "\n".join([*lines, ""])


def _outlined(run: dict[str, Any]) -> list[str]:
    """Categories whose masks are outlines; those of printed boards are rectangles."""
    return [
        name
        for name, row in run["categories"].items()
        if row["aupro"] is not None and name != "pcb"
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


def _station(result: dict[str, Any]) -> str:
    latency, accounting = result["latency"], result["accounting"]
    memory, station = result["memory"], result["station"]
    machine = result["machine"]
    rows = [
        ("trunk + bank scan alone, ms, median", latency["model_alone_ms_p50"], ""),
        ("camera → verdict, ms, median", latency["camera_to_verdict_ms_p50"], ""),
        ("ratio of the two", latency["ratio_p50"], "< 1.5"),
        ("camera → verdict, ms, p99", latency["camera_to_verdict_ms_p99"], ""),
        ("capacity, frames a second", result["capacity"]["rate_hz"], ""),
        (f"frames sent at {accounting['load']:.0%} of it", accounting["sent"], "2,000"),
        ("verdicts for them", accounting["verdicts"], "2,000"),
        ("of them unaccounted for, twice", _two(accounting, "unaccounted", "twice"), "0, 0"),
        (
            "largest change of resident memory after frame 500, %",
            memory["largest_change_percent"],
            "≤ 5",
        ),
        (
            "whole run: sent, recorded, published",
            f"{station['sent']}, {station['recorded']}, {station['published']}",
            "equal",
        ),
    ]
    lines = [
        "## Station",
        "",
        f"`{result['command']}`",
        "",
        f"256 × 256 JPEG frames, 2,048 rows a product, {machine['cores']} cores ({machine['cpu']}), ONNX Runtime "
        f"{machine['onnxruntime']}. Camera and subscriber are another process on the same cores. Latency and the model alone are "
        "measured in turn, one frame at a time. Memory levels off once the windows of the percentiles are full (4,096 frames).",
        "",
        "| | figure | bar |",
        "|---|--:|--:|",
        *(f"| {name} | {value} | {bar} |" for name, value, bar in rows),
        "",
        "| stage, ms over the last 4,096 frames of the run | p50 | p99 |",
        "|---|--:|--:|",
        *(
            f"| {stage} | {row['p50']:.2f} | {row['p99']:.2f} |"
            for stage, row in station["latency_ms"].items()
        ),
        "",
    ]
    return "\n".join(lines)


def _two(row: dict[str, Any], first: str, second: str) -> str:
    return f"{row[first]}, {row[second]}"


if __name__ == "__main__":
    sys.exit(main())

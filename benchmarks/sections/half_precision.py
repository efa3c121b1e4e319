"""What half precision costs: the result of `benchmarks.half_precision`."""

from __future__ import annotations

from typing import Any


def section(result: dict[str, Any]) -> str:
    """Accuracy in both precisions, and how far scores and maps move."""
    golden, mean = result["golden"], result["mean"]
    lines = [
        "One bundle, its trunk in FP32 and as `dualbank-deploy build` writes it for FP16, every result of an operator rounded to half precision, on the CPU; banks and scan are the same. No GPU has confirmed it. "
        "A score moves by robust standard deviations of good parts, as thresholds are; maps differ relative to their highest value.",
        "",
        "| category | images | image AUROC, FP32 | FP16 | score moves, median | at most | map differs, at most | other verdicts |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in result["categories"].items():
        lines.append(
            f"| {name} | {row['images']} | {100 * row['auroc_fp32']:.2f} | {100 * row['auroc_fp16']:.2f} | {row['score_moved_median']:g} | "
            f"{row['score_moved_max']:g} | {row['map_error_max']:g} | {row['other_verdicts']} |"
        )
    lines += [
        f"| mean | | {100 * mean['auroc_fp32']:.2f} | {100 * mean['auroc_fp16']:.2f} | | | | |",
        "",
        f"Golden frames, which decide whether an engine enters a bundle: {golden['frames']}, scores off by {golden['score_error_max']:g} at most "
        f"({golden['tolerance']['score']:g} allowed), maps by {golden['map_error_max']:g} ({golden['tolerance']['map']:g}), other verdicts {golden['other_verdicts']}.",
    ]
    return "\n".join(lines)

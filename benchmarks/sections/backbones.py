"""What another backbone brings and costs: the result of `benchmarks.backbones`."""

from __future__ import annotations

from typing import Any


def section(result: dict[str, Any]) -> str:
    """One row a backbone."""
    lines = [
        "One model of all categories and one seed for each backbone, everything else as by default. AUPRO is the mean of the "
        "categories that have masks. The trunk's time is for one frame on one thread, all trunks in turn.",
        "",
        "| backbone | dimensions | mean image AUROC, % | mean AUPRO, % | trunk, ms | fit, s |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in result["backbones"].items():
        aupro = "–" if row["aupro"] is None else f"{row['aupro']:.1f}"
        lines.append(
            f"| {name} | {row['dimensions']} | {row['image_auroc']:.1f} | {aupro} | "
            f"{row['trunk_ms']:.1f} | {row['fit_s']:.0f} |"
        )
    return "\n".join(lines)

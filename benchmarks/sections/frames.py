"""How frames come to fit the network: letterbox, tiles, and frames that are large."""

from __future__ import annotations

from typing import Any


def tiling(result: dict[str, Any]) -> str:
    """Accuracy and cost beside a stretched frame: the result of `benchmarks.tiling`."""
    lines = [
        "One category alone, fitted and evaluated either way; one seed. Tiles of 256 px at the resolution of the frame.",
        "",
        "| category | frames are | image AUROC | AUPRO | views a frame | ms of CPU a frame |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name, ways in result["categories"].items():
        for way, row in ways.items():
            lines.append(
                f"| {name} | {way} | {row['image_auroc']:.1f} | {row['aupro']:.1f} | "
                f"{row['views']} | {row['cpu_ms']:.0f} |"
            )
    return "\n".join(lines)


def large(result: dict[str, Any]) -> str:
    """Time, memory and whether a spot is seen: the result of `benchmarks.large_frames`."""
    lines = [
        "Drawn frames of 4,000 × 3,000 and 8,000 × 2,000 px, a dark spot of 6 px on the damaged one. Scores are standardised. Scoring holds one "
        "view beside the frame and its map: what memory grows by does not depend on how many views there are.",
        "",
        "| frame | is | score of a good one | with the spot | spot at the highest patch | views | s of CPU | memory grows by, MB | fit peak, MB |",
        "|---|---|--:|--:|---|--:|--:|--:|--:|",
    ]
    for name, ways in result["frames"].items():
        for way, row in ways.items():
            seen = f"{row['spots_at_the_highest_patch']} of {len(row['spot_scores'])}"
            good, spot = (max(row[f"{kind}_scores"]) for kind in ("good", "spot"))
            lines.append(
                f"| {name} | {way} | {good:.1f} | {spot:.1f} | {seen} | {row['views']} | "
                f"{row['cpu_ms'] / 1e3:.1f} | {row['peak_growth_mb']:.0f} | {row['fit_peak_mb']} |"
            )
    return "\n".join(lines)

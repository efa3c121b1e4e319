"""Among which patches bank rows are chosen, and what copies of images bring."""

from __future__ import annotations

from typing import Any


def coreset(result: dict[str, Any]) -> str:
    """Gaps and accuracy by where rows are chosen from: the result of `benchmarks.coreset`."""
    categories = result["categories"]
    ways = [way for way in next(iter(categories.values())) if way != "candidates"]
    lines = [
        f"{result['rows']:,} rows of one category, {' and '.join(categories)}; mean of the seeds. A gap is the distance of a patch to "
        "its nearest row. Measured with three maps and without positions. More than 262,144 patches go through blocks.",
        "",
        "| rows chosen from | "
        + " | ".join(f"{name}: largest, mean gap; image AUROC" for name in categories)
        + " |",
        "|---|" + "--:|" * len(categories),
    ]
    for way in ways:
        cells = [
            f"{row['largest_gap']:.3f}, {row['mean_gap']:.3f}; {row['auroc']:.1f}"
            for row in (categories[name][way] for name in categories)
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def augmentation(result: dict[str, Any]) -> str:
    """Accuracy with copies and without: the result of `benchmarks.augmentation`."""
    lines = [
        "Three copies of every good image, which only the normal bank learns from; one seed, where image AUROC is uncertain by about "
        "5 points. Measured with three maps and without positions. No kind helps here, so that none is on.",
        "",
        "| category | copies | image AUROC | AUPRO |",
        "|---|---|--:|--:|",
    ]
    for name, kinds in result["categories"].items():
        for kind, row in kinds.items():
            aupro = "–" if row["aupro"] is None else f"{row['aupro']:.1f}"
            lines.append(f"| {name} | {kind} | {row['image_auroc']:.1f} | {aupro} |")
    return "\n".join(lines)


def memory(result: dict[str, Any]) -> str:
    """Peaks by number of images: the result of `benchmarks.memory`."""
    lines = [
        "Drawn images of 256 px, fitted by the default settings in a process of its own.",
        "",
        "| images | categories | peak RSS, MB | anonymous, MB | seconds | bank rows |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for row in result["runs"].values():
        lines.append(
            f"| {row['images']:,} | {row['categories']} | {row['peak_rss_mb']:.0f} | "
            f"{row['peak_anonymous_mb']:.0f} | {row['seconds']:.0f} | {row['bank_rows']:,} |"
        )
    return "\n".join(lines)

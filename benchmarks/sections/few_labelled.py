"""What a few labelled defects bring: the result of `benchmarks.few_labelled`."""

from __future__ import annotations

from typing import Any

BARS = {"5": "≥ +2", "10": "≥ +3.5"}
"""Points of mean image AUROC that K labelled defects shall bring; AUPRO shall rise by 3."""


def section(result: dict[str, Any]) -> str:
    """Means over categories, what every category and every unseen type gains or loses."""
    summary, seeds = result["summary"], len(result["runs"])
    none, none_aupro = (summary[f"{figure} 0"]["mean"] for figure in ("image_auroc", "aupro"))
    lines = [
        f"Unsupervised and taught with K defects of each category, on the identical test images that the largest K leaves; seeds: {seeds}, "
        "which draw the defects too; mean and, of several seeds, standard deviation in %. At most half of a category's defects are drawn, so "
        "that two categories are taught with 4. AUPRO over all categories with masks, boxes of printed boards among them.",
        "",
        "| labelled defects a category | mean image AUROC | gain | bar | mean AUPRO | gain | bar |",
        "|---|--:|--:|--:|--:|--:|--:|",
        f"| none | {_pair(summary['image_auroc 0'])} | | | {_pair(summary['aupro 0'])} | | |",
    ]
    taught = [title.split()[-1] for title in summary if title.startswith("change by category")]
    for k in taught:
        auroc, aupro = summary[f"image_auroc {k}"], summary[f"aupro {k}"]
        lines.append(
            f"| {k} | {_pair(auroc)} | {auroc['mean'] - none:+.1f} | {BARS.get(k, '')} | "
            f"{_pair(aupro)} | {aupro['mean'] - none_aupro:+.1f} | ≥ +3 |"
        )
    lines += [
        "",
        "| image AUROC, points | " + " | ".join(f"with {k}" for k in taught) + " |",
        "|---|" + "--:|" * len(taught),
    ]
    for name in summary[f"change by category {taught[0]}"]:
        cells = [f"{summary[f'change by category {k}'][name]:+.1f}" for k in taught]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    before, after = (summary[f"unseen types {when}"] for when in ("before", "after"))
    changes = summary["change by unseen type"]
    worst = sorted(changes, key=lambda name: float(changes[name]))[:5]
    lines += [
        "",
        f"Types that nobody labelled, each left out in turn while the others are taught: mean image AUROC {_pair(before)} before, "
        f"{_pair(after)} after (bar: not lower). The five that change worst (bar: no more than 2 points down): "
        + ", ".join(f"{name} {changes[name]:+.1f}" for name in worst)
        + ".",
    ]
    return "\n".join(lines)


def _pair(entry: dict[str, Any]) -> str:
    spread = entry["spread"]
    return f"{entry['mean']:.1f}" + (f" ± {spread:.1f}" if spread is not None else "")

"""What each step of the method brings: the result of `benchmarks.ablation`."""

from __future__ import annotations

from typing import Any


def section(result: dict[str, Any]) -> str:
    """One row a variant, and what changes against ours."""
    variants = result["variants"]
    ours = variants["ours"]
    names = list(ours["categories"])
    lines = [
        "Good parts only, product known, one seed, default backbone; each row does one step otherwise. Image AUROC and AUPRO in "
        "%, AUPRO over all categories with masks.",
        "",
        "| | mean image AUROC | mean AUPRO | " + " | ".join(names) + " |",
        "|---|--:|--:|" + "--:|" * len(names),
    ]
    for title, row in variants.items():
        cells = [_both(row["categories"][name]) for name in names]
        lines.append(
            f"| {title} | {row['image_auroc']:.1f} | {row['aupro']:.1f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _both(row: dict[str, Any]) -> str:
    aupro = "–" if row["aupro"] is None else f"{100 * row['aupro']:.1f}"
    return f"{100 * row['image_auroc']:.1f} / {aupro}"

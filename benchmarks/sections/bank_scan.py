"""The bank scan beside what else could do it: the result of `benchmarks.bank_scan`."""

from __future__ import annotations

from typing import Any


def section(result: dict[str, Any]) -> str:
    """Milliseconds and share of the roof, by way and shape."""
    cases = result["cases"]
    lines = [
        f"On the CPU, all cores; P patches against N rows of D, K neighbours. The roof is the rate of a product of 1,024 × 1,024 matrices in the "
        f"same run, {result['product_flop_per_s'] / 1e9:.0f} Gflop/s; longer rows may pass it. Ours attends too, the others only search."
        + (
            "" if any("faiss" in name for name in cases[0]["ways"]) else " faiss was not installed."
        ),
        "",
        "| ms (share of the roof) | "
        + " | ".join("P {P:,}, N {N:,}, D {D:,}, K {K}".format(**case["shape"]) for case in cases)
        + " |",
        "|---|" + "--:|" * len(cases),
    ]
    for name in cases[0]["ways"]:
        cells = [
            f"{row['ms']:.0f} ({row['share_of_product_rate']:.0%})"
            for row in (case["ways"][name] for case in cases)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)

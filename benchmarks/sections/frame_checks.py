"""Which frames are refused, and which faults are found: the result of `benchmarks.frame_checks`."""

from __future__ import annotations

from collections import Counter
from typing import Any

HEADINGS = {
    "black": "black",
    "under_exposed": "× 0.25",
    "over_exposed": "× 3",
    "defocus_3_px": "defocus 3 px",
    "defocus_6_px": "6 px",
    "motion_8_px": "motion 8 px",
    "motion_16_px": "16 px",
    "same_bytes": "same bytes",
    "encoded_anew": "JPEG 95, then 90",
    "encoded_coarsely": "90, then 75",
    "same_part_new_noise": "same part, new noise",
}


def section(result: dict[str, Any]) -> str:
    """False refusals, shares of faults found, cost."""
    rows = result["categories"]
    good, defective = (sum(row[of] for row in rows.values()) for of in ("good", "defective"))
    refused, refused_too = (
        sum((Counter(row[f"{of}_refused"]) for row in rows.values()), Counter[str]())
        for of in ("good", "defective")
    )
    cost = result["cost_ms"]
    lines = [
        "Limits of the good training images, by the one rule that a fit uses, held against test images as one camera would send them. "
        f"Of {good} good test images {_told(refused)} refused, of {defective} defective ones {_told(refused_too)}. "
        "What share of the good test images is refused with a fault simulated on it, in %:",
        "",
        "| category | " + " | ".join(HEADINGS.values()) + " |",
        "|---" + "|--:" * len(HEADINGS) + "|",
    ]
    for name, row in rows.items():
        caught = row["faults_caught"] | row["again_caught"]
        cells = " | ".join(f"{100 * caught[fault]:.0f}" for fault in HEADINGS)
        lines.append(f"| {name} | {cells} |")
    lines += [
        "",
        f"Black is × 0.02. Defocus is a Gaussian of that σ, motion a box along the rows, both in pixels of a frame of 256 px; noise of {result['noise_levels']:g} levels is laid over all of these. The last four columns are the "
        "second of two frames of one camera.",
        "",
        "A check finds what no good part of the product was like, and no more. A tenth of the good images of elpv_mono are as soft as others are out of focus by 2 px; pcb is black and white, some of it nearly all of either or with edges "
        "along one direction only; magnetic_tile comes in up to six exposures. Twice its defective test images show one tile twice in turn: these are the frozen ones, and rightly so. What is refused is UNKNOWN; what is let through is scored.",
        "",
        f"A frame of 1080p takes {cost['1080p_rgb']['p50']:g} ms of one core (p99 {cost['1080p_rgb']['p99']:g}), a grey one {cost['1080p_grey']['p50']:g} ({cost['1080p_grey']['p99']:g}), its digest left out.",
    ]
    return "\n".join(lines)


def _told(refused: Counter[str]) -> str:
    by_reason = ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items()))
    return f"{refused.total()} were" + (f" ({by_reason})" if by_reason else "")

"""Write BENCHMARKS.md from the results, so that no figure is copied by hand.

python -m benchmarks.page
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.recording import RESULTS
from benchmarks.sections import (
    ablation,
    accuracy,
    backbones,
    bank_rows,
    bank_scan,
    faults,
    few_labelled,
    frame_checks,
    frames,
    half_precision,
    hostile,
    overhead,
    peers,
    soak,
    station,
    swap,
    systems,
)

PAGE = Path(__file__).parents[1] / "BENCHMARKS.md"

HEAD = """\
# Benchmarks

Every figure on this page was printed by the command above it and lies in `benchmarks/results/`; the page itself is written by
`python -m benchmarks.page`. Times depend on the machine, and this one is shared: trust ratios, which were measured in turn within one run."""

SECTIONS: tuple[tuple[str, str, Callable[[dict[str, Any]], str]], ...] = (
    # heading, name of the result, what writes it
    ("Accuracy", "accuracy", accuracy.section),
    ("A few labelled defects", "few_labelled", few_labelled.section),
    ("Peers side by side", "peers", peers.section),
    ("Systems that this method answers to", "peers", systems.section),
    ("Backbones", "backbones", backbones.section),
    ("Steps of the method", "ablation", ablation.section),
    ("Choice of bank rows", "coreset", bank_rows.coreset),
    ("Copies of good images", "augmentation", bank_rows.augmentation),
    ("Memory of a fit", "memory", bank_rows.memory),
    ("Letterbox and tiles", "tiling", frames.tiling),
    ("Large frames", "large_frames", frames.large),
    ("Half precision", "half_precision", half_precision.section),
    ("Bank scan", "bank_scan", bank_scan.section),
    ("Frames that cannot be judged", "frame_checks", frame_checks.section),
    ("Station", "station", station.section),
    ("Overhead of a 1080p frame", "overhead", overhead.section),
    ("Soak", "soak", soak.section),
    ("Swap", "swap", swap.section),
    ("A line on which everything is killed", "faults", faults.section),
    ("Hostile input", "hostile", hostile.section),
)

TAIL = """\
## Not measured yet

Anything on a GPU. The bank scan in CUDA is written, compiled for every chip and tested without one; on a GPU, `make gpu` holds every kernel to float64, looks
for wrong memory accesses, and times the scan beside `torch.cdist`, a matrix product with top-K, `scaled_dot_product_attention` and faiss, over D, N and the
batch, as shares of the measured rate of a bf16 product. Until it has run, nobody knows whether the scan is 5 times as fast as `torch.cdist` with top-K and
twice as fast as a product with top-K, reaches 40 % of the product's rate, or grows in line with N: those are its bars.

The station's pipeline on a GPU is tested under an emulated driver, where order and overlap show and time does not. `make gpu` holds its maps to float64 and times one slot beside
two, batches, every stage alone, and the host's share, with the trunk in torch. Its bars: two slots 1.6 times as fast as one and at 90 % of the slowest stage alone; under 5 % idle at
saturation; on an H200, from pixels to verdict in under 1 ms (p50) at N = 16,384, p99 under twice that. Counted without a GPU: once a shape is known a frame takes one graph launch,
three waits and three marks, and allocates nothing, on host or device, over 1,000 frames.

Memory of 250 images of each of 20 categories. A soak of 30 minutes, a swap and the overhead of a frame on a machine that nobody else uses."""


def main() -> int:
    """Read every result and write the page."""
    parts = [_part(heading, name, section) for heading, name, section in SECTIONS]
    PAGE.write_text("\n\n".join([HEAD, *parts, TAIL]) + "\n")
    print(PAGE.name)
    return 0


def _part(heading: str, name: str, section: Callable[[dict[str, Any]], str]) -> str:
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return (
            f"## {heading}\n\nNot measured yet: `python -m benchmarks.{name}` has left no result."
        )
    result: dict[str, Any] = json.loads(path.read_text())
    return f"## {heading}\n\n`{result['command']}`\n\n{section(result)}"


if __name__ == "__main__":
    sys.exit(main())

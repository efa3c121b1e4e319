"""Ours and its peers side by side: the same images, split, weights and metrics, in one run.

    python -m venv peers
    peers/bin/pip install 'anomalib==2.7.*' torch torchvision
    python -m benchmarks.peers DATA --peer-python peers/bin/python [--peers DIR] [--only NAMES]

Peers run in an environment of their own, one process each (`benchmarks.peer_models`), and leave
only scores and maps in DIR; every figure is computed here. What lies in DIR already and was made of
the same images, weights, rows, seed and code is not made again. Ours is fitted and asked anew.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import BOXED
from benchmarks.contestants import Contestant, ask_ours, ask_peer
from benchmarks.paired import Figures, Floats, measure, regions_of
from benchmarks.recording import record
from inspection.bootstrap import draw, interval
from inspection.errors import DualbankError
from inspection.metrics import auroc
from trainer.dataset import Category, find_categories

OURS = "ours"
PEERS = ("patchcore", "padim", "padim-deep", "dfm", "dfkde")
"""As `benchmarks.peer_models` calls them, which this environment cannot import."""

DRAWS, DRAWS_SEED = 1000, 0
"""Of the test images, for intervals; the seed is not that of a fit."""

Measured = Mapping[str, Figures]
"""By category."""


def main() -> int:
    """Run everybody, measure, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--peer-python", type=Path, help="of the environment that has anomalib")
    parser.add_argument("--peers", type=Path, default=Path("out/peers"), help="peers' answers")
    parser.add_argument("--only", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    categories = find_categories(args.data)
    try:
        contestants = {
            name: ask_peer(name, categories, args.seed, args.peers / name, args.peer_python)
            for name in args.only
        }
        with tempfile.TemporaryDirectory() as scratch:
            contestants[OURS] = ask_ours(args.data, categories, args.seed, Path(scratch))
        figures = compare(contestants, categories)
    except DualbankError as error:
        print(f"peers: {error}", file=sys.stderr)
        return 1
    for name, row in figures.items():
        print(f"{name}: {json.dumps({key: row[key] for key in row if key != 'categories'})}")
    print(record("peers", {"systems": figures}))
    return 0


def compare(
    contestants: Mapping[str, Contestant], categories: Sequence[Category], rounds: int = DRAWS
) -> dict[str, dict[str, Any]]:
    """Every system's figures in percent, and how far ours is ahead of it.

    Args:
        contestants: By name, `OURS` among them.
        categories: Of which each was asked.
        rounds: How often the test images are drawn for the intervals.
    """
    generator = np.random.default_rng(DRAWS_SEED)
    measured: dict[str, dict[str, Figures]] = {name: {} for name in contestants}
    for category in categories:
        defects = _defects([category])
        truth = regions_of(category.test) if category.has_masks else None
        draws = draw(defects, rounds, generator)
        for name, contestant in contestants.items():
            answers = contestant.answers[category.name]
            measured[name][category.name] = measure(answers, defects, truth, draws)
    return {
        name: {
            **_means(measured[name]),
            "class_blind_image_auroc": _percent(_class_blind(contestant, categories)),
            "ours_ahead_by": _ahead(measured[OURS], measured[name]) if name != OURS else None,
            "cost": {key: round(value, 1) for key, value in contestant.cost.items()},
            "made_of": dict(contestant.made_of),
            "categories": {
                key: {
                    "image_auroc": _percent(each.image_auroc),
                    "aupro": None if each.aupro is None else _percent(each.aupro),
                }
                for key, each in measured[name].items()
            },
        }
        for name, contestant in contestants.items()
    }


def _means(measured: Measured) -> dict[str, float | None]:
    aupro = [each.aupro for each in outlined(measured) if each.aupro is not None]
    return {
        "image_auroc": _percent(np.mean([each.image_auroc for each in measured.values()])),
        "aupro": _percent(np.mean(aupro)) if aupro else None,
    }


def _ahead(ours: Measured, peer: Measured) -> dict[str, list[float] | None]:
    """Difference of the means, and its 95 % interval: points, low, high."""
    images = [
        (a.image_auroc - b.image_auroc, a.drawn_image_auroc - b.drawn_image_auroc)
        for a, b in zip(ours.values(), peer.values(), strict=True)
    ]
    maps = [
        (a.aupro - b.aupro, a.drawn_aupro - b.drawn_aupro)
        for a, b in zip(outlined(ours), outlined(peer), strict=True)
        if a.aupro is not None
        and b.aupro is not None
        and a.drawn_aupro is not None
        and b.drawn_aupro is not None
    ]
    return {"image_auroc": _mean_with_interval(images), "aupro": _mean_with_interval(maps)}


def outlined(measured: Measured) -> list[Figures]:
    """Figures of the categories whose masks are outlines."""
    return [figures for name, figures in measured.items() if name not in BOXED]


def _mean_with_interval(differences: Sequence[tuple[float, Floats]]) -> list[float] | None:
    if not differences:
        return None
    points = float(np.mean([point for point, _ in differences]))
    ends = interval(np.mean([drawn for _, drawn in differences], axis=0))
    return None if ends is None else [_percent(x) for x in (points, ends.low, ends.high)]


def _class_blind(contestant: Contestant, categories: Sequence[Category]) -> float:
    """All categories under one threshold, on scores as the system gives them."""
    scores = [contestant.answers[category.name].scores for category in categories]
    return auroc(np.concatenate(scores), _defects(categories))


def _defects(categories: Sequence[Category]) -> NDArray[np.bool_]:
    return np.array([s.defect is not None for each in categories for s in each.test], bool)


def _percent(share: float | np.floating[Any]) -> float:
    return round(100 * float(share), 2)


if __name__ == "__main__":
    sys.exit(main())

"""Which frames the station refuses to judge: good ones, defective ones, and those with a fault.

    python -m benchmarks.frame_checks DATA

Limits are those that a fit writes into its bundle, of the good training images alone. Test images
then pass a station's checks one after the other, as from one camera: as they are, and with a fault
simulated on every good one. Nothing was tuned on them: the constants of `inspection.frame_checks`
were chosen on training images, by limits of four fifths of them held against the last.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.recording import record
from edge.outcome import NoScoreError
from edge.plausibility import Plausibility
from inspection.bundle import Route
from inspection.frame_checks import FrameLimits, limits_of, measure
from inspection.preprocessing import Preprocessing
from inspection.scoring import Scoring
from inspection.thresholds import Calibration, Thresholds
from trainer.dataset import Category, find_categories, read_image

Image = NDArray[np.uint8]
Fault = Callable[[Image, np.random.Generator], Image]

SPEC = Preprocessing()
NOISE = 2.0
"""Levels, σ of the sensor noise laid over every picture that a lens or a lamp has spoilt."""

TIMED = 500


def main() -> int:
    """Learn limits, pass test images, spoil them, time, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    categories = {}
    for category in find_categories(args.data):
        categories[category.name] = _category(category)
        print(category.name, categories[category.name], flush=True)
    figures = {"noise_levels": NOISE, "categories": categories, "cost_ms": _cost_ms()}
    print(record("frame_checks", figures))
    return 0


def _category(category: Category) -> dict[str, Any]:
    limits = limits_of([measure(read_image(path), SPEC) for path in category.train])
    route = _route(limits)
    good = [read_image(each.image) for each in category.test if each.defect is None]
    bad = [read_image(each.image) for each in category.test if each.defect is not None]
    rng = np.random.default_rng(0)
    return {
        "good": len(good),
        "defective": len(bad),
        "limits": {name: round(getattr(limits, name), 3) for name in limits.__slots__},
        "good_refused": _refused(good, route),
        "defective_refused": _refused(bad, route),
        "faults_caught": {
            name: _share(_caught((spoil(image, rng) for image in good), route))
            for name, spoil in FAULTS.items()
        },
        "again_caught": {
            name: _share([_second(again(image, rng), route) for image in good])
            for name, again in AGAIN.items()
        },
    }


def _route(limits: FrameLimits) -> Route:
    # Nothing is scored: only its limits are asked for.
    return Route(None, Scoring(1, 1.0), 0.0, Calibration((0.0, 1.0)), Thresholds(0.0, 0.0), limits)


def _refused(images: Iterable[Image], route: Route) -> dict[str, int]:
    return dict(Counter(reason for reason in _verdicts(images, route) if reason))


def _caught(images: Iterable[Image], route: Route) -> list[bool]:
    # Each from a camera of its own: that it resembles the one before must not be what is caught.
    return [_verdicts([image], route)[0] is not None for image in images]


def _second(pair: tuple[Image, Image], route: Route) -> bool:
    """Whether the second of two frames of one camera is refused."""
    return _verdicts(pair, route)[1] is not None


def _verdicts(images: Iterable[Image], route: Route) -> list[str | None]:
    station = Plausibility()
    found: list[str | None] = []
    for image in images:
        try:
            station.check_digest("camera", True, sha256(image.tobytes()).hexdigest())
            station.check_image("camera", True, image, route, SPEC)
            found.append(None)
        except NoScoreError as error:
            found.append(error.reason.value)
    return found


def _share(caught: list[bool]) -> float:
    return round(sum(caught) / len(caught), 4)


def _noisy(image: NDArray[Any], rng: np.random.Generator) -> Image:
    # Grey stays grey: a monochrome sensor has one noise for all three channels.
    grey = bool((image[:, :, :1] == image).all())
    noise = rng.normal(0, NOISE, (*image.shape[:2], 1 if grey else 3))
    return np.asarray(np.clip(np.rint(image + noise), 0, 255), np.uint8)


def _exposed(gain: float) -> Fault:
    return lambda image, rng: _noisy(image * gain, rng)


def _defocused(sigma_px: float) -> Fault:
    """Blur as a σ in pixels of a frame of 256 × 256 px."""

    def spoil(image: Image, rng: np.random.Generator) -> Image:
        height, width = (sigma_px * side / 256 for side in image.shape[:2])
        return _noisy(cv2.GaussianBlur(image, (0, 0), sigmaX=width, sigmaY=height), rng)

    return spoil


def _moved(length_px: float) -> Fault:
    """Motion along the rows, in pixels of a frame of 256 px."""

    def spoil(image: Image, rng: np.random.Generator) -> Image:
        length = max(2, round(length_px * image.shape[1] / 256))
        return _noisy(cv2.blur(image, (length, 1)), rng)

    return spoil


def _encoded(image: Image, quality: int) -> Image:
    _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[:, :, ::-1])


FAULTS: dict[str, Fault] = {
    "black": _exposed(0.02),
    "under_exposed": _exposed(0.25),
    "over_exposed": _exposed(3.0),
    "defocus_3_px": _defocused(3.0),
    "defocus_6_px": _defocused(6.0),
    "motion_8_px": _moved(8.0),
    "motion_16_px": _moved(16.0),
}

AGAIN: dict[str, Callable[[Image, np.random.Generator], tuple[Image, Image]]] = {
    "same_bytes": lambda image, rng: (image, image),
    "encoded_anew": lambda image, rng: (_encoded(image, 95), _encoded(image, 90)),
    "encoded_coarsely": lambda image, rng: (_encoded(image, 90), _encoded(image, 75)),
    "same_part_new_noise": lambda image, rng: (_noisy(image, rng), _noisy(image, rng)),
}
"""What a camera that hangs sends next; and, last, what one sends whose part has not moved on."""


def _cost_ms() -> dict[str, dict[str, float]]:
    """Time all that a frame of 1080p costs, on one core, its digest left out."""
    route, rng = _route(FrameLimits(0.0, 1.0, 1.0, 1.0, 0.0)), np.random.default_rng(0)
    colour = rng.integers(0, 256, (1080, 1920, 3), np.uint8)
    grey = np.repeat(colour[:, :, :1], 3, axis=2)
    costs = {}
    for name, image in (("1080p_rgb", colour), ("1080p_grey", grey)):
        station, took = Plausibility(), []
        for _ in range(TIMED):
            started = time.perf_counter()
            station.check_image("camera", False, image, route, SPEC)
            took.append((time.perf_counter() - started) * 1e3)
        costs[name] = {f"p{p}": round(float(np.percentile(took, p)), 3) for p in (50, 99)}
    return costs


if __name__ == "__main__":
    raise SystemExit(main())

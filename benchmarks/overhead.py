"""What a station adds to a 1080p JPEG frame beside decoding it, the trunk and the bank scan.

    python -m benchmarks.overhead BUNDLE IMAGES [--product NAME] [--frames 300]

The station runs as its own process on the CPU, this one is the camera: from before a frame is sent
until its acknowledgement is here. Frames are the images, enlarged, with the noise of a sensor, so
that they take as many bytes as a camera's; a live camera sends each another one than before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.recording import record
from edge.bundle_folder import open_bundle
from edge.camera import Camera, Said, Ticket
from edge.onnx_scorer import OnnxScorer
from edge.player import find_images, pace
from examples.demo.line import RunningStation, start_station
from inspection.bundle import Bundle
from inspection.verdicts import find_regions, judge
from trainer.dataset import read_image, read_prepared

HEIGHT_PX, WIDTH_PX, QUALITY = 1080, 1920, 90
NOISE_LEVELS = 4.0
IMAGES = 48
WARM_UP, IN_FLIGHT, CAPACITY_FRAMES = 30, 4, 100
STEADY_LOAD = 0.5
REPEATS = 50
ADDED = ("queue", "check", "prepare", "wait", "finish")
"""Stages that are neither decoding nor the model; `record` ends after the verdict is written."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One frame: how long its acknowledgement took, and its stages as the verdict tells them."""

    took_ms: float
    stages: dict[str, float]

    @property
    def added_ms(self) -> float:
        """All but decoding and scoring."""
        return self.took_ms - self.stages["decode"] - self.stages["score"]

    @property
    def worked_ms(self) -> float:
        """The same without the time that a frame waits for those before it."""
        return self.added_ms - self.stages["wait"]


def main() -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--product")
    parser.add_argument("--frames", type=int, default=300, help="of each kind, one at a time")
    args = parser.parse_args()
    bundle = open_bundle(args.bundle)
    paths = [image.path for image in find_images([args.images])][:IMAGES]
    figures: dict[str, Any] = {"quality": QUALITY, "noise_levels": NOISE_LEVELS}
    for kind, is_grey in (("colour", False), ("grey", True)):
        frames = [_frame(path, seed, is_grey) for seed, path in enumerate(paths)]
        figures[kind] = {
            "median_kb": round(float(np.median([len(frame) for frame in frames])) / 1e3),
            **_of_station(args, frames),
            "sha256_ms": _median_ms(partial(hashlib.sha256, frames[0])),
        }
    figures["judging_ms"] = _judging_ms(bundle, args.product, paths[0])
    print(json.dumps(figures, indent=1))
    print(record("overhead", figures))
    return 0


def _frame(path: Path, seed: int, is_grey: bool) -> bytes:
    """Make a camera's frame of an image."""
    image = read_image(path)[:, :, ::-1]
    large = cv2.resize(image, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC)
    pixels = cv2.cvtColor(large, cv2.COLOR_BGR2GRAY) if is_grey else large
    noise = np.random.default_rng(seed).normal(0.0, NOISE_LEVELS, pixels.shape)
    noisy = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1])


def _of_station(args: argparse.Namespace, frames: Sequence[bytes]) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory() as state,
        start_station(args.bundle, Path(state), heatmaps=False) as station,
        Camera(station.cameras, "bench", product=args.product) as camera,
    ):
        for number in range(WARM_UP):
            camera.inspect(frames[number % len(frames)])
        alone = [_timed(camera, frames[n % len(frames)]) for n in range(args.frames)]
        record_ms = _record_ms(station)
        rate_hz = STEADY_LOAD * _capacity_hz(camera, frames)
        steady = _steady(camera, frames, rate_hz, args.frames)
    return {
        "one at a time": _table(alone) | {"record, of the station": record_ms},
        "steady": {"load": STEADY_LOAD, "rate_hz": round(rate_hz, 1), **_table(steady)},
    }


def _timed(camera: Camera, frame: bytes) -> Timed:
    before_s = time.perf_counter()
    return _of(camera.inspect(frame), before_s)


def _of(said: Said, before_s: float) -> Timed:
    took_ms = 1e3 * (time.perf_counter() - before_s)
    if said.message is None or said.message["score"] is None:
        raise SystemExit(f"expected a score for every frame, got {said.verdict} {said.reason}")
    return Timed(took_ms, said.message["latency_ms"])


def _capacity_hz(camera: Camera, frames: Sequence[bytes]) -> float:
    under_way = deque[Ticket]()
    started_s = time.perf_counter()
    for number in range(CAPACITY_FRAMES):
        if len(under_way) == IN_FLIGHT:
            under_way.popleft().wait()
        under_way.append(camera.send(frames[number % len(frames)]))
    while under_way:
        under_way.popleft().wait()
    return CAPACITY_FRAMES / (time.perf_counter() - started_s)


def _steady(camera: Camera, frames: Sequence[bytes], rate_hz: float, count: int) -> list[Timed]:
    """Send at a steady rate; a frame that is still under way is waited for before the next."""
    found: list[Timed] = []
    for number in pace(rate_hz):
        if number == count:
            return found
        found.append(_timed(camera, frames[number % len(frames)]))
    return found


def _record_ms(station: RunningStation) -> dict[str, float]:
    """How long a commit takes, and telling the health of it; of the frames up to here."""
    with urllib.request.urlopen(f"http://{station.http}/status.json", timeout=10) as answer:
        document = json.load(answer)
    stage: dict[str, float] = document["latency_ms"]["record"]
    return stage


def _table(timed: Sequence[Timed]) -> dict[str, Any]:
    stages = ("decode", *ADDED, "score")
    outside = [each.took_ms - each.stages["total"] for each in timed]
    return {
        "frames": len(timed),
        "camera_to_acknowledgement_ms": _percentiles([each.took_ms for each in timed]),
        "overhead_ms": _percentiles([each.added_ms for each in timed]),
        "overhead_without_waiting_ms": _percentiles([each.worked_ms for each in timed]),
        "stages_ms": {
            **{stage: _percentiles([each.stages[stage] for each in timed]) for stage in stages},
            "outside": _percentiles(outside),
        },
    }


def _judging_ms(bundle: Bundle, product: str | None, path: Path) -> float:
    """What is done with a map in the stage `score`, beside the model."""
    spec = bundle.preprocessing
    route, scorer = bundle.route(product), OnnxScorer(bundle)
    anomaly_map = scorer.score(read_prepared(path, spec), route).anomaly_map

    def judging() -> None:
        judge(bundle.image_score(anomaly_map, route), route.calibration, route.thresholds)
        standard = route.calibration.standardise(anomaly_map.astype(np.float64))
        find_regions(standard.astype(np.float32), route.thresholds.review, (HEIGHT_PX, WIDTH_PX))

    return _median_ms(judging)


def _median_ms(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(REPEATS):
        before_s = time.perf_counter()
        work()
        taken.append(time.perf_counter() - before_s)
    return round(1e3 * float(np.median(taken)), 3)


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


if __name__ == "__main__":
    sys.exit(main())

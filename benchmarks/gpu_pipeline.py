"""The station's pipeline on a GPU: is it right, and what do slots, graphs and batches bring?

Called by `benchmarks.gpu`, with the default trunk in torch, or the engine of a bundle. One product
with as many bank rows as are asked, frames of 256 × 256 px from ordinary memory, one verdict each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.made_up_bundle import made_up_bundle
from edge.device import Device, page_locked
from edge.gpu_scorer import GpuScorer, open_gpu_scorer
from edge.lane import Lane
from edge.scorer import Scored, Scorer
from edge.slot import Layout, Slot
from edge.trunk import Trunk
from inspection.bundle import Bundle
from inspection.scoring import patch_scores
from inspection.verdicts import judge

PRODUCT = "part"

ROWS = 16384

FRAMES = 400
"""Of one run."""

LATENCIES = 2000
"""Frames, one after the other, that percentiles are over."""

TIMES = 200
"""How often a stage is run to be timed."""

ERROR = 5e-4
"""Relative, of patch scores: FP32 sums over the features that the trunk has given."""


def held_to_float64(
    device: Device, trunk: Trunk, rows: int = 2048, k: int = 12
) -> list[dict[str, Any]]:
    """Score frames in two slots, and in one batch, and hold their maps to plain numpy."""
    bundle = made_up_bundle(trunk.side_px, trunk.dimensions, k, rows, PRODUCT)
    frames = _frames(trunk.side_px, 6)
    with open_gpu_scorer(device, trunk, bundle) as scorer:
        alone = _answers(scorer, [[frame] for frame in frames] * 2)[len(frames) :]
        together = _answers(scorer, [frames[:4]] * 2)[4:]
        slot = scorer._free[0]
        truth = [_truth(device, bundle, slot._lanes[0], slot, frame) for frame in frames]
    found = []
    for name, answers in (("one by one", alone), ("four at once", together)):
        error = max(
            float(np.abs(answer.anomaly_map - expected).max() / expected.max())
            for answer, expected in zip(answers, truth, strict=False)
        )
        found.append({"pipeline": name, "map_error": error, "right": error <= ERROR})
    return found


def measured(
    device: Device, trunk: Trunk, rounds: int, bundle: Bundle | None = None
) -> dict[str, Any]:
    """Time one slot and two, frame by frame and in batches, and every stage alone.

    Args:
        device: Holds everything.
        trunk: Runs.
        rounds: Of every kind, in turn.
        bundle: The trunk's; None makes one up, of `ROWS` bank rows.
    """
    bundle = bundle or made_up_bundle(trunk.side_px, trunk.dimensions, 12, ROWS, PRODUCT)
    frames = _frames(trunk.side_px, 16)
    with ExitStack() as held:
        one, two = (
            held.enter_context(open_gpu_scorer(device, trunk, bundle, slots, 4)) for slots in (1, 2)
        )
        kinds: dict[str, Callable[[], float]] = {
            "one slot": lambda: _rate_hz(one, frames, 1),
            "two slots": lambda: _rate_hz(two, frames, 1),
            "two slots, four at once": lambda: _rate_hz(two, frames, 4),
            "two slots, nothing waited for": lambda: _rate_without_host_hz(two, frames),
        }
        for run in kinds.values():
            run()
        rates: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(rounds):
            for name, run in kinds.items():
                rates[name].append(run())
        latency = [_latency_ms(one, frames[i % len(frames)]) for i in range(LATENCIES)]
        stages = _stages_ms(two)
    rate = {name: float(np.median(values)) for name, values in rates.items()}
    slowest = max(stages.values())
    p50, p99 = (float(np.percentile(latency, q)) for q in (50, 99))
    return {
        "trunk": trunk.name,
        "bank_rows": len(bundle.normal.features),
        "frames_per_s": {name: round(value, 1) for name, value in rate.items()},
        "stages_ms": {name: round(value, 4) for name, value in stages.items()},
        "two_slots_over_one": round(rate["two slots"] / rate["one slot"], 3),
        "share_of_slowest_stage": round(rate["two slots"] * slowest / 1e3, 3),
        "idle_share": round(1 - rate["two slots"] / rate["two slots, nothing waited for"], 4),
        "latency_ms": {"p50": round(p50, 4), "p99": round(p99, 4), "ratio": round(p99 / p50, 3)},
    }


def _frames(side_px: int, count: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(7)
    return [rng.integers(256, size=(side_px, side_px, 3), dtype=np.uint8) for _ in range(count)]


def _answers(scorer: Scorer, batches: Sequence[Sequence[NDArray[np.uint8]]]) -> list[Scored]:
    """Score batches, as many under way as the scorer takes."""
    answers: list[Scored] = []
    waiting = 0
    for batch in batches:
        if waiting == scorer.depth:
            answers += _oldest(scorer)
            waiting -= 1
        scorer.submit([scorer.question(frame, PRODUCT) for frame in batch])
        waiting += 1
    for _ in range(waiting):
        answers += _oldest(scorer)
    return answers


def _oldest(scorer: Scorer) -> list[Scored]:
    while (said := scorer.poll()) is None:
        pass
    for each in said:
        if not isinstance(each, Scored):
            raise each
        judge(each.score, each.route.calibration, each.route.thresholds)
    return [each for each in said if isinstance(each, Scored)]


def _rate_hz(scorer: Scorer, frames: Sequence[NDArray[np.uint8]], together: int) -> float:
    """Verdicts a second when the scorer never waits for a frame."""
    every = [frames[i % len(frames)] for i in range(FRAMES)]
    batches = [every[at : at + together] for at in range(0, FRAMES, together)]
    begun_s = time.perf_counter()
    _answers(scorer, batches)
    return FRAMES / (time.perf_counter() - begun_s)


def _rate_without_host_hz(scorer: GpuScorer, frames: Sequence[NDArray[np.uint8]]) -> float:
    """Frames a second when the host only launches graphs: how fast the GPU could be."""
    _answers(scorer, [[frame] for frame in frames[:4]])
    slots = list(scorer._free)
    graphs = [(slot, _layout_of_one(slot).passes[0].graph) for slot in slots]
    begun_s = time.perf_counter()
    for i in range(FRAMES):
        slot, graph = graphs[i % len(graphs)]
        if graph is None:
            raise SystemExit("a slot has no graph yet: nothing can be measured")
        graph.launch(slot._stream)
    for slot in slots:
        slot._stream.synchronize()
    return FRAMES / (time.perf_counter() - begun_s)


def _latency_ms(scorer: Scorer, frame: NDArray[np.uint8]) -> float:
    begun_s = time.perf_counter()
    _answers(scorer, [[frame]])
    return 1e3 * (time.perf_counter() - begun_s)


def _stages_ms(scorer: GpuScorer) -> dict[str, float]:
    """Milliseconds of each stage of one frame when it runs alone, again and again."""
    slot = scorer._free[0]
    lane, stream = slot._lanes[0], slot._stream
    intake = _layout_of_one(slot).intake
    stages: dict[str, Callable[[], None]] = {
        "upload": lambda: intake.launch(stream),
        "trunk": lambda: lane.trunk.launch(stream),
        "scan": lambda: lane.scan.launch(stream),
        "heads": lambda: lane.judge.launch(stream),
    }
    found = {}
    for name, launch in stages.items():
        launch()
        stream.synchronize()
        begun_s = time.perf_counter()
        for _ in range(TIMES):
            launch()
        stream.synchronize()
        found[name] = 1e3 * (time.perf_counter() - begun_s) / TIMES
    return found


def _layout_of_one(slot: Slot) -> Layout:
    """Give how a frame alone goes through a slot, which has seen such frames."""
    return next(layout for (_, frames), layout in slot._layouts.items() if frames == 1)


def _truth(
    device: Device, bundle: Bundle, lane: Lane, slot: Slot, frame: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Give the map of a frame in float64, on the features that the trunk has given it."""
    with page_locked(device, lane.features.shape, np.float32) as room:
        pixels = frame[None]
        with page_locked(device, pixels.shape, np.uint8) as given:
            given[...] = pixels
            device.copy_in(slot._stream, lane.pixels, given)
            lane.trunk.launch(slot._stream)
            device.copy_out(slot._stream, room, lane.features)
            slot._stream.synchronize()
        patches = np.array(room)
    route, grid = bundle.route(PRODUCT), bundle.preprocessing.grid
    scores = patch_scores(
        patches,
        np.argwhere(np.ones(grid, np.bool_)),
        bundle.normal,
        bundle.abnormal,
        bundle.heads[PRODUCT],
        route.scoring,
        category=PRODUCT,
        weight=route.abnormal_weight,
    )
    return scores.reshape(grid)

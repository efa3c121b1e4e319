"""Fits that keep the aspect or the resolution of frames: from images to the station's answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.bundle_folder import open_bundle as open_on_the_station
from edge.check import check_all
from edge.onnx_scorer import OnnxScorer
from edge.resize import prepare_frame
from inspection.verdicts import Verdict, judge
from tests.trainer.conftest import SMALL
from tests.trainer.parts import write_image
from trainer.bundle_folder import open_bundle
from trainer.cli import main
from trainer.dataset import find_categories, read_image
from trainer.evaluate import evaluate
from trainer.predict import predict
from trainer.progress import Progress
from trainer.runtime import Runtime

HEIGHT_PX, WIDTH_PX = 90, 260
"""Wide, and no whole number of patches."""

SPOT_PX = 4


def surface(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A grey sheet with grain, (H, W, 3)."""
    grain = rng.normal(0, 4, (HEIGHT_PX, WIDTH_PX, 1))
    return np.repeat(np.clip(130 + grain, 0, 255), 3, axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good sheets, and some with a spot that a resize to 64 px hardly keeps."""
    root, rng = tmp_path_factory.mktemp("sheets"), np.random.default_rng(0)
    folder = root / "sheet"
    for i in range(8):
        write_image(folder / "train" / "good" / f"{i}.png", surface(rng))
    for i in range(4):
        write_image(folder / "test" / "good" / f"{i}.png", surface(rng))
        frame, mask = surface(rng), np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
        top, left = 10 + 20 * i, 10 + 70 * i
        frame[top : top + SPOT_PX, left : left + SPOT_PX] = 20
        mask[top : top + SPOT_PX, left : left + SPOT_PX] = 255
        write_image(folder / "test" / "spot" / f"{i}.png", frame)
        write_image(folder / "ground_truth" / "spot" / f"{i}_mask.png", mask)
    return root


@pytest.fixture(scope="module")
def bundles(sheets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle of the sheets for either fit."""
    root = tmp_path_factory.mktemp("bundles")
    for fit in ("letterbox", "tiles"):
        assert main(["fit", str(sheets), "--out", str(root / fit), "--fit", fit, *SMALL]) == 0
    return {path.name: path for path in root.iterdir()}


def test_the_command_says_in_the_bundle_how_frames_are_fitted(bundles: dict[str, Path]) -> None:
    specs = {fit: open_bundle(path).preprocessing for fit, path in bundles.items()}

    assert {fit: spec.fit for fit, spec in specs.items()} == {fit: fit for fit in bundles}
    assert (specs["tiles"].overlap_px, specs["tiles"].shrink) == (16, 1)


@pytest.mark.parametrize("fit", ["letterbox", "tiles"])
def test_the_station_gives_the_answer_of_the_trainer(
    sheets: Path, bundles: dict[str, Path], tmp_path: Path, fit: str
) -> None:
    runtime, bundle = Runtime(open_bundle(bundles[fit])), open_on_the_station(bundles[fit])
    scorer, route = OnnxScorer(bundle, threads=1), bundle.route(None)
    paths = sorted(sheets.glob("sheet/test/*/*.png"))

    assert all(result.holds for result in check_all(bundle, scorer))
    for path, told in zip(paths, predict(runtime, paths, None, tmp_path), strict=True):
        scored = scorer.score(prepare_frame(read_image(path), bundle.preprocessing), route)
        judged = judge(scored.score, route.calibration, route.thresholds)
        assert judged.score == pytest.approx(told["score"], rel=1e-4, abs=1e-3)
        assert judged.decision.verdict.value == told["verdict"]


def test_tiles_find_what_a_resize_to_their_side_hardly_keeps(
    sheets: Path, bundles: dict[str, Path]
) -> None:
    runtime = Runtime(open_bundle(bundles["tiles"]))

    report = evaluate(runtime, find_categories(sheets), Progress(shown=False))

    row = report["categories"]["sheet"]
    assert row["image_auroc"] == 1
    assert row["aupro"] > 0.99
    assert (report["settings"]["fit"], report["settings"]["overlap_px"]) == ("tiles", 16)


def test_a_spot_in_a_tile_is_boxed_where_it_is(
    sheets: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    runtime = Runtime(open_bundle(bundles["tiles"]))
    image = sheets / "sheet" / "test" / "spot" / "2.png"

    (told,) = predict(runtime, [image], None, tmp_path)

    x, y, width, height = told["regions"][0]
    assert told["verdict"] != Verdict.PASS.value
    assert x <= 150 < x + width
    assert y <= 50 < y + height
    assert max(width, height) < 64

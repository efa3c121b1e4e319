"""No bundle leaves whose runtimes disagree, and what a bundle says of itself is so."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspection import bundle as formats
from inspection import golden as golden_module
from inspection.errors import ParityError
from inspection.frame_checks import check, limits_of, loosest, measure
from inspection.golden import RELATIVE_TOLERANCE, GoldenFrame, golden_from_bytes
from inspection.preprocessing import Preprocessing
from inspection.verdicts import Verdict, judge
from tests.trainer.conftest import SMALL
from trainer import cli, packing
from trainer.dataset import find_categories, read_image
from trainer.runtime import Inspected, Runtime


@pytest.fixture(scope="module")
def golden(runtime: Runtime) -> tuple[GoldenFrame, ...]:
    return golden_from_bytes(runtime.bundle.file(formats.GOLDEN))


def verdict_of(frame: GoldenFrame, runtime: Runtime) -> Verdict:
    route = runtime.bundle.route(frame.product)
    return judge(frame.score, route.calibration, route.thresholds).decision.verdict


def test_every_product_and_the_unknown_one_has_golden_frames(
    golden: tuple[GoldenFrame, ...],
) -> None:
    assert {frame.product for frame in golden} == {"bolt", "washer", None}


@pytest.mark.parametrize("product", ["bolt", "washer"])
def test_golden_frames_show_a_part_that_passes_and_one_that_does_not(
    golden: tuple[GoldenFrame, ...], runtime: Runtime, product: str
) -> None:
    verdicts = [verdict_of(frame, runtime) for frame in golden if frame.product == product]

    # Of 640 patches 64 are rows: a good part may well lie beyond the highest of ten scores.
    assert Verdict.PASS in verdicts[:2]
    assert verdicts[2] is Verdict.FAIL


def test_the_runtimes_agree_far_within_the_tolerance(runtime: Runtime) -> None:
    agreements = packing.check_parity(runtime.bundle)

    assert len(agreements) >= 2 * 8  # both runtimes, on every golden frame
    assert all(each.holds for each in agreements)
    assert max(each.map_error for each in agreements) < RELATIVE_TOLERANCE / 4


def off(found: Inspected, of: str, relative: float) -> Inspected:
    return dataclasses.replace(found, **{of: getattr(found, of) * (1 + relative)})


@pytest.mark.parametrize("of", ["anomaly_map", "score"])
def test_a_station_runtime_that_is_off_is_found_out(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    inspect = Runtime.inspect
    monkeypatch.setattr(
        Runtime, "inspect", lambda self, *given: off(inspect(self, *given), of, 3e-4)
    )

    with pytest.raises(ParityError, match=r"golden frame 0 \(bolt\): ONNX Runtime disagrees"):
        packing.check_parity(runtime.bundle)


def test_an_oracle_that_is_off_is_found_out(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = golden_module.patch_scores
    monkeypatch.setattr(
        golden_module, "patch_scores", lambda *given, **options: oracle(*given, **options) * 0.999
    )

    with pytest.raises(ParityError, match="numpy disagrees"):
        packing.check_parity(runtime.bundle)


def test_a_fit_whose_runtimes_disagree_writes_nothing_and_exits_with_3(
    parts: Path,
    fitted: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inspect = Runtime.inspect
    monkeypatch.setattr(
        Runtime, "inspect", lambda self, *given: off(inspect(self, *given), "anomaly_map", 3e-4)
    )

    code = cli.main(["fit", str(parts), "--out", str(tmp_path / "bundle"), *SMALL])

    said = capsys.readouterr()
    assert code == 3
    assert said.err.startswith("dualbank-train: golden frame 0")
    assert said.err.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_the_model_card_says_what_the_model_was_made_of(runtime: Runtime) -> None:
    card = runtime.bundle.file(formats.MODEL_CARD).decode()

    for said in (
        "efficientnet-lite0",
        "64 × 64 px",
        "64 normal and 32 abnormal rows",
        "seed 0",
        "| bolt | 10 | 10 good parts",
        "| washer | 10 |",
        "- bolt: the abnormal side rests on made-up rows, no labelled defect; it has no weight.",
    ):
        assert said in card


def test_the_bundle_names_what_it_was_made_with(runtime: Runtime) -> None:
    manifest = runtime.bundle.manifest

    assert manifest.parent is None
    assert manifest.backbone == "efficientnet-lite0"
    assert manifest.preprocessing.size_px == 64
    assert set(manifest.routes) == {"bolt", "washer", formats.ANY_PRODUCT}
    assert {route.abnormal_weight for route in manifest.routes.values()} == {0.0}
    assert len(manifest.routes["bolt"].good_scores) == 10
    assert len(manifest.routes[formats.ANY_PRODUCT].good_scores) == 20


def test_banks_hold_as_many_rows_as_asked_for_and_name_their_images(runtime: Runtime) -> None:
    normal, abnormal = runtime.bundle.normal, runtime.bundle.abnormal

    assert normal.features.shape == (2 * 64, 40 + 80 + 112 + 192)
    assert normal.valid.all()
    assert len(abnormal.features) == 2 * 32
    assert set(normal.sources) == {f"{p}/{i:03}.png" for p in ("bolt", "washer") for i in range(10)}


@pytest.mark.parametrize(
    ("shape", "shrunk"),
    [
        pytest.param((80, 96), (80, 96), id="small enough"),
        pytest.param((1024, 1000), (1024, 1000), id="on the limit"),
        pytest.param((1500, 2048), (750, 1024), id="larger"),
        pytest.param((20, 8000), (8, 1024), id="a line scan keeps a side that can be used"),
    ],
)
def test_golden_frames_of_large_cameras_are_shrunk(
    shape: tuple[int, int], shrunk: tuple[int, int]
) -> None:
    frame = np.zeros((*shape, 3), np.uint8)

    assert packing._moderate(frame, Preprocessing()).shape == (*shrunk, 3)


@pytest.mark.parametrize(
    ("shape", "cut"),
    [
        pytest.param((80, 3000), (80, 112), id="wide"),
        pytest.param((90, 96), (90, 96), id="small enough"),
    ],
)
def test_golden_frames_of_tiles_are_cut_out_at_their_own_resolution(
    shape: tuple[int, int], cut: tuple[int, int]
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    left = (shape[1] - cut[1]) // 2

    golden = packing._moderate(frame, Preprocessing(64, "tiles", 16))

    assert np.array_equal(golden, frame[:, left : left + cut[1]])


def test_limits_of_frames_are_those_of_the_good_images_and_the_loosest_where_none_is_named(
    runtime: Runtime, parts: Path
) -> None:
    bundle = runtime.bundle

    expected = {
        category.name: limits_of(
            [measure(read_image(path), bundle.preprocessing) for path in category.train]
        )
        for category in find_categories(parts)
    }

    assert {name: bundle.route(name).limits for name in expected} == expected
    assert bundle.routes[formats.ANY_PRODUCT].limits == loosest(expected.values())


def test_good_and_defective_parts_that_were_not_learned_from_are_within_the_limits(
    runtime: Runtime, parts: Path
) -> None:
    for category in find_categories(parts):
        limits = runtime.bundle.route(category.name).limits
        assert limits is not None
        for sample in category.test:
            frame = measure(read_image(sample.image), runtime.bundle.preprocessing)
            assert check(frame, None, limits) is None

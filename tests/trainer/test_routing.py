"""Frames without a product, from learning the router to the report; masks by the command too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inspection.bundle import TRUNK
from inspection.preprocessing import prepare
from tests.trainer.conftest import SMALL
from tests.trainer.judged import judged
from tests.trainer.parts import PRODUCTS, good_part, write_category, write_image
from trainer.bundle_folder import open_bundle
from trainer.cli import main
from trainer.dataset import find_categories, resize
from trainer.features import FeatureStore
from trainer.packing import check_parity
from trainer.predict import predict
from trainer.results import CategoryResults
from trainer.routing import PROTOTYPES, REACH_FACTOR, k_means, learn_router
from trainer.runtime import Runtime
from trainer.unknown_product import recognise, unknown_product


def store(images: int, centre: float) -> FeatureStore:
    rng = np.random.default_rng(images)
    features = np.abs(rng.normal(0, 0.05, (images, 6, 4)) + np.roll(np.eye(4)[0], int(centre)))
    return FeatureStore(tuple(Path(f"{i}.png") for i in range(images)), features.astype(np.float16))


def test_a_router_has_prototypes_of_every_product_and_reaches_beyond_the_unseen() -> None:
    router = learn_router({"bolt": store(20, 0), "nut": store(5, 1)}, np.random.default_rng(0))

    assert router.products == ("bolt", "nut")
    assert np.bincount(router.product).tolist() == [PROTOTYPES, 5]
    assert router.prototypes.shape == (PROTOTYPES + 5, 2 * 4)
    assert (router.reach > 0).all()
    assert (router.reach < REACH_FACTOR * 2**0.5).all()


def test_the_same_seed_learns_the_same_router() -> None:
    first, second = (learn_router({"a": store(9, 0)}, np.random.default_rng(3)) for _ in range(2))

    np.testing.assert_array_equal(first.prototypes, second.prototypes)
    assert first.reach == second.reach


def test_k_means_finds_clusters_that_lie_apart() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(at, 0.01, (20, 2)) for at in (0.0, 5.0)])

    centres = k_means(points, 2, rng)

    np.testing.assert_allclose(np.sort(centres[:, 0]), [0, 5], atol=0.02)


def prepared(runtime: Runtime, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return prepare(frame, runtime.bundle.preprocessing, resize)


def foreign() -> NDArray[np.uint8]:
    """Stripes of saturated colour: no bolt, no washer."""
    frame = np.zeros((80, 96, 3), np.uint8)
    frame[::6] = frame[1::6] = (255, 0, 255)
    return frame


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_frame_without_a_product_gets_the_answer_of_its_product(
    runtime: Runtime, product: str, parts: Path, tmp_path: Path
) -> None:
    category = next(each for each in find_categories(parts) if each.name == product)
    good = [sample.image for sample in category.test if sample.defect is None]

    known, unknown = (predict(runtime, good, name, tmp_path) for name in (product, None))

    assert unknown == known
    assert {answer["product"] for answer in unknown} == {product}


def test_a_foreign_frame_goes_to_the_route_of_no_product(runtime: Runtime, tmp_path: Path) -> None:
    picture = write_image(tmp_path / "stripes.png", foreign())

    (answer,) = predict(runtime, [picture], None, tmp_path / "out")

    assert answer["product"] is None
    assert answer["verdict"] != "PASS"


def test_the_oracle_recognises_what_the_runtime_does(runtime: Runtime) -> None:
    rng = np.random.default_rng(5)
    for frame in (good_part("bolt", rng), good_part("washer", rng), foreign()):
        ready = prepared(runtime, frame)
        # full.onnx and trunk.onnx are two graphs; the features must lead to one route.
        features = runtime.patch_features(ready[None], runtime.bundle.route(None))[0]

        assert runtime.recognise(ready) is runtime.bundle.recognise(features)
    assert runtime.bundle.file(TRUNK)


def test_the_report_of_a_bundle_of_two_counts_who_was_recognised(
    runtime: Runtime, parts: Path
) -> None:
    rng = np.random.default_rng(6)
    frames = [
        ("bolt", good_part("bolt", rng), 0.25),
        ("bolt", foreign(), 0.25),
        ("washer", good_part("bolt", rng), 0.25),
        ("washer", good_part("washer", rng), -0.5),
    ]
    found = [
        recognise(runtime, prepared(runtime, frame), product, score)
        for product, frame, score in frames
    ]

    def report(*defects: str | None) -> dict[str, Any]:
        images = [judged(0.0, each, came) for each, came in zip(defects, found, strict=True)]
        results = [
            CategoryResults(product, False, tuple(images[at : at + 2]), left_out=())
            for product, at in (("bolt", 0), ("washer", 2))
        ]
        figures: dict[str, Any] = unknown_product(results)["unknown_product"]
        return figures

    assert report(None, "dent", None, None) == {
        "routed_right": 0.5,
        "routed_wrong": 0.25,
        "routed_nowhere": 0.25,
        "image_auroc": 1.0,
    }
    assert report(None, None, None, None)["image_auroc"] is None


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one product that is inspected in its right half alone, and its test images."""
    folder = tmp_path_factory.mktemp("masked")
    write_category(folder / "parts" / "bolt", "bolt", train=8, test=3)
    mask = np.zeros((40, 48), np.uint8)
    mask[:, 24:] = 255
    write_image(folder / "masks" / "bolt.png", mask)
    call = ["fit", str(folder / "parts"), "--out", str(folder / "bundle"), *SMALL]
    assert main([*call, "--foreground", str(folder / "masks")]) == 0
    return folder


def test_where_the_mask_is_black_nothing_is_learned_scored_or_found(masked: Path) -> None:
    runtime = Runtime(open_bundle(masked / "bundle"))
    part = good_part("bolt", np.random.default_rng(9))
    left, right = part.copy(), part.copy()
    left[30:50, 8:28] = right[30:50, 68:88] = (255, 30, 30)
    route = runtime.bundle.route("bolt")

    clean, hidden, seen = (
        runtime.inspect(prepared(runtime, frame)[None], route) for frame in (part, left, right)
    )

    assert (clean.maps[0][:, :4] == 0).all()
    assert (clean.maps[0][:, 4:] > 0).all()
    assert (hidden.maps[0][:, :4] == 0).all()
    review = route.thresholds.review
    standard = [
        float(route.calibration.standardise(each.scores.astype(np.float64))[0])
        for each in (hidden, seen)
    ]
    assert standard[1] > review
    assert standard[1] > 3 * abs(standard[0])
    assert runtime.bundle.normal.position[runtime.bundle.normal.valid][:, 1].min() == 4
    assert all(each.holds for each in check_parity(runtime.bundle))


def test_in_a_bundle_of_one_product_every_frame_is_of_it(
    masked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = Runtime(open_bundle(masked / "bundle"))
    assert runtime.recognise(prepared(runtime, foreign())) is runtime.bundle.routes["bolt"]

    call = ["evaluate", str(masked / "parts"), "--bundle", str(masked / "bundle")]
    assert main([*call, "--json", "-", "--quiet"]) == 0

    assert "unknown_product" not in json.loads(capsys.readouterr().out)


def test_the_report_of_the_command_says_what_ignorance_costs(
    parts: Path, fitted: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(parts), "--bundle", fitted["path"], "--json", "-", "--quiet"]) == 0

    unknown = json.loads(capsys.readouterr().out)["unknown_product"]
    assert unknown["routed_wrong"] == 0
    assert unknown["routed_right"] + unknown["routed_nowhere"] == pytest.approx(1)
    assert unknown["routed_right"] >= 0.5
    assert unknown["image_auroc"] > 0.9

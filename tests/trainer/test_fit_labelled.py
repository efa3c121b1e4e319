"""Fits with a few labelled defects, from a folder of labels to the figures of the bundle."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspection.bundle import LINEAGE, MODEL_CARD
from inspection.lineage import lineage_from_bytes
from inspection.preprocessing import prepare
from tests.trainer.conftest import SMALL
from tests.trainer.parts import damage, good_part, write_category, write_image
from trainer.bundle_folder import open_bundle
from trainer.cli import main
from trainer.dataset import read_image, resize
from trainer.packing import check_parity
from trainer.runtime import Runtime
from trainer.shifts import REACH_PX, shifted_canvas
from trainer.teaching import WEIGHTS

LABELS = 3


@dataclass(frozen=True)
class Taught:
    """What a fit with labels left: its report, its data, and how the labels were outlined."""

    report: dict[str, Any]
    root: Path
    regions: str


def write_labels(folder: Path, regions: str) -> None:
    """Write damaged bolts, outlined by masks or by boxes or not at all."""
    rng, boxes = np.random.default_rng(99), []
    for i in range(LABELS):
        shown, mask = damage(good_part("bolt", rng), rng)
        write_image(folder / "bolt" / "scratch" / f"{i}.png", shown)
        if regions == "mask":
            write_image(folder / "bolt" / "ground_truth" / "scratch" / f"{i}_mask.png", mask)
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        corner, far = (columns[0], rows[0]), (columns[-1] + 1, rows[-1] + 1)
        boxes.append([*map(int, corner), int(far[0] - corner[0]), int(far[1] - corner[1])])
    if regions == "boxes":
        document = {
            "images": [{"id": i, "file_name": f"scratch/{i}.png"} for i in range(LABELS)],
            "annotations": [{"image_id": i, "bbox": box} for i, box in enumerate(boxes)],
            "categories": [],
        }
        (folder / "bolt" / "annotations.json").write_text(json.dumps(document))


@pytest.fixture(scope="module", params=["mask", "boxes", "image"])
def taught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Taught:
    root = tmp_path_factory.mktemp(request.param)
    write_category(root / "bolt", "bolt", train=8, test=4, seed=4)
    write_labels(root / "labels", request.param)
    report = root / "report.json"
    call = ["fit", str(root / "bolt"), "--out", str(root / "b"), "--json", *SMALL]
    with report.open("w") as out, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        assert main([*call, "--labelled", str(root / "labels")]) == 0
    return Taught(json.loads(report.read_text()), root, request.param)


def test_the_report_and_the_bundle_say_what_was_learned_and_what_it_weighs(taught: Taught) -> None:
    bundle = open_bundle(taught.root / "b")
    learned = lineage_from_bytes(bundle.file(LINEAGE)).labelled

    assert taught.report["labelled"] == {"bolt": LABELS}
    weight = taught.report["abnormal_weights"]["bolt"]
    assert weight in WEIGHTS
    assert bundle.route("bolt").abnormal_weight == weight
    assert [image.regions for image in learned] == [taught.regions] * LABELS
    assert f"rests on {LABELS} labelled defects" in bundle.file(MODEL_CARD).decode()
    assert all(each.holds for each in check_parity(bundle))


def test_abnormal_rows_are_patches_of_the_labelled_images_as_they_lie_or_aside(
    taught: Taught,
) -> None:
    runtime = Runtime(open_bundle(taught.root / "b"))
    route = runtime.bundle.route("bolt")
    shown = [
        prepare(read_image(path), runtime.bundle.preprocessing, resize)
        for path in sorted((taught.root / "labels" / "bolt" / "scratch").glob("*.png"))
    ]

    reach = range(-REACH_PX, REACH_PX + 1)
    shifts = list(itertools.product(reach, reach))

    patches = np.concatenate(
        [
            runtime.patch_features(shifted_canvas(each, shift), route).reshape(64, -1)
            for each in shown
            for shift in shifts
        ]
    )

    rows = runtime.bundle.abnormal.features
    nearest = [np.square(patches - row).sum(axis=1) for row in rows]
    gaps = np.sqrt([each.min() for each in nearest])
    from_image = np.array([each.argmin() for each in nearest]) // (64 * len(shifts))
    assert runtime.bundle.abnormal.valid.all()
    # Features of torch and of ONNX Runtime agree to 1e-4; other patches are 0.1 and more away.
    known = gaps < 1e-3
    assert set(from_image[known]) == set(range(LABELS))
    assert known[:LABELS].all()


def test_the_taught_bundle_is_evaluated_on_images_that_it_was_not_taught(
    taught: Taught, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["evaluate", str(taught.root / "bolt"), "--bundle", str(taught.root / "b"), "--quiet"]

    assert main([*call, "--json", "-"]) == 0

    row = json.loads(capsys.readouterr().out)["categories"]["bolt"]
    assert (row["left_out"], row["n_good"], row["n_defect"]) == (0, 4, 4)
    assert row["image_auroc"] == 1.0

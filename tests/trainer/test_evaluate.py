"""What evaluation reports, and that its figures can be bad."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from inspection.errors import DatasetError, InputError
from tests.trainer.parts import good_part, touch, write_category, write_image
from trainer.cli import main
from trainer.dataset import Category, find_categories
from trainer.evaluate import FIGURES, evaluate
from trainer.evaluation_table import table
from trainer.progress import Progress
from trainer.runtime import Runtime

QUIET = Progress(shown=False)
PIXELS = {"pixel_auroc", "pixel_ap", "aupro"}


@pytest.fixture(scope="module")
def report(parts: Path, fitted: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What `evaluate --json FILE` wrote."""
    path = tmp_path_factory.mktemp("report") / "deep" / "report.json"
    call = ["evaluate", str(parts), "--bundle", fitted["path"], "--json", str(path), "--quiet"]
    assert main(call) == 0
    return json.loads(path.read_text())


def test_the_report_has_every_figure_of_every_product(report: Any, fitted: dict[str, Any]) -> None:
    assert set(report) == {
        *("categories", "mean", "defect_types", "class_blind", "unknown_product"),
        *("intervals", "settings", "bundle"),
    }
    assert set(report["categories"]) == {"bolt", "washer"}
    assert set(report["categories"]["bolt"]) == {*FIGURES, "n_good", "n_defect", "left_out"}
    assert {"image_auroc", "image_ap", "pixel_auroc", "aupro"} < set(FIGURES)
    assert set(report["mean"]) == set(FIGURES)
    assert set(report["class_blind"]) == {"image_auroc"}
    assert report["bundle"] == fitted["bundle"]
    assert report["settings"]["size_px"] == 64
    assert report["settings"]["normal_rows"] == 128


def test_damage_that_nobody_can_miss_is_not_missed(report: Any) -> None:
    for row in report["categories"].values():
        assert (row["n_good"], row["n_defect"]) == (6, 6)
        assert row["image_auroc"] > 0.9
        assert row["image_ap"] > 0.9
        assert row["escape_rate"] < 0.5
    assert report["class_blind"]["image_auroc"] > 0.9


def test_damage_is_found_where_it_is(report: Any) -> None:
    bolt = report["categories"]["bolt"]

    # A constant map gets 0.5 and 0.15; patches of 12 px smear a scratch 5 px wide.
    assert bolt["pixel_auroc"] > 0.85
    assert bolt["aupro"] > 0.5


def test_a_product_without_masks_has_no_pixel_figures_and_leaves_the_mean_alone(
    report: Any,
) -> None:
    bolt, washer = report["categories"]["bolt"], report["categories"]["washer"]

    assert {name for name, figure in washer.items() if figure is None} == PIXELS
    for name in FIGURES:
        known = [row[name] for row in (bolt, washer) if row[name] is not None]
        assert report["mean"][name] == pytest.approx(np.mean(known))


def changed(parts: Path, **changes: Any) -> list[Category]:
    bolt, washer = find_categories(parts)
    return [dataclasses.replace(bolt, **changes), washer]


def test_labels_that_mean_nothing_give_figures_that_say_so(parts: Path, runtime: Runtime) -> None:
    bolt, _ = find_categories(parts)
    # Every other label is turned round: half of the good parts are now called damaged.
    turned = tuple(
        dataclasses.replace(sample, defect=None if sample.defect else "scratch", mask=None)
        if i % 2
        else sample
        for i, sample in enumerate(bolt.test)
    )

    figures = evaluate(runtime, changed(parts, test=turned, has_masks=False), QUIET)["categories"]

    assert 0.2 < figures["bolt"]["image_auroc"] < 0.8
    assert figures["washer"]["image_auroc"] > 0.9


@pytest.mark.parametrize("kept", ["good", "damaged", "nothing"])
def test_a_product_with_one_kind_of_test_image_has_counts_and_no_figures(
    parts: Path, runtime: Runtime, kept: str
) -> None:
    bolt, _ = find_categories(parts)
    test = tuple(s for s in bolt.test if kept == ("damaged" if s.defect else "good"))

    report = evaluate(runtime, changed(parts, test=test), QUIET)

    row = report["categories"]["bolt"]
    assert (row["n_good"], row["n_defect"]) == {"good": (6, 0), "damaged": (0, 6)}.get(kept, (0, 0))
    assert all(row[name] is None for name in FIGURES)
    assert report["mean"]["image_auroc"] == report["categories"]["washer"]["image_auroc"]
    assert report["mean"]["aupro"] is None
    json.dumps(report, allow_nan=False)


def test_masks_that_outline_nothing_give_no_pixel_figures(
    parts: Path, runtime: Runtime, tmp_path: Path
) -> None:
    bolt, _ = find_categories(parts)
    blank = write_image(tmp_path / "blank.png", np.zeros((80, 96), np.uint8))
    test = tuple(
        dataclasses.replace(sample, mask=blank) if sample.defect else sample for sample in bolt.test
    )

    row = evaluate(runtime, changed(parts, test=test), QUIET)["categories"]["bolt"]

    assert {name for name in FIGURES if row[name] is None} == PIXELS


def test_a_mask_of_another_size_is_named(parts: Path, runtime: Runtime, tmp_path: Path) -> None:
    bolt, _ = find_categories(parts)
    other = write_image(tmp_path / "other.png", np.full((40, 48), 255, np.uint8))
    test = tuple(
        dataclasses.replace(sample, mask=other) if sample.defect else sample for sample in bolt.test
    )

    with pytest.raises(DatasetError, match=r"other\.png is \(40, 48\), but its image is"):
        evaluate(runtime, changed(parts, test=test), QUIET)


def test_a_product_that_the_bundle_does_not_know_is_named_before_anything_is_scored(
    runtime: Runtime, tmp_path: Path
) -> None:
    touch(tmp_path, *(f"nut/good/{i}.png" for i in range(9)))  # empty: opening one would fail

    with pytest.raises(InputError, match="'nut' is not in this bundle; it knows bolt, washer"):
        evaluate(runtime, find_categories(tmp_path), QUIET)


def test_a_folder_only_to_test_on_can_be_evaluated(
    fitted: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_category(tmp_path / "bolt", "bolt", train=0, test=3, seed=5)

    call = ["evaluate", str(tmp_path), "--bundle", fitted["path"], "--json", "-", "--quiet"]
    assert main(call) == 0

    assert json.loads(capsys.readouterr().out)["categories"]["bolt"]["image_auroc"] > 0.9


def test_test_images_of_mixed_sizes_and_depths_are_measured(
    runtime: Runtime, tmp_path: Path
) -> None:
    folder = write_category(tmp_path / "bolt", "bolt", train=0, test=2, seed=6)
    frame = good_part("bolt", np.random.default_rng(8))
    write_image(folder / "test" / "good" / "grey.png", frame[:, :, 0])
    write_image(folder / "test" / "good" / "deep.png", frame.astype(np.uint16) << 8)
    write_image(
        folder / "test" / "good" / "large.bmp", np.kron(frame, np.ones((3, 2, 1), np.uint8))
    )

    row = evaluate(runtime, find_categories(tmp_path, need_train=False), QUIET)["categories"][
        "bolt"
    ]

    assert (row["n_good"], row["n_defect"]) == (5, 2)
    assert row["aupro"] is not None


def test_the_table_for_people_shows_every_product(
    parts: Path, fitted: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(parts), "--bundle", fitted["path"], "--quiet"]) == 0

    printed = capsys.readouterr().out
    for said in ("bolt", "washer", "mean", "one threshold", "–"):
        assert said in printed


def test_the_table_fits_into_a_pipe_of_eighty_columns() -> None:
    row = dict.fromkeys((*FIGURES, "n_good", "n_defect"), 1.0) | {"n_good": 9999, "n_defect": 9999}
    names = ("transistor_reduced", "magnetic_tile")
    both = [0.87654, 1.0]
    report = {
        "bundle": "0" * 64,
        "categories": dict.fromkeys(names, row),
        "mean": row,
        "class_blind": {"image_auroc": 1.0},
        "intervals": {
            "confidence": 0.95,
            "categories": dict.fromkeys(names, dict.fromkeys(FIGURES, both)),
            "mean": dict.fromkeys(FIGURES, both),
            "class_blind": {"image_auroc": both},
        },
    }
    console = Console(width=80, file=io.StringIO())

    console.print(table(report))

    printed = console.file.getvalue()
    assert "transistor_reduced" in printed
    assert printed.count("88–100") == 6 + 6 + 6 + 1
    assert "…" not in printed

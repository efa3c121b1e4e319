"""The check of a bundle on this machine: damage, other answers, and links that lead elsewhere."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from edge.bundle_folder import open_bundle, verify_files
from edge.check import check_all, golden_frames, require, warm_up
from edge.onnx_scorer import OnnxScorer
from inspection.bundle import MODEL_CARD, REQUIRED, Bundle
from inspection.errors import BundleError, ParityError
from inspection.golden import GoldenFrame, golden_to_bytes
from inspection.manifest import MANIFEST
from inspection.preprocessing import Preprocessing
from tests.bundles import LETTERBOX, TILES, graph_bytes, write_tiny_bundle
from tests.bundles import golden_frames as true_frames


def other_answers(tmp_path: Path, **changes: object) -> Bundle:
    """A bundle whose first golden frame was told another answer."""
    first, *rest = true_frames()
    changed: GoldenFrame = dataclasses.replace(first, **changes)  # type: ignore[arg-type]
    golden = golden_to_bytes([changed, *rest])
    return open_bundle(write_tiny_bundle(tmp_path, golden_safetensors=golden))


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def test_a_whole_bundle_holds(tiny_bundle: Bundle) -> None:
    results = check_all(tiny_bundle, OnnxScorer(tiny_bundle))

    assert len(results) == len(true_frames())
    assert all(result.holds for result in results)
    assert verify_files(tiny_bundle) == len(REQUIRED)


@pytest.mark.parametrize("spec", [LETTERBOX, TILES])
def test_a_bundle_of_other_views_holds_too(tmp_path: Path, spec: Preprocessing) -> None:
    bundle = open_bundle(write_tiny_bundle(tmp_path, spec))
    scorer = OnnxScorer(bundle)

    assert all(result.holds for result in check_all(bundle, scorer))
    warm_up(bundle, scorer)


def test_golden_frames_of_other_views_do_not_fit_the_bundle(tmp_path: Path) -> None:
    golden = golden_to_bytes(true_frames(TILES))
    bundle = open_bundle(write_tiny_bundle(tmp_path, golden_safetensors=golden))

    with pytest.raises(BundleError, match=r"golden frame 0 is \(48, 48, 3\)"):
        golden_frames(bundle)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"score": true_frames()[0].score * 1.001}, id="score"),
        pytest.param({"anomaly_map": true_frames()[0].anomaly_map * 1.001}, id="map"),
        pytest.param({"frame": true_frames()[0].frame + 5}, id="preprocessing"),
        pytest.param({"score": float("nan")}, id="not a number"),
    ],
)
def test_an_answer_that_is_not_ours_stops_the_station(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    bundle = other_answers(tmp_path, **changes)
    scorer = OnnxScorer(bundle)

    assert [result.holds for result in check_all(bundle, scorer)].count(False) == 1
    with pytest.raises(ParityError, match="golden frame 0"):
        warm_up(bundle, scorer)


def test_a_graph_that_disagrees_with_the_oracle_is_found(tmp_path: Path) -> None:
    squared = graph_bytes().replace(b"Sqrt", b"Ceil")
    bundle = open_bundle(write_tiny_bundle(tmp_path, full_onnx=squared))

    results = check_all(bundle, OnnxScorer(bundle))

    assert not any(result.runtime.holds for result in results)
    assert all(result.oracle and result.oracle.holds for result in results)
    with pytest.raises(ParityError):
        require(results)


def test_golden_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="golden frame 0"):
        golden_frames(other_answers(tmp_path, prepared=true_frames()[0].frame))


def test_a_folder_that_is_no_bundle_says_so(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BundleError, match="is no bundle"):
            open_bundle(folder)


def test_a_changed_byte_is_found_also_where_no_station_looks(copy: Path) -> None:
    bundle = open_bundle(copy)
    card = copy / bundle.manifest.files[MODEL_CARD].path
    card.write_bytes(card.read_bytes() + b" ")

    with pytest.raises(BundleError, match=r"model_card\.md is damaged"):
        verify_files(open_bundle(copy))


def test_a_file_that_is_missing_is_named(copy: Path) -> None:
    bundle = open_bundle(copy)
    (copy / bundle.manifest.files[MODEL_CARD].path).unlink()

    with pytest.raises(BundleError, match="missing"):
        verify_files(bundle)


def test_a_link_out_of_the_folder_is_not_followed(copy: Path, tmp_path: Path) -> None:
    bundle = open_bundle(copy)
    card = copy / bundle.manifest.files[MODEL_CARD].path
    card.rename(tmp_path / "outside")
    card.symlink_to(tmp_path / "outside")

    with pytest.raises(BundleError, match="outside"):
        verify_files(bundle)


def test_a_bundle_may_be_reached_through_a_link(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(tiny_folder)

    assert open_bundle(tmp_path / "current").id == open_bundle(tiny_folder).id
    assert (tmp_path / "current" / MANIFEST).is_file()

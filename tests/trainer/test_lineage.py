"""A bundle says which labelled images it learned from, and no evaluation shows them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inspection.bundle import LINEAGE, MODEL_CARD
from inspection.lineage import lineage_from_bytes
from tests.trainer.conftest import SMALL
from tests.trainer.parts import write_category
from trainer.bundle_folder import open_bundle
from trainer.cli import main
from trainer.dataset import find_categories
from trainer.labelled import draw_defects
from trainer.learned import digest_of
from trainer.teaching import WEIGHTS


@pytest.fixture(scope="module")
def bolts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_category(tmp_path_factory.mktemp("bolts") / "bolt", "bolt", train=8, seed=4)


@pytest.fixture(scope="module")
def taught(bolts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that was shown two of the six scratches."""
    out = tmp_path_factory.mktemp("taught") / "bundle"
    assert main(["fit", str(bolts), "--out", str(out), "--defects", "2", *SMALL]) == 0
    return out


def evaluated(
    data: Path, bundle: Path | str, capsys: pytest.CaptureFixture[str], *options: str
) -> dict[str, Any]:
    call = ["evaluate", str(data), "--bundle", str(bundle), "--json", "-", "--quiet", *options]
    assert main(call) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report["categories"]


def test_a_bundle_records_what_it_was_taught(bolts: Path, taught: Path) -> None:
    learned = lineage_from_bytes(open_bundle(taught).file(LINEAGE)).labelled

    drawn, _ = draw_defects(find_categories(bolts), 2, 0)
    assert [image.sha256 for image in learned] == [each.sha256 for each in drawn["bolt"]]
    assert {(image.category, image.defect, image.regions) for image in learned} == {
        ("bolt", "scratch", "mask")
    }
    assert {digest_of(bolts / "test" / "scratch" / image.name) for image in learned} == {
        image.sha256 for image in learned
    }


def test_what_drawn_defects_weigh_is_in_the_bundle(taught: Path) -> None:
    bundle = open_bundle(taught)

    assert bundle.route("bolt").abnormal_weight in WEIGHTS
    assert bundle.abnormal.valid.all()
    assert "rests on 2 labelled defects" in bundle.file(MODEL_CARD).decode()


def test_a_bundle_without_labels_records_none(fitted: dict[str, Any]) -> None:
    assert fitted["labelled"] == {}
    bundle = open_bundle(Path(fitted["path"]))
    assert lineage_from_bytes(bundle.file(LINEAGE)).labelled == ()


def test_what_was_learned_is_left_out_of_the_test(
    bolts: Path, taught: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = evaluated(bolts, taught, capsys)["bolt"]

    assert (row["left_out"], row["n_good"], row["n_defect"]) == (2, 6, 4)


def test_another_bundle_is_measured_on_the_same_images_if_asked_to(
    bolts: Path, taught: Path, fitted: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    other = fitted["path"]
    whole = evaluated(bolts, other, capsys)["bolt"]
    same = evaluated(bolts, other, capsys, "--without", str(taught), "--without", other)["bolt"]

    assert (whole["left_out"], whole["n_defect"]) == (0, 6)
    assert (same["left_out"], same["n_defect"]) == (2, 4)


def test_people_are_told_what_was_left_out(
    bolts: Path, taught: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(bolts), "--bundle", str(taught), "--quiet"]) == 0

    assert "bolt: 2 test images left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--defects", "0"], "at least 1 defect"),
        (["--labelled", "nowhere"], "expected a folder of labelled defects, got nowhere"),
        (["--labelled", "{bolts}"], "is no defect type"),
    ],
)
def test_labels_that_cannot_work_are_refused_before_anything_is_learned(
    bolts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    options = [option.format(bolts=bolts) for option in options]

    assert main(["fit", str(bolts), "--out", str(tmp_path / "b"), *options, *SMALL]) == 1

    printed = capsys.readouterr()
    assert said in printed.err
    assert not (tmp_path / "b").exists()


def test_defects_are_drawn_or_read_and_not_both(
    bolts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fit", "x", "--out", "y", "--defects", "1", "--labelled", "z"])

    assert ended.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_a_bundle_to_do_without_must_be_one(
    bolts: Path, taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["evaluate", str(bolts), "--bundle", str(taught), "--without", str(tmp_path)]

    assert main(call) == 1
    assert f"{tmp_path} is no bundle" in capsys.readouterr().err

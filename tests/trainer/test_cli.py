"""The command from a folder of images to a bundle, its figures and its pictures."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspection.bundle import MODEL_CARD
from tests.trainer.conftest import SMALL
from tests.trainer.parts import damage, good_part, touch, write_category, write_image
from trainer import cli, commands, good_parts
from trainer.bundle_folder import open_bundle
from trainer.cli import main
from trainer.dataset import read_image
from trainer.packing import check_parity


@pytest.mark.parametrize("verb", [[], ["fit"], ["evaluate"], ["report"], ["predict"]])
def test_every_verb_explains_itself(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*verb, "--help"])

    assert ended.value.code == 0
    assert "usage: dualbank-train" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["fit"],
        ["fit", "x"],
        ["fit", "x", "--out", "y", "--size", "big"],
        ["fit", "x", "--out", "y", "--rows", "1.5"],
        ["evaluate", "x"],
        ["report", "x"],
        ["predict", "--bundle", "b"],
    ],
)
def test_a_wrong_call_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail with one line on standard error, and give the line."""
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("dualbank-train: ")
    assert said.err.count("\n") == 1
    return said.err


# --- fit ------------------------------------------------------------------------------------------


def test_a_fit_reports_its_bundle_products_and_what_thresholds_rest_on(
    fitted: dict[str, Any],
) -> None:
    bundle = open_bundle(Path(fitted["path"]))

    assert fitted["bundle"] == bundle.id
    assert fitted["categories"] == {"bolt": 10, "washer": 10}
    assert set(fitted["thresholds"]) == {"bolt", "washer", "*"}
    assert "10 good parts" in fitted["thresholds"]["bolt"]


def test_the_same_seed_gives_the_same_bundle_over_an_older_one(
    parts: Path, fitted: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(fitted["path"], tmp_path / "bundle")
    (tmp_path / "bundle" / "leftover").touch()

    assert main(["fit", str(parts), "--out", str(tmp_path / "bundle"), *SMALL]) == 0

    assert fitted["bundle"][:12] in capsys.readouterr().out
    assert open_bundle(tmp_path / "bundle").id == fitted["bundle"]
    assert os.listdir(tmp_path) == ["bundle"]
    assert sorted(os.listdir(tmp_path / "bundle")) == ["files", "manifest.json"]


def test_another_seed_and_an_abnormal_side_give_another_bundle_that_agrees_as_well(
    tmp_path: Path, fitted: dict[str, Any]
) -> None:
    write_category(tmp_path / "bolt", "bolt", train=8, test=0)
    options = ["--abnormal-weight", "0.5", "--seed", "3", *SMALL]

    assert main(["fit", str(tmp_path / "bolt"), "--out", str(tmp_path / "b"), *options]) == 0

    bundle = open_bundle(tmp_path / "b")
    assert bundle.id != fitted["bundle"]
    assert bundle.route("bolt").abnormal_weight == 0.5
    assert "may raise a patch by weight 0.5" in bundle.file(MODEL_CARD).decode()
    assert all(each.holds for each in check_parity(bundle))


def test_copies_feed_the_bank_and_thresholds_rest_on_the_pictures_as_they_are(
    tmp_path: Path,
) -> None:
    write_category(tmp_path / "bolt", "bolt", train=4, test=0)
    call = ["fit", str(tmp_path / "bolt"), "--out", str(tmp_path / "b"), *SMALL]

    # More rows than the pictures themselves have patches.
    assert main([*call, "--augment", "turn,brightness", "--rows", "400"]) == 0

    bundle = open_bundle(tmp_path / "b")
    assert len(bundle.route("bolt").calibration.good_scores) == 4
    assert int(bundle.normal.valid.sum()) == 400 > 4 * 64
    assert set(bundle.normal.source.tolist()) == set(range(4))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--size", "100"], "size_px must be a multiple of 16"),
        (["--size", "16"], "size_px must be a multiple of 16 from 32"),
        (["--fit", "tiles", "--overlap", "12"], "overlap_px must be a multiple of 8"),
        (["--overlap", "16"], "only tiles overlap"),
        (["--fit", "tiles", "--shrink", "17"], "shrink must be from 1 to 16"),
        (["--rows", "15"], "at least 16 rows"),
        (["--abnormal-rows", "0"], "at least 16 rows"),
        (["--abnormal-weight", "-0.1"], "abnormal_weight must be 0 or more"),
        (["--abnormal-weight", "nan"], "abnormal_weight must be 0 or more"),
        (["--abnormal-weight", "inf"], "abnormal_weight must be 0 or more"),
        (["--augment", "rotate,mirror"], "cannot augment by mirror; expected some of"),
        (["--seed", "-1"], "expected a seed from 0"),
        (["--seed", "9223372036854775808"], "expected a seed from 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    line = refused(["fit", str(tmp_path / "gone"), "--out", str(tmp_path / "b"), *options], capsys)

    assert said in line


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "no category below"),
        (["bolt/train/good/.keep"], "category bolt has no good images"),
        ([f"bolt/train/good/{i}.png" for i in range(3)], "bolt has 3 good images .* at least 4"),
        ([f"bolt/good/{i}.png" for i in range(9)] + ["bolt/good/notes.txt"], "notes.txt is not"),
        ([f"bolt/good/{i}.png" for i in range(11)], "0.png: .* 0 bytes"),
    ],
)
def test_data_that_cannot_work_is_refused_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: list[str], said: str
) -> None:
    data = touch(tmp_path / "data", *names)
    data.mkdir(exist_ok=True)

    line = refused(["fit", str(data), "--out", str(tmp_path / "b"), *SMALL], capsys)

    assert re.search(said, line)
    assert not (tmp_path / "b").exists()


def test_a_place_that_is_taken_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path / "photos", "0.png")

    line = refused(["fit", str(tmp_path / "x"), "--out", str(tmp_path / "photos")], capsys)

    assert "photos exists and is no bundle" in line
    assert (tmp_path / "photos" / "0.png").exists()


def test_an_image_that_is_broken_half_way_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_category(tmp_path / "bolt", "bolt", test=0)
    broken = folder / "train" / "good" / "008.png"
    broken.write_bytes(broken.read_bytes()[:-30])
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(
        good_parts, "LENGTH_IMAGES", 1
    )  # so that the broken one is met in the middle

    line = refused(["fit", str(folder), "--out", str(tmp_path / "b"), *SMALL], capsys)

    assert "008.png" in line
    assert "truncated" in line
    assert sorted(os.listdir(tmp_path)) == ["bolt", "tmp"]
    assert os.listdir(tmp_path / "tmp") == []


def test_a_full_disk_is_told_of_before_features_are_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_category(tmp_path / "bolt", "bolt", test=0)
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)

    line = refused(["fit", str(folder), "--out", str(tmp_path / "b"), *SMALL], capsys)

    assert "set TMPDIR" in line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "/x/y"), "/x/y: No space left on device"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("cannot seek"), "cannot seek"),
    ],
)
def test_a_failing_disk_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
    line: str,
) -> None:
    def fail(*given: Any) -> None:
        raise error

    monkeypatch.setattr(commands.fit, "check_target", fail)

    said = refused(["fit", str(tmp_path), "--out", str(tmp_path / "b")], capsys)

    assert said == f"dualbank-train: {line}\n"


# --- predict --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], np.ndarray]:
    """A good bolt and a damaged one that nobody has seen, both called Größe 1, and the mask."""
    rng = np.random.default_rng(77)
    damaged, mask = damage(good_part("bolt", rng), rng)
    root = tmp_path_factory.mktemp("shown")
    paths = [
        write_image(root / "a" / "Größe 1.png", good_part("bolt", rng)),
        write_image(root / "b" / "Größe 1.PNG", damaged),
    ]
    return paths, mask > 0


def test_predictions_come_with_a_verdict_and_a_picture_of_the_damage(
    fitted: dict[str, Any],
    shown: tuple[list[Path], np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, damaged = shown
    call = ["predict", *map(str, images), "--bundle", fitted["path"], "--product", "bolt"]

    assert main([*call, "--out", str(tmp_path / "o"), "--json"]) == 0

    good, bad = json.loads(capsys.readouterr().out)
    assert (bad["verdict"], bad["image"]) == ("FAIL", str(images[1]))
    assert good["score"] < bad["score"]
    assert bad["review"] <= bad["reject"] < bad["score"]
    assert 0 < bad["p_value"] <= good["p_value"] <= 1
    assert good["regions"] == [] or good["verdict"] != "PASS"
    drawn = read_image(Path(bad["overlay"])).astype(int)
    change = np.abs(drawn - read_image(images[1])).sum(axis=2)
    assert drawn.shape == (80, 96, 3)
    inside = change[8:-8, 8:-8][damaged[8:-8, 8:-8]].mean()  # without the frame of the verdict
    outside = change[8:-8, 8:-8][~damaged[8:-8, 8:-8]].mean()
    assert inside > 2 * outside
    x, y, width, height = bad["regions"][0]
    assert damaged[y : y + height, x : x + width].sum() > 0.3 * damaged.sum()
    assert len(os.listdir(tmp_path / "o")) == 2  # of one name, and neither lost


def test_predictions_are_a_line_each_for_people(
    fitted: dict[str, Any],
    shown: tuple[list[Path], np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, _ = shown

    call = ["predict", *map(str, images), "--bundle", fitted["path"], "--out", str(tmp_path)]
    assert main(call) == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("FAIL")
    assert str(images[1]) in lines[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--product", "nut"], "product 'nut' is not in this bundle; it knows bolt, washer"),
        (["--product", "*"], "product '*' is not in this bundle"),
        (["--out", "{here}/0.png"], "0.png: File exists"),
    ],
)
def test_a_prediction_that_cannot_be_made_says_why(
    fitted: dict[str, Any],
    shown: tuple[list[Path], np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    touch(tmp_path, "0.png")
    options = [option.format(here=tmp_path) for option in options]
    call = ["predict", str(shown[0][0]), "--bundle", fitted["path"], "--out", str(tmp_path / "o")]

    assert said in refused([*call, *options], capsys)


@pytest.mark.parametrize("name", ["gone.png", "text.png"])
def test_an_image_that_cannot_be_predicted_is_named(
    fitted: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "text.png").write_text("not an image")
    call = ["predict", str(tmp_path / name), "--bundle", fitted["path"], "--out", str(tmp_path)]

    assert name in refused(call, capsys)


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_a_bundle_that_is_none_is_named(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    line = refused([verb, str(parts), "--bundle", str(tmp_path)], capsys)

    assert f"{tmp_path} is no bundle" in line


def test_a_damaged_bundle_is_refused(
    fitted: dict[str, Any], parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(fitted["path"], tmp_path / "b")
    largest = max((tmp_path / "b" / "files").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])

    line = refused(["evaluate", str(parts), "--bundle", str(tmp_path / "b")], capsys)

    assert "is damaged" in line


def test_overlays_are_png_files(fitted: dict[str, Any], parts: Path, tmp_path: Path) -> None:
    image = parts / "bolt" / "test" / "good" / "000.png"

    assert main(["predict", str(image), "--bundle", fitted["path"], "--out", str(tmp_path)]) == 0

    (overlay,) = tmp_path.iterdir()
    assert overlay.suffix == ".png"
    assert cv2.imread(str(overlay)).shape == (80, 96, 3)


@pytest.fixture
def interrupts() -> Iterator[None]:
    """SIGINT as a terminal leaves it; a shell in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_fit_that_is_stopped_leaves_neither_a_bundle_nor_its_features(
    parts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    on_disk: list[list[str]] = []

    def stop(*_: object) -> None:
        on_disk.append(os.listdir(tmp_path / "tmp"))
        signal.raise_signal(number)

    monkeypatch.setattr(good_parts, "normal_bank", stop)

    code = cli.main(["fit", str(parts), "--out", str(tmp_path / "bundle"), *SMALL])

    assert code == 1
    assert capsys.readouterr().err == "dualbank-train: stopped; nothing was written\n"
    assert on_disk[0] != []
    assert os.listdir(tmp_path / "tmp") == []
    assert not (tmp_path / "bundle").exists()

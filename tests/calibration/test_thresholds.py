"""`dualbank-calibrate thresholds`: a child differs from its parent in nothing but thresholds."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calibration import rethreshold
from calibration.cli import main
from calibration.rethreshold import open_bundle
from edge import check
from edge.onnx_scorer import OnnxScorer
from inspection.bundle import ANY_PRODUCT, GOLDEN
from inspection.golden import golden_from_bytes
from inspection.manifest import MANIFEST
from inspection.verdicts import judge
from tests.bundles import write_tiny_bundle


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "parent")


def make(parent: Path, *options: str, out: str = "child") -> Path:
    """Make a child beside its parent."""
    target = parent.parent / out
    assert main(["thresholds", str(parent), "--out", str(target), *options]) == 0
    return target


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_differs_but_thresholds_and_the_parent(parent: Path) -> None:
    child = make(parent, "--review-frr", "0.3", "--reject-frr", "0.2")

    old, new = manifest(parent), manifest(child)
    assert new.pop("parent") == open_bundle(parent).id
    assert old.pop("parent") is None
    for product in old["routes"]:
        for name in ("review", "reject", "statement"):
            assert old["routes"][product].pop(name) != new["routes"][product].pop(name)
    assert new == old


def test_limits_of_frames_are_carried_over(parent: Path) -> None:
    old, new = open_bundle(parent), open_bundle(make(parent))

    for product, route in old.routes.items():
        assert route.limits is not None
        assert new.routes[product].limits == route.limits


def test_every_file_is_shared_and_the_parent_is_not_touched(parent: Path) -> None:
    before = contents(parent)

    child = make(parent)

    assert contents(parent) == before
    for path in (parent / "files").iterdir():
        assert path.samefile(child / "files" / path.name)
    assert sorted(os.listdir(child / "files")) == sorted(os.listdir(parent / "files"))
    assert sorted(os.listdir(parent.parent)) == ["child", "parent"]


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_where_files_cannot_be_linked_they_are_copied(
    parent: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*given: Any, **options: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)

    child = make(parent)

    assert contents(child / "files") == contents(parent / "files")
    open_bundle(child)


def test_a_grandchild_names_the_child(parent: Path) -> None:
    child = make(parent)

    grandchild = make(child, "--review-frr", "0.2", out="grandchild")

    assert open_bundle(grandchild).manifest.parent == open_bundle(child).id


def test_letting_more_good_parts_be_looked_at_never_raises_a_threshold(parent: Path) -> None:
    rates = [0.01, 0.02, 0.05, 0.1, 0.3, 0.9]

    children = [
        open_bundle(make(parent, "--review-frr", str(r), "--reject-frr", "0.01", out=f"c{r}"))
        for r in rates
    ]

    for product in (*children[0].normal.categories, ANY_PRODUCT):
        limits = [child.routes[product].thresholds for child in children]
        reviews = [each.review for each in limits]
        assert reviews == sorted(reviews, reverse=True)
        assert reviews[0] > reviews[-1]
        assert len({each.reject for each in limits}) == 1
        assert all(each.review <= each.reject for each in limits)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
def test_a_threshold_lets_no_more_good_parts_be_looked_at_than_asked_for(
    parent: Path, rate: float
) -> None:
    child = open_bundle(make(parent, "--review-frr", str(rate), "--reject-frr", "0.01"))

    for route in child.routes.values():
        scores = route.calibration.good_scores
        above = sum(
            judge(score, route.calibration, route.thresholds).decision.verdict.value != "PASS"
            for score in scores
        )
        assert above <= rate * len(scores)
        assert above + 2 >= rate * len(scores)  # and the threshold is no higher than need be


def test_a_station_takes_the_child_whatever_its_thresholds(parent: Path) -> None:
    for rate in ("0.9", "0.02"):
        child = open_bundle(make(parent, "--review-frr", rate, "--reject-frr", rate, out=rate))

        scorer = OnnxScorer(child, threads=1)
        check.warm_up(child, scorer)

        results = check.check_all(child, scorer)
        assert len(results) == len(golden_from_bytes(child.file(GOLDEN)))
        assert all(result.holds for result in results)


def test_the_report_says_what_became_of_every_product(
    parent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child = make(parent, "--json")

    report = json.loads(capsys.readouterr().out)
    bundle = open_bundle(child)
    assert (report["bundle"], report["parent"]) == (bundle.id, open_bundle(parent).id)
    assert set(report["thresholds"]) == {"bolt", "nut", ANY_PRODUCT}
    assert report["thresholds"]["bolt"]["review"] == bundle.routes["bolt"].thresholds.review

    make(parent, out="again")
    printed = capsys.readouterr().out
    assert bundle.id[:12] in printed
    assert "bolt: review above" in printed


# --- what is refused ------------------------------------------------------------------------------


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("dualbank-calibrate: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("review", "reject"),
    [("0", "0"), ("1", "0.5"), ("-0.1", "-0.2"), ("nan", "0.01"), ("0.1", "nan"), ("0.01", "0.02")],
)
def test_rates_that_mean_nothing_are_refused(
    parent: Path, capsys: pytest.CaptureFixture[str], review: str, reject: str
) -> None:
    call = ["thresholds", str(parent), "--out", str(parent.parent / "child")]

    refused([*call, f"--review-frr={review}", f"--reject-frr={reject}"], capsys)

    assert os.listdir(parent.parent) == ["parent"]


@pytest.mark.parametrize("kind", ["bundle", "file", "empty folder", "dangling link"])
def test_a_place_that_is_taken_is_refused(
    parent: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    target = parent.parent / "taken"
    make_it: dict[str, Callable[[], Any]] = {
        "bundle": lambda: write_tiny_bundle(target),
        "file": target.touch,
        "empty folder": target.mkdir,
        "dangling link": lambda: target.symlink_to("gone"),
    }
    make_it[kind]()

    line = refused(["thresholds", str(parent), "--out", str(target)], capsys)

    assert "taken exists already" in line
    assert sorted(os.listdir(parent.parent)) == ["parent", "taken"]


def test_what_is_no_bundle_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(["thresholds", str(tmp_path), "--out", str(tmp_path / "c")], capsys)

    assert f"{tmp_path} is no bundle" in line


@pytest.mark.parametrize("damage", ["changed", "missing"])
@pytest.mark.parametrize("name", ["full.onnx", "golden.safetensors", "normal_bank.safetensors"])
def test_damage_does_not_travel_from_a_parent_to_its_child(
    parent: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    path = parent / "files" / manifest(parent)["files"][name]["sha256"]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"x" + path.read_bytes()[1:])

    line = refused(["thresholds", str(parent), "--out", str(parent.parent / "child")], capsys)

    assert name in line or path.name in line
    assert os.listdir(parent.parent) == ["parent"]


class Killed(BaseException):
    """Stands for whatever ends a process in the middle of its work."""


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), Killed()])
@pytest.mark.parametrize(
    ("owner", "name"), [(os, "fsync"), (Path, "rename"), (rethreshold, "_share")]
)
def test_a_child_is_written_whole_or_not_at_all(
    parent: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    failure: BaseException,
) -> None:
    def fail(*given: Any) -> None:
        raise failure

    monkeypatch.setattr(owner, name, fail)
    call = ["thresholds", str(parent), "--out", str(parent.parent / "child")]

    if isinstance(failure, OSError):
        assert main(call) == 1
    else:
        with pytest.raises(Killed):
            main(call)

    assert os.listdir(parent.parent) == ["parent"]


def test_an_old_parent_may_go_and_the_child_stays_whole(parent: Path) -> None:
    child = make(parent)

    shutil.rmtree(parent)

    bundle = open_bundle(child)
    assert all(bundle.file(name) for name in bundle.manifest.files)


@pytest.mark.parametrize("verb", [[], ["thresholds"]])
def test_every_verb_explains_itself(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*verb, "--help"])

    assert ended.value.code == 0
    assert "usage: dualbank-calibrate" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["thresholds"], ["thresholds", "b", "--out", "c", "--review-frr", "x"]],
)
def test_a_wrong_call_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err

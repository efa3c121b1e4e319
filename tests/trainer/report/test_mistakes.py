"""Which parts a report shows, in which order, and that there are never too many."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from inspection.bundle import Bundle
from tests.bundles import good_frame, write_tiny_bundle
from tests.trainer.judged import results_of
from tests.trainer.parts import write_image
from trainer.bundle_folder import open_bundle
from trainer.report.mistakes import (
    CLOSEST,
    MOST,
    accepts_section,
    false_accepts,
    false_rejects,
    rejects_section,
)
from trainer.results import CategoryResults


def test_the_worst_miss_has_the_lowest_score_whatever_the_product() -> None:
    results = [
        results_of("bolt", good=[0.0], defective=[0.9, 5.0, -0.2]),
        results_of("nut", good=[0.0], defective=[0.3, 1.0]),
    ]

    found = false_accepts(results)

    assert [(each.product, each.score) for each in found] == [
        *(("bolt", -0.2), ("nut", 0.3), ("bolt", 0.9)),
        ("nut", 1.0),  # on the threshold: the milder side
    ]


def test_the_worst_false_alarm_has_the_highest_score() -> None:
    results = [
        results_of("bolt", good=[1.5, 0.5], defective=[9.0]),
        results_of("nut", good=[3.0, 1.1], defective=[0.0]),
    ]

    found = false_rejects(results)

    assert [(each.product, each.score) for each in found] == [
        *(("nut", 3.0), ("bolt", 1.5), ("nut", 1.1))
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a good bolt lies, as 30 good and 30 scratched ones."""
    root = tmp_path_factory.mktemp("images")
    for i in range(30):
        for kind in ("good", "scratch"):
            write_image(root / kind / f"{i:03}.png", good_frame())
    return root


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundle")))


def shown(section: str) -> tuple[list[str], list[str]]:
    """Names of the files that are shown as wrong, and as closest."""
    wrong, _, closest = section.partition("<h3>")
    names = re.compile(r"(\d{3})\.png")
    return names.findall(wrong), names.findall(closest)


@pytest.mark.parametrize(
    ("mistakes", "closest"), [(0, CLOSEST), (1, CLOSEST), (16, 4), (MOST, 0), (MOST + 5, 0)]
)
def test_no_more_are_shown_than_the_page_can_bear(
    bundle: Bundle, place: Path, monkeypatch: pytest.MonkeyPatch, mistakes: int, closest: int
) -> None:
    monkeypatch.chdir(place)
    defective = [0.01 * i for i in range(mistakes)] + [2 + i for i in range(30 - mistakes)]
    results: list[CategoryResults] = [results_of("bolt", good=[0.0], defective=defective)]

    wrong, right = shown(accepts_section(bundle, results, place))

    assert wrong == [f"{i:03}" for i in range(min(mistakes, MOST))]
    assert right == [f"{i:03}" for i in range(mistakes, mistakes + closest)]


def test_the_closest_calls_are_those_beside_the_threshold(
    bundle: Bundle, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    good = [-3.0, 0.9, 0.1, 0.95, 1.4, 0.2, 0.3, 0.4, -1.0]
    results = [results_of("bolt", good=good, defective=[5.0])]

    wrong, right = shown(rejects_section(bundle, results, place))

    assert wrong == ["004"]
    assert right == ["003", "001", "007", "006", "005", "002"]


def test_many_mistakes_are_counted_although_twenty_are_shown(
    bundle: Bundle, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    results = [results_of("bolt", good=[5.0 + i for i in range(25)], defective=[5.0])]

    section = rejects_section(bundle, results, place)

    assert "25 of 25 good parts did not pass; the worst 20 are shown" in section
    assert len(shown(section)[0]) == 20

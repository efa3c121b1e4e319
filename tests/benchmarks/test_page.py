"""BENCHMARKS.md is what the results say, and says what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import page

ROW = {
    "image_auroc": 93.25,
    "aupro": 88.5,
    "class_blind_image_auroc": 90.0,
    "ours_ahead_by": None,
    "cost": dict.fromkeys(("fit_s", "fit_cpu_s", "peak_rss_mib", "image_ms", "image_cpu_ms"), 12.0),
    "made_of": {"rows_each": 2048, "seed": 0},
    "categories": {"bolt": {"image_auroc": 93.25, "aupro": None}},
}
PEER = ROW | {
    "image_auroc": 85.0,
    "ours_ahead_by": {"image_auroc": [8.25, 5.0, 11.04], "aupro": None},
    "made_of": {"anomalib": "2.7.0", "torch": "2.14.1", "seed": 0},
}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for results, and for the page."""
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "BENCHMARKS.md")
    return tmp_path


def test_a_result_that_is_missing_is_named(results: Path) -> None:
    page.main()

    written = (results / "BENCHMARKS.md").read_text()
    for heading, name, _ in page.SECTIONS:
        assert f"## {heading}\n\nNot measured yet: `python -m benchmarks.{name}`" in written


def test_peers_are_shown_with_how_far_ours_is_ahead(results: Path) -> None:
    document = {
        "command": "python -m benchmarks.peers data",
        "systems": {"padim": PEER, "ours": ROW},
    }
    (results / "peers.json").write_text(json.dumps(document))

    page.main()

    written = (results / "BENCHMARKS.md").read_text()
    assert "`python -m benchmarks.peers data`" in written
    assert "| PaDiM, strides 4 + 8 + 16 | 85.0 | +8.2 (+5.0 … +11.0) | 88.5 | – | 90.0 |" in written
    assert "| PaDiM (2021) |" in written
    assert "| 85.0 / 88.5 |" in written


def test_the_page_in_the_repository_can_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path / "BENCHMARKS.md")

    assert page.main() == 0

    assert "## Accuracy" in (tmp_path / "BENCHMARKS.md").read_text()

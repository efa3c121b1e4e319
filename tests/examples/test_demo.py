"""`make demo` on data sets that are not what it was made for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from examples.demo.__main__ import main
from tests.trainer.parts import PRODUCTS, good_part, write_category, write_image


def demo(monkeypatch: pytest.MonkeyPatch, data: Path, out: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["demo", "--data", str(data), "--out", str(out)])
    return main()


def test_without_test_images_nothing_is_trained_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_category(tmp_path / "data" / "bolt", "bolt", train=6, test=0)

    code = demo(monkeypatch, tmp_path / "data", tmp_path / "out")

    assert code == 1
    assert "has no test images" in capsys.readouterr().err
    assert not (tmp_path / "out" / "fitted").exists()


@pytest.mark.filterwarnings("ignore:.*tight_layout.*")
def test_categories_with_few_or_no_test_images_add_up_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_category(tmp_path / "data" / "bolt", "bolt", train=6, test=2, masks=False)
    write_category(tmp_path / "data" / "rivet", PRODUCTS[0], train=6, test=0, seed=1)
    only = write_category(tmp_path / "data" / "washer", "washer", train=6, test=0, seed=2)
    write_image(only / "test" / "good" / "0.png", good_part("washer", np.random.default_rng(3)))

    code = demo(monkeypatch, tmp_path / "data", tmp_path / "out")

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert code == 0
    assert summary["sent"] == summary["received"] == summary["recorded"] == 5
    assert summary["published"] == summary["heard"] == sum(summary["verdicts"].values()) == 5
    assert summary["categories"]["rivet"]["image_auroc"] is None
    assert (tmp_path / "out" / "contact.png").read_bytes().startswith(b"\x89PNG")

"""The published recipe: what it does otherwise, and that a bundle comes of it by the command."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from inspection.bundle import MODEL_CARD
from tests.trainer.conftest import SMALL
from tests.trainer.parts import write_category
from trainer.backbones.resnet import WIDE_RESNET50_2
from trainer.bundle_folder import open_bundle
from trainer.cli import main
from trainer.head import head_weights, train_head
from trainer.packing import check_parity
from trainer.recipe import DUALBANK, PAPER
from trainer.settings import PAPER_SETTINGS, SETTINGS, FitSettings
from trainer.trunk import join


def test_every_recipe_begins_with_settings_of_its_own() -> None:
    assert list(SETTINGS) == ["dualbank", "paper"]
    assert SETTINGS["dualbank"] == FitSettings()
    assert SETTINGS["paper"] == PAPER_SETTINGS
    assert (PAPER_SETTINGS.k, PAPER_SETTINGS.backbone) == (1, WIDE_RESNET50_2.name)
    assert (PAPER.rows_share, PAPER.hinge, PAPER.locates) == (0.02, True, False)


def test_maps_of_the_paper_are_means_of_three_by_three_and_nothing_else() -> None:
    layer = torch.rand(2, 7, 4, 4, generator=torch.Generator().manual_seed(0))

    found = join([layer], torch.ones(1), 4, PAPER).reshape(2, 4, 4, 7)

    inner = layer[:, :, 0:3, 1:4].mean((2, 3))
    corner = layer[:, :, 2:4, 2:4].mean((2, 3))  # only neighbours that there are
    torch.testing.assert_close(found[:, 1, 2], inner)
    torch.testing.assert_close(found[:, 3, 3], corner)


def test_our_maps_are_not_averaged_but_brought_to_nearly_one_length() -> None:
    layer = torch.rand(1, 7, 4, 4, generator=torch.Generator().manual_seed(0))

    found, longer = (join([each], torch.zeros(1), 4, DUALBANK) for each in (layer, 9 * layer))

    direction = layer / layer.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, direction.flatten(2).transpose(1, 2))
    torch.testing.assert_close(longer, found)


def test_the_hinge_does_not_push_what_is_told_apart_already() -> None:
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(400, 9, generator=generator)
    abnormal = torch.randn(300, 9, generator=generator) + 4.0
    hinge = dataclasses.replace(DUALBANK, name="hinge", hinge=True)

    ours, theirs, paper = (
        head_weights(train_head(normal, abnormal, 0, recipe=recipe)).hidden_weight
        for recipe in (DUALBANK, hinge, PAPER)
    )

    assert not np.array_equal(ours, theirs)
    assert np.array_equal(theirs, paper)  # of a recipe the head reads its loss alone


def test_a_fit_by_the_recipe_of_the_paper_gives_a_bundle_on_which_all_runtimes_agree(
    tmp_path: Path,
) -> None:
    write_category(tmp_path / "data" / "bolt", "bolt", train=10, test=0)
    write_category(tmp_path / "data" / "washer", "washer", train=6, test=0)
    call = ["fit", str(tmp_path / "data"), "--out", str(tmp_path / "b"), *SMALL]

    assert main([*call, "--recipe", "paper", "--backbone", "efficientnet-lite0"]) == 0

    bundle = open_bundle(tmp_path / "b")
    rows = math.ceil(0.02 * 10 * 64)  # 2 % of the patches of ten pictures of 8 × 8
    assert len(bundle.normal.features) == 2 * rows
    assert bundle.normal.valid.all()
    assert bundle.manifest.scoring.k == 1
    for product in ("bolt", "washer"):
        route = bundle.route(product)
        assert route.abnormal_weight == 1.0
        assert route.scoring.position_weight == 0.0
    assert f"{rows} normal and 32 abnormal rows" in bundle.file(MODEL_CARD).decode()
    assert all(each.holds for each in check_parity(bundle))


def test_a_recipe_that_there_is_not_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fit", "x", "--out", "y", "--recipe", "patchcore"])

    assert ended.value.code == 2
    assert "choose from" in capsys.readouterr().err

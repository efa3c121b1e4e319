"""What training leaves the head with: a fixed unit, plain inputs, and the same weights again."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from inspection.heads import head_arrays
from inspection.scoring import enhanced_length, suspicion
from trainer.export import export_head
from trainer.head import (
    QUIET_SHARE,
    HeadNet,
    _fold_standardisation,
    head_net,
    head_weights,
    train_head,
)

DIMENSIONS, K = 2, 2
Z = enhanced_length(DIMENSIONS, K)


def examples(n: int, m: int, apart: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Normal and abnormal inputs whose scales differ much from column to column."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-3, 2, Z)
    normal = torch.randn(n, Z, generator=generator) * scale + 5 * scale
    abnormal = (torch.randn(m, Z, generator=generator) + apart) * scale + 5 * scale
    return normal, abnormal


def trained(normal: Tensor, abnormal: Tensor, seed: int = 0) -> HeadNet:
    return train_head(normal, abnormal, seed)


def test_the_head_tells_abnormal_from_normal() -> None:
    normal, abnormal = examples(1500, 900, apart=1.5)

    net = trained(normal, abnormal)

    fresh_normal, fresh_abnormal = examples(500, 500, apart=1.5, seed=9)
    assert float((net(fresh_normal) < 0).float().mean()) > 0.97
    assert float((net(fresh_abnormal) > 0).float().mean()) > 0.8


@pytest.mark.parametrize("apart", [0.3, 3.0])
def test_it_keeps_silent_on_nearly_all_good_patches_and_its_unit_is_the_median(
    apart: float,
) -> None:
    normal, abnormal = examples(2000, 1001, apart)

    net = trained(normal, abnormal)

    loud = net(abnormal)
    assert float((net(normal) <= 0).float().mean()) == pytest.approx(QUIET_SHARE, abs=1e-3)
    # Inputs of scales 1e-3 to 1e2 go through folded weights: three digits are left.
    assert float(loud[loud > 0].median()) == pytest.approx(1, abs=1e-2)


def test_a_head_that_finds_nothing_raises_nothing_much() -> None:
    normal, _ = examples(800, 1, apart=0)

    net = trained(normal, normal.clone())

    assert float((net(normal) > 0).float().mean()) < 0.01


def test_an_input_that_hardly_varies_is_not_blown_up() -> None:
    normal, abnormal = examples(1500, 900, apart=1.5)
    for some in (normal, abnormal):
        some[:, 0] = 1.0 - 1e-7 * some[:, 1]  # as local density is with one neighbour

    net = trained(normal, abnormal)

    assert float(net.hidden.weight[:, 0].abs().max()) < 1


def test_folding_the_standardisation_changes_no_answer() -> None:
    torch.manual_seed(1)
    net = HeadNet(Z).requires_grad_(False)
    inputs, _ = examples(50, 1, apart=0)
    mean, deviation = inputs.mean(0), inputs.std(0)
    expected = net((inputs - mean) / deviation)

    _fold_standardisation(net, mean, deviation)

    assert torch.allclose(net(inputs), expected, atol=1e-4)


def test_one_seed_gives_one_head_and_another_seed_another() -> None:
    pair = examples(300, 200, apart=1.0)

    first, again, other = (
        head_weights(trained(*pair, seed=seed)).hidden_weight for seed in (4, 4, 5)
    )

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_weights_survive_the_bundle_and_the_graph() -> None:
    net = trained(*examples(300, 200, apart=1.0))
    inputs, _ = examples(33, 1, apart=0, seed=2)

    weights = head_weights(net)

    expected = suspicion(inputs.double().numpy(), weights)
    graph = export_head(DIMENSIONS, K)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    in_graph = session.run(["logits"], {"enhanced": inputs.numpy(), **head_arrays(weights)})[0]
    # Weights over the smallest scale reach hundreds: float32 keeps five digits of their sums.
    for found in (head_net(weights)(inputs).numpy(), in_graph):
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()

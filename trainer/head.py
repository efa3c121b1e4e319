"""The head: a small perceptron that tells normal from abnormal patches by what both banks know."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from inspection.scoring import Head
from trainer.recipe import DUALBANK, Recipe

HIDDEN_UNITS = 64
EPOCHS = 24
BATCH = 1024
FLAT = 1e-4
"""An input whose deviation is a smaller share of its mean is taken as it is."""

QUIET_SHARE = 0.995
"""Share of normal patches on which the head keeps silent: its logit is below zero."""


class HeadNet(nn.Module):
    """(P, Z) → (P,) logits; see `inspection.scoring.suspicion`."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, HIDDEN_UNITS)
        self.output = nn.Linear(HIDDEN_UNITS, 1)

    def forward(self, enhanced: Tensor) -> Tensor:
        """(P, Z) → (P,) logits."""
        logits: Tensor = self.output(torch.relu(self.hidden(enhanced)))[:, 0]
        return logits


def train_head(
    normal: Tensor,
    abnormal: Tensor,
    seed: int,
    weight: Tensor | None = None,
    recipe: Recipe = DUALBANK,
) -> HeadNet:
    """Fit the head; fixed schedule, last epoch.

    Afterwards the logits are shifted and scaled: `QUIET_SHARE` of the normal patches lie below 0,
    and the median of the abnormal patches above it is 1. So the fusion weight means the same for
    every head.

    Args:
        normal: (n, Z) float32, enhanced patches of good parts, neighbours without their own image.
        abnormal: (m, Z) float32.
        seed: Of the initial weights and of the order.
        weight: (m,) float32 of each abnormal example, 1 in the mean; None if all count alike. Both
            sides together weigh the same.
        recipe: Which loss.
    """
    generator = torch.Generator().manual_seed(seed)
    everything = torch.cat([normal, abnormal])
    target = torch.cat([torch.zeros(len(normal)), torch.ones(len(abnormal))])
    mean, deviation = everything.mean(0), everything.std(0) + 1e-6
    # What hardly varies, as local density does with K = 1, must not be blown up: one of the bank's
    # own patches then made runtimes disagree by 1.4e-4 of the map.
    deviation[deviation < FLAT * mean.abs()] = 1.0
    everything = (everything - mean) / deviation
    net = _initialised(everything.shape[1], generator)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2)
    balance = len(normal) / len(abnormal)
    counts = torch.ones(len(abnormal)) if weight is None else weight
    counts = torch.cat([torch.ones(len(normal)), balance * counts])
    for _ in range(EPOCHS):
        order = torch.randperm(len(everything), generator=generator)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            optimiser.zero_grad()
            loss = _loss(net(everything[batch]), target[batch], counts[batch], recipe)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    net.requires_grad_(False)
    _set_unit(net, everything[: len(normal)], everything[len(normal) :])
    _fold_standardisation(net, mean, deviation)
    return net


def _loss(logits: Tensor, target: Tensor, counts: Tensor, recipe: Recipe) -> Tensor:
    if recipe.hinge:
        return (counts * torch.relu(1.0 - (2.0 * target - 1.0) * logits)).mean()
    return nn.functional.binary_cross_entropy_with_logits(logits, target, counts)


def head_weights(net: HeadNet) -> Head:
    """Copy the trained weights into the bundle's form."""
    return Head(
        hidden_weight=np.ascontiguousarray(net.hidden.weight.T.numpy()),
        hidden_bias=net.hidden.bias.numpy().copy(),
        output_weight=net.output.weight[0].numpy().copy(),
        output_bias=float(net.output.bias[0]),
    )


def head_net(head: Head) -> HeadNet:
    """Build the torch head from a bundle's weights."""
    net = HeadNet(head.hidden_weight.shape[0])
    with torch.no_grad():
        net.hidden.weight.copy_(torch.from_numpy(head.hidden_weight.T.copy()))
        net.hidden.bias.copy_(torch.from_numpy(head.hidden_bias.copy()))
        net.output.weight.copy_(torch.from_numpy(head.output_weight[None].copy()))
        net.output.bias.fill_(head.output_bias)
    return net.eval().requires_grad_(False)


def _initialised(inputs: int, generator: torch.Generator) -> HeadNet:
    net = HeadNet(inputs)
    with torch.no_grad():
        for layer in (net.hidden, net.output):
            bound = layer.in_features**-0.5
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.zero_()
    return net


def _set_unit(net: HeadNet, normal: Tensor, abnormal: Tensor) -> None:
    quiet = torch.quantile(net(normal), QUIET_SHARE)
    raised = net(abnormal) - quiet
    # A head that raises nothing keeps its scale: it has nothing to say.
    unit = raised[raised > 0].median() if (raised > 0).any() else torch.tensor(1.0)
    net.output.weight.div_(unit)
    net.output.bias.sub_(quiet).div_(unit)


def _fold_standardisation(net: HeadNet, mean: Tensor, deviation: Tensor) -> None:
    """Let the hidden layer take plain inputs: w·(z−μ)/σ + b = (w/σ)·z + (b − w·μ/σ)."""
    net.hidden.weight.div_(deviation)
    net.hidden.bias.sub_(net.hidden.weight @ mean)

"""The trunk: a prepared frame in, one feature per 8 × 8 pixel patch out.

Letters: B frames, S input side, P patches, D dimensions, C channels of one map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.backbones import Backbone
from trainer.recipe import DUALBANK, Recipe

CELL_PX = 8
"""Side of a patch in the frame, whatever the strides of the backbone's maps."""

SOFTNESS = 0.5
"""How much of a layer's usual length is added before dividing: 0 keeps only directions."""

LENGTH_BATCH = 8
"""Frames that `learn_lengths` looks at together."""


class Trunk(nn.Module):
    """Backbone, one grid, and nearly equal length for every layer of every patch.

    A layer's part x of a patch becomes x / (‖x‖ + 0.5 m), m its mean length on good patches: length
    follows exposure and contrast, direction follows structure, and very weak responses stay weak.
    There is no 3 × 3 neighbourhood average. `docs/decisions/0002-features-and-score.md` has what
    was measured.

    Source: patch features of PatchCore, Roth et al., CVPR 2022, sec. 3.1; the scaling is ours.
    """

    usual_length: Tensor

    def __init__(self, backbone: Backbone, recipe: Recipe = DUALBANK) -> None:
        super().__init__()
        self.backbone, self.recipe = backbone, recipe
        self.register_buffer("usual_length", torch.zeros(len(backbone.channels)))

    @property
    def dimensions(self) -> int:
        """D: the channels of all maps together."""
        return sum(self.backbone.channels)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 RGB → (B, P, D) float32, rows no longer than 1, patches row by row."""
        side = frames.shape[1] // CELL_PX
        return join(self.backbone(to_planes(frames)), self.usual_length, side, self.recipe)

    def learn_lengths(self, frames: Tensor) -> None:
        """Set `usual_length` from prepared good frames, (B, S, S, 3) uint8."""
        # A few at a time: the first blocks take 100 MB for a single frame of 1024 px.
        usual = []
        with torch.inference_mode():
            for some in torch.split(frames, LENGTH_BATCH):
                maps = self.backbone(to_planes(some))
                usual.append(torch.stack([lengths(layer).mean((1, 2, 3)) for layer in maps]))
            self.usual_length.copy_(torch.cat(usual, 1).mean(1))


def to_planes(frames: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 → (B, 3, S, S) float32 in 0 … 255."""
    # In this order, because TensorRT lets bytes be converted and nothing else.
    return frames.float().permute(0, 3, 1, 2)


def join(
    maps: Sequence[Tensor], usual_length: Tensor, side: int, recipe: Recipe = DUALBANK
) -> Tensor:
    """Bring maps to one grid and nearly one length, and put them side by side.

    Args:
        maps: (B, C, ., .) each, of any strides.
        usual_length: (maps,), of each on good patches.
        side: Cells of the grid, which has side · side of them.
        recipe: Whether maps are averaged, and brought to one length at all.

    Returns:
        (B, P, D), patches row by row.
    """
    parts = []
    for layer, usual in zip(maps, usual_length, strict=True):
        if recipe.averages:
            layer = F.avg_pool2d(layer, 3, stride=1, padding=1, count_include_pad=False)
        if tuple(layer.shape[-2:]) != (side, side):
            layer = F.interpolate(layer, size=(side, side), mode="bilinear", align_corners=False)
        length = lengths(layer) + SOFTNESS * usual + 1e-6 if recipe.balances else 1.0
        parts.append(layer / length)
    joined = torch.cat(parts, 1) / len(parts) ** 0.5
    patches: Tensor = joined.flatten(2).transpose(1, 2).contiguous()
    return patches  # (B, D, Gh, Gw) → (B, P, D)


def lengths(layer: Tensor) -> Tensor:
    """(B, C, H, W) → (B, 1, H, W): L2 norm over channels."""
    return layer.square().sum(1, keepdim=True).sqrt()

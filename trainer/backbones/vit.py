"""DINOv2 ViT-S/14 in plain torch: patch tokens of three blocks as maps at stride 16.

A token covers 14 px, and our grid has cells of 8. The frame is shrunk to 7/8, so that a token lies
on exactly two by two cells. Checkpoints: the authors' `dinov2_vits14_pretrain.pth` and timm's
`vit_small_patch14_dinov2`, which share their names; the variant with registers is another network.

Source: DINOv2, Oquab et al., TMLR 2024; ViT, Dosovitskiy et al., ICLR 2021.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspection.errors import InputError
from trainer.backbones.checkpoints import Checkpoint, select

NAME = "dinov2-vits14"
PATCH_PX, STRIDE_PX = 14, 16
WIDTH, HEADS, DEPTH = 384, 6, 12
TRAINED_SIDE = 37
"""Tokens a side for which the position embedding was trained: 518 px."""

BLOCKS = (5, 8, 11)
"""Blocks, from 0, whose tokens are used: middle and late ones, as is usual for anomalies. Not
measured here: no published weights were at hand."""

SIDE_OFFSET = 0.1
"""Added to the wanted side before dividing by the trained one: it kept rounding from losing a
token in the authors' code, and moves every sampled position a little. The weights saw it."""

LAYER_NORM_EPS = 1e-6
MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
SCALE = (0.229 * 255, 0.224 * 255, 0.225 * 255)


class Attention(nn.Module):
    """Self-attention of all tokens of a frame, in six heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 384) → (B, T, 384)."""
        frames, tokens, _ = x.shape
        # (B, T, 3·384) → (3, B, heads, T, 64)
        parts = self.qkv(x).reshape(frames, tokens, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0] * (WIDTH // HEADS) ** -0.5, parts[1], parts[2]
        mixed = (query @ key.transpose(-2, -1)).softmax(-1) @ value
        result: Tensor = self.proj(mixed.transpose(1, 2).reshape(frames, tokens, WIDTH))
        return result


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 384) → (B, T, 384)."""
        result: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return result


class LayerScale(nn.Module):
    """A factor for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 384) → (B, T, 384)."""
        return x * self.gamma


class Block(nn.Module):
    """Attention, then the MLP, each normalised before, scaled behind, and added."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, eps=LAYER_NORM_EPS)
        self.attn = Attention()
        self.ls1 = LayerScale()
        self.norm2 = nn.LayerNorm(WIDTH, eps=LAYER_NORM_EPS)
        self.mlp = Mlp()
        self.ls2 = LayerScale()

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 384) → (B, T, 384)."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        result: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return result


class PatchEmbed(nn.Module):
    """Every 14 × 14 px become a token."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, PATCH_PX, PATCH_PX)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 14·G, 14·G) → (B, G·G, 384), tokens row by row."""
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


class DinoV2(nn.Module):
    """The frozen backbone for one input size: an image in, three maps at stride 16 out.

    Modules have the names of the checkpoint. Tokens of every block go through the last layer norm,
    as when the authors take intermediate layers: without it a few channels outweigh the others.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, checkpoint: Checkpoint, size_px: int) -> None:
        """Build the network and fill it.

        Args:
            checkpoint: The weights.
            size_px: S, a multiple of 16; the position embedding is interpolated once for it.

        Raises:
            InputError: The checkpoint is not that of ViT-S/14 without registers.
        """
        super().__init__()
        self.name, self.weights_sha256 = NAME, checkpoint.sha256
        self.channels = (WIDTH,) * len(BLOCKS)
        self.side = size_px // STRIDE_PX
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + TRAINED_SIDE**2, WIDTH))
        self.patch_embed = PatchEmbed()
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH, eps=LAYER_NORM_EPS)
        expected = {name: tensor.shape for name, tensor in self.state_dict().items()}
        # The mask token is of training alone.
        chosen = select(checkpoint, NAME, expected, r"mask_token$|head\.|fc\.")
        self.load_state_dict({name: tensor.float() for name, tensor in chosen.items()})
        self.pos_embed = nn.Parameter(at_side(self.pos_embed.data, self.side))
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, S, S) float32 in 0 … 255 RGB → maps (B, 384, S / 16, S / 16)."""
        if x.shape[-1] != self.side * STRIDE_PX or x.shape[-2] != self.side * STRIDE_PX:
            raise InputError(
                f"this {NAME} takes {self.side * STRIDE_PX} px, got {tuple(x.shape[-2:])}"
            )
        shrunk = (self.side * PATCH_PX,) * 2
        x = F.interpolate(x, size=shrunk, mode="bilinear", align_corners=False)
        patches = self.patch_embed((x - self.mean) / self.scale)
        # Not len(x), which the exporter takes for a constant.
        first = self.cls_token.expand(x.shape[0], -1, -1)
        x = torch.cat([first, patches], 1) + self.pos_embed
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in BLOCKS:
                tokens = self.norm(x)[:, 1:].transpose(1, 2)
                maps.append(tokens.reshape(-1, WIDTH, self.side, self.side))
        return maps


def at_side(positions: Tensor, side: int) -> Tensor:
    """Interpolate a position embedding, (1, 1 + 37², 384) → (1, 1 + side², 384), bicubically.

    The first row belongs to the class token and stays. Sampling steps by 37 / (side + 0.1), see
    `SIDE_OFFSET`; at the trained side nothing is done.
    """
    if side == TRAINED_SIDE:
        return positions
    grid = positions[:, 1:].reshape(1, TRAINED_SIDE, TRAINED_SIDE, WIDTH).permute(0, 3, 1, 2)
    factor = (side + SIDE_OFFSET) / TRAINED_SIDE
    sampled = F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
    return torch.cat([positions[:, :1], sampled.permute(0, 2, 3, 1).flatten(1, 2)], 1)

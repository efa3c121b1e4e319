"""ResNet-50 and WideResNet-50-2 in plain torch, cut behind stride 16.

Checkpoints: those of torchvision and timm, which have the same names and the same arithmetic
(`resnet50`, `wide_resnet50_2`, stride in the 3 × 3 convolution), and Keras' first ResNet-50 with
torchvision's names, as `dualbank-train weights get resnet50-keras` writes it.

Source: He et al., CVPR 2016; wide: Zagoruyko and Komodakis, BMVC 2016.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.backbones.checkpoints import Checkpoint, Folding, fold

EXPANSION = 4
BLOCKS = (3, 4, 6)
"""Bottlenecks of layers 1 to 3, at strides 4, 8 and 16; layer 4 is cut."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the family.

    Attributes:
        name: What a bundle calls it.
        width: Channels inside the first layer's bottlenecks.
        stride_first: The first 1 × 1 convolution of a layer strides, not the 3 × 3.
        biased: The checkpoint's convolutions have a bias beside their batch norm.
        eps: ε of the batch norms.
        mean: Subtracted from RGB in 0 … 255.
        scale: What is left is divided by it.
    """

    name: str
    width: int
    stride_first: bool
    biased: bool
    eps: float
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]


# ImageNet's mean and deviation as torchvision and timm use them, in levels of 0 … 255.
_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_SCALE = (0.229 * 255, 0.224 * 255, 0.225 * 255)

RESNET50 = Variant("resnet50", 64, False, False, 1e-5, _MEAN, _SCALE)
WIDE_RESNET50_2 = Variant("wide-resnet50-2", 128, False, False, 1e-5, _MEAN, _SCALE)
RESNET50_KERAS = Variant(
    "resnet50-keras", 64, True, True, 1e-3, (123.68, 116.779, 103.939), (1.0, 1.0, 1.0)
)


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3, 1 × 1, and the input added, through a 1 × 1 of its own where shapes differ."""

    def __init__(
        self, inputs: int, width: int, outputs: int, strides: tuple[int, int], projects: bool
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, strides[0])
        self.conv2 = nn.Conv2d(width, width, 3, strides[1], padding=1)
        self.conv3 = nn.Conv2d(width, outputs, 1)
        stride = strides[0] * strides[1]
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H / stride, W / stride)."""
        y = F.relu(self.conv1(x))
        y = self.conv3(F.relu(self.conv2(y)))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """The frozen backbone: an image in, layers 2 and 3 out."""

    mean: Tensor
    scale: Tensor

    def __init__(self, variant: Variant, checkpoint: Checkpoint) -> None:
        """Build the network and fill it.

        Raises:
            InputError: The checkpoint is not that of this variant.
        """
        super().__init__()
        self.name, self.weights_sha256 = variant.name, checkpoint.sha256
        self.channels = tuple(64 * EXPANSION * 2**i for i in range(1, len(BLOCKS)))
        self.register_buffer("mean", torch.tensor(variant.mean)[:, None, None])
        self.register_buffer("scale", torch.tensor(variant.scale)[:, None, None])
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3)
        self.layers = nn.ModuleList(_layer(number, variant) for number in range(len(BLOCKS)))
        fold(
            checkpoint,
            variant.name,
            self._foldings(),
            eps=variant.eps,
            biased=variant.biased,
            ignored=r"layer4\.|fc\.|head\.",
        )
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, S, S) float32 in 0 … 255 RGB → maps at strides 8 and 16."""
        x = F.relu(self.conv1((x - self.mean) / self.scale))
        x = F.max_pool2d(x, 3, 2, padding=1)
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps[1:]

    def _foldings(self) -> Iterator[Folding]:
        yield Folding("conv1", "bn1", self.conv1)
        for number, layer in enumerate(self.layers, 1):
            assert isinstance(layer, nn.Sequential)
            for i, block in enumerate(layer):
                assert isinstance(block, Bottleneck)
                prefix = f"layer{number}.{i}."
                yield Folding(f"{prefix}conv1", f"{prefix}bn1", block.conv1)
                yield Folding(f"{prefix}conv2", f"{prefix}bn2", block.conv2)
                yield Folding(f"{prefix}conv3", f"{prefix}bn3", block.conv3)
                if block.downsample is not None:
                    conv, norm = f"{prefix}downsample.0", f"{prefix}downsample.1"
                    yield Folding(conv, norm, block.downsample)


def _layer(number: int, variant: Variant) -> nn.Sequential:
    """Layer 1 keeps the grid; each later one halves it in its first bottleneck."""
    width, outputs = variant.width * 2**number, 64 * EXPANSION * 2**number
    inputs = 64 if number == 0 else outputs // 2
    stride = 1 if number == 0 else 2
    strides = (stride, 1) if variant.stride_first else (1, stride)
    return nn.Sequential(
        Bottleneck(inputs, width, outputs, strides, projects=True),
        *(
            Bottleneck(outputs, width, outputs, (1, 1), projects=False)
            for _ in range(BLOCKS[number] - 1)
        ),
    )

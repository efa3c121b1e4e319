"""The default trunk run by torch on the GPU, where no TensorRT is to be had: an `edge.trunk.Trunk`.

It stands between the same arrays on the same streams, and is recorded in the same graphs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from edge.device import DeviceArray
from edge.streams import Stream
from trainer.trunk import Trunk, join

MOST_FRAMES = 8


class TorchTrunk:
    """A `Trunk` in FP16, by eager operators of torch as they are."""

    def __init__(self, trunk: Trunk, side_px: int) -> None:
        self.name = f"the trunk in torch {torch.__version__}, FP16"
        self.side_px, self.patches = side_px, (side_px // 8) ** 2
        self.dimensions, self.most_frames = trunk.dimensions, MOST_FRAMES
        self._module = trunk.eval().cuda().half()

    @contextmanager
    def open_pass(self, frames: DeviceArray, features: DeviceArray) -> Iterator[TorchPass]:
        """See `Trunk`. Each pass has a memory pool of its own: graphs of two may run at once."""
        yield TorchPass(self._module, _tensor(frames), _tensor(features))


class TorchPass:
    """A `TrunkPass`."""

    def __init__(self, module: Trunk, frames: torch.Tensor, features: torch.Tensor) -> None:
        self._module, self._frames, self._features = module, frames, features
        self._pool = torch.cuda.MemPool()

    def launch(self, stream: Stream) -> None:
        """See `TrunkPass`."""
        on = torch.cuda.ExternalStream(stream.handle)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(on), torch.cuda.use_mem_pool(self._pool), torch.inference_mode():
            backbone = self._module.backbone
            planes = self._frames.half().permute(0, 3, 1, 2)
            # Sums of squares leave the range of FP16.
            maps = [each.float() for each in backbone(planes)]
            lengths, side = self._module.usual_length.float(), self._frames.shape[1] // 8
            found = join(maps, lengths, side, self._module.recipe)
            self._features.copy_(found.reshape(self._features.shape))


def _tensor(array: DeviceArray) -> torch.Tensor:
    """Show torch an array of device memory."""
    interface = {
        "shape": array.shape,
        "typestr": array.dtype.str,
        "data": (array.address, False),
        "version": 3,
    }
    holder = type("Shown", (), {"__cuda_array_interface__": interface})()
    return torch.as_tensor(holder, device="cuda")

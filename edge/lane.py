"""The way of some views through trunk, search and heads, and what all such ways share.

Letters: B views, P patches a view, D feature dimensions, K neighbours, S side of a view.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.bank_scan import BankScan, ScanShape, open_scan
from edge.device import Device, DeviceArray, device_array
from edge.device_bank import DeviceBank
from edge.device_heads import DeviceHeads, Judge, open_judge
from edge.streams import Stream
from edge.trunk import Trunk, TrunkPass
from inspection.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True)
class Model:
    """What all slots share, borrowed: banks (normal first), heads, trunk and how frames are cut."""

    banks: tuple[DeviceBank, DeviceBank]
    heads: DeviceHeads
    trunk: Trunk
    spec: Preprocessing
    k: int


@dataclass(slots=True)
class Lane:
    """The way of B views through trunk, banks and heads.

    Attributes:
        pixels: (B, S, S, 3) uint8.
        aimed: What `scan` and `judge` were aimed at last; None for nothing that still holds.
    """

    pixels: DeviceArray
    features: DeviceArray
    trunk: TrunkPass
    scan: BankScan
    judge: Judge
    aimed: Any = None

    @property
    def views(self) -> int:
        """B."""
        return self.scan.shape.frames

    def launch(self, stream: Stream) -> None:
        """Put trunk, search and judgement on a stream: what a graph records."""
        self.trunk.launch(stream)
        self.scan.launch(stream)
        self.judge.launch(stream)


@contextmanager
def open_lane(device: Device, model: Model, views: int) -> Iterator[Lane]:
    """Hold what B views take on their way.

    Raises:
        DeviceError: Not enough memory is left, or the trunk cannot be run.
    """
    spec, trunk = model.spec, model.trunk
    shape = ScanShape(views, spec.patches, model.k)
    with ExitStack() as held:
        pixels = held.enter_context(
            device_array(device, (views, spec.size_px, spec.size_px, 3), np.uint8)
        )
        features = held.enter_context(
            device_array(device, (views * spec.patches, trunk.dimensions), np.float32)
        )
        it = held.enter_context(trunk.open_pass(pixels, features))
        scan = held.enter_context(open_scan(device, model.banks, shape, features))
        judge = held.enter_context(open_judge(device, model.heads, scan))
        yield Lane(pixels, features, it, scan, judge)

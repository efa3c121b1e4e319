"""What the station asks of a trunk on the device, whatever library runs it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from edge.device import DeviceArray
from edge.streams import Stream


class TrunkPass(Protocol):
    """The trunk between two arrays of device memory."""

    def launch(self, stream: Stream) -> None:
        """Put one pass on a stream; once it was launched, it may be recorded in a graph.

        Raises:
            DeviceError: The library refuses; the text has its reason.
        """
        ...


class Trunk(Protocol):
    """A network from pixels to patch features, loaded on a device.

    Attributes:
        name: For logs: the engine, or what stands in for one.
        side_px: S.
        patches: P, of a view.
        dimensions: D.
        most_frames: How many views one pass may have.
    """

    name: str
    side_px: int
    patches: int
    dimensions: int
    most_frames: int

    def open_pass(
        self, frames: DeviceArray, features: DeviceArray
    ) -> AbstractContextManager[TrunkPass]:
        """Hold what passes between two arrays take; passes of different arrays may overlap.

        Args:
            frames: (B, S, S, 3) uint8 RGB, B <= `most_frames`.
            features: (B · P, D) float32, to be written.
        """
        ...

"""Publishes verdicts and heatmaps to whoever listens. A slow listener never slows the line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import zmq
from numpy.typing import NDArray

from edge.settings import StationSettings
from edge.sockets import bind, socket
from inspection.messages import VERDICT_TOPIC, HeatmapHeader, VerdictMessage, encode_heatmap

# Per listener: beyond it ZeroMQ drops, and the listener sees a gap in `station_seq`.
SEND_HIGH_WATER = 4096


class Publisher:
    """The socket that verdicts come from; used only in the thread that opened it.

    Attributes:
        address: Where listeners connect to.
    """

    def __init__(self, verdicts: zmq.Socket[bytes], address: str) -> None:
        self.address = address
        self._verdicts = verdicts

    def publish(self, camera: str, record: bytes) -> None:
        """Send a verdict, packed, to everyone who listens now."""
        self._verdicts.send_multipart([VERDICT_TOPIC + camera.encode(), record])

    def publish_heatmap(self, message: VerdictMessage, anomaly_map: NDArray[np.float32]) -> None:
        """Send the (Mh, Mw) standardised map of a verdict."""
        rows, columns = anomaly_map.shape
        header = HeatmapHeader(
            camera=message.camera,
            session=message.session,
            seq=message.seq,
            station_seq=message.station_seq,
            shape=(rows, columns),
        )
        self._verdicts.send_multipart(encode_heatmap(header, anomaly_map.astype("<f4").tobytes()))


@contextmanager
def open_publisher(
    context: zmq.Context[zmq.Socket[bytes]], settings: StationSettings
) -> Iterator[Publisher]:
    """Bind the socket for verdicts.

    Raises:
        StationError: The address cannot be bound.
    """
    with socket(context, zmq.PUB, {zmq.SNDHWM: SEND_HIGH_WATER}) as verdicts:
        yield Publisher(verdicts, bind(verdicts, settings.verdicts))

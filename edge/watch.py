"""Listens to a station's verdicts, and writes each as a line for people."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
import zmq
from numpy.typing import NDArray

from edge.keys import CurveKeys
from edge.sockets import apply_client_keys, connect, context, refusals, socket
from inspection.messages import (
    HEATMAP_TOPIC,
    VERDICT_TOPIC,
    HeatmapHeader,
    VerdictMessage,
    decode_heatmap,
    decode_verdict,
)
from inspection.verdicts import Reason, Verdict
from inspection.wire import Buffer, MessageError

log = logging.getLogger(__name__)

VERDICTS = "tcp://127.0.0.1:5556"

# Beyond it ZeroMQ drops, and `missed` tells.
RECEIVE_HIGH_WATER = 4096

LOOK_S = 1.0
"""How soon a refusal is noticed."""

SIGNS = {Verdict.PASS: " ", Verdict.REVIEW: "?", Verdict.FAIL: "x", Verdict.UNKNOWN: "!"}
"""A verdict is told by word and sign; colour only repeats it."""

_SEEN_IN_SCORE = {Reason.SCORE_ABOVE_REVIEW, Reason.SCORE_ABOVE_REJECT}


@dataclass(frozen=True, slots=True)
class Heatmap:
    """An anomaly map as published.

    Attributes:
        header: Whose it is.
        anomaly_map: (Mh, Mw) float32, standardised.
    """

    header: HeatmapHeader
    anomaly_map: NDArray[np.float32]


@overload
def subscribe(
    address: str = ...,
    *,
    camera: str | None = ...,
    silence_s: float | None = ...,
    heatmaps: Literal[False] = ...,
    keys: CurveKeys | None = ...,
) -> Iterator[VerdictMessage]: ...


@overload
def subscribe(
    address: str = ...,
    *,
    camera: str | None = ...,
    silence_s: float | None = ...,
    heatmaps: Literal[True],
    keys: CurveKeys | None = ...,
) -> Iterator[VerdictMessage | Heatmap]: ...


def subscribe(
    address: str = VERDICTS,
    *,
    camera: str | None = None,
    silence_s: float | None = None,
    heatmaps: bool = False,
    keys: CurveKeys | None = None,
) -> Iterator[VerdictMessage | Heatmap]:
    """Give verdicts as they come, from the moment the station notices the listener.

    The connection opens at the first `next` and closes with the generator.

    Args:
        address: The station's `verdicts`.
        camera: Only this one's.
        silence_s: End after so long without any; None listens for ever.
        heatmaps: Also give maps, each after its verdict; the station must publish them.
        keys: Encrypt with these.

    Raises:
        StationError: Not an address, or the station has refused the keys.
    """
    topics = [VERDICT_TOPIC, HEATMAP_TOPIC] if heatmaps else [VERDICT_TOPIC]
    with (
        context() as owner,
        socket(owner, zmq.SUB, {zmq.RCVHWM: RECEIVE_HIGH_WATER, zmq.LINGER: 0}) as listener,
        refusals(listener, address) as check,
    ):
        apply_client_keys(listener, keys)
        for topic in topics:
            listener.subscribe(topic + (camera or "").encode())
        connect(listener, address)
        heard_s = time.monotonic()
        while silence_s is None or time.monotonic() - heard_s < silence_s:
            if not listener.poll(int(1000 * min(LOOK_S, silence_s or LOOK_S))):
                check()
                continue
            heard_s = time.monotonic()
            said = _decoded(listener.recv_multipart())
            if said is not None and (camera is None or _camera_of(said) == camera):
                yield said


def missed(before: VerdictMessage | None, now: VerdictMessage) -> int:
    """How many verdicts of the station a listener to all cameras has not heard between two."""
    if before is None or now.station_seq <= before.station_seq:
        return 0
    return now.station_seq - before.station_seq - 1


def line_of(said: VerdictMessage) -> str:
    """Write a verdict as one line; what a camera called itself cannot move the cursor."""
    words = [
        f"{said.station_seq:>7}",
        f"{SIGNS[said.verdict]} {said.verdict.value:<7}",
        f"{'' if said.score is None else format(said.score, '8.2f'):>8}",
        f"{said.latency_ms.get('total', 0.0):7.1f} ms",
        f"{said.camera}/{said.seq}",
    ]
    words += [word for word in (said.product, said.part) if word]
    if said.reason is not None and said.reason not in _SEEN_IN_SCORE:
        words.append(f"{said.reason.value}: {said.detail}" if said.detail else said.reason.value)
    if said.regions:
        worst = said.regions[0]
        words.append(f"at {worst.x_px},{worst.y_px} {worst.width_px}x{worst.height_px} px")
    if len(said.regions) > 1:
        words.append(f"and {len(said.regions) - 1} more")
    return "  ".join(_harmless(word) for word in words)


def _harmless(text: str) -> str:
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def _decoded(parts: list[bytes]) -> VerdictMessage | Heatmap | None:
    try:
        if not parts[0].startswith(HEATMAP_TOPIC):
            return decode_verdict(parts)
        header, values = decode_heatmap(parts)
        return Heatmap(header, _map(values, header.shape))
    except MessageError as error:
        log.warning("not a verdict", extra={"error": error})
        return None


def _map(values: Buffer, shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.frombuffer(values, "<f4").reshape(shape).astype(np.float32)


def _camera_of(said: VerdictMessage | Heatmap) -> str:
    return said.header.camera if isinstance(said, Heatmap) else said.camera

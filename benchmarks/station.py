"""What a station adds to its model: latency, capacity, accounting and memory, on this machine.

    python -m benchmarks.station BUNDLE IMAGES [--product NAME] [--frames 5000]

The station runs as its own process; this one is camera and subscriber. Frames are 256 × 256 JPEG.
Latency and the model alone are measured in turn, a few frames each, so that a machine whose speed
drifts moves both.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zmq

from benchmarks.recording import record
from edge.bundle_folder import open_bundle
from edge.camera import Camera
from edge.onnx_scorer import OnnxScorer
from edge.player import find_images
from examples.demo.line import RunningStation, start_station
from inspection.bundle import Bundle, Route
from inspection.messages import VERDICT_TOPIC, VerdictMessage, decode_verdict
from trainer.dataset import read_image, read_prepared

SIDE_PX = 256
TURNS, FRAMES_A_TURN = 24, 10
CAPACITY_FRAMES, IN_FLIGHT = 600, 8
ACCOUNTED_FRAMES = 2000
LOAD = 0.8
FIRST_MEMORY, MEMORY_EVERY = 500, 500
LOST_AFTER_MS = 20_000


@dataclass(frozen=True, slots=True)
class Line:
    """One camera and one subscriber on a station.

    Attributes:
        camera: Sends.
        listener: SUB socket to the station's verdicts.
        frames: JPEG files to send, again and again.
    """

    camera: Camera
    listener: zmq.Socket[bytes]
    frames: Sequence[bytes]

    def send(self) -> float:
        """Send the next frame; gives the time before, in seconds."""
        before = time.perf_counter()
        self.camera.send(self.frames[self.camera.sent % len(self.frames)])
        return before

    def hear(self, timeout_ms: int = LOST_AFTER_MS) -> VerdictMessage | None:
        """Wait for the next verdict; None when none came."""
        if not self.listener.poll(timeout_ms):
            return None
        return decode_verdict(self.listener.recv_multipart())


@contextmanager
def open_line(
    station: RunningStation, product: str | None, frames: Sequence[bytes]
) -> Iterator[Line]:
    """Connect a camera and a listener to a station, and go on once the listener is heard."""
    with (
        zmq.Context() as context,
        context.socket(zmq.SUB) as listener,
        Camera(station.cameras, "bench", product=product) as camera,
    ):
        listener.rcvhwm = 0
        listener.subscribe(VERDICT_TOPIC)
        listener.connect(station.verdicts)
        line = Line(camera, listener, frames)
        warm_up(line)
        yield line


def main() -> int:
    """Measure, print, record; 1 when a frame is unaccounted for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--product")
    parser.add_argument("--frames", type=int, default=5000, help="of the memory run")
    args = parser.parse_args()
    bundle = open_bundle(args.bundle)
    paths = [image.path for image in find_images([args.images])][:64]
    frames = [jpeg(path) for path in paths]
    with (
        tempfile.TemporaryDirectory() as state,
        start_station(args.bundle, Path(state), heatmaps=False) as station,
        open_line(station, args.product, frames) as line,
    ):
        figures: dict[str, Any] = {"latency": _latency(line, bundle, args.product, paths)}
        figures["capacity"] = capacity(line)
        rate_hz = LOAD * figures["capacity"]["rate_hz"]
        figures["accounting"] = _accounting(line, rate_hz)
        figures["memory"] = _memory(line, rate_hz, station, args.frames)
        sent = line.camera.sent
    account = station.account()
    figures["station"] = {"sent": sent, **account}
    print(json.dumps(figures, indent=1))
    print(record("station", figures))
    lost = sent - account["published"]
    return 1 if lost or figures["accounting"]["unaccounted"] else 0


def jpeg(path: Path) -> bytes:
    """Read an image as a camera would send it."""
    image = read_image(path)[:, :, ::-1]
    small = cv2.resize(image, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


def warm_up(line: Line) -> None:
    """Send until verdicts are heard: a subscriber that is not known yet hears nothing."""
    for _ in range(200):
        line.send()
        if line.hear(timeout_ms=500) is not None:
            break
    while line.hear(timeout_ms=500) is not None:
        pass


def _latency(
    line: Line, bundle: Bundle, product: str | None, paths: Sequence[Path]
) -> dict[str, Any]:
    """Camera → verdict, one frame at a time, in turn with the model alone."""
    scorer, route = OnnxScorer(bundle), bundle.route(product)
    prepared = [read_prepared(path, bundle.preprocessing) for path in paths[:8]]
    alone, through = [], []
    for turn in range(TURNS):
        for i in range(FRAMES_A_TURN):
            alone.append(_alone(scorer, prepared[(turn + i) % len(prepared)], route))
        for _ in range(FRAMES_A_TURN):
            before = line.send()
            if line.hear() is None:
                raise SystemExit("a verdict did not come; the latency cannot be measured")
            through.append(time.perf_counter() - before)
    model, camera_to_verdict = np.median(alone) * 1e3, np.median(through) * 1e3
    return {
        "model_alone_ms_p50": round(float(model), 2),
        "camera_to_verdict_ms_p50": round(float(camera_to_verdict), 2),
        "camera_to_verdict_ms_p99": round(float(np.percentile(through, 99) * 1e3), 2),
        "ratio_p50": round(float(camera_to_verdict / model), 3),
    }


def _alone(scorer: OnnxScorer, prepared: Any, route: Route) -> float:
    before = time.perf_counter()
    scorer.score(prepared, route)
    return time.perf_counter() - before


def capacity(line: Line) -> dict[str, float]:
    """Verdicts a second when the station never waits for a frame."""
    for _ in range(IN_FLIGHT):
        line.send()
    started = time.perf_counter()
    for _ in range(CAPACITY_FRAMES):
        if line.hear() is None:
            raise SystemExit("a verdict did not come; the capacity cannot be measured")
        line.send()
    rate_hz = CAPACITY_FRAMES / (time.perf_counter() - started)
    for _ in range(IN_FLIGHT):
        line.hear()
    return {"rate_hz": round(rate_hz, 1)}


def _accounting(line: Line, rate_hz: float) -> dict[str, Any]:
    """Send frames at a share of the capacity and account for every one."""
    first = line.camera.sent
    heard = _play(line, rate_hz, ACCOUNTED_FRAMES)
    seqs = [said.seq for said in heard if said.session == line.camera.session]
    return {
        "load": LOAD,
        "rate_hz": round(rate_hz, 1),
        "sent": ACCOUNTED_FRAMES,
        "verdicts": len(heard),
        "unaccounted": len(set(range(first, first + ACCOUNTED_FRAMES)) - set(seqs)),
        "twice": len(seqs) - len(set(seqs)),
        "unknown": sum(said.score is None for said in heard),
        "total_ms_p50": round(float(np.median([s.latency_ms["total"] for s in heard])), 2),
        "total_ms_p99": round(float(np.percentile([s.latency_ms["total"] for s in heard], 99)), 2),
    }


def _play(line: Line, rate_hz: float, count: int) -> list[VerdictMessage]:
    """Send `count` frames at a steady rate, hearing verdicts between them and after the last."""
    heard: list[VerdictMessage] = []
    start = time.perf_counter()
    for number in range(count):
        while (early := start + number / rate_hz - time.perf_counter()) > 0:
            if (said := line.hear(timeout_ms=max(0, int(early * 1e3)))) is not None:
                heard.append(said)
        line.send()
    while len(heard) < count and (said := line.hear()) is not None:
        heard.append(said)
    return heard


def _memory(line: Line, rate_hz: float, station: RunningStation, frames: int) -> dict[str, Any]:
    """Resident memory of the station from frame 500 on."""
    _play(line, rate_hz, FIRST_MEMORY)
    rss_mib = {FIRST_MEMORY: _rss_mib(station.process.pid)}
    for done in range(FIRST_MEMORY + MEMORY_EVERY, frames + 1, MEMORY_EVERY):
        _play(line, rate_hz, MEMORY_EVERY)
        rss_mib[done] = _rss_mib(station.process.pid)
    first, last = rss_mib[FIRST_MEMORY], list(rss_mib.values())
    return {
        "rss_mib_by_frame": rss_mib,
        "largest_change_percent": round(100 * max(abs(x - first) for x in last) / first, 2),
    }


def _rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * 4096 / (1 << 20), 1)


if __name__ == "__main__":
    sys.exit(main())

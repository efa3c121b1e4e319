"""Half an hour under load: memory, file descriptors, threads and latency must stay what they were.

    python -m benchmarks.soak BUNDLE IMAGES [--product NAME] [--minutes 30]

The station runs as its own process with four cameras, a follower, a subscriber that never reads, a
label queue that evicts all the time, and somebody who asks for its page. This process is all of
these. What other programs took of the cores is told beside every minute: they slow frames down, and
a station can do nothing about it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import zmq

from benchmarks.others import SAMPLE_S, watching_others
from benchmarks.recording import record
from benchmarks.soak_figures import MINUTE_S, Look, bar, changes, minute_of, thirds
from benchmarks.station import jpeg
from benchmarks.swap import Sent
from edge.camera import Camera
from edge.follow import follow
from edge.player import find_images
from edge.recent import MOST_PARTS
from examples.demo.line import RunningStation, start_station
from inspection.verdicts import Verdict

CAMERAS = 4
LOAD = 0.8
FIRST_SCORE_S, SCORES = 0.1, 50
"""What a score is taken to last at first, and over how many it is averaged."""

LABEL_QUEUE_BYTES = 2 << 20
FILLING, NO_PRODUCT = MOST_PARTS, "nothing that the bundle knows"
"""Frames at the start, answered without a score. What a station remembers is bounded, and takes
13 MiB when it is full: parts, times of stages, verdicts for a subscriber that does not read."""

WARM_UP_S = 60.0
LOOK_EVERY_S = 10.0
GLANCES, GLANCE_EVERY_S = 5, 0.05
LAST_VERDICTS_S = 20.0


class Line:
    """Four cameras in turn, by one thread.

    Attributes:
        sent: Times of frames, by the number of the trigger over all cameras.
        score_s: How long the scorer takes for a frame by now.
    """

    def __init__(self, cameras: Sequence[Camera], frames: Sequence[bytes]) -> None:
        self.sent = Sent()
        self.score_s = FIRST_SCORE_S
        self._cameras, self._frames = cameras, frames

    def send(self, product: str | None = None) -> None:
        """Have the next camera send a frame; a camera never sends the same one twice in turn.

        Args:
            product: Instead of the camera's.
        """
        number = len(self.sent.sent_s)
        self.sent.sent_s[number] = time.perf_counter()
        frame = self._frames[number % len(self._frames)]
        self._cameras[number % CAMERAS].send(frame, part=f"part {number}", product=product)

    def fill(self) -> None:
        """Send what needs no decoding, until everything that is bounded is full."""
        for _ in range(FILLING):
            self.send(product=NO_PRODUCT)
        while len(self.sent.took_ms) < FILLING:
            time.sleep(SAMPLE_S)

    def hear(self, station: RunningStation, stopping: threading.Event) -> None:
        """Follow the station and note how long each frame took."""
        for said in follow(station.verdicts, station.catch_up, 0, stopping=stopping):
            number = said.seq * CAMERAS + int(said.camera.removeprefix("camera "))
            self.sent.took_ms[number] = 1e3 * (time.perf_counter() - self.sent.sent_s[number])
            self.sent.unknown += number >= FILLING and said.verdict is Verdict.UNKNOWN
            score_s = said.latency_ms.get("score", 1e3 * self.score_s) / 1e3
            self.score_s += (score_s - self.score_s) / SCORES


def main() -> int:
    """Measure, print, record; 1 when the bar does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--product")
    parser.add_argument("--minutes", type=int, default=30, help="with one of warm-up")
    args = parser.parse_args()
    frames = [jpeg(image.path) for image in find_images([args.images])[:64]]
    budget = ("--label-queue-bytes", LABEL_QUEUE_BYTES)
    with (
        tempfile.TemporaryDirectory() as state,
        start_station(args.bundle, Path(state), *budget, heatmaps=False) as station,
        _stalled_subscriber(station),
    ):
        figures = _soak(station, frames, args.product, args.minutes - 1)
    account = station.account()
    figures["station"] = {
        key: account[key] for key in ("received", "recorded", "published", "unknown", "label_queue")
    }
    figures["bar"] = bar(figures)
    print(json.dumps(figures, indent=1))
    print(record("soak", figures))
    return 0 if all(figures["bar"].values()) else 1


def _soak(
    station: RunningStation, frames: Sequence[bytes], product: str | None, minutes: int
) -> dict[str, Any]:
    with ExitStack() as held:
        names = [f"camera {number}" for number in range(CAMERAS)]
        cameras = [
            held.enter_context(Camera(station.cameras, name, product=product)) for name in names
        ]
        line = Line(cameras, frames)
        sent = line.sent
        held.enter_context(_following(line, station))
        with watching_others(sent.others, station.process.pid):
            line.fill()
            begin_s = time.perf_counter() + WARM_UP_S
            with _loaded(line):
                looks = _looks(station, sent, begin_s, minutes)
        # Only now, because the last frames of a minute are heard in the next.
        begins = [begin_s + number * MINUTE_S for number in range(minutes)]
        told = [minute_of(sent, looks, each) for each in begins]
        for camera in cameras:
            camera.close()
    return {
        "minutes": minutes,
        "cameras": CAMERAS,
        "load": LOAD,
        "sent": len(sent.sent_s),
        "heard": len(sent.took_ms),
        "acknowledged": sum(camera.recorded.total() for camera in cameras),
        "unknown": sent.unknown,
        **changes(looks, told),
        "quiet_p99_ms_by_third": thirds(sent, begin_s, minutes * MINUTE_S / 3),
        "by_minute": [asdict(minute) for minute in told],
        "rss_mib": [look.rss_mib for look in looks],
    }


def _looks(station: RunningStation, sent: Sent, begin_s: float, minutes: int) -> list[Look]:
    """Look every ten seconds from the end of the warm-up on, and say how it goes."""
    looks: list[Look] = []
    for tick in range(int(minutes * MINUTE_S / LOOK_EVERY_S) + 1):
        # All of the warm-up is one wait, in which the page is asked for too.
        _wait_and_ask(station, begin_s + tick * LOOK_EVERY_S)
        looks.append(_look(station.process.pid))
        minute, is_whole = divmod(tick * LOOK_EVERY_S, MINUTE_S)
        if minute and not is_whole:
            _say(f"minute {minute:g}: {minute_of(sent, looks, begin_s + (minute - 1) * MINUTE_S)}")
    return looks


def _wait_and_ask(station: RunningStation, until_s: float) -> None:
    """Ask for the page and the metrics, as a person and Prometheus would, and wait."""
    while True:
        for path in ("metrics", "status.json"):
            with urllib.request.urlopen(f"http://{station.http}/{path}", timeout=10) as answer:
                answer.read()
        left_s = until_s - time.perf_counter()
        time.sleep(max(0.0, min(left_s, LOOK_EVERY_S)))
        if left_s <= LOOK_EVERY_S:
            return


def _look(pid: int) -> Look:
    found = []
    for _ in range(GLANCES):
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        found.append((len(os.listdir(f"/proc/{pid}/fd")), int(fields["Threads"])))
        time.sleep(GLANCE_EVERY_S)
    rss_mib = round(int(fields["VmRSS"].split()[0]) / 1024, 2)
    descriptors, threads = (min(each) for each in zip(*found, strict=True))
    return Look(time.perf_counter(), rss_mib, descriptors, threads)


@contextmanager
def _stalled_subscriber(station: RunningStation) -> Iterator[None]:
    """Subscribe to everything and read nothing."""
    with zmq.Context() as context, context.socket(zmq.SUB) as stalled:
        for option, value in ((zmq.RCVHWM, 1), (zmq.RCVBUF, 4096), (zmq.LINGER, 0)):
            stalled.setsockopt(option, value)
        stalled.subscribe(b"")
        stalled.connect(station.verdicts)
        yield


@contextmanager
def _following(line: Line, station: RunningStation) -> Iterator[None]:
    """Hear verdicts in a thread, at the end until there is one for every frame."""
    stopping = threading.Event()
    thread = threading.Thread(target=line.hear, args=(station, stopping))
    thread.start()
    try:
        yield
        until_s = time.monotonic() + LAST_VERDICTS_S
        while len(line.sent.took_ms) < len(line.sent.sent_s) and time.monotonic() < until_s:
            time.sleep(SAMPLE_S)
    finally:
        stopping.set()
        thread.join()


@contextmanager
def _loaded(line: Line) -> Iterator[None]:
    """Send in a thread until the end, so that the scorer is busy for a share of the time.

    A rate that is measured once is another load as soon as other programs take the cores.
    """
    ending = threading.Event()

    def send() -> None:
        next_s = time.perf_counter()
        while not ending.is_set():
            line.send()
            # What could not be sent in time is not made up for.
            next_s = max(next_s + line.score_s / LOAD, time.perf_counter())
            time.sleep(max(0.0, next_s - time.perf_counter()))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

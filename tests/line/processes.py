"""A real station in a process of its own, and a listener that knows when it is heard."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import zmq

from inspection.messages import VerdictMessage, decode_verdict
from tests.bundles import good_frame
from tests.line.free_addresses import FREE_ADDRESSES
from tests.line.push_camera import PushCamera

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0
"""Only a test that fails waits so long."""


class StationProcess:
    """`dualbank-edge run` on free ports; `with` kills what a failing test leaves running."""

    def __init__(self, bundle: Path, state_dir: Path, *options: str, **popen: Any) -> None:
        self.state_dir = state_dir
        self.lines: list[str] = []
        self.addresses: dict[str, str] = {}
        self._settled = threading.Event()
        self.process = subprocess.Popen(
            command(bundle, state_dir, *options),
            cwd=ROOT,
            env={key: value for key, value in os.environ.items() if not key.startswith("EDGE_")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        assert self._settled.wait(PATIENCE_S), "the station said nothing"

    def __enter__(self) -> StationProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self._reader.join()

    @property
    def frames(self) -> str:
        """Where plain cameras push to."""
        return self.addresses["frames"]

    @property
    def verdicts(self) -> str:
        """Where verdicts come from."""
        return self.addresses["verdicts"]

    def camera(self, name: str = "cam0", **options: Any) -> PushCamera:
        """Connect a plain camera."""
        return PushCamera(self.frames, name, **options)

    def stop(self, times: int = 1) -> dict[str, Any]:
        """Send SIGTERM and give the final account."""
        for _ in range(times):
            self.process.send_signal(signal.SIGTERM)
        assert self.ended() == 0, self.lines
        return self.account()

    def ended(self) -> int:
        """Wait for the end by itself; gives the exit code."""
        return self.process.wait(PATIENCE_S)

    def account(self) -> dict[str, Any]:
        """The counters that the station printed at its end."""
        assert self.process.stdout is not None
        account: dict[str, Any] = json.loads(self.process.stdout.read())
        return account

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if "station ready" in line:
                self.addresses = dict(re.findall(r" (\w+)=(\S+)", line))
                self._settled.set()
        self._settled.set()


class Listener:
    """Hears every verdict of a station: it goes on only once the station is known to hear it.

    Attributes:
        greetings: How many frames it took to be heard; the station has counted them too.
    """

    def __init__(self, station: StationProcess) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        for topic in (b"verdict/", b"heatmap/"):
            self._socket.subscribe(topic)
        self._socket.connect(station.verdicts)
        self.other: list[list[bytes]] = []
        with station.camera("greeting") as camera:
            # A map alone is no answer: the station may notice a listener between the two.
            while not (heard := self._verdict_within(50)):
                camera.send(good_frame(), product="bolt")
            self.greetings = camera.sent
        if heard.seq != self.greetings - 1:
            self.take_until(lambda said: said.seq == self.greetings - 1)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def take(self, count: int) -> list[VerdictMessage]:
        """Give the next verdicts, so many; maps are put aside in `other`."""
        heard: list[VerdictMessage] = []
        while len(heard) < count:
            heard.append(self._next())
        return heard

    def take_until(self, last: Any) -> list[VerdictMessage]:
        """Give verdicts up to one that `last` recognises."""
        heard = [self._next()]
        while not last(heard[-1]):
            heard.append(self._next())
        return heard

    def has_one(self) -> bool:
        """Whether something has come."""
        return bool(self._socket.poll(0))

    def _next(self) -> VerdictMessage:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if said := self._verdict_within(1000):
                return said
        raise AssertionError("no verdict came")

    def _verdict_within(self, silence_ms: int) -> VerdictMessage | None:
        while self._socket.poll(silence_ms):
            parts = self._socket.recv_multipart()
            if len(parts) == 2:
                return decode_verdict(parts)
            self.other.append(parts)
        return None


def command(bundle: Path, state_dir: Path, *options: str) -> list[str]:
    """The command line of a station on free ports, giving its account as JSON."""
    addresses = [
        word
        for key, address in FREE_ADDRESSES.items()
        for word in (f"--{key.replace('_', '-')}", address)
    ]
    return [
        *(sys.executable, "-m", "edge.cli", "run", "--json"),
        *("--bundle", str(bundle), "--state-dir", str(state_dir)),
        *addresses,
        *("--scorer-threads", "1"),
        *options,
    ]

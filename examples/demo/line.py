"""The line: station and cameras as processes of their own, and a subscriber in this one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from edge.watch import Heatmap, subscribe
from inspection.errors import StationError
from inspection.messages import VerdictMessage
from trainer.dataset import Category

CAMERAS = ("camera-0", "camera-1")
"""Each plays every second test image of each product."""

SILENCE_S = 20.0
"""A station that says nothing for so long, while frames are under way, has a fault."""


@dataclass(slots=True)
class Heard:
    """What the subscriber heard of one test image."""

    verdict: VerdictMessage
    anomaly_map: NDArray[np.float32] | None = None


Trigger = tuple[str, str | None, int]
"""Camera, product and sequence number: which test image it was, because each camera plays each
product once, in order."""


@dataclass(slots=True)
class RunningStation:
    """A station process and where it listens."""

    process: subprocess.Popen[str]
    cameras: str
    verdicts: str
    catch_up: str
    http: str
    said: list[str] = field(default_factory=list)

    def account(self) -> dict[str, Any]:
        """The counters that the station printed when it stopped.

        Raises:
            StationError: It ended with an error.
        """
        if self.process.returncode != 0:
            raise StationError(f"the station ended with exit status {self.process.returncode}")
        report: dict[str, Any] = json.loads(self.said[-1])
        return report


def tool(name: str, *words: object) -> None:
    """Run one of our commands, its output passed on.

    Raises:
        StationError: It failed; it has said why.
    """
    done = subprocess.run([_command(name), *map(str, words)], check=False)
    if done.returncode != 0:
        raise StationError(f"{name} {words[0]} ended with exit status {done.returncode}")


@contextmanager
def start_station(
    bundle: Path, state: Path, *settings: object, heatmaps: bool = True
) -> Iterator[RunningStation]:
    """Run `dualbank-edge run` until the block ends, then stop it as systemd would: SIGTERM.

    Args:
        bundle: To be judged by.
        state: Its folder.
        settings: More words of the command.
        heatmaps: Whether to publish them.

    Raises:
        StationError: It does not get ready.
    """
    ports = iter(_free_ports(6))
    words = ["run", "--bundle", bundle, "--state-dir", state, "--json"]
    addresses = {"http": f"127.0.0.1:{next(ports)}"}
    for each in ("cameras", "frames", "verdicts", "catch-up", "reject"):
        addresses[each] = f"tcp://127.0.0.1:{next(ports)}"
    for each, address in addresses.items():
        words += [f"--{each}", address]
    words += [*settings, *(["--publish-heatmaps"] if heatmaps else [])]
    process = subprocess.Popen(
        [_command("dualbank-edge"), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    station = RunningStation(
        process,
        cameras=addresses["cameras"],
        verdicts=addresses["verdicts"],
        catch_up=addresses["catch-up"],
        http=addresses["http"],
    )
    try:
        _wait_until_ready(process)
        yield station
    finally:
        process.terminate()
        station.said = process.communicate(timeout=60)[0].splitlines()


def play(
    station: RunningStation, categories: Sequence[Category], rate_hz: float
) -> tuple[int, dict[Trigger, Heard]]:
    """Send every test image from two cameras and hear every verdict.

    Returns:
        How many frames the cameras say they have sent, and what was heard.
    """
    expected = sum(len(category.test) for category in categories)
    heard: dict[Trigger, Heard] = {}
    counted = threading.Semaphore(0)
    listener = threading.Thread(
        target=_listen, args=(station.verdicts, expected, heard, counted), daemon=True
    )
    listener.start()
    sent: list[int] = []
    cameras = [
        threading.Thread(target=_camera, args=(station.cameras, name, categories, rate_hz, sent))
        for name in CAMERAS
    ]
    for camera in cameras:
        camera.start()
    for _ in track(range(expected), "frames → verdicts", console=Console(stderr=True)):
        if not counted.acquire(timeout=SILENCE_S):
            break
    for thread in (*cameras, listener):
        thread.join(timeout=SILENCE_S)
    return sum(sent), heard


def _camera(
    address: str, name: str, categories: Sequence[Category], rate_hz: float, sent: list[int]
) -> None:
    """Play one camera: every second test image of each product; notes how many it has sent."""
    for category in categories:
        images = [sample.image for sample in category.test[CAMERAS.index(name) :: 2]]
        if not images:
            continue
        words = ["camera", *images, "--to", address, "--name", name]
        words += ["--product", category.name, "--rate", rate_hz, "--json"]
        command = [_command("dualbank-edge"), *map(str, words)]
        # A camera that fails says why on stderr, and how far it came on stdout.
        said = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout
        sent.append(json.loads(said)["sent"] if said else 0)


def _listen(
    verdicts: str, expected: int, heard: dict[Trigger, Heard], counted: threading.Semaphore
) -> None:
    products: dict[str, str | None] = {}
    maps = 0
    for said in subscribe(verdicts, silence_s=SILENCE_S, heatmaps=True):
        if isinstance(said, Heatmap):
            header = said.header
            heard[
                header.camera, products[header.session], header.seq
            ].anomaly_map = said.anomaly_map
            maps += 1
        else:
            products[said.session] = said.product
            heard[said.camera, said.product, said.seq] = Heard(said)
            counted.release()
        if len(heard) == expected and maps == expected:
            return


def trigger_of(category: Category, index: int) -> Trigger:
    """Tell which trigger showed a category's test image."""
    return CAMERAS[index % 2], category.name, index // 2


def _wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        sys.stderr.write(line)
        if "station ready" in line:
            threading.Thread(target=_pass_on, args=(process.stderr,), daemon=True).start()
            return
    raise StationError("the station ended before it was ready; it has said why")


def _pass_on(lines: Iterator[str]) -> None:
    for line in lines:
        sys.stderr.write(line)


def _command(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()

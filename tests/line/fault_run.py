"""The fault run: a line under load while everything on it is killed, filled and stalled.

    python -m tests.line.fault_run [--frames 20000]

Four cameras, a follower and a subscriber that never reads; the station and the cameras are killed,
its disk is filled, its bundle is swapped. Afterwards every trigger must have one recorded verdict,
no bad or broken part a PASS, and every subscriber the whole sequence.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import zmq

from benchmarks.recording import record
from edge.camera import Camera
from edge.follow import follow
from edge.ledger_reader import open_reader
from inspection.messages import VerdictMessage, decode_verdict_record
from tests.bundles import TILES, write_tiny_bundle
from tests.line.fault_camera import journal_of, kind_of, picture
from tests.line.processes import ROOT

CAMERAS = ("left", "right", "top", "bottom")
LOAD = 0.8
RESTART_S = 0.3
"""As systemd would: what has ended is started again after so long."""

DISK_MIB = 400
"""A bundle is only taken in if 256 MiB stay free: the ledger lives on the same disk."""


class Restarted:
    """A process that is started again whenever it ends, until it has ended well or is stopped."""

    def __init__(self, words: list[str], log: Path, *, ends: bool) -> None:
        self._words, self._log, self._ends = words, log, ends
        self._stopping = threading.Event()
        self.starts = 0
        self.process = self._start()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """SIGKILL, as a power supply would."""
        self.process.kill()

    def stop(self) -> int:
        """SIGTERM, and no more starts; gives the exit status."""
        self._stopping.set()
        self.process.send_signal(signal.SIGTERM)
        self._thread.join()
        return int(self.process.returncode)

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended well."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with self._log.open("ab") as log:
            return subprocess.Popen(self._words, cwd=ROOT, stdout=log, stderr=log)

    def _watch(self) -> None:
        while True:
            done = self.process.wait() == 0
            if self._stopping.is_set() or (done and self._ends):
                return
            time.sleep(RESTART_S)
            if self._stopping.is_set():
                return
            self.process = self._start()


def run(folder: Path, frames: int, faults: dict[str, int], seed: int = 0) -> dict[str, Any]:
    """Run the line once and count; raises nothing for what it finds.

    Args:
        folder: For everything; `state` below it is the station's.
        frames: Of all cameras together.
        faults: How often each: `station`, `camera`, `disk`, `swap`.
        seed: Of the moments.
    """
    chance = random.Random(seed)
    bundle = write_tiny_bundle(folder / "bundle", TILES)
    for number in range(faults.get("swap", 0)):
        tool = [sys.executable, "-m", "calibration.cli", "thresholds", str(bundle)]
        tool += ["--out", str(folder / f"other {number}")]
        tool += ["--review-frr", f"{0.11 + 0.01 * number:.2f}"]
        subprocess.run(tool, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    keys = ("cameras", "frames", "verdicts", "catch_up", "reject")
    addresses = dict(zip(keys, _free_addresses(len(keys)), strict=True))
    state = folder / "state"
    words = [sys.executable, "-m", "edge.cli", "run", "--bundle", str(bundle)]
    words += ["--state-dir", str(state), "--scorer-threads", "1", "--http", ""]
    words += ["--label-queue-bytes", str(8 << 20)]
    for key, address in addresses.items():
        words += [f"--{key.replace('_', '-')}", address]
    heard: dict[int, VerdictMessage] = {}
    with ExitStack() as held:
        station = Restarted(words, folder / "station.log", ends=False)
        held.callback(station.stop)
        held.enter_context(_stalled_subscriber(addresses["verdicts"]))
        held.enter_context(_follower(addresses, heard))
        rate_hz = LOAD * _capacity_hz(addresses["cameras"]) / len(CAMERAS)
        share = frames // len(CAMERAS)
        cameras = {
            name: Restarted(
                [
                    *(sys.executable, "-m", "tests.line.fault_camera", addresses["cameras"], name),
                    *(str(share), f"{rate_hz:.2f}", str(folder / f"{name}.journal")),
                ],
                folder / f"{name}.log",
                ends=True,
            )
            for name in CAMERAS
        }
        for camera in cameras.values():
            held.callback(camera.stop)
        began_s = time.monotonic()
        done = _break_things(folder, state, station, cameras, share, faults, chance)
        ended = all(camera.wait(900.0) for camera in cameras.values())
        took_s = time.monotonic() - began_s
        last = _last_seq(state)
        _wait_until(lambda: len(heard) > 0 and max(heard) >= last, 60.0)
        # Who has read nothing all the time begins now, and has only what the station can tell.
        rebuilt: dict[int, VerdictMessage] = {}
        with _follower(addresses, rebuilt):
            _wait_until(lambda: len(rebuilt) > 0 and max(rebuilt) >= last, 60.0)
    return {
        "frames": frames,
        "rate_hz": round(rate_hz * len(CAMERAS), 1),
        "took_s": round(took_s, 1),
        "faults": done,
        "disk_met": b"cannot record" in (folder / "station.log").read_bytes(),
        "starts": {"station": station.starts, "cameras": sum(c.starts for c in cameras.values())},
        "cameras_ended": ended,
        **_count(folder, state, heard, rebuilt),
    }


def holds(figures: dict[str, Any]) -> bool:
    """Whether a run kept every promise."""
    return bool(
        figures["cameras_ended"]
        and figures["triggers"] == figures["frames"] == figures["recorded"]
        and not any(
            figures[what] for what in ("lost", "recorded_twice", "wrong_pass", "told_otherwise")
        )
        and not any(
            figures[what] for what in ("gaps_in_the_ledger", "follower_missed", "stalled_missed")
        )
        and figures["ledger_holds"]
        and figures["bundles"] > figures["faults"].get("swap", 0)
    )


def _break_things(
    folder: Path,
    state: Path,
    station: Restarted,
    cameras: dict[str, Restarted],
    share: int,
    faults: dict[str, int],
    chance: random.Random,
) -> dict[str, int]:
    """Do every fault at its moment, told by how far the cameras are; they may fall together."""
    # A swap takes its time, and must end while there are frames that the new bundle can judge.
    latest = {"swap": 0.3}
    plan = [
        (chance.uniform(0.02, latest.get(what, 0.8)), what)
        for what, n in faults.items()
        for _ in range(n)
    ]
    victims = [chance.choice(CAMERAS) for _ in plan]
    done: Counter[str] = Counter()
    one_swap = threading.Lock()

    def do(share_done: float, what: str, victim: str) -> None:
        _wait_until(lambda: _progress(folder) >= share_done * share * len(CAMERAS), 900.0)
        if what == "station":
            station.kill()
        elif what == "camera":
            cameras[victim].kill()
        elif what == "disk":
            _fill_disk(state, folder / "station.log")
        else:
            with one_swap:
                _swap(folder, state, done["swap"])
                done["swap"] += 1
                return
        done[what] += 1

    threads = [
        threading.Thread(target=do, args=(*fault, victim))
        for fault, victim in zip(plan, victims, strict=True)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return dict(done)


def _swap(folder: Path, state: Path, number: int) -> None:
    """Give the station another bundle; one that is killed meanwhile is given it again."""
    other = str(folder / f"other {number}")
    for _ in range(60):
        swap = [sys.executable, "-m", "edge.cli", "swap", other, "--state-dir", str(state)]
        swap += ["--shadow", "20", "--probation", "1", "--wait", "--timeout", "5"]
        if subprocess.run(swap, cwd=ROOT, check=False, stdout=subprocess.DEVNULL).returncode == 0:
            return
        time.sleep(0.5)
    raise AssertionError("no swap was ever kept")


def _fill_disk(state: Path, log: Path) -> None:
    """Leave no byte free until the station could not record: its ledger has room for a while."""
    filler = state / "filler"
    with filler.open("wb", buffering=0) as opened:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    opened.write(b"\0" * size)
            except OSError:
                continue
    _wait_until(lambda: b"cannot record" in log.read_bytes(), 120.0)
    filler.unlink()


def _progress(folder: Path) -> int:
    return sum(len(journal_of(folder / f"{name}.journal")[1]) for name in CAMERAS)


def _last_seq(state: Path) -> int:
    with open_reader(state) as reader:
        return reader.last_seq()


def _count(
    folder: Path,
    state: Path,
    heard: dict[int, VerdictMessage],
    rebuilt: dict[int, VerdictMessage],
) -> dict[str, Any]:
    """Hold journals, ledger and subscribers against each other."""
    with open_reader(state) as reader:
        rows, last = [], 0
        while some := reader.after(last, 1000):
            rows += some
            last = some[-1].station_seq
    said = [decode_verdict_record(row.record) for row in rows]
    ours = [each for each in said if each.camera in CAMERAS]
    names = Counter((each.camera, each.seq) for each in ours)
    by_name = {(each.camera, each.seq): each for each in ours}
    triggers: set[tuple[str, int]] = set()
    told_otherwise = 0
    for name in CAMERAS:
        journal, answers = journal_of(folder / f"{name}.journal")
        triggers |= {(name, seq) for seq in journal}
        told_otherwise += sum(
            by_name[name, seq].verdict.value != verdict for seq, verdict in answers.items()
        )
    wrong = [each for each in ours if each.verdict.value == "PASS" and kind_of(each.seq) != "good"]
    verify = [sys.executable, "-m", "edge.cli", "ledger", "verify", "--state-dir", str(state)]
    return {
        "triggers": len(triggers),
        "recorded": len(ours),
        "lost": len(triggers - set(names)),
        "recorded_twice": sum(n - 1 for n in names.values()),
        "wrong_pass": len(wrong),
        "told_otherwise": told_otherwise,
        "verdicts": dict(Counter(each.verdict.value for each in ours)),
        "unknown": dict(
            Counter(each.reason.value for each in ours if each.reason and each.score is None)
        ),
        "bundles": len({each.bundle for each in ours}),
        "gaps_in_the_ledger": last - len(said),
        "follower_missed": sum(heard.get(each.station_seq) != each for each in said),
        "stalled_missed": sum(rebuilt.get(each.station_seq) != each for each in said),
        "ledger_holds": not subprocess.run(
            verify, cwd=ROOT, check=False, capture_output=True
        ).returncode,
    }


def _free_addresses(count: int) -> list[str]:
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [f"tcp://127.0.0.1:{each.getsockname()[1]}" for each in held]
    finally:
        for each in held:
            each.close()


def _wait_until(done: Callable[[], bool], timeout_s: float) -> None:
    ends_s = time.monotonic() + timeout_s
    while not done() and time.monotonic() < ends_s:
        time.sleep(0.05)


def _capacity_hz(address: str) -> float:
    """How many frames a second the station takes of cameras that never wait."""
    frames = 200
    with ExitStack() as held:
        cameras = [
            held.enter_context(Camera(address, f"warm {n}", product="bolt", timeout_s=60.0))
            for n in range(len(CAMERAS))
        ]
        for camera in cameras:
            assert camera.wait_for_station()
        pictures = [picture(seq, "warm") for seq in range(frames) if kind_of(seq) == "good"]
        began_s = time.monotonic()
        for number, each in enumerate(pictures):
            cameras[number % len(cameras)].send(each)
        for camera in cameras:
            camera.close()
        return len(pictures) / (time.monotonic() - began_s)


@contextmanager
def _stalled_subscriber(address: str) -> Iterator[None]:
    """Subscribe to everything and never read."""
    with zmq.Context() as owner, owner.socket(zmq.SUB) as stalled:
        stalled.setsockopt(zmq.RCVHWM, 1)
        stalled.setsockopt(zmq.LINGER, 0)
        stalled.subscribe(b"")
        stalled.connect(address)
        yield


@contextmanager
def _follower(addresses: dict[str, str], heard: dict[int, VerdictMessage]) -> Iterator[None]:
    """Follow the station through all its deaths."""
    stopping = threading.Event()

    def work() -> None:
        for said in follow(
            addresses["verdicts"], addresses["catch_up"], after=0, stopping=stopping
        ):
            heard[said.station_seq] = said

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(30.0)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of its own for the station, which can be filled; needs root."""
    folder.mkdir()
    size = f"size={DISK_MIB}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def main() -> int:
    """Run, print, record; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000)
    args = parser.parse_args()
    faults = {"station": 5, "camera": 10, "disk": 1, "swap": 2}
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder) / "state"):
        figures = run(Path(folder), args.frames, faults)
    print(json.dumps(figures, indent=1))
    print(record("faults", figures))
    return 0 if holds(figures) and figures["disk_met"] and figures["faults"] == faults else 1


if __name__ == "__main__":
    sys.exit(main())

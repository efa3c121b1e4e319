"""Bundles change places in a station while frames come: none is lost, each names its judge."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edge.bundle_folder import open_bundle
from edge.control import ask_station, control_address
from inspection.control_messages import AT_REST, ControlRequest, Step, SwapState, Terms
from inspection.messages import VerdictMessage
from inspection.verdicts import Verdict
from tests.bundles import TILES, good_frame, write_tiny_bundle
from tests.edge.ledgers import messages_in
from tests.line.processes import PATIENCE_S, ROOT, Listener, StationProcess
from tests.line.test_station import assert_adds_up
from tests.swapped_bundles import with_thresholds, with_wrong_golden_answers

RATE_HZ = 50.0
WIDE = np.tile(good_frame("bolt"), (1, 2, 1))


class Feed:
    """A camera that never stops, until it is told to; then all of its verdicts are there."""

    def __init__(self, station: StationProcess, listener: Listener) -> None:
        self.heard: list[VerdictMessage] = []
        self.sent = 0
        self._station, self._listener = station, listener
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._send)

    @contextmanager
    def on(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._thread.join(PATIENCE_S)
        self.heard += self._listener.take(self.sent - len(self.heard))

    def hear(self, count: int) -> None:
        self.heard += self._listener.take(count)

    def hear_from(self, bundle: str) -> None:
        """Hear verdicts up to the next one of a bundle."""
        self.heard += self._listener.take_until(lambda said: said.bundle == bundle)

    def _send(self) -> None:
        with self._station.camera("feed", product="bolt") as camera:
            while not self._ending.is_set():
                camera.send(WIDE)
                self.sent = camera.sent
                time.sleep(1 / RATE_HZ)


def ask(station: StationProcess, ask: str, bundle: Path | None = None, **terms: object) -> None:
    request = ControlRequest(ask=ask, bundle=bundle and str(bundle), terms=Terms(**terms))  # type: ignore
    reply = ask_station(control_address(station.state_dir), request, PATIENCE_S)
    assert reply.granted, reply.why


def at(station: StationProcess, *steps: Step) -> SwapState:
    """Wait until the station stands at one of these steps."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        status = ControlRequest(ask="status")
        state = ask_station(control_address(station.state_dir), status, PATIENCE_S).state
        if state.step in steps:
            return state
        time.sleep(0.02)
    raise AssertionError(f"the swap stays at {state}")


@contextmanager
def fed(bundle: Path, state_dir: Path) -> Iterator[tuple[StationProcess, Feed]]:
    """A station under a steady load; at the end every frame has had one verdict."""
    with StationProcess(bundle, state_dir) as station, Listener(station) as listener:
        feed = Feed(station, listener)
        with feed.on():
            feed.hear(5)
            yield station, feed
        account = station.stop()
    assert sorted(said.seq for said in feed.heard) == list(range(feed.sent))
    assert_adds_up(account)


def judges(feed: Feed) -> list[str]:
    """Bundles in the order in which they first gave a verdict, a change a row."""
    names = [said.bundle for said in sorted(feed.heard, key=lambda said: said.station_seq)]
    return [name for name, before in zip(names, [None, *names], strict=False) if name != before]


@pytest.mark.parametrize("kind", ["same trunk", "letterbox", "tiles"])
def test_a_bundle_takes_over_between_two_frames_and_none_is_lost(
    tiny_folder: Path, letterbox_folder: Path, tmp_path: Path, kind: str
) -> None:
    new = {
        "same trunk": lambda: write_tiny_bundle(tmp_path / "new", model_card_md=b"# New\n"),
        "letterbox": lambda: letterbox_folder,
        "tiles": lambda: write_tiny_bundle(tmp_path / "new", TILES),
    }[kind]()
    with fed(tiny_folder, tmp_path / "state") as (station, feed):
        ask(station, "swap", new, shadow_frames=20, probation_s=0.5)

        state = at(station, *AT_REST)

        feed.hear_from(open_bundle(new).id)
    assert (state.step, state.running) == ("steady", open_bundle(new).id), state
    assert state.shadow is not None
    assert state.shadow.compared == 20
    assert judges(feed) == [open_bundle(tiny_folder).id, open_bundle(new).id]
    assert {said.verdict for said in feed.heard} == {Verdict.PASS}
    assert {each.bundle for each in messages_in(tmp_path / "state")} == set(judges(feed))


def test_what_is_refused_is_never_heard_of(
    tiny_folder: Path, letterbox_folder: Path, tmp_path: Path
) -> None:
    damaged = Path(shutil.copytree(letterbox_folder, tmp_path / "damaged"))
    max((damaged / "files").iterdir(), key=lambda path: path.stat().st_size).write_bytes(b"x")
    wrong = with_wrong_golden_answers(tmp_path / "wrong")
    refusals = []
    with fed(tiny_folder, tmp_path / "state") as (station, feed):
        for bundle in (damaged, wrong, tmp_path / "nothing"):
            ask(station, "swap", bundle)
            refusals.append(at(station, *AT_REST))
        feed.hear(10)

    assert {state.step for state in refusals} == {"refused"}
    for state, said in zip(refusals, ("damaged", "golden frame", "No such file"), strict=True):
        assert said in str(state.why)
    assert judges(feed) == [open_bundle(tiny_folder).id]


def test_killed_on_probation_the_station_starts_with_the_bundle_before(
    tiny_folder: Path, letterbox_folder: Path, tmp_path: Path
) -> None:
    old, new = open_bundle(tiny_folder).id, open_bundle(letterbox_folder).id
    with StationProcess(tiny_folder, tmp_path) as station, Listener(station) as listener:
        ask(station, "swap", letterbox_folder, shadow_frames=0, probation_s=600)
        at(station, "probation")
        with station.camera(product="bolt") as camera:
            camera.send(WIDE)
            (judged,) = listener.take(1)
        station.process.send_signal(signal.SIGKILL)
        station.ended()

    with StationProcess(tiny_folder, tmp_path) as station, Listener(station) as listener:
        state = at(station, "idle")
        with station.camera(product="bolt") as camera:
            camera.send(WIDE)
            (again,) = listener.take(1)
        station.stop()

    assert (judged.bundle, again.bundle) == (new, old)
    assert state.running == old
    assert "died while the bundle was on probation" in str(state.why)


def test_stopped_in_good_order_the_station_starts_with_the_new_bundle(
    tiny_folder: Path, letterbox_folder: Path, tmp_path: Path
) -> None:
    with StationProcess(tiny_folder, tmp_path) as station:
        ask(station, "swap", letterbox_folder, shadow_frames=0, probation_s=600)
        at(station, "probation")
        station.stop()

    with StationProcess(tiny_folder, tmp_path) as station:
        state = at(station, "probation")
        station.stop()

    assert state.running == open_bundle(letterbox_folder).id


def test_a_bundle_that_flags_everything_is_rolled_back_by_itself(
    tiny_folder: Path, tmp_path: Path
) -> None:
    strict = with_thresholds(tmp_path / "strict", review=-100.0, reject=-50.0)
    old, new = open_bundle(tiny_folder).id, open_bundle(strict).id
    with fed(tiny_folder, tmp_path / "state") as (station, feed):
        feed.hear(60)
        ask(station, "swap", strict, shadow_frames=0, probation_s=600)

        state = at(station, "rolled_back")

        feed.hear_from(new)
        feed.hear_from(old)
    assert state.running == old
    assert "verdicts were not PASS, 100.0%" in str(state.why)
    assert judges(feed) == [old, new, old]
    flagged = [said for said in feed.heard if said.verdict is not Verdict.PASS]
    assert {said.bundle for said in flagged} == {new}


def swap(station: StationProcess, *words: object) -> subprocess.CompletedProcess[str]:
    """`dualbank-edge swap` on that station."""
    command = [sys.executable, "-m", "edge.cli", "swap", "--state-dir", station.state_dir, *words]
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_the_command_swaps_reports_and_rolls_back(
    tiny_folder: Path, letterbox_folder: Path, tmp_path: Path
) -> None:
    old, new = open_bundle(tiny_folder).id[:12], open_bundle(letterbox_folder).id[:12]
    with StationProcess(tiny_folder, tmp_path) as station:
        done = swap(station, letterbox_folder, "--shadow", 0, "--probation", 0.2, "--wait")
        status = swap(station, "--status", "--json")
        back = swap(station, "--rollback", "--wait")
        refused = swap(station, "--rollback")
        wrong = swap(station, tmp_path, "--wait")
        usage = swap(station, letterbox_folder, "--status")
        station.stop()
        gone = swap(station, "--status")

    assert done.returncode == 0
    assert "probation   judges, and is watched" in done.stderr
    assert f"running     {new}" in done.stdout
    assert f"before it   {old}; --rollback brings it back" in done.stdout
    assert json.loads(status.stdout)["state"]["step"] == "steady"
    assert (back.returncode, f"running     {old}" in back.stdout) == (0, True)
    assert (refused.returncode, "no bundle to go back to" in refused.stderr) == (3, True)
    assert (wrong.returncode, "refused" in wrong.stdout) == (3, True)
    assert usage.returncode == 2
    assert (gone.returncode, "no station runs there" in gone.stderr) == (1, True)

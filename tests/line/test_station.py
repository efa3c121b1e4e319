"""A real station, real sockets: every trigger gets one verdict, whatever happens on the line."""

from __future__ import annotations

import random
import resource
import signal
import socket
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import cv2
import msgpack
import numpy as np
import pytest
import zmq

from inspection.errors import StationError
from inspection.messages import HEATMAP_TOPIC, VerdictMessage, decode_heatmap
from inspection.verdicts import Reason, Verdict
from tests.bundles import TILES, bad_frame, doubtful_frame, good_frame, write_tiny_bundle
from tests.line.hostile import GOOD, HOSTILE, PIXELS, header
from tests.line.processes import PATIENCE_S, Listener, StationProcess

# Takes tens of milliseconds to decode and under one to receive: a backlog builds up behind it.
SLOW = cv2.imencode(
    ".png", np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
)[1].tobytes()


@pytest.fixture(scope="module")
def line(
    tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[StationProcess, Listener]]:
    """One station for all hostile messages: each must leave it as good as it was."""
    with (
        StationProcess(tiny_folder, tmp_path_factory.mktemp("line")) as station,
        Listener(station) as listener,
    ):
        yield station, listener


@pytest.fixture
def pusher(line: tuple[StationProcess, Listener]) -> Iterator[zmq.Socket[bytes]]:
    """A socket that sends anything."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as pusher:
        pusher.connect(line[0].frames)
        yield pusher


def ledger_rows(state_dir: Path) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(state_dir / "ledger.sqlite")) as connection:
        connection.row_factory = sqlite3.Row
        return list(connection.execute("SELECT * FROM verdicts ORDER BY station_seq"))


def assert_adds_up(account: dict[str, Any]) -> None:
    unknown = sum(account["unknown"].values())
    come_before = account["malformed"] + account["redelivered"]
    assert account["received"] == come_before + account["recorded"]
    assert account["recorded"] == account["published"] == account["scored"] + unknown
    assert account["unaccounted"] == 0


def test_every_frame_of_two_cameras_gets_one_verdict_and_the_counts_add_up(
    tiny_folder: Path, tmp_path: Path
) -> None:
    frames = {"left": good_frame("bolt"), "right": bad_frame("nut")}
    products = {"left": "bolt", "right": "nut"}
    with StationProcess(tiny_folder, tmp_path) as station, Listener(station) as listener:
        with station.camera("left") as left, station.camera("right") as right:
            for seq in range(30):
                for camera in (left, right):
                    frame = frames[camera.name]
                    png = cv2.imencode(".png", frame[:, :, ::-1])[1].tobytes()
                    camera.send(
                        png if seq % 2 else frame, part=str(seq), product=products[camera.name]
                    )

        heard = listener.take(60)

        account = station.stop()
    said = {(each.camera, each.seq, each.verdict) for each in heard}
    assert said == {("left", i, Verdict.PASS) for i in range(30)} | {
        ("right", i, Verdict.FAIL) for i in range(30)
    }
    assert account["received"] == 60 + listener.greetings
    assert_adds_up(account)
    assert set(account["latency_ms"]) == {
        *("queue", "decode", "check", "prepare", "wait", "score", "finish", "record", "total")
    }


def test_the_ledger_says_what_was_published(tiny_folder: Path, tmp_path: Path) -> None:
    with StationProcess(tiny_folder, tmp_path) as station, Listener(station) as listener:
        with station.camera() as camera:
            for frame in (good_frame(), doubtful_frame(), bad_frame()):
                camera.send(frame, part="p", product="bolt")
            camera.send(bad_frame(), product="spoon")

        heard = listener.take(4)

        station.stop()
    rows = ledger_rows(tmp_path)[-4:]
    by_seq = sorted(heard, key=lambda said: said.seq)  # an UNKNOWN overtakes what is being scored
    assert [each.verdict.value for each in by_seq] == ["PASS", "REVIEW", "FAIL", "UNKNOWN"]
    for row, said in zip(rows, heard, strict=True):
        expected = said.model_dump(mode="json")
        for column in set(row.keys()) & set(expected):
            assert row[column] == expected[column], column


def test_a_flagged_part_is_kept_for_labelling_and_a_good_one_is_not(
    tiny_folder: Path, tmp_path: Path
) -> None:
    jpeg = cv2.imencode(".jpg", bad_frame("bolt", 1, 64)[:, :, ::-1])[1].tobytes()
    with StationProcess(tiny_folder, tmp_path) as station, Listener(station) as listener:
        with station.camera(product="bolt") as camera:
            camera.send(good_frame())
            camera.send(doubtful_frame())
            camera.send(jpeg)
        heard = listener.take(3)

        account = station.stop()

    kept = sorted(path for path in (tmp_path / "label_queue").iterdir())
    assert [int(path.name.split("-")[0]) for path in kept] == [
        said.station_seq for said in heard[1:]
    ]
    assert np.array_equal(np.load(kept[0] / "frame.npy"), doubtful_frame())
    assert (kept[1] / "frame.jpg").read_bytes() == jpeg
    assert np.load(kept[1] / "map.npy").shape == (4, 4)
    assert account["label_queue"]["stored"] == 2


def test_regions_and_heatmap_lie_where_the_defect_is(tiny_folder: Path, tmp_path: Path) -> None:
    frame = good_frame("bolt", 1, 64)
    frame[48:, 16:32] = 255
    options = ("--publish-heatmaps",)
    with StationProcess(tiny_folder, tmp_path, *options) as station, Listener(station) as listener:
        with station.camera(product="bolt") as camera:
            camera.send(frame)
            (said,) = listener.take(1)
            camera.send(frame)
            listener.take(1)  # so that the first frame's map has come

        station.stop()

    parts = next(p for p in listener.other if p[0] == HEATMAP_TOPIC + b"cam0")
    head, values = decode_heatmap(parts)
    heatmap = np.frombuffer(values, "<f4").reshape(head.shape)
    worst = said.regions[0]
    assert (worst.x_px, worst.y_px, worst.width_px, worst.height_px) == (16, 48, 16, 16)
    assert np.unravel_index(heatmap.argmax(), heatmap.shape) == (3, 1)
    assert worst.score == pytest.approx(float(heatmap.max()))


def test_a_defect_of_one_patch_in_a_large_frame_is_found_where_it_is(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle", TILES)
    good = np.tile(good_frame("bolt"), (4, 9, 1))
    bad = good.copy()
    bad[40:48, 200:216] = 255
    options = ("--publish-heatmaps",)
    with StationProcess(bundle, tmp_path, *options) as station, Listener(station) as listener:
        with station.camera() as camera:  # which product it is, the station must see
            for frame in (good, bad, good):
                camera.send(frame)
            verdicts = listener.take(3)

        assert_adds_up(station.stop())

    assert [said.verdict for said in verdicts] == [Verdict.PASS, Verdict.FAIL, Verdict.PASS]
    box = verdicts[1].regions[0]
    assert (box.x_px, box.y_px, box.width_px, box.height_px) == (200, 40, 16, 8)
    shown = [parts for parts in listener.other if parts[0] == HEATMAP_TOPIC + b"cam0"]
    assert {tuple(decode_heatmap(parts)[0].shape) for parts in shown} == {(16, 36)}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_message_costs_only_itself(
    line: tuple[StationProcess, Listener], pusher: zmq.Socket[bytes], kind: str
) -> None:
    parts, reason = HOSTILE[kind]

    pusher.send_multipart(parts)
    pusher.send_multipart([header(camera="good"), PIXELS])

    *answers, good = line[1].take_until(lambda said: said.camera == "good")
    assert [said.reason for said in answers] == ([] if reason is None else [reason])
    assert all(said.camera == "hostile" for said in answers)
    assert good.verdict is Verdict.PASS


def test_thousands_of_damaged_messages_are_each_answered_or_counted(
    tiny_folder: Path, tmp_path: Path
) -> None:
    chance = random.Random(20240321)
    with StationProcess(tiny_folder, tmp_path) as station, Listener(station) as listener:
        with zmq.Context() as context, context.socket(zmq.PUSH) as pusher:
            pusher.connect(station.frames)
            for _ in range(3000):
                valid = [header(part="abc", deadline_ms=1e6), PIXELS]
                pusher.send_multipart([_damaged(part, chance) for part in valid])
            pusher.send_multipart([header(camera="last"), PIXELS])

            heard = listener.take_until(lambda said: said.camera == "last")

        # A camera of its own is not kept waiting behind the damaged one's: more may come.
        account = station.stop()
        heard += listener.take(account["published"] - listener.greetings - len(heard))
    assert account["received"] == 3001 + listener.greetings
    assert account["malformed"] + account["redelivered"] == 3001 - len(heard)
    (last,) = [said for said in heard if said.camera == "last"]
    assert last.verdict is Verdict.PASS
    assert_adds_up(account)


def test_overload_forgets_the_oldest_and_says_so_of_each(tiny_folder: Path, tmp_path: Path) -> None:
    options = ("--backlog-frames", "3")
    with StationProcess(tiny_folder, tmp_path, *options) as station, Listener(station) as listener:
        with station.camera(product="bolt") as camera:
            for _ in range(40):
                camera.send(SLOW)

        heard = listener.take(40)

        account = station.stop()
    reasons = {said.seq: said.reason for said in heard}
    assert sorted(reasons) == list(range(40))
    assert account["unknown"]["backlog_full"] == list(reasons.values()).count(Reason.BACKLOG_FULL)
    assert account["unknown"]["backlog_full"] > 0
    assert reasons[39] is not Reason.BACKLOG_FULL, "the newest frame is the one worth scoring"
    assert_adds_up(account)


def test_sigterm_scores_the_whole_backlog_and_a_second_one_loses_nothing(
    tiny_folder: Path, tmp_path: Path
) -> None:
    with StationProcess(tiny_folder, tmp_path) as station, Listener(station) as listener:
        with station.camera(product="bolt") as camera:
            for _ in range(40):
                camera.send(SLOW)

        account = station.stop(times=2)

        heard = listener.take(40)
    assert account["received"] == 40 + listener.greetings
    assert account["unknown"] == {}
    assert sorted(said.seq for said in heard) == list(range(40))
    assert len(ledger_rows(tmp_path)) == account["recorded"]
    assert_adds_up(account)


def test_what_cannot_be_scored_before_the_end_is_unknown_and_not_lost(
    tiny_folder: Path, tmp_path: Path
) -> None:
    options = ("--drain-s", "0")
    with StationProcess(tiny_folder, tmp_path, *options) as station, Listener(station) as listener:
        with station.camera(product="bolt") as camera:
            for _ in range(40):
                camera.send(SLOW)

        account = station.stop()

        heard = listener.take(40)
    assert Reason.STATION_STOPPING in {said.reason for said in heard}
    assert account["received"] == 40 + listener.greetings
    assert_adds_up(account)


def test_a_verdict_that_would_come_too_late_is_unknown(tiny_folder: Path, tmp_path: Path) -> None:
    with StationProcess(tiny_folder, tmp_path) as station, Listener(station) as listener:
        with station.camera(product="bolt") as camera:
            camera.send(good_frame(), deadline_ms=1e-6)
            camera.send(good_frame(), deadline_ms=60_000.0)

        late, early = sorted(listener.take(2), key=lambda said: said.seq)

        station.stop()
    assert (late.verdict, late.reason) == (Verdict.UNKNOWN, Reason.DEADLINE_PASSED)
    assert early.verdict is Verdict.PASS


def test_a_peer_that_announces_four_gigabytes_is_dropped_and_others_are_served(
    tiny_folder: Path, tmp_path: Path
) -> None:
    with StationProcess(tiny_folder, tmp_path) as station, Listener(station) as listener:
        host, port = station.frames.removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as peer:
            _shake_hands(peer)
            peer.sendall(b"\x02" + (4 << 30).to_bytes(8, "big") + b"x" * 1000)

            closed = _read_to_end(peer)

        with station.camera(product="bolt") as camera:
            camera.send(good_frame())
            (said,) = listener.take(1)
        peak_kib = _peak_kib(station.process.pid)
        account = station.stop()
    assert closed
    assert said.verdict is Verdict.PASS
    assert peak_kib < 1 << 20, "the station allocated what was announced"
    assert account["peers"]["disconnected"] >= 1
    assert_adds_up(account)


def test_station_seq_goes_on_after_a_restart(tiny_folder: Path, tmp_path: Path) -> None:
    last = []
    for _ in range(2):
        with StationProcess(tiny_folder, tmp_path) as station, Listener(station) as listener:
            with station.camera(product="bolt") as camera:
                camera.send(good_frame())
                last.append(listener.take(1)[0].station_seq)
            station.stop()

    numbers = [row["station_seq"] for row in ledger_rows(tmp_path)]
    assert last[1] > last[0]
    assert numbers == list(range(1, len(numbers) + 1))


def test_whatever_was_published_before_kill_9_is_in_the_ledger(
    tiny_folder: Path, tmp_path: Path
) -> None:
    with StationProcess(tiny_folder, tmp_path) as station, Listener(station) as listener:
        with station.camera(product="bolt") as camera:
            for _ in range(50):
                camera.send(good_frame())
            heard = listener.take(20)

        station.process.send_signal(signal.SIGKILL)
        station.ended()

    recorded = {row["station_seq"] for row in ledger_rows(tmp_path)}
    assert {said.station_seq for said in heard} <= recorded
    with StationProcess(tiny_folder, tmp_path) as station, Listener(station) as listener:
        station.stop()
    assert len(ledger_rows(tmp_path)) == len(recorded) + listener.greetings


def test_a_station_that_cannot_record_stops_and_publishes_nothing_unrecorded(
    tiny_folder: Path, tmp_path: Path
) -> None:
    def no_file_above_128_kib() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (128 << 10, 128 << 10))

    station = StationProcess(tiny_folder, tmp_path, preexec_fn=no_file_above_128_kib)
    with station, Listener(station) as listener:
        heard: list[VerdictMessage] = []
        with station.camera(product="bolt", timeout_s=1.0) as camera, suppress(StationError):
            while station.process.poll() is None:
                camera.send(good_frame())  # until nobody takes it any more
                heard += _heard_now(listener)

        code = station.ended()
        heard += _heard_now(listener)

    assert code == 1
    assert any("cannot record" in text for text in station.lines)
    recorded = {row["station_seq"] for row in ledger_rows(tmp_path)}
    assert {said.station_seq for said in heard} <= recorded
    assert len(heard) > 0, "a station that publishes nothing would pass too"


def test_a_station_in_the_file_system_serves_over_ipc(tiny_folder: Path, tmp_path: Path) -> None:
    options = ("--frames", f"ipc://{tmp_path}/f", "--verdicts", f"ipc://{tmp_path}/v")
    with StationProcess(tiny_folder, tmp_path, *options) as station, Listener(station):
        account = station.stop()

    assert account["verdicts"]["PASS"] == account["received"] > 0


def test_a_second_station_on_the_same_address_says_so_and_fails(
    tiny_folder: Path, tmp_path: Path
) -> None:
    with StationProcess(tiny_folder, tmp_path / "a") as first:
        second = StationProcess(tiny_folder, tmp_path / "b", "--frames", first.frames)
        with second:
            code = second.ended()
        first.stop()

    assert code == 1
    assert len(second.lines) == 1
    assert "cannot bind" in second.lines[0]


def test_a_second_station_on_the_same_folder_is_refused_and_touches_nothing_in_it(
    tiny_folder: Path, tmp_path: Path
) -> None:
    with StationProcess(tiny_folder, tmp_path) as first, Listener(first) as listener:
        half_made = tmp_path / "label_queue" / ".new-of-the-first"
        half_made.mkdir()

        with StationProcess(tiny_folder, tmp_path) as second:
            code = second.ended()

        assert code == 1
        assert "is in use by another station" in second.lines[0]
        assert half_made.is_dir()
        with first.camera(product="bolt") as camera:
            camera.send(good_frame())
        assert listener.take(1)[0].verdict is Verdict.PASS
        assert_adds_up(first.stop())


def test_what_a_station_writes_is_for_its_own_user_alone(tiny_folder: Path, tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    with StationProcess(tiny_folder, state_dir, umask=0o022) as station:
        with Listener(station) as listener, station.camera(product="bolt") as camera:
            camera.send(bad_frame())
            listener.take(1)
        station.stop()

    written = [state_dir, *state_dir.rglob("*")]
    assert {path.name for path in written} >= {"ledger.sqlite", "frame.npy", "verdict.json"}
    assert {oct(path.stat().st_mode & 0o777) for path in written if path.is_dir()} == {"0o700"}
    assert {oct(path.stat().st_mode & 0o777) for path in written if path.is_file()} == {"0o600"}


def test_counts_are_of_verdicts_as_published(tiny_folder: Path, tmp_path: Path) -> None:
    with StationProcess(tiny_folder, tmp_path) as station, Listener(station) as listener:
        with station.camera(product="bolt") as camera:
            for frame in (good_frame(), bad_frame(), bad_frame(), doubtful_frame()):
                camera.send(frame)
        heard = listener.take(4)

        account = station.stop()

    said = Counter(each.verdict.value for each in heard) + Counter(PASS=listener.greetings)
    assert account["verdicts"] == {"PASS": 0, "REVIEW": 0, "FAIL": 0, "UNKNOWN": 0} | said


def _damaged(part: bytes, chance: random.Random) -> bytes:
    """Flip, drop, double or insert a few bytes; one time in four leave the part as it is."""
    damaged = bytearray(part)
    for _ in range(chance.choice([0, 1, 1, 4])):
        at = chance.randrange(len(damaged) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            damaged[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del damaged[at : at + chance.randrange(1, 5)]
        elif kind == 2:
            damaged[at:at] = damaged[at : at + 8]
        else:
            damaged[at:at] = msgpack.packb(chance.choice([None, -1, 1 << 63, 1.5, "x", [], GOOD]))
    return bytes(damaged)


def _shake_hands(peer: socket.socket) -> None:
    """Greet as a ZeroMQ 3.1 PUSH socket without security. Source: rfc.zeromq.org/spec/23."""
    peer.sendall(
        b"\xff" + b"\0" * 8 + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" * 32
    )
    ready = b"\x05READY" + b"\x0bSocket-Type" + (4).to_bytes(4, "big") + b"PUSH"
    peer.sendall(b"\x04" + bytes([len(ready)]) + ready)


def _read_to_end(peer: socket.socket) -> bool:
    """Read until the station hangs up; False if it never does."""
    try:
        while peer.recv(4096):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def _peak_kib(pid: int) -> int:
    """Most memory that a process has ever held."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def _heard_now(listener: Listener) -> list[VerdictMessage]:
    heard = []
    while listener.has_one():
        heard += listener.take(1)
    return heard

"""MQTT: every verdict arrives at a real broker, whatever is killed in between."""

from __future__ import annotations

import json
import shutil
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.bridges import mqtt
from edge.bridges.levels import level_of
from edge.cli import main
from inspection.messages import VerdictMessage
from inspection.verdicts import Verdict
from tests.edge.bridges.certificates import make_authority, make_certificate
from tests.edge.bridges.mosquitto import Mosquitto, free_port
from tests.edge.bridges.processes import BridgeProcess, bridging
from tests.edge.published_station import FakeStation, eventually


class Observer:
    """Subscribes to everything, with a session that outlives connections."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.retained: dict[str, bytes] = {}
        self.subscribed = threading.Event()

    def numbers(self, camera: str = "") -> list[int]:
        """station_seq of what came live, in order; a repetition that MQTT allows left out."""
        said = [
            json.loads(payload)["station_seq"]
            for topic, payload in list(self.messages)
            if topic.startswith(f"line/verdict/{camera}")
        ]
        return list(dict.fromkeys(said))

    def states(self) -> list[str]:
        return [
            json.loads(payload)["state"]
            for topic, payload in list(self.messages)
            if topic == "line/station"
        ]


@contextmanager
def observing(broker: Mosquitto, name: str = "observer") -> Iterator[Observer]:
    observer = Observer()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
    client.reconnect_delay_set(1, 1)

    def on_connect(client: paho.Client, *_: Any) -> None:
        client.subscribe("#", qos=1)

    def on_message(_: Any, __: Any, message: paho.MQTTMessage) -> None:
        if message.retain:
            observer.retained[message.topic] = message.payload
        else:
            observer.messages.append((message.topic, message.payload))

    client.on_connect = on_connect
    client.on_subscribe = lambda *_: observer.subscribed.set()
    client.on_message = on_message
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        assert observer.subscribed.wait(20)
        yield observer
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.fixture
def station() -> Iterator[FakeStation]:
    with FakeStation() as started:
        yield started


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as started:
        yield started


@contextmanager
def started(
    broker: Mosquitto, station: FakeStation, folder: Path, *more: str
) -> Iterator[BridgeProcess]:
    with bridging(
        "mqtt",
        station,
        *("--broker", f"127.0.0.1:{broker.port}", "--prefix", "line"),
        *("--memory", str(folder / "memory.json"), "--after", "0", *more),
    ) as bridge:
        bridge.says("broker connected")
        yield bridge


def test_a_verdict_arrives_as_json_and_stays_for_who_comes_late(
    station: FakeStation, broker: Mosquitto, tmp_path: Path
) -> None:
    with started(broker, station, tmp_path), observing(broker) as observer:
        station.say(camera="left", part="P7")
        station.say(camera="left", score=float("nan"), verdict=Verdict.REVIEW)
        eventually(lambda: observer.numbers() == [1, 2])
        with observing(broker, "late") as late:
            eventually(lambda: "line/verdict/left" in late.retained)

    first, second = (
        json.loads(payload) for topic, payload in observer.messages if "verdict" in topic
    )
    assert VerdictMessage.model_validate(first) == station.ledger_message(1)
    assert second["score"] is None  # JSON has no NaN
    assert json.loads(late.retained["line/verdict/left"])["station_seq"] == 2


def test_nothing_is_lost_when_the_broker_is_killed_and_verdicts_go_on(
    station: FakeStation, broker: Mosquitto, tmp_path: Path
) -> None:
    with observing(broker) as observer, started(broker, station, tmp_path) as bridge:
        for connections in (2, 3):
            station.say(50)
            # What a broker has acknowledged and not yet passed on dies with it: that is its own.
            eventually(lambda: len(observer.numbers()) == station.ledger.last_seq())
            with broker.frozen():
                station.say(50)  # under way when it dies
                broker.kill()
            station.say(2 * mqtt.WINDOW)
            broker.__enter__()
            bridge.says("broker connected", times=connections)
            station.say(50)

        everything = list(range(1, station.ledger.last_seq() + 1))
        eventually(lambda: len(observer.numbers()) == len(everything))

    assert observer.numbers() == everything


def test_nothing_is_lost_when_the_bridge_is_killed(
    station: FakeStation, broker: Mosquitto, tmp_path: Path
) -> None:
    with observing(broker) as observer:
        for _ in range(3):
            with started(broker, station, tmp_path) as bridge:
                station.say(300)
                eventually(lambda: len(observer.numbers()) > station.ledger.last_seq() - 250)
                bridge.end(signal.SIGKILL)
            station.say(20)
        with started(broker, station, tmp_path):
            eventually(lambda: len(observer.numbers()) == 960)

    assert observer.numbers() == list(range(1, 961))
    # What the broker had acknowledged was not sent again from the beginning.
    assert len([topic for topic, _ in observer.messages if "verdict" in topic]) < 2 * 960


def test_nothing_is_lost_when_the_station_is_started_again(
    station: FakeStation, broker: Mosquitto, tmp_path: Path
) -> None:
    with observing(broker) as observer, started(broker, station, tmp_path):
        for _ in range(2):
            station.say(20)
            station.__exit__(None, None, None)
            station.ledger.append(station.next_verdict())
            station.__enter__()
            station.say(20)

        eventually(lambda: len(observer.numbers()) == 82)

    assert observer.numbers() == list(range(1, 83))


def test_a_bridge_that_is_stopped_goes_on_where_it_was_without_repeating(
    station: FakeStation, broker: Mosquitto, tmp_path: Path
) -> None:
    with observing(broker) as observer:
        for _ in range(2):
            with started(broker, station, tmp_path) as bridge:
                station.say(30)
                eventually(lambda: len(observer.numbers()) == station.ledger.last_seq())
                assert bridge.end() == 0

    verdicts = [topic for topic, _ in observer.messages if "verdict" in topic]
    assert len(verdicts) == 60
    assert json.loads((tmp_path / "memory.json").read_text()) == {"station_seq": 60}


def test_a_broker_that_hangs_costs_the_station_nothing_and_the_bridge_no_memory(
    station: FakeStation, tmp_path: Path
) -> None:
    broker = Mosquitto(tmp_path, save_after=100_000)
    with broker, observing(broker) as observer, started(broker, station, tmp_path) as bridge:
        station.say(10)
        eventually(lambda: len(observer.numbers()) == 10)
        with broker.frozen():
            station.say(2000)  # returns, or this times out
            before = resident_bytes(bridge)
            station.say(2000)
            grown = resident_bytes(bridge) - before

        eventually(lambda: len(observer.numbers()) == 4010)

    assert grown < 8 << 20
    assert observer.numbers() == list(range(1, 4011))


def resident_bytes(bridge: BridgeProcess) -> int:
    status = Path(f"/proc/{bridge.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) << 10


def test_the_broker_tells_of_a_bridge_that_dies_and_of_one_that_ends(
    station: FakeStation, broker: Mosquitto, tmp_path: Path
) -> None:
    with observing(broker) as observer:
        for how in (signal.SIGKILL, signal.SIGTERM):
            observer.messages.clear()
            with started(broker, station, tmp_path) as bridge:
                eventually(lambda: "running" in observer.states())
                bridge.end(how)
                eventually(lambda: observer.states()[-1:] == ["offline"])


def test_a_silent_station_is_told_as_silent(
    station: FakeStation, broker: Mosquitto, tmp_path: Path
) -> None:
    with observing(broker) as observer, started(broker, station, tmp_path):
        eventually(lambda: "running" in observer.states())
        station.__exit__(None, None, None)

        eventually(lambda: observer.states()[-1] == "silent")
        station.__enter__()

        eventually(lambda: observer.states()[-1] == "running")


@pytest.mark.parametrize("camera", ["a/b+c#", "\x00\n", "%2F", "$SYS", "Öse 3", "\U0001f600"])
def test_any_camera_has_a_topic_of_its_own(
    station: FakeStation, broker: Mosquitto, tmp_path: Path, camera: str
) -> None:
    with started(broker, station, tmp_path), observing(broker) as observer:
        station.say(camera=camera)
        eventually(lambda: observer.numbers() == [1])

    (topic,) = [topic for topic, _ in observer.messages if topic != "line/station"]
    assert topic == f"line/verdict/{level_of(camera)}"
    assert topic.count("/") == 2


def test_no_two_cameras_share_a_level() -> None:
    names = ["a/b", "a%2Fb", "a%252Fb", "a_b", "a+b", "a#b", "a", "A", "a "]

    assert len({level_of(name) for name in names}) == len(names)


def test_the_broker_is_spoken_to_encrypted_and_with_a_password(
    station: FakeStation, tmp_path: Path
) -> None:
    authority = make_authority(tmp_path)
    certificate, key = make_certificate(tmp_path, "broker", authority)
    (tmp_path / "secret").write_text("open sesame\n")
    passwords = tmp_path / "passwords"
    make_password = shutil.which("mosquitto_passwd")
    assert make_password
    subprocess.run([make_password, "-b", "-c", str(passwords), "bridge", "open sesame"], check=True)
    own = Mosquitto(
        tmp_path,
        [
            *("allow_anonymous false", f"password_file {passwords}"),
            *(f"cafile {authority.path}", f"certfile {certificate}", f"keyfile {key}"),
        ],
    )
    told = ["--tls", "--ca", str(authority.path), "--user", "bridge"]
    with own, started(own, station, tmp_path, *told, "--password-file", str(tmp_path / "secret")):
        station.say()
        memory = tmp_path / "memory.json"
        eventually(memory.exists)

    assert json.loads(memory.read_text()) == {"station_seq": 1}


def test_a_broker_whose_certificate_nobody_signed_is_not_spoken_to(
    station: FakeStation, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    authority, other = make_authority(tmp_path), make_authority(tmp_path / "other")
    certificate, key = make_certificate(tmp_path, "broker", authority)
    own = Mosquitto(
        tmp_path,
        [
            *("allow_anonymous true", f"cafile {authority.path}"),
            *(f"certfile {certificate}", f"keyfile {key}"),
        ],
    )
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.tls_set(ca_certs=str(other.path))

    with own, pytest.raises(ssl.SSLCertVerificationError):
        client.connect("127.0.0.1", own.port)
    told = ["--tls", "--ca", str(other.path), "--broker", f"127.0.0.1:{own.port}"]
    with own, bridging("mqtt", station, *told, "--memory", str(tmp_path / "m")) as bridge:
        station.say(3)
        bridge.end()

    assert not (tmp_path / "m").exists()
    assert not any("broker connected" in line for line in bridge.lines)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["--broker", "10.0.0.1"], "--tls"),
        (["--broker", "broker.example:1883"], "--tls"),
        (["--broker", "127.0.0.1:0"], "port"),
        (["--prefix", "a/#"], "--prefix"),
        (["--ca", "x"], "--tls"),
        (["--password-file", "/nowhere"], "password"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(
    told: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bridge", "mqtt", *told]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("held", ["", "7", "{}", '{"station_seq": -1}', '{"station_seq": true}'])
def test_a_memory_that_is_none_stops_the_bridge_before_it_loses_anything(
    tmp_path: Path, held: str, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = tmp_path / "memory.json"
    memory.write_text(held)
    told = ["--broker", f"127.0.0.1:{free_port()}", "--memory", str(memory)]

    assert main(["bridge", "mqtt", *told]) == 1
    assert str(memory) in capsys.readouterr().err
    assert memory.read_text() == held

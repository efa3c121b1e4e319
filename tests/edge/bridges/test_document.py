"""docs/bridges.md: its tables are the code's, and its examples run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.bridges import latest, mqtt, opcua
from edge.bridges.serving import NAMESPACE
from inspection.verdicts import Verdict
from tests.edge.bridges.mosquitto import Mosquitto, free_port
from tests.edge.bridges.processes import bridging
from tests.edge.published_station import FakeStation

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "bridges.md").read_text("utf-8")


@pytest.fixture
def station() -> Iterator[FakeStation]:
    with FakeStation() as started:
        yield started


def example(heading: str) -> str:
    below = DOCUMENT.split(f"\n{heading}\n", 1)[1]
    return below.split("```python\n", 1)[1].split("```", 1)[0]


def names_below(heading: str) -> list[str]:
    below = DOCUMENT.split(f"\n{heading}\n", 1)[1].split("\n#", 1)[0]
    rows = [line for line in below.splitlines() if line.startswith("| `")]
    return [row.split("`")[1] for row in rows]


def test_the_tables_of_variables_are_those_of_the_server() -> None:
    assert names_below("### Variables of the station") == list(opcua._STATION)
    assert names_below("### Variables of a camera") == list(opcua._CAMERA)
    for name, (_, kind) in opcua._STATION.items():
        assert f"| `{name}` | {kind.name} |" in DOCUMENT
    for name, kind in opcua._CAMERA.items():
        assert f"| `{name}` | {kind.name} |" in DOCUMENT


def test_the_figures_of_the_document_are_those_of_the_code() -> None:
    assert f"{mqtt.WINDOW} verdicts in memory" in DOCUMENT
    assert f"{latest.MOST_CAMERAS} cameras" in DOCUMENT
    assert mqtt.SILENCE_S == latest.SILENCE_S == 3
    assert f"`{NAMESPACE}`" in DOCUMENT


def test_the_reader_of_mqtt_hears_verdicts_and_the_station(
    station: FakeStation, tmp_path: Path
) -> None:
    code = example("### A reader of MQTT in Python")
    with Mosquitto(tmp_path) as broker:
        code = code.replace('"127.0.0.1", 1883', f'"127.0.0.1", {broker.port}')
        told = ["--broker", f"127.0.0.1:{broker.port}", "--prefix", "line1", "--after", "0"]
        with (
            bridging("mqtt", station, *told, "--memory", str(tmp_path / "memory.json")),
            subprocess.Popen(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
            ) as reader,
        ):
            assert reader.stdout is not None
            try:
                station.say(camera="left", verdict=Verdict.FAIL)
                missing = {"1 left FAIL", "station running"}
                for line in reader.stdout:
                    missing.discard(line.strip())
                    if not missing:
                        break
            finally:
                reader.terminate()

    assert missing == set()


@pytest.mark.parametrize(
    ("word", "said"), [(Verdict.PASS, "go on"), (Verdict.FAIL, "hold")], ids=["pass", "fail"]
)
def test_the_client_of_opc_ua_tells_good_parts_from_others(
    station: FakeStation, word: Verdict, said: str
) -> None:
    endpoint = f"opc.tcp://127.0.0.1:{free_port()}"
    code = example("### A client of OPC UA in Python")
    station.say(camera="left", verdict=word)
    with bridging("opcua", station, "--endpoint", endpoint) as bridge:
        bridge.says("station heard")

        done = subprocess.run(
            [sys.executable, "-c", code.replace("opc.tcp://127.0.0.1:4840", endpoint)],
            capture_output=True,
            text=True,
            check=True,
        )

    assert done.stdout.strip() == said

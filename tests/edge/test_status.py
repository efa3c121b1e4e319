"""What is abnormal, when the station is ready, and when only a restart helps."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from edge import sources as sources_module
from edge.health import Health
from edge.sources import LatestSwap, LedgerState, StatusSources, look
from edge.status import STUCK_S, alarms, document, why_not_live, why_not_ready
from inspection.verdicts import Reason, Verdict
from tests.edge.stations import StandInStation

PLENTY = shutil._ntuple_diskusage(1 << 40, 1 << 39, 1 << 39)  # type: ignore[attr-defined]


@pytest.fixture
def station(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInStation:
    monkeypatch.setattr(sources_module.shutil, "disk_usage", lambda _: PLENTY)
    return StandInStation(tmp_path)


def names(sources: StatusSources) -> list[tuple[str, str]]:
    return [(each.level, each.name) for each in alarms(look(sources), sources)]


def test_a_station_that_runs_has_no_alarm(station: StandInStation) -> None:
    station.run_a_while()

    assert names(station.sources) == []
    assert why_not_ready(look(station.sources)) is None


def test_a_station_that_starts_is_not_ready_and_that_is_no_alarm(station: StandInStation) -> None:
    station.model = None

    assert why_not_ready(look(station.sources)) == "the model is not loaded yet"
    assert names(station.sources) == []
    assert document(station.sources, "1")["state"] == "starting"


def test_a_station_that_stops_is_not_ready_and_that_is_no_alarm(station: StandInStation) -> None:
    station.stopping = True

    assert why_not_ready(look(station.sources)) == "the station is stopping"
    assert names(station.sources) == []
    assert document(station.sources, "1")["state"] == "stopping"


def test_a_ledger_that_cannot_record_is_an_alarm(station: StandInStation) -> None:
    station.ledger = LedgerState(3, "00", (), failure="disk I/O error")

    assert "disk I/O error" in str(why_not_ready(look(station.sources)))
    assert names(station.sources) == [("alarm", "not ready")]


@pytest.mark.parametrize(
    ("free", "expected", "ready"),
    [
        (3 << 30, [], True),
        (1 << 30, [("warning", "disk")], True),
        (1 << 20, [("alarm", "not ready")], False),
    ],
)
def test_a_disk_that_fills_up_is_told_before_the_ledger_fails(
    free: int,
    expected: list[tuple[str, str]],
    ready: bool,
    station: StandInStation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = PLENTY._replace(free=free)
    monkeypatch.setattr(sources_module.shutil, "disk_usage", lambda _: usage)

    assert names(station.sources) == expected
    assert (why_not_ready(look(station.sources)) is None) is ready


def test_a_scorer_that_hangs_is_neither_live_nor_ready(station: StandInStation) -> None:
    now_s = 0.0
    health = Health(lambda: int(now_s * 1e9))
    sources = dataclasses.replace(station.sources, health=health)
    health.ask_scorer()

    now_s = STUCK_S
    assert why_not_live(look(sources)) is None
    now_s = STUCK_S + 1
    assert "the scorer has answered no frame for 31 s" in str(why_not_live(look(sources)))
    assert why_not_ready(look(sources)) == why_not_live(look(sources))
    assert names(sources) == [("alarm", "stuck")]


def test_insecure_is_an_alarm_that_names_the_addresses(tmp_path: Path) -> None:
    station = StandInStation(tmp_path, insecure=True, plain=("frames tcp://0.0.0.0:5555",))

    (found,) = (
        each for each in alarms(look(station.sources), station.sources) if each.name == "insecure"
    )
    assert "tcp://0.0.0.0:5555" in found.text
    assert found.level == "alarm"


def test_many_unknown_a_dead_gpu_a_failed_test_and_a_rollback_are_told(
    station: StandInStation,
) -> None:
    station.run_a_while(unknown=5)
    station.health.count("gpu_deaths")
    station.health.count("self_test_failures")
    station.swap = LatestSwap("rolled_back", "77aa" * 16, "golden frame 0")
    station.labels["failed"] = 1

    assert names(station.sources) == [
        ("alarm", "unknown"),
        ("alarm", "self-test"),
        ("warning", "GPU failed"),
        ("warning", "swap rolled back"),
        ("warning", "label queue"),
    ]


def test_the_document_adds_up_and_is_json_even_where_a_score_is_not_a_number(
    station: StandInStation,
) -> None:
    station.run_a_while()
    station.health.count("received", 2)
    station.record(Verdict.REVIEW, reason=Reason.SCORE_NOT_A_NUMBER, score=float("nan"))

    said = json.loads(json.dumps(document(station.sources, "1"), allow_nan=False))

    frames = said["frames"]
    assert frames.pop("received") == sum(frames.values()) == 403
    assert sum(said["verdicts"].values()) == frames["recorded"]
    assert sum(said["unknown"].values()) == said["verdicts"]["UNKNOWN"]
    assert said["latest"][0]["score"] is None
    assert said["state"] == "running"


def test_the_size_of_the_ledger_is_that_of_the_files_that_are_there(
    station: StandInStation, tmp_path: Path
) -> None:
    (tmp_path / "ledger").write_bytes(b"x" * 100)
    files = (tmp_path / "ledger", tmp_path / "ledger-wal")
    station.ledger = LedgerState(1, "00", files)

    assert document(station.sources, "1")["ledger"]["bytes"] == 100

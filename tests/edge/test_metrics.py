"""What Prometheus is given: parsed by its own library, within bounds, in base units."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from edge.health import MOST_CAMERAS
from edge.latencies import BOUNDS_S
from edge.metrics import metrics_text
from edge.sources import LatestSwap, LedgerState
from inspection.verdicts import Reason, Verdict
from tests.edge.stations import StandInStation


def parsed(station: StandInStation) -> dict[str, Metric]:
    text = metrics_text(station.sources, "0.1.0").decode()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    return {family.name: family for family in families}


def values(family: Metric) -> dict[str, float]:
    """By the one label that a family has."""
    return {"".join(sample.labels.values()): sample.value for sample in family.samples}


@pytest.fixture
def station(tmp_path: Path) -> StandInStation:
    station = StandInStation(tmp_path, insecure=True, plain=("frames tcp://0.0.0.0:5555",))
    station.run_a_while(unknown=2)
    station.ledger = LedgerState(412, "9c", ())
    return station


def test_the_parser_of_prometheus_reads_back_what_was_counted(station: StandInStation) -> None:
    found = parsed(station)

    assert values(found["dualbank_received"])[""] == 400
    recorded = values(found["dualbank_recorded"])
    assert set(recorded) == {verdict.value for verdict in Verdict}
    assert sum(recorded.values()) == 400
    assert values(found["dualbank_unknown"])["deadline_passed"] == recorded["UNKNOWN"]
    assert values(found["dualbank_ledger_entries"])[""] == 412
    assert values(found["dualbank_insecure"])[""] == 1
    assert values(found["dualbank_plain_address"]) == {"frames tcp://0.0.0.0:5555": 1}


def test_names_follow_the_conventions_of_prometheus(station: StandInStation) -> None:
    for family in parsed(station).values():
        assert re.fullmatch("dualbank_[a-z_]+", family.name)
        assert family.documentation
        assert not re.search("_(ms|milliseconds|kib|mib|percent)$", family.name)
        names = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert names <= {f"{family.name}_total", f"{family.name}_created"}
        if "seconds" in family.name or "bytes" in family.name:
            assert re.search("_(seconds|bytes)$", family.name)


def test_a_histogram_of_every_stage_ends_in_infinity_and_never_falls(
    station: StandInStation,
) -> None:
    family = parsed(station)["dualbank_latency_seconds"]

    buckets = [s for s in family.samples if s.name.endswith("_bucket")]
    total = [s for s in buckets if s.labels["stage"] == "total"]
    assert [float(s.labels["le"]) for s in total] == [*BOUNDS_S, float("inf")]
    assert [s.value for s in total] == sorted(s.value for s in total)
    assert total[-1].value == 400
    (sum_s,) = (
        s.value for s in family.samples if s.name.endswith("_sum") and s.labels["stage"] == "total"
    )
    assert sum_s == pytest.approx(400 * 0.0375, rel=0.1)


def test_every_reason_has_a_series_before_it_first_occurs(tmp_path: Path) -> None:
    quiet = parsed(StandInStation(tmp_path))

    assert values(quiet["dualbank_unknown"]) == {reason.value: 0 for reason in Reason}


def test_a_thousand_invented_cameras_do_not_become_a_thousand_series(tmp_path: Path) -> None:
    station = StandInStation(tmp_path)
    for n in range(1000):
        station.record(camera=f'"\\\n{n}')

    found = parsed(station)

    frames = values(found["dualbank_camera_frames"])
    assert len(frames) == MOST_CAMERAS + 1
    assert sum(frames.values()) == 1000
    assert frames['"\\\n0'] == 1


def test_the_step_of_a_swap_is_one_of_all(station: StandInStation) -> None:
    station.swap = LatestSwap("rolled_back", "77aa", "x")

    steps = values(parsed(station)["dualbank_swap_step"])

    assert steps.pop("rolled_back") == 1
    assert set(steps.values()) == {0}


def test_nothing_is_registered_beyond_the_scrape(station: StandInStation) -> None:
    parsed(station)

    assert not [f.name for f in REGISTRY.collect() if f.name.startswith("dualbank")]


def test_the_process_says_what_it_holds(station: StandInStation) -> None:
    found = parsed(station)

    assert values(found["dualbank_process_resident_memory_bytes"])[""] > 1 << 20
    assert values(found["dualbank_process_open_fds"])[""] >= 3
    assert values(found["dualbank_process_threads"])[""] >= 1
    assert values(found["dualbank_process_cpu_seconds"])[""] > 0

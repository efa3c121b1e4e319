"""A bundle with an engine, on a station with a GPU: proven, run, and refused when it is wrong.

The driver is emulated, and so is the library that would run the engine: it runs the bundle's trunk.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from edge import standby
from edge.bundle_folder import open_bundle
from edge.check import warm_up
from edge.cli import DONE, GATE, main
from edge.device import open_device
from edge.onnx_scorer import OnnxScorer
from edge.settings import StationSettings
from inspection.bundle import TRUNK
from inspection.engines import EngineKey
from inspection.errors import BundleError, DeviceError, ParityError
from tests.bundles import bad_frame, good_frame, replace_file, write_tiny_bundle
from tests.edge.ledgers import messages_in
from tests.edge.open_station import open_station
from tests.gpu.emulated_trunk import EmulatedTrunk, memory_of
from tests.line.free_addresses import FREE_ADDRESSES
from tests.line.push_camera import PushCamera

VERSION = "10.3.0"


@pytest.fixture
def folder(tmp_path):
    """A bundle with engines for the emulated chip and for another one."""
    folder = write_tiny_bundle(tmp_path / "bundle")
    onnx = open_bundle(folder).manifest.files[TRUNK].sha256[:12]
    for capability in ((8, 6), (8, 7)):
        key = EngineKey("fp16", onnx, "tensorrt", VERSION, capability)
        replace_file(folder, key.name, b"an engine")
    return folder


@pytest.fixture
def machine(driver, kernels_folder, folder, monkeypatch):
    """TensorRT and a GPU, both emulated; `spoil` makes every feature wrong by so much."""
    found = SimpleNamespace(spoil=0.0, opened=[])

    @contextmanager
    def open_engine(name, engine, library):
        assert (engine, library.__version__) == (b"an engine", VERSION)
        found.opened.append(name)
        trunk = EmulatedTrunk(driver, open_bundle(folder))
        run = trunk.run

        def spoiled(frames, features):
            run(frames, features)
            memory_of(features)[...] += np.float32(found.spoil)

        trunk.run = spoiled
        yield trunk

    monkeypatch.setattr(standby, "open_engine", open_engine)
    monkeypatch.setattr(
        standby, "installed", lambda: {"tensorrt": SimpleNamespace(__version__=VERSION)}
    )
    monkeypatch.setattr(
        standby, "open_device", lambda ordinal: open_device(ordinal, kernels_folder)
    )
    return found


def checked(folder, capsys, code):
    assert main(["check", "--bundle", str(folder), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_check_proves_every_engine_that_can_run_here(folder, machine, capsys):
    report = checked(folder, capsys, DONE)

    cpu, here, elsewhere = report["runtimes"]
    assert report["holds"]
    assert (cpu["runtime"], cpu["device"], cpu["precision"]) == ("full.onnx", "CPU", "fp32")
    assert here["device"].endswith("on emulated sm_86")
    for each in (cpu, here):
        assert each["ran"]
        assert each["holds"]
        assert each["flips"] == 0
        assert each["score_error"] < 1e-4
        assert each["latency_ms"] > 0
    assert not elsewhere["ran"]
    assert "compute capability 8.6" in elsewhere["why"]
    assert elsewhere["latency_ms"] is elsewhere["score_error"] is None
    assert len(report["frames"]) == 6


def test_check_prints_the_same_for_people(folder, machine, capsys):
    assert main(["check", "--bundle", str(folder)]) == DONE

    printed = capsys.readouterr().out
    assert "emulated sm_86" in printed
    assert "every golden frame holds" in printed


def test_an_engine_with_other_answers_does_not_hold(folder, machine, capsys):
    machine.spoil = 0.05

    report = checked(folder, capsys, GATE)

    cpu, here, _ = report["runtimes"]
    assert cpu["holds"]
    assert here["ran"]
    assert not here["holds"]
    assert not report["holds"]


@pytest.mark.parametrize("asked", ["auto", "gpu"])
def test_a_station_runs_the_engine_for_its_chip(folder, machine, tmp_path, asked):
    settings = StationSettings(**FREE_ADDRESSES, state_dir=tmp_path / "state", scorer=asked)
    bundle = open_bundle(folder)
    with (
        open_station(settings, standby.open_scorer(settings, bundle, warm_up)) as station,
        station.running(),
        PushCamera(station.addresses["frames"]) as camera,
    ):
        assert "emulated sm_86" in station.scorer.name
        camera.send(good_frame("bolt"), product="bolt")
        camera.send(bad_frame("nut", 1, 50), product="nut")
        camera.send(good_frame("nut"))
    station.check()

    recorded = sorted(messages_in(tmp_path / "state"), key=lambda said: said.seq)
    rows = [(each.verdict.value, each.bundle) for each in recorded]
    assert rows == [("PASS", bundle.id), ("FAIL", bundle.id), ("PASS", bundle.id)]
    assert [name.endswith("sm86.engine") for name in machine.opened] == [True]


def test_an_engine_with_other_answers_never_scores_a_part(folder, machine, caplog):
    machine.spoil = 0.05
    bundle = open_bundle(folder)

    with standby.open_scorer(StationSettings(scorer="auto"), bundle, warm_up) as scorer:
        assert scorer.name == OnnxScorer.name
    assert "no GPU scores" in caplog.messages
    with (
        pytest.raises(ParityError, match="golden frame"),
        standby.open_scorer(StationSettings(scorer="gpu"), bundle, warm_up),
    ):
        pytest.fail("opened")


def test_a_gpu_that_is_not_there_is_refused_by_number(folder, machine):
    settings = StationSettings(scorer="gpu", gpu=3)

    with (
        pytest.raises(DeviceError, match="there is no GPU 3"),
        standby.open_scorer(settings, open_bundle(folder), warm_up),
    ):
        pytest.fail("opened")


def test_a_bundle_that_the_gpu_cannot_run_is_scored_on_the_cpu(folder, machine, caplog):
    """K = 20: the kernels find 16 neighbours at most."""
    bundle = open_bundle(folder)
    scoring = bundle.manifest.scoring.model_copy(update={"k": 20})
    asks_more = replace(bundle, manifest=bundle.manifest.model_copy(update={"scoring": scoring}))

    with standby.open_scorer(StationSettings(scorer="auto"), asks_more, no_proof) as scorer:
        assert scorer.name == OnnxScorer.name
    assert "cannot run this bundle" in str(caplog.records[0].why)


def no_proof(bundle, scorer, tolerance):
    return None


def test_an_engine_that_is_damaged_is_never_loaded(folder, machine):
    bundle = open_bundle(folder)
    (name,) = [name for name in bundle.manifest.files if name.endswith("sm86.engine")]
    (folder / bundle.manifest.files[name].path).write_bytes(b"an enginE")

    with (
        pytest.raises(BundleError, match=r"sm86\.engine is damaged"),
        standby.open_scorer(StationSettings(scorer="auto"), bundle, warm_up),
    ):
        pytest.fail("opened")
    assert not machine.opened

"""What `make gpu` asks of the whole pipeline, asked of the emulated GPU; wrong maps do not pass."""

from __future__ import annotations

import pytest

from benchmarks import gpu_pipeline
from benchmarks.made_up_bundle import made_up_bundle
from tests.bundles import TRUNK_TEXT, graph_bytes
from tests.gpu.emulated_trunk import EmulatedTrunk


@pytest.fixture
def trunk(driver):
    """Mean colours of 16 patches: D = 3."""
    bundle = made_up_bundle(32, 3, 4, 64, "part")
    return EmulatedTrunk(driver, bundle, graph=graph_bytes(TRUNK_TEXT))


def test_maps_agree_with_float64(device, trunk):
    found = gpu_pipeline.held_to_float64(device, trunk, rows=64, k=4)

    assert [each["pipeline"] for each in found] == ["one by one", "four at once"]
    assert all(each["right"] for each in found), found


def test_maps_that_are_a_hundredth_off_are_seen(device, trunk, monkeypatch):
    true = gpu_pipeline.patch_scores
    monkeypatch.setattr(gpu_pipeline, "patch_scores", lambda *a, **k: 1.01 * true(*a, **k))

    found = gpu_pipeline.held_to_float64(device, trunk, rows=64, k=4)

    assert not any(each["right"] for each in found)


def test_every_figure_is_measured(device, trunk, monkeypatch):
    """Under the emulator they say nothing of a GPU, but that they can be taken."""
    monkeypatch.setattr(gpu_pipeline, "FRAMES", 8)
    monkeypatch.setattr(gpu_pipeline, "LATENCIES", 16)
    monkeypatch.setattr(gpu_pipeline, "TIMES", 3)
    bundle = made_up_bundle(32, 3, 4, 64, "part")

    figures = gpu_pipeline.measured(device, trunk, 2, bundle)

    assert set(figures["frames_per_s"]) >= {"one slot", "two slots", "two slots, four at once"}
    assert set(figures["stages_ms"]) == {"upload", "trunk", "scan", "heads"}
    assert all(value > 0 for value in figures["frames_per_s"].values())
    assert figures["latency_ms"]["p99"] >= figures["latency_ms"]["p50"] > 0

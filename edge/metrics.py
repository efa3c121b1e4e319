"""The station's numbers for Prometheus: base units, bounded labels, no registry of the process.

What they mean and which alarms stand on them: `docs/runbook.md`, `deploy/monitoring/`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edge.health import EVENTS, Snapshot
from edge.latencies import BOUNDS_S
from edge.sources import SWAP_STEPS, Look, StatusSources, look
from edge.status import why_not_live, why_not_ready
from inspection.verdicts import Reason

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PREFIX = "dualbank_"


class StationMetrics(Collector):
    """What prometheus_client asks for at every scrape."""

    def __init__(self, sources: StatusSources, version: str) -> None:
        self._sources = sources
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Give every family; labels come from fixed vocabularies, cameras from `Health`'s 64."""
        found = look(self._sources)
        yield from _frames(found.counted)
        yield from _latencies(found.counted)
        yield from _cameras(found.counted)
        yield from _storage(found)
        yield from _model(found, self._version)
        yield from _security(self._sources)
        yield from _process()


def metrics_text(sources: StatusSources, version: str) -> bytes:
    """Write every metric in the text format, as `CONTENT_TYPE` says."""
    return generate_latest(StationMetrics(sources, version))


def _frames(now: Snapshot) -> Iterator[Metric]:
    counts = now.counts
    yield _counter("received", "Messages that came in at the doors for frames", counts["received"])
    yield _counter("malformed", "… that no frame could be named from", counts["malformed"])
    yield _counter("redelivered", "… of a frame that had its verdict", counts["redelivered"])
    yield _counter("published", "Verdicts published", counts["published"])
    yield _counters(
        "recorded",
        "Verdicts in the ledger",
        "verdict",
        {verdict.value: n for verdict, n in now.verdicts.items()},
    )
    yield _counters(
        "unknown",
        "Verdicts UNKNOWN",
        "reason",
        {reason.value: now.unknown.get(reason, 0) for reason in Reason},
    )
    yield _counters(
        "transport_frames",
        "Frames by door",
        "transport",
        now.transports,
    )
    yield _gauge("frames_under_way", "Received, and not yet at an end", now.under_way)
    stalled = _family("stalled_seconds", "How long work waits of which none has ended", "what")
    stalled.add_metric(["scoring"], now.scoring_stalled_s)
    stalled.add_metric(["recording"], now.recording_stalled_s)
    yield stalled
    if now.scored_ns is not None:
        age_s = (now.now_ns - now.scored_ns) / 1e9
        yield _gauge("since_scored_seconds", "Since a frame was given a score", age_s)
    yield _counters(
        "peers",
        "Peers of any socket",
        "event",
        {"connected": counts["connected"], "disconnected": counts["disconnected"]},
    )
    yield _counters(
        "events",
        "Whatever else has occurred, refused peers among it",
        "event",
        {name: n for name, n in counts.items() if name not in EVENTS},
    )
    yield _counter("gpu_deaths", "Times that a GPU failed", counts["gpu_deaths"])
    yield _counter("self_tests", "Golden frames scored in quiet hours", counts["self_tests"])
    failures = counts["self_test_failures"]
    yield _counter("self_test_failures", "… whose answer was not what it must be", failures)


def _latencies(now: Snapshot) -> Iterator[Metric]:
    family = HistogramMetricFamily(
        f"{_PREFIX}latency_seconds",
        "Time of frames in a stage; total: from receipt into the ledger",
        labels=["stage"],
    )
    for stage, times in now.stages.items():
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        family.add_metric(
            [stage], list(zip(bounds, map(float, times.up_to), strict=True)), times.sum_s
        )
    yield family


def _cameras(now: Snapshot) -> Iterator[Metric]:
    frames = CounterMetricFamily(
        f"{_PREFIX}camera_frames", "Frames received of a camera", labels=["camera"]
    )
    verdicts = CounterMetricFamily(
        f"{_PREFIX}camera_recorded", "Verdicts recorded of a camera", labels=["camera", "verdict"]
    )
    seen = _family("camera_since_seen_seconds", "Since the latest frame of a camera", "camera")
    for name, counted in now.cameras.items():
        frames.add_metric([name], counted.frames)
        seen.add_metric([name], (now.now_ns - counted.seen_ns) / 1e9)
        for verdict in now.verdicts:
            verdicts.add_metric([name, verdict.value], counted.verdicts[verdict])
    yield from (frames, verdicts, seen)


def _storage(found: Look) -> Iterator[Metric]:
    labels = found.labels
    entries = found.ledger.entries if found.ledger else 0
    yield _gauge("ledger_entries", "The highest station_seq in the ledger", entries)
    yield _gauge("ledger_bytes", "Size of the ledger's files", found.ledger_bytes)
    yield _gauge("disk_free_bytes", "Free where the ledger lives", found.disk_free_bytes)
    yield _gauge("disk_bytes", "Size of that disk", found.disk_bytes)
    yield _gauge("label_queue_items", "Flagged parts on disk", labels.get("items", 0))
    yield _gauge("label_queue_bytes", "… and their size", labels.get("bytes", 0))
    yield _counters(
        "label_queue",
        "Flagged parts by what became of them",
        "event",
        {
            event: labels.get(event, 0)
            for event in ("stored", "evicted", "overflowed", "disk_full", "failed")
        },
    )


def _model(found: Look, version: str) -> Iterator[Metric]:
    yield _gauge("live", "Whether no thread hangs", why_not_live(found) is None)
    yield _gauge("ready", "Whether frames are judged and recorded", why_not_ready(found) is None)
    model = found.model
    info = GaugeMetricFamily(
        f"{_PREFIX}model_info",
        "What judges",
        labels=["version", "bundle", "bank", "scorer"],
    )
    if model is not None:
        info.add_metric([version, model.bundle_id[:12], model.bank_id[:12], model.scorer], 1)
    yield info
    swap = found.swap
    steps = _family("swap_step", "Where the latest swap stands: one of them is 1", "step")
    for step in SWAP_STEPS:
        steps.add_metric([step], swap.step == step)
    yield steps
    yield _counter("swaps", "Bundles that took over", swap.swaps)
    yield _counter("swap_rollbacks", "… and were rolled back", swap.rollbacks)


def _security(sources: StatusSources) -> Iterator[Metric]:
    yield _gauge("insecure", "Whether plain text to other machines is allowed", sources.insecure)
    plain = _family("plain_address", "Addresses that others reach in plain text", "address")
    for address in sources.plain:
        plain.add_metric([address], 1)
    yield plain


def _process() -> Iterator[Metric]:
    """Ask the kernel; prometheus_client's own collector needs /proc/stat, which a sandbox hides."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE")
    yield _gauge("process_resident_memory_bytes", "Memory that the station holds", resident)
    # One of them is what the folder is read with.
    files = len(os.listdir("/proc/self/fd")) - 1
    yield _gauge("process_open_fds", "Open file descriptors", files)
    yield _gauge("process_threads", "Threads", len(os.listdir("/proc/self/task")))
    yield _counter("process_cpu_seconds", "Processor time of all threads", time.process_time())


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, text, value=float(value))


def _family(name: str, text: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, text, labels=[label])


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family

"""Counts a ledger: what was said, of whom, how fast, how late. Memory does not grow with rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edge.ledger_reader import Row

MOST_NAMES = 1000
"""So many cameras, products and bundles are told apart; the rest is counted together."""

OTHERS = "(others)"
NOT_NAMED = "(none)"

_STEP = 1.01
_HOUR_NS = 3600 * 10**9


class Durations:
    """Percentiles of any number of durations, to 1 %, in buckets that grow by 1 %."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._count = 0
        self.highest_ms = 0.0

    def add(self, duration_ms: float) -> None:
        """Count one; less than a microsecond is a microsecond."""
        self._buckets[math.ceil(math.log(max(duration_ms, 1e-3), _STEP))] += 1
        self._count += 1
        self.highest_ms = max(self.highest_ms, duration_ms)

    def percentile(self, share: float) -> float:
        """Give what `share` of the durations do not exceed, ms; NaN if there are none."""
        rank, passed = math.ceil(share * self._count), 0
        for bucket in sorted(self._buckets):
            passed += self._buckets[bucket]
            if passed >= max(rank, 1):
                return min(_STEP**bucket, self.highest_ms)
        return math.nan


@dataclass(slots=True)
class Stats:
    """What has been counted so far.

    Attributes:
        verdicts: By verdict.
        reasons: By reason; PASS has none.
        cameras: By camera, then verdict.
        products: By product, then verdict.
        bundles: By id of the bundle, then verdict.
        transports: By how the frames came.
        latency: By stage.
        first_unix_ns: Earliest time of receipt; None of nothing.
        last_unix_ns: Latest.
        hours: Verdicts by hour since 1970.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    cameras: dict[str, Counter[str]] = field(default_factory=dict)
    products: dict[str, Counter[str]] = field(default_factory=dict)
    bundles: dict[str, Counter[str]] = field(default_factory=dict)
    transports: Counter[str] = field(default_factory=Counter)
    latency: dict[str, Durations] = field(default_factory=dict)
    first_unix_ns: int | None = None
    last_unix_ns: int | None = None
    hours: Counter[int] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """How many verdicts."""
        return self.verdicts.total()

    @property
    def per_minute(self) -> float:
        """Mean over the time from the first to the last; NaN of fewer than two."""
        if self.first_unix_ns is None or self.last_unix_ns is None:
            return math.nan
        minutes = (self.last_unix_ns - self.first_unix_ns) / 60e9
        return (self.rows - 1) / minutes if minutes > 0 else math.nan

    @property
    def busiest_hour(self) -> tuple[int, int] | None:
        """When it began, unix ns, and how many verdicts it had; the first of equals."""
        if not self.hours:
            return None
        hour, count = min(self.hours.items(), key=lambda each: (-each[1], each[0]))
        return hour * _HOUR_NS, count

    def add(self, row: Row) -> None:
        """Count a row.

        Raises:
            StationError: It is damaged.
        """
        said, when = row.said(), row.received_unix_ns
        verdict = str(said.get("verdict"))
        self.verdicts[verdict] += 1
        if said.get("reason"):
            self.reasons[said["reason"]] += 1
        for names, name in (
            (self.cameras, said.get("camera")),
            (self.products, said.get("product")),
            (self.bundles, said.get("bundle")),
        ):
            _of(names, name or NOT_NAMED)[verdict] += 1
        self.transports[row.transport] += 1
        for stage, duration_ms in said.get("latency_ms", {}).items():
            self.latency.setdefault(stage, Durations()).add(duration_ms)
        self.first_unix_ns = when if self.first_unix_ns is None else min(self.first_unix_ns, when)
        self.last_unix_ns = when if self.last_unix_ns is None else max(self.last_unix_ns, when)
        self.hours[when // _HOUR_NS] += 1


def count(rows: Iterable[Row]) -> Stats:
    """Count rows.

    Raises:
        StationError: One is damaged, or the ledger.
    """
    stats = Stats()
    for row in rows:
        stats.add(row)
    return stats


def stats_as_json(stats: Stats) -> dict[str, Any]:
    """Write what was counted for programs; what there is none of is null."""
    busiest = stats.busiest_hour
    return {
        "rows": stats.rows,
        "first_unix_ns": stats.first_unix_ns,
        "last_unix_ns": stats.last_unix_ns,
        "per_minute": None if math.isnan(stats.per_minute) else round(stats.per_minute, 3),
        "busiest_hour": busiest and {"began_unix_ns": busiest[0], "verdicts": busiest[1]},
        "verdicts": dict(stats.verdicts),
        "reasons": dict(stats.reasons),
        "transports": dict(stats.transports),
        "cameras": {name: dict(each) for name, each in stats.cameras.items()},
        "products": {name: dict(each) for name, each in stats.products.items()},
        "bundles": {name: dict(each) for name, each in stats.bundles.items()},
        "latency_ms": {
            stage: {
                **{f"p{share}": round(each.percentile(share / 100), 3) for share in (50, 95, 99)},
                "max": round(each.highest_ms, 3),
            }
            for stage, each in stats.latency.items()
        },
    }


def _of(names: dict[str, Counter[str]], name: str) -> Counter[str]:
    if name not in names and len(names) >= MOST_NAMES:
        name = OTHERS
    return names.setdefault(name, Counter())

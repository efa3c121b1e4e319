"""What a soak run says of a station: its minutes, what has changed, and whether the bar holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.swap import FEWEST, Sent

MINUTE_S = 60.0
MOST_GROWTH, MOST_SLOWER = 0.03, 1.2


@dataclass(frozen=True, slots=True)
class Look:
    """What the system says of the station's process.

    Attributes:
        at_s: When.
        rss_mib: Resident memory.
        descriptors: Open files and sockets; like threads the fewest of a few glances: a part's
            files in the label queue are open for a moment.
        threads: Of the process.
    """

    at_s: float
    rss_mib: float
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Minute:
    """Frames that came in one minute after the warm-up.

    Attributes:
        frames: How many.
        p50_ms: Camera → verdict.
        p99_ms: Likewise.
        quiet_frames: Those that came while other programs took less than a tenth of a core.
        quiet_p99_ms: Of these; None if they are few.
        others_cores: What other programs took, on average.
        rss_mib: Resident memory at the end.
        descriptors: At every look.
        threads: At every look.
    """

    frames: int
    p50_ms: float
    p99_ms: float
    quiet_frames: int
    quiet_p99_ms: float | None
    others_cores: float
    rss_mib: float
    descriptors: list[int]
    threads: list[int]


def minute_of(sent: Sent, looks: Sequence[Look], begin_s: float) -> Minute:
    end_s = begin_s + MINUTE_S
    all_sent, took_ms = dict(sent.sent_s), dict(sent.took_ms)  # both may grow meanwhile
    everyone = [
        took_ms[number]
        for number, at in all_sent.items()
        if begin_s <= at < end_s and number in took_ms
    ]
    quiet = Sent(all_sent, took_ms, others=list(sent.others)).between(begin_s, end_s)
    those = [look for look in looks if begin_s <= look.at_s <= end_s + 1.0]
    return Minute(
        len(everyone),
        _percentile(everyone, 50),
        _percentile(everyone, 99),
        len(quiet),
        _quiet_p99(quiet),
        round(_mean(cores for at, cores in sent.others if begin_s <= at < end_s), 2),
        those[-1].rss_mib,
        [look.descriptors for look in those],
        [look.threads for look in those],
    )


def changes(looks: Sequence[Look], told: Sequence[Minute]) -> dict[str, Any]:
    """Compare every look with the first, and the last minute with the first.

    Of descriptors and threads the fewest of each minute count: what stays open is a leak, and what
    a disk that is busy keeps open for a second is none.
    """
    first, last = told[0], told[-1]
    before = looks[0].rss_mib
    farthest = max((look.rss_mib - before for look in looks), key=abs)
    quiet = None
    if first.quiet_p99_ms is not None and last.quiet_p99_ms is not None:
        quiet = round(last.quiet_p99_ms / first.quiet_p99_ms, 3)
    return {
        "rss_change_percent": round(100 * farthest / before, 2),
        "descriptors": sorted({min(minute.descriptors) for minute in told}),
        "threads": sorted({min(minute.threads) for minute in told}),
        "p99_ratio": round(last.p99_ms / first.p99_ms, 3),
        "quiet_p99_ratio": quiet,
    }


def thirds(sent: Sent, begin_s: float, third_s: float) -> list[float | None]:
    """Give p99 of frames that had the machine to themselves, in each third of the run."""
    begins = [begin_s + number * third_s for number in range(3)]
    return [_quiet_p99(sent.between(each, each + third_s)) for each in begins]


def _quiet_p99(quiet: Sequence[float]) -> float | None:
    return _percentile(quiet, 99) if len(quiet) >= 5 * FEWEST else None


def bar(figures: dict[str, Any]) -> dict[str, bool]:
    """Say of each demand whether it holds."""
    return {
        "every frame has one verdict, heard and acknowledged": figures["sent"]
        == figures["heard"]
        == figures["acknowledged"]
        == figures["station"]["recorded"],
        "resident memory within 3 %": abs(figures["rss_change_percent"]) <= 100 * MOST_GROWTH,
        "file descriptors constant": len(figures["descriptors"]) == 1,
        "threads constant": len(figures["threads"]) == 1,
        "p99 of the last minute within 20 % of the first": figures["p99_ratio"] <= MOST_SLOWER,
    }


def _percentile(values: Sequence[float], q: float) -> float:
    return round(float(np.percentile(values, q)), 2)


def _mean(values: Iterator[float]) -> float:
    return float(np.mean(list(values) or [0.0]))

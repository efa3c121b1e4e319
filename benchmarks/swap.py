"""What a swap costs the frames that come meanwhile: latency before, during and after, in turn.

    python -m benchmarks.swap RUNNING SAME_TRUNK OTHER_TRUNK IMAGES [--product NAME] [--turns 4]

The station runs as its own process under a steady load; this one is camera, subscriber and
operator. Each turn swaps from RUNNING to one of the other two and back, with steady load before and
after, so that a machine whose speed drifts moves all of them. Frames that came while other programs
took more than a tenth of a core are left out of the latencies: a spell of them would be longer in
swaps, which take as long as the machine lets them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from bisect import bisect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.others import SAMPLE_S, watching_others
from benchmarks.recording import record
from benchmarks.station import Line, capacity, jpeg, open_line
from edge.control import ask_station, control_address
from edge.player import find_images
from examples.demo.line import start_station
from inspection.control_messages import AT_REST, ControlRequest, SwapState, Terms

LOAD = 0.6
STEADY_S = 10.0
TERMS = Terms(shadow_frames=100, shadow_s=60.0, probation_s=2.0, margin=1.0)
LOOK_S = 0.5
SETTLES_S = 3.0
MOST_OTHERS = 0.1
"""Cores that other programs may take."""

FEWEST = 20
"""Frames that a percentile is taken of."""

STEPS = {
    ("verifying", "loading", "proving"): "verify, load, prove",
    ("shadow",): "shadow",
    ("activating", "probation"): "activation, and 2 s after it",
}
SILENCE_MS = 20_000


@dataclass(slots=True)
class Sent:
    """When frames were sent, s, and how long their verdicts took, by `seq`."""

    sent_s: dict[int, float] = field(default_factory=dict)
    took_ms: dict[int, float] = field(default_factory=dict)
    bundles: dict[int, str] = field(default_factory=dict)
    unknown: int = 0
    others: list[tuple[float, float]] = field(default_factory=list)

    def between(self, begin_s: float, end_s: float) -> list[float]:
        """Latencies, ms, of frames that were sent in a time, and had the machine to themselves."""
        return [
            self.took_ms[seq]
            for seq, at in self.sent_s.items()
            if begin_s <= at < end_s and seq in self.took_ms and self.is_quiet(at)
        ]

    def is_quiet(self, at_s: float) -> bool:
        """Whether other programs took little of the cores around a time, and for a while before."""
        first = bisect(self.others, (at_s - SETTLES_S,))
        last = bisect(self.others, (at_s + SAMPLE_S,))
        return all(cores < MOST_OTHERS for _, cores in self.others[first : last + 1])


@dataclass(frozen=True, slots=True)
class Swap:
    """One swap: when it was asked for, when it was seen to have ended, and as what."""

    kind: str
    asked_s: float
    ended_s: float
    state: SwapState


def main() -> int:
    """Measure, print, record; 1 when a frame has no verdict or a swap did not succeed."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("running", "same_trunk", "other_trunk", "images"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--product")
    parser.add_argument(
        "--load", type=float, default=LOAD, help="share of the capacity [%(default)s]"
    )
    parser.add_argument("--turns", type=int, default=4)
    args = parser.parse_args()
    frames = [jpeg(image.path) for image in find_images([args.images])[:64]]
    with (
        tempfile.TemporaryDirectory() as state,
        start_station(args.running, Path(state), heatmaps=False) as station,
        open_line(station, args.product, frames) as line,
    ):
        rate_hz = args.load * capacity(line)["rate_hz"]
        address = control_address(Path(state))
        swaps: list[Swap] = []
        with load(line, rate_hz, station.process.pid) as sent:
            time.sleep(STEADY_S)
            for _ in range(args.turns):
                for kind, bundle in (
                    ("same trunk", args.same_trunk),
                    ("same trunk", args.running),
                    ("other trunk", args.other_trunk),
                    ("other trunk", args.running),
                ):
                    swaps.append(_swap(address, kind, bundle))
                    time.sleep(STEADY_S)
    account = station.account()
    figures = {
        "load": args.load,
        "rate_hz": round(rate_hz, 1),
        "turns": args.turns,
        "shadow_frames": TERMS.shadow_frames,
        "sent": len(sent.sent_s),
        "heard": len(sent.took_ms),
        "unknown": sent.unknown,
        "quiet_share": _two(sum(map(sent.is_quiet, sent.sent_s.values())) / len(sent.sent_s)),
        "swaps": len(swaps),
        "steps_of_swaps_s": _steps(swaps),
        **_figures(sent, swaps),
        "longest_gap_ms": round(_longest_gap_ms(sent), 1),
        "station": {key: account[key] for key in ("received", "recorded", "unknown")},
    }
    print(json.dumps(figures, indent=1))
    print(record("swap", figures))
    done = all(swap.state.step == "steady" for swap in swaps)
    return 0 if done and figures["sent"] == figures["heard"] else 1


@contextmanager
def load(line: Line, rate_hz: float, station: int) -> Iterator[Sent]:
    """Send at a steady rate and hear verdicts, in threads, until the end; then hear the last."""
    sent, ending, all_sent = Sent(), threading.Event(), threading.Event()

    def send() -> None:
        start, number = time.perf_counter(), 0
        while not ending.is_set():
            number += 1
            time.sleep(max(0.0, start + number / rate_hz - time.perf_counter()))
            seq = line.camera.sent
            sent.sent_s[seq] = time.perf_counter()
            line.send()

    def hear() -> None:
        while not all_sent.is_set() or len(sent.took_ms) < len(sent.sent_s):
            said = line.hear(SILENCE_MS if all_sent.is_set() else 500)
            if said is not None and said.seq in sent.sent_s:
                sent.took_ms[said.seq] = 1e3 * (time.perf_counter() - sent.sent_s[said.seq])
                sent.bundles[said.seq] = said.bundle
                sent.unknown += said.score is None
            elif said is None and all_sent.is_set():
                return

    sender, hearer = threading.Thread(target=send), threading.Thread(target=hear)
    with watching_others(sent.others, station):
        for thread in (sender, hearer):
            thread.start()
        try:
            yield sent
        finally:
            ending.set()
            sender.join()
            all_sent.set()
            hearer.join()


def _swap(address: str, kind: str, bundle: Path) -> Swap:
    asked_s = time.perf_counter()
    request = ControlRequest(ask="swap", bundle=str(bundle.resolve()), terms=TERMS)
    reply = ask_station(address, request, 10.0)
    if not reply.granted:
        raise SystemExit(reply.why)
    while reply.state.step not in AT_REST:
        time.sleep(LOOK_S)
        reply = ask_station(address, ControlRequest(ask="status"), 10.0)
    if reply.state.step != "steady":
        raise SystemExit(f"the swap ended as {reply.state.step}: {reply.state.why}")
    return Swap(kind, asked_s, time.perf_counter(), reply.state)


def _figures(sent: Sent, swaps: Sequence[Swap]) -> dict[str, Any]:
    """Latencies of frames that came in steady times, in swaps of each kind, and in their steps."""
    rows: dict[str, list[float]] = {"steady": []}
    for begin_s, end_s in _steady_times(sent, swaps):
        rows["steady"] += sent.between(begin_s, end_s)
    for swap in swaps:
        begin_s = swap.asked_s
        whole = sent.between(begin_s, begin_s + sum(swap.state.took_s.values()))
        rows.setdefault(f"swap, {swap.kind}", []).extend(whole)
        for steps, name in STEPS.items():
            end_s = begin_s + sum(swap.state.took_s[step] for step in steps)
            rows.setdefault(name, []).extend(sent.between(begin_s, end_s))
            begin_s = end_s
    steady = np.percentile(rows["steady"], [50, 99])
    figures = {}
    for name, values in rows.items():
        if len(values) < FEWEST:
            continue
        these = np.percentile(values, [50, 99])
        figures[name] = {
            "frames": len(values),
            "p50_ms": _two(these[0]),
            "p99_ms": _two(these[1]),
            "p50_ratio": _two(these[0] / steady[0]),
            "p99_ratio": _two(these[1] / steady[1]),
        }
    return {"latency": figures}


def _two(value: float) -> float:
    return round(float(value), 2)


def _steady_times(sent: Sent, swaps: Sequence[Swap]) -> list[tuple[float, float]]:
    begins = [min(sent.sent_s.values()), *(swap.ended_s for swap in swaps)]
    ends = [*(swap.asked_s for swap in swaps), max(sent.sent_s.values())]
    return list(zip(begins, ends, strict=True))


def _steps(swaps: Sequence[Swap]) -> dict[str, float]:
    """Median seconds of each step."""
    steps = {step: [swap.state.took_s[step] for swap in swaps] for step in swaps[0].state.took_s}
    return {step: round(float(np.median(seconds)), 3) for step, seconds in steps.items()}


def _longest_gap_ms(sent: Sent) -> float:
    """The longest time without a verdict, while frames came."""
    heard = sorted(sent.sent_s[seq] + took / 1e3 for seq, took in sent.took_ms.items())
    return 1e3 * float(np.diff(heard).max())


if __name__ == "__main__":
    sys.exit(main())

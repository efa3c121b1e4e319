"""What a station adds to a 1080p frame: the result of `benchmarks.overhead`."""

from __future__ import annotations

from typing import Any

STAGES = {
    "queue": "received, hashed, let in",
    "decode": "decoded, RGB (not counted)",
    "check": "frame checks",
    "prepare": "resized to the canvas",
    "wait": "handed to the scorer",
    "score": "trunk, scan, judged (not counted)",
    "finish": "handed to the ledger's thread",
    "outside": "camera, network, commit, acknowledgement",
}

KINDS = ("colour", "grey")


def section(result: dict[str, Any]) -> str:
    """Overhead by kind of frame and load, and by stage."""
    machine = result["machine"]
    sizes = " and ".join(f"{result[kind]['median_kb']} kB ({kind})" for kind in KINDS)
    hashed = " and ".join(f"{result[kind]['sha256_ms']} ms" for kind in KINDS)
    records = " and ".join(_both(_alone(result, kind)["record, of the station"]) for kind in KINDS)
    load = result["colour"]["steady"]["load"]
    lines = [
        f"Different 1080p JPEG frames of quality {result['quality']}, {sizes}, from a live camera with acknowledgements in another process on the same "
        f"{machine['cores']} cores ({machine['cpu']}), ONNX Runtime {machine['onnxruntime']} on all of them. Overhead is the time from before a frame is sent until "
        "its acknowledgement is there, without decoding and without scoring. Of the stage `score`, judging and finding regions take "
        f"{result['judging_ms']} ms and are added. `queue` includes SHA-256 of the frame, {hashed}; `outside` includes the commit to the ledger, {records} ms.",
        "",
        "| ms, p50 (p99) | overhead | bar | camera → acknowledgement |",
        "|---|--:|--:|--:|",
        *(
            f"| {kind}, {name} | {_overhead(row, result)} | < 3 | {_both(row['camera_to_acknowledgement_ms'])} |"
            for kind in KINDS
            for name, row in (
                ("one at a time", _alone(result, kind)),
                (f"at {load:.0%} of the capacity", result[kind]["steady"]),
            )
        ),
        "",
        f"| stage, one at a time, ms, p50 (p99) | {' | '.join(KINDS)} |",
        "|---|--:|--:|",
        *(
            f"| {stage}: {what} | "
            + " | ".join(_both(_alone(result, kind)["stages_ms"][stage]) for kind in KINDS)
            + " |"
            for stage, what in STAGES.items()
        ),
    ]
    return "\n".join(lines)


def _alone(result: dict[str, Any], kind: str) -> dict[str, Any]:
    row: dict[str, Any] = result[kind]["one at a time"]
    return row


def _overhead(row: dict[str, Any], result: dict[str, Any]) -> str:
    return _both({name: value + result["judging_ms"] for name, value in row["overhead_ms"].items()})


def _both(row: dict[str, float]) -> str:
    return f"{row['p50']:.2f} ({row['p99']:.2f})"

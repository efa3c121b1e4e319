"""What a station adds to its model: the result of `benchmarks.station`."""

from __future__ import annotations

from typing import Any


def section(result: dict[str, Any]) -> str:
    """Latency, capacity, accounting and memory."""
    latency, accounting = result["latency"], result["accounting"]
    memory, station = result["memory"], result["station"]
    machine = result["machine"]
    rows = [
        ("trunk + bank scan alone, ms, median", latency["model_alone_ms_p50"], ""),
        ("camera → verdict, ms, median", latency["camera_to_verdict_ms_p50"], ""),
        ("ratio of the two", latency["ratio_p50"], "< 1.5"),
        ("camera → verdict, ms, p99", latency["camera_to_verdict_ms_p99"], ""),
        ("capacity, frames a second", result["capacity"]["rate_hz"], ""),
        (f"frames sent at {accounting['load']:.0%} of it", accounting["sent"], "2,000"),
        ("verdicts for them", accounting["verdicts"], "2,000"),
        ("of them unaccounted for, twice", _two(accounting, "unaccounted", "twice"), "0, 0"),
        (
            "largest change of resident memory after frame 500, %",
            memory["largest_change_percent"],
            "≤ 5",
        ),
        (
            "whole run: sent, recorded, published",
            f"{station['sent']}, {station['recorded']}, {station['published']}",
            "equal",
        ),
    ]
    lines = [
        f"256 × 256 JPEG frames, 2,048 rows a product, {machine['cores']} cores ({machine['cpu']}), ONNX Runtime "
        f"{machine['onnxruntime']}. Camera and subscriber are another process on the same cores. Latency and the model alone are "
        "measured in turn, one frame at a time. Memory levels off once the windows of the percentiles are full (4,096 frames).",
        "",
        "| | figure | bar |",
        "|---|--:|--:|",
        *(f"| {name} | {value} | {bar} |" for name, value, bar in rows),
        "",
        "| stage, ms over the last 4,096 frames of the run | p50 | p99 |",
        "|---|--:|--:|",
        *(
            f"| {stage} | {row['p50']:.2f} | {row['p99']:.2f} |"
            for stage, row in station["latency_ms"].items()
        ),
    ]
    return "\n".join(lines)


def _two(row: dict[str, Any], first: str, second: str) -> str:
    return f"{row[first]}, {row[second]}"

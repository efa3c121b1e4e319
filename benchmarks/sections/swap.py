"""What a swap costs the frames that come meanwhile: the result of `benchmarks.swap`."""

from __future__ import annotations

from typing import Any


def section(result: dict[str, Any]) -> str:
    """Latency in steady times, in swaps of either kind, and in their steps."""
    machine, steps, latency = result["machine"], result["steps_of_swaps_s"], result["latency"]
    took = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in steps.items())
    lines = [
        f"{result['swaps']} swaps, each with {result['shadow_frames']} frames of shadow, under a load of {result['load']:.0%} of the capacity "
        f"({result['rate_hz']} frames a second), {machine['cores']} cores ({machine['cpu']}), ONNX Runtime {machine['onnxruntime']}. Camera → verdict; camera and "
        "subscriber are another process on the same cores. Ratios are to the steady times between swaps. The machine is shared: of all frames, "
        f"{result['quiet_share']:.0%} came while no other program took more than a tenth of a core, and only these are in the table. "
        f"Median time of a step: {took}.",
        "",
        "| frames that came in | frames | p50, ms | p99, ms | p50 ratio | p99 ratio | bar |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in latency.items():
        bar = "p99 < 2" if name.startswith("swap") else ""
        figures = ("frames", "p50_ms", "p99_ms", "p50_ratio", "p99_ratio")
        lines.append(f"| {name} | {' | '.join(str(row[each]) for each in figures)} | {bar} |")
    lines += [
        "",
        f"{result['sent']} frames sent, {result['heard']} verdicts heard, {result['unknown']} of them UNKNOWN. Longest time without a verdict: "
        f"{result['longest_gap_ms']} ms, with a frame every {1000 / result['rate_hz']:.0f} ms.",
    ]
    return "\n".join(lines)

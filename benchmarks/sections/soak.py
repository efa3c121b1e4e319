"""Half an hour under load: the result of `benchmarks.soak`."""

from __future__ import annotations

from typing import Any


def section(result: dict[str, Any]) -> str:
    """What was demanded and found, and every minute beside what other programs took."""
    machine, station = result["machine"], result["station"]
    thirds = ", ".join(_or_few(each) for each in result["quiet_p99_ms_by_third"])
    lines = [
        f"{result['cameras']} acknowledged cameras send 256 × 256 px for {result['minutes']} minutes after one of warm-up, so often that the scorer is busy for "
        f"{result['load']:.0%} of the time, whatever others leave it; {machine['cores']} cores ({machine['cpu']}), ONNX Runtime {machine['onnxruntime']}. Cameras, a "
        "follower and a subscriber that never reads are another process on the same cores; page and metrics are fetched every 10 s; the label queue evicts all "
        f"the time ({station['label_queue']['stored']:,} parts stored, {station['label_queue']['evicted']:,} evicted).",
        "",
        "| after the warm-up | figure | bar | holds |",
        "|---|--:|--:|---|",
        *(
            f"| {what} | {figure} | {bar} | {holds} |"
            for (what, figure, bar), holds in zip(_demands(result), _judged(result), strict=True)
        ),
        "",
        "The machine is shared, and what other programs take is missing here. p99 of the frames that came while they took less than a tenth of a core, by thirds "
        f"of the run: {thirds} ms (–: too few of them). The ratio of p99 is judged only if the first and the last minute had such frames. Descriptors are the fewest of each "
        "minute, a rule that was made after this run: one more was open for a moment at a few looks, as every look below shows. What a "
        "station remembers is bounded, and is filled before the warm-up by frames of a product that nobody knows: they are UNKNOWN.",
        "",
        "| minute | frames | p50, ms | p99, ms | p99 of quiet frames, ms | quiet frames | cores of others | resident, MiB | descriptors | threads |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        *(_row(number, row) for number, row in enumerate(result["by_minute"], start=1)),
    ]
    return "\n".join(lines)


def _judged(result: dict[str, Any]) -> list[str]:
    """Whether each demand holds; p99 means nothing beside programs that took the machine."""
    judged = ["yes" if holds else "no" for holds in result["bar"].values()]
    first, *_, last = result["by_minute"]
    if not (first["quiet_frames"] and last["quiet_frames"]):
        judged[-1] = "not judged"
    return judged


def _demands(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What, the figure and the bar, in the order of the result's `bar`."""
    counts = (
        *(result["sent"], result["station"]["recorded"]),
        *(result["heard"], result["acknowledged"], result["unknown"]),
    )
    return [
        (
            "sent, recorded, heard, acknowledged; of them UNKNOWN",
            "{:,}, {:,}, {:,}, {:,}; {}".format(*counts),
            "equal",
        ),
        ("largest change of resident memory, %", f"{result['rss_change_percent']:+}", "within 3"),
        ("file descriptors, fewest of each minute", _all(result["descriptors"]), "constant"),
        ("threads, likewise", _all(result["threads"]), "constant"),
        ("p99 of the last minute / of the first", str(result["p99_ratio"]), "≤ 1.2"),
    ]


def _row(number: int, row: dict[str, Any]) -> str:
    figures = (row["frames"], row["p50_ms"], row["p99_ms"], _or_few(row["quiet_p99_ms"]))
    rest = (row["quiet_frames"], row["others_cores"], row["rss_mib"])
    counts = (_all(sorted(set(row[each]))) for each in ("descriptors", "threads"))
    return f"| {number} | {' | '.join(map(str, (*figures, *rest, *counts)))} |"


def _all(values: list[int]) -> str:
    return ", ".join(map(str, values))


def _or_few(value: float | None) -> str:
    return "–" if value is None else str(value)

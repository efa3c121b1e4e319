"""A line on which everything is killed: the result of `tests.line.fault_run`."""

from __future__ import annotations

from typing import Any

_PROMISES = (
    ("lost", "triggers without a record"),
    ("recorded_twice", "triggers with two"),
    ("gaps_in_the_ledger", "numbers missing in the ledger"),
    ("wrong_pass", "bad or broken parts with PASS"),
    ("told_otherwise", "cameras told something else than was recorded"),
    ("follower_missed", "verdicts that the follower missed"),
    ("stalled_missed", "verdicts that the stalled subscriber could not rebuild"),
)


def section(result: dict[str, Any]) -> str:
    """What was done to the line, and what it cost."""
    faults, starts, machine = result["faults"], result["starts"], result["machine"]
    verdicts = ", ".join(f"{n:,} {verdict}" for verdict, n in sorted(result["verdicts"].items()))
    unknown = ", ".join(f"{n:,} {reason}" for reason, n in sorted(result["unknown"].items()))
    lines = [
        f"{result['frames']:,} triggers of four acknowledged cameras, at 80 % of what the station can do ({result['rate_hz']} a second, a small model, "
        f"{machine['cores']} cores), in {result['took_s']:.0f} s with all that broke: the station killed {faults['station']} times (SIGKILL), a camera "
        f"{faults['camera']} times, the disk filled to the last byte until the station had met it {faults['disk']} time, {faults['swap']} swaps of the bundle, a subscriber that never reads. "
        f"The station was started {starts['station']} times, cameras {starts['cameras']} times; {result['bundles']} bundles judged.",
        "",
        "| | found | bar |",
        "|---|--:|--:|",
        f"| triggers, recorded | {result['triggers']:,}, {result['recorded']:,} | equal |",
    ]
    lines += [f"| {text} | {result[key]:,} | 0 |" for key, text in _PROMISES]
    lines += [
        f"| chain of the ledger | {'holds' if result['ledger_holds'] else 'BROKEN'} | holds |",
        "",
        f"Recorded: {verdicts}. UNKNOWN: {unknown}; every fiftieth picture was cut short on purpose, every tenth part was bad.",
    ]
    return "\n".join(lines)

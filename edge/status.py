"""How the station is, in one document: what the page draws, and what probes ask for.

Pure: whom to ask is in `edge.sources`. Who serves it: `edge.http_server`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

from edge.health import Said
from edge.sources import Look, StatusSources, look
from inspection.verdicts import Verdict

STUCK_S = 30.0
"""A GPU that has not ended its work after 5 s counts as hanging (`edge.streams`), and the CPU takes
its place: what has answered nothing for so much longer is a thread that will not come back."""

FLOWING_S = 10.0
"""A station that has recorded nothing for so long is quiet."""

LEAST_FREE_BYTES = 64 << 20
"""With less the ledger is about to fail: the label queue leaves it that much and no more."""

LOW_FREE_BYTES = 2 << 30
"""Time to look after the disk."""

MANY_UNKNOWN = 5
"""So many UNKNOWN among the verdicts on the page are no accident."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something abnormal.

    Attributes:
        level: `alarm`: go there now. `warning`: look after it this shift.
        name: A word, as in docs/runbook.md.
        text: What is the matter.
    """

    level: Literal["alarm", "warning"]
    name: str
    text: str


def why_not_live(found: Look) -> str | None:
    """Say which thread hangs; None if none does. Only a restart helps."""
    for what, stalled_s in (
        ("the scorer", found.counted.scoring_stalled_s),
        ("the record", found.counted.recording_stalled_s),
    ):
        if stalled_s > STUCK_S:
            return f"{what} has answered no frame for {stalled_s:.0f} s while some wait"
    return None


def why_not_ready(found: Look) -> str | None:
    """Say why a frame that came now would have no verdict with a score; None if it would."""
    if found.stopping:
        return "the station is stopping"
    if found.model is None:
        return "the model is not loaded yet"
    if found.ledger is None:
        return "the ledger is not open yet"
    if found.ledger.failure is not None:
        return f"the ledger cannot record: {found.ledger.failure}"
    if not found.writable:
        return "the state_dir cannot be written to"
    if found.disk_free_bytes < LEAST_FREE_BYTES:
        return f"the disk has {found.disk_free_bytes >> 20} MiB left, too few for the ledger"
    return why_not_live(found)


def alarms(found: Look, sources: StatusSources) -> list[Alarm]:
    """List what is abnormal, the worst first; an empty list is what a station should have."""
    counts, swap, free = found.counted.counts, found.swap, found.disk_free_bytes
    latest = [said.message.verdict for said in found.counted.latest]
    listed: list[Alarm | None] = [
        _if(why_not_live(found), "alarm", "stuck"),
        _if(_unready(found), "alarm", "not ready"),
        _if(_insecurity(sources), "alarm", "insecure"),
        _if(
            latest.count(Verdict.UNKNOWN) >= MANY_UNKNOWN
            and f"{latest.count(Verdict.UNKNOWN)} of the last {len(latest)} verdicts are UNKNOWN",
            "alarm",
            "unknown",
        ),
        _if(
            (failed := counts["self_test_failures"])
            and f"{failed} golden frames had another answer than they must have",
            "alarm",
            "self-test",
        ),
        _if(
            (deaths := counts["gpu_deaths"])
            and f"{deaths} since the start; scoring now: {_scorer(found)}",
            "warning",
            "GPU failed",
        ),
        _if(
            swap.step == "rolled_back" and f"bundle {swap.bundle_id[:12]}: {swap.why}",
            "warning",
            "swap rolled back",
        ),
        _if(
            LEAST_FREE_BYTES <= free < LOW_FREE_BYTES
            and f"{free / (1 << 30):.1f} GiB left where the ledger lives",
            "warning",
            "disk",
        ),
        _if(
            (failed := found.labels.get("failed", 0))
            and f"{failed} flagged parts could not be stored",
            "warning",
            "label queue",
        ),
    ]
    return [alarm for alarm in listed if alarm is not None]


def document(sources: StatusSources, version: str) -> dict[str, Any]:
    """Write everything, ready for JSON; `docs/runbook.md` has the meaning of the words."""
    found = look(sources)
    now = found.counted
    return {
        "v": 1,
        "version": version,
        "station": sources.name,
        "unix_s": time.time(),
        "state": _state(found),
        "alarms": [
            {"level": each.level, "name": each.name, "text": each.text}
            for each in alarms(found, sources)
        ],
        "frames": {
            "received": now.counts["received"],
            "malformed": now.counts["malformed"],
            "redelivered": now.counts["redelivered"],
            "recorded": now.recorded,
            "under_way": now.under_way,
        },
        "verdicts": {verdict.value: n for verdict, n in now.verdicts.items()},
        "unknown": {reason.value: n for reason, n in sorted(now.unknown.items())},
        "latest": [_verdict(said) for said in reversed(now.latest)],
        "latency_ms": {stage: times.percentiles_ms() for stage, times in now.stages.items()},
        "cameras": [
            {
                "name": name,
                "frames": counts.frames,
                "unknown": counts.verdicts[Verdict.UNKNOWN],
                "seen_s": (now.now_ns - counts.seen_ns) / 1e9,
            }
            for name, counts in now.cameras.items()
        ],
        "transports": dict(now.transports),
        "peers": now.counts["connected"] - now.counts["disconnected"],
        "events": now.other_counts(),
        "model": found.model
        and {
            "bundle": found.model.bundle_id,
            "bank": found.model.bank_id,
            "scorer": found.model.scorer,
        },
        "swap": {
            "step": found.swap.step,
            "bundle": found.swap.bundle_id,
            "why": found.swap.why,
        },
        "ledger": {
            "entries": found.ledger.entries if found.ledger else 0,
            "head": found.ledger.head if found.ledger else None,
            "bytes": found.ledger_bytes,
        },
        "disk": {"free_bytes": found.disk_free_bytes, "bytes": found.disk_bytes},
        "labels": dict(found.labels),
        "insecure": sources.insecure,
        "plain": list(sources.plain),
    }


def _if(text: str | int | None, level: Literal["alarm", "warning"], name: str) -> Alarm | None:
    """Make an alarm of a text; what a condition leaves instead of one is none."""
    return Alarm(level, name, text) if isinstance(text, str) else None


def _unready(found: Look) -> str | None:
    """Starting and stopping are what they are, and stuck is said already."""
    if found.stopping or found.model is None or found.ledger is None or why_not_live(found):
        return None
    return why_not_ready(found)


def _state(found: Look) -> str:
    """One word for the top of the page."""
    if found.stopping:
        return "stopping"
    if found.model is None or found.ledger is None:
        return "starting"
    now = found.counted
    last_ns = max((counts.seen_ns for counts in now.cameras.values()), default=None)
    flows = last_ns is not None and now.now_ns - last_ns < FLOWING_S * 1e9
    return "running" if flows else "quiet"


def _insecurity(sources: StatusSources) -> str | None:
    if sources.plain:
        return f"other machines read and write in plain text at {', '.join(sources.plain)}"
    return "insecure = true: plain text is allowed to other machines" if sources.insecure else None


def _scorer(found: Look) -> str:
    return found.model.scorer if found.model else "nothing"


def _verdict(said: Said) -> dict[str, Any]:
    message = said.message
    score = message.score
    return {
        "station_seq": message.station_seq,
        "unix_s": said.received_unix_ns / 1e9,
        "camera": message.camera,
        "seq": message.seq,
        "part": message.part,
        "product": message.product,
        "verdict": message.verdict.value,
        "reason": message.reason.value if message.reason else None,
        "detail": message.detail,
        # JSON has no NaN; the reason says why there is no number.
        "score": score if score is not None and abs(score) < float("inf") else None,
        "total_ms": message.latency_ms.get("total"),
    }

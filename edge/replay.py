"""Same entry, same bundle, same verdict: scores recorded frames again, on the CPU, and compares.

What rested on the moment and not on the image, a deadline say, is told as such: nobody can ask it
again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from edge.admission import Origin
from edge.decode import decode
from edge.frame_archive import ARRAY, find_frames, read_pixels
from edge.health import Stopwatch
from edge.judging import judge_frame
from edge.label_queue import FOLDER, FRAME
from edge.ledger_reader import Recorded
from edge.ledger_table import said_in
from edge.onnx_scorer import OnnxScorer
from edge.outcome import Arrival, NoScoreError, Receipt, message_of, unknown
from edge.scorer import PreparedFrame, Scored, named_route
from edge.settings import MOST_BYTES
from inspection.bundle import Bundle
from inspection.errors import ImageError, InputError, StationError
from inspection.frame_checks import check, measure
from inspection.golden import EXACT, Tolerance
from inspection.messages import Frame, FrameHeader, RegionEntry, VerdictMessage
from inspection.verdicts import Reason, Verdict
from inspection.wire import FrameName, MessageError, first_of

OF_THE_IMAGE = {
    *(Reason.BAD_IMAGE, Reason.UNKNOWN_PRODUCT),
    *(Reason.TOO_DARK, Reason.OVEREXPOSED, Reason.BLURRED),
}
"""Reasons of UNKNOWN that image and bundle alone decide."""

OF_THE_MOMENT = {
    Reason.FROZEN: "it was compared with the frame before it",
    Reason.REPEATED: "it was compared with the frame before it",
    Reason.NAME_REUSED: "another frame of that name had come before",
    Reason.FRAME_LOST: "there were no pixels",
    Reason.BACKLOG_FULL: "other frames came faster",
    Reason.DEADLINE_PASSED: "it was late",
    Reason.SCORER_FAILED: "the scorer had failed",
    Reason.STATION_STOPPING: "the station was stopping",
}
"""Reasons of UNKNOWN that rested on what came before or on time, in words."""

_SUFFIXES = (".jpg", ".png", ARRAY)


class State(str, Enum):
    """What became of an entry."""

    SAME = "same"
    DIFFERS = "differs"
    NO_FRAME = "frame not found"
    NOT_REPLAYABLE = "not replayable"
    OTHER_BUNDLE = "other bundle"


@dataclass(frozen=True, slots=True)
class Replayed:
    """An entry, asked again.

    Attributes:
        received_unix_ns: When its frame came.
        recorded: The verdict in the ledger.
        state: What became of it.
        why: What differs, or why it could not be asked; empty if it is the same.
        again: The verdict of now; None if it could not be asked.
        score_error: Relative, of the raw image score; NaN without two scores.
    """

    received_unix_ns: int
    recorded: VerdictMessage
    state: State
    why: str
    again: VerdictMessage | None = None
    score_error: float = math.nan

    def as_json(self) -> dict[str, Any]:
        """Write it for programs."""
        again = self.again and self.again.model_dump(mode="json")
        compared = ("verdict", "reason", "score", "threshold", "reject_threshold", "regions")
        recorded = self.recorded.model_dump(mode="json")
        return {
            "station_seq": self.recorded.station_seq,
            "state": self.state.value,
            "why": self.why,
            "bundle": self.recorded.bundle,
            "frame_sha256": self.recorded.frame_sha256,
            "recorded": {name: _finite(recorded[name]) for name in compared},
            "again": again and {name: _finite(again[name]) for name in compared},
            "score_error": _finite(self.score_error),
        }


def message_in(entry: Recorded) -> VerdictMessage:
    """Decode the record of an entry.

    Raises:
        StationError: It is no verdict.
    """
    try:
        return VerdictMessage.model_validate(said_in(entry.record))
    except (MessageError, ValidationError) as error:
        raise StationError(
            f"row {entry.station_seq} of the ledger holds no verdict: {error}; run `dualbank-edge "
            "ledger verify`"
        ) from error


def replay(
    entries: Iterable[Recorded],
    bundle: Bundle,
    state_dir: Path,
    frames: Path | None = None,
    tolerance: Tolerance = EXACT,
) -> Iterator[Replayed]:
    """Ask entries again, in their order.

    Args:
        entries: Of the ledger.
        bundle: By which they were judged.
        state_dir: Whose label queue may have their frames.
        frames: A folder of image files that may have the others.
        tolerance: Of what judged them: an engine's is wider.

    Raises:
        InputError: No entry was judged by this bundle; the text says which ones are needed.
        StationError: A record is no verdict.
    """
    asked = [(entry, message_in(entry)) for entry in entries]
    _check_bundle(bundle, [message for _, message in asked])
    kept = {message.station_seq: _in_label_queue(state_dir, each) for each, message in asked}
    found: dict[str, Path] = {}
    if frames is not None:
        missing = {message.frame_sha256 for _, message in asked if not kept[message.station_seq]}
        found = find_frames(frames, {digest for digest in missing if digest})
    scorer = OnnxScorer(bundle)
    for entry, message in asked:
        path = kept[message.station_seq] or found.get(message.frame_sha256 or "")
        try:
            if hindrance := _hindrance(message, bundle):
                yield Replayed(entry.received_unix_ns, message, *hindrance)
            else:
                yield _ask(entry, message, _frame(message, path), scorer, tolerance)
        except ImageError as error:
            yield Replayed(entry.received_unix_ns, message, State.NO_FRAME, str(error))


def _check_bundle(bundle: Bundle, messages: list[VerdictMessage]) -> None:
    needed = {message.bundle: None for message in messages}
    if messages and bundle.id not in needed:
        raise InputError(
            f"these entries were judged by bundle {', '.join(needed)}, expected that one, got "
            f"{bundle.id}; give its folder as --bundle"
        )


def _in_label_queue(state_dir: Path, entry: Recorded) -> Path | None:
    """Find the frame of a flagged part, which the queue has named after number and time."""
    folder = state_dir / FOLDER / f"{entry.station_seq:012d}-{entry.received_unix_ns}"
    paths = (folder / f"{FRAME}{suffix}" for suffix in _SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _hindrance(message: VerdictMessage, bundle: Bundle) -> tuple[State, str] | None:
    """Say why an entry cannot be asked again, whatever frames there are."""
    reason = message.reason
    if reason in OF_THE_MOMENT:
        return State.NOT_REPLAYABLE, f"{reason.value}: {OF_THE_MOMENT[reason]}"
    if reason is not None and message.verdict is Verdict.UNKNOWN and reason not in OF_THE_IMAGE:
        return State.NOT_REPLAYABLE, f"{reason.value}: it was not scored"
    if message.bundle != bundle.id:
        return State.OTHER_BUNDLE, f"needs bundle {message.bundle}"
    return None


def _frame(message: VerdictMessage, path: Path | None) -> Frame:
    """Read a stored frame, and put it behind a header again.

    Raises:
        ImageError: It is not there, or not the one that was judged.
    """
    digest = message.frame_sha256
    if path is None:
        raise ImageError(f"SHA-256 {digest}" if digest else "the ledger has no digest of it")
    pixels = read_pixels(path)
    if digest is not None and pixels.sha256 != digest:
        raise ImageError(f"{path} has another SHA-256 than the frame that was judged, {digest}")
    try:
        header = FrameHeader(
            camera=message.camera,
            session=message.session,
            seq=message.seq,
            product=message.product,
            encoding=pixels.encoding,
            shape=pixels.shape,
            dtype=pixels.dtype,
        )
    except ValidationError as error:
        raise ImageError(f"{path} is no frame: {first_of(error)}") from error
    return Frame(header, pixels.data)


def _ask(
    entry: Recorded,
    message: VerdictMessage,
    frame: Frame,
    scorer: OnnxScorer,
    tolerance: Tolerance,
) -> Replayed:
    name = FrameName(message.camera, message.session, message.seq, message.part)
    stopwatch = Stopwatch(time.monotonic_ns, time.monotonic_ns())
    receipt = Receipt(
        name,
        message.product,
        stopwatch,
        entry.received_unix_ns,
        message.frame_sha256,
        Origin("replay"),
    )
    scored: Scored | None = None
    try:
        prepared = _prepared(receipt, frame, scorer)
        scored = _score(prepared, scorer)
        outcome = judge_frame(prepared, scored)
    except NoScoreError as error:
        outcome = unknown(receipt, scorer.bundle, error.reason, str(error))
    again = message_of(outcome, message.station_seq)
    apart = _score_error(message, scored)
    differences = list(_differences(message, again, scored, apart, tolerance))
    state = State.DIFFERS if differences else State.SAME
    return Replayed(entry.received_unix_ns, message, state, "; ".join(differences), again, apart)


def _prepared(receipt: Receipt, frame: Frame, scorer: OnnxScorer) -> PreparedFrame:
    """Go the route of a frame up to its score. The station has decoded it before: no limit."""
    bundle = scorer.bundle
    route = named_route(receipt.product, bundle)
    image = decode(frame, MOST_BYTES)
    # Without the frame before: what was frozen or repeated is not asked again.
    if route.limits and (found := check(measure(image, bundle.preprocessing), None, route.limits)):
        raise NoScoreError(*found)
    question = scorer.question(image, receipt.product)
    return PreparedFrame(Arrival(receipt, frame), question, (image.shape[0], image.shape[1]))


def _score(prepared: PreparedFrame, scorer: OnnxScorer) -> Scored:
    scorer.submit([prepared.question])
    (answer,) = scorer.poll() or [NoScoreError(Reason.SCORER_FAILED, "no answer")]
    if isinstance(answer, NoScoreError):
        raise answer
    return answer


def _score_error(recorded: VerdictMessage, scored: Scored | None) -> float:
    """Compare raw scores, which tolerances are relative to; the ledger has the standardised one."""
    if scored is None or recorded.score is None:
        return math.nan
    calibration = scored.route.calibration
    raw = recorded.score * calibration.scale + calibration.centre
    return abs(scored.score - raw) / max(abs(raw), 1e-12)


def _differences(
    recorded: VerdictMessage,
    again: VerdictMessage,
    scored: Scored | None,
    score_error: float,
    tolerance: Tolerance,
) -> Iterator[str]:
    """Say what differs, beyond what two runtimes may be apart."""
    for name in ("verdict", "reason", "threshold", "reject_threshold"):
        was, now = getattr(recorded, name), getattr(again, name)
        if was != now:
            yield f"{name} was {_word(was)}, is {_word(now)}"
    was, now = recorded.score, again.score
    if was is None or now is None or math.isnan(was) or math.isnan(now):
        if repr(was) != repr(now):
            yield f"score was {was}, is {now}"
    elif not score_error <= tolerance.score:
        yield f"score was {was:.6g}, is {now:.6g}: {score_error:.1e} apart"
    # Version 1 of the ledger wrote down neither regions nor digest.
    has_regions = bool(recorded.regions) or recorded.frame_sha256 is not None
    if scored is not None and recorded.verdict is again.verdict and has_regions:
        yield from _region_differences(recorded.regions, again.regions, scored, tolerance)


def _region_differences(
    recorded: tuple[RegionEntry, ...],
    again: tuple[RegionEntry, ...],
    scored: Scored,
    tolerance: Tolerance,
) -> Iterator[str]:
    """Compare boxes; where a patch lies as close to the threshold as runtimes may differ, a box
    may have other borders."""
    calibration = scored.route.calibration
    standard = calibration.standardise(scored.anomaly_map.astype(np.float64))
    allowed = tolerance.map * float(np.abs(scored.anomaly_map).max()) / calibration.scale
    was, now = ({_box(each): each.score for each in side} for side in (recorded, again))
    if set(was) == set(now):
        if any(abs(was[box] - now[box]) > allowed for box in was):
            yield "regions have other scores"
    elif not (np.abs(standard - scored.route.thresholds.review) <= allowed).any():
        yield f"regions were {sorted(was)}, are {sorted(now)}"


def _box(region: RegionEntry) -> tuple[int, int, int, int]:
    return region.x_px, region.y_px, region.width_px, region.height_px


def _word(value: Any) -> str:
    return str(value.value if isinstance(value, Enum) else value)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

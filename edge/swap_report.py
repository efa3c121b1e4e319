"""What a station says of a swap, in lines for people."""

from __future__ import annotations

from inspection.control_messages import Flip, ProbationReport, ShadowReport, SwapState

WORDS = {
    "idle": "no bundle was swapped since the start",
    "verifying": "copying the bundle, and checking every byte of it",
    "loading": "loading its networks",
    "proving": "asking its golden frames",
    "shadow": "judging frames beside the running bundle; nothing of it is published",
    "activating": "taking over between two frames",
    "probation": "judges, and is watched",
    "steady": "judges",
    "rolled_back": "rolled back",
    "refused": "refused",
}
"""What each step means."""


def progress_of(state: SwapState) -> str:
    """Say in one line what is being done, without figures that change all the time."""
    return f"{state.step:<12}{WORDS[state.step]}"


def report_of(state: SwapState) -> list[str]:
    """Say everything that is known: one line a fact, the outcome first."""
    lines = [_line("step", WORDS[state.step] + (f": {state.why}" if state.why else ""))]
    lines.append(_line("running", _short(state.running)))
    if state.previous is not None:
        lines.append(_line("before it", f"{_short(state.previous)}; --rollback brings it back"))
    if state.candidate is not None and state.candidate != state.running:
        lines.append(_line("not running", f"{_short(state.candidate)}, from {state.source}"))
    if state.shadow is not None:
        lines += _shadow_lines(state.shadow)
    if state.probation is not None:
        lines.append(_line("probation", _probation(state.probation)))
    if state.took_s:
        took = ", ".join(f"{step} {took_s:.1f} s" for step, took_s in state.took_s.items())
        lines.append(_line("took", took))
    if state.swaps or state.rollbacks:
        lines.append(
            _line("since start", f"{state.swaps} activated, {state.rollbacks} rolled back")
        )
    return lines


def _shadow_lines(shadow: ShadowReport) -> list[str]:
    flipped = sum(shadow.flipped.values())
    said = f"{shadow.compared} of {shadow.wanted} frames compared, {shadow.passed_over} passed over"
    lines = [_line("shadow", said)]
    if not shadow.compared:
        return lines
    kinds = ", ".join(f"{kind.replace('>', ' → ')} {n}" for kind, n in shadow.flipped.items())
    share = f"{flipped} verdicts flipped, {flipped / shadow.compared:.1%}"
    lines.append(_line("", f"{share}: {kinds}" if kinds else "no verdict flipped"))
    lines.append(
        _line(
            "", f"scores moved by {shadow.moved_median:+.2f} σ, {shadow.moved_most:+.2f} σ at most"
        )
    )
    lines += [_line("", _flip(flip)) for flip in shadow.flips]
    if flipped > len(shadow.flips):
        lines.append(_line("", f"and {flipped - len(shadow.flips)} more"))
    return lines


def _flip(flip: Flip) -> str:
    part = f" part {flip.part}" if flip.part else ""
    after = "-" if flip.score_after is None else f"{flip.score_after:.2f}"
    return (
        f"{flip.camera} {flip.seq}{part}: {flip.before.value} ({flip.score_before:.2f}) → "
        f"{flip.after.value} ({after})"
    )


def _probation(probation: ProbationReport) -> str:
    return (
        f"{_share(probation.flagged, probation.judged)} not PASS, before "
        f"{_share(probation.before_flagged, probation.before_judged)}; within bounds are "
        f"{probation.lowest:.1%} to {probation.highest:.1%}; {probation.left_s:.0f} of "
        f"{probation.seconds:g} s left"
    )


def _share(flagged: int, judged: int) -> str:
    return f"{flagged} of {judged}" + (f" ({flagged / judged:.1%})" if judged else "")


def _line(what: str, text: str) -> str:
    return f"{what:<12}{text}"


def _short(bundle_id: str) -> str:
    return bundle_id[:12]

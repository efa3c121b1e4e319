"""Charts as inline SVG: curves, histograms and intervals, told apart by form and not by colour.

Colours and fonts come from the page's style sheet. Every chart says what it shows in its `title`,
for whoever cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inspection.metrics import precision_recall_curve, roc_curve
from inspection.thresholds import Thresholds
from trainer.report.markup import Markup, join, signed, tag

WIDTH, HEIGHT = 340, 250
LEFT, RIGHT, TOP, BOTTOM = 40, 14, 22, 36
"""Of a chart and its margins, px of the SVG."""

BINS = 32
"""Bars of a histogram below the last, which takes everything beyond."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a value lies on paper.

    Attributes:
        low, high: Values at the ends.
        start, end: Their places, px.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


X_SHARE = _Scale(0, 1, LEFT, WIDTH - RIGHT)
Y_SHARE = _Scale(0, 1, HEIGHT - BOTTOM, TOP)


def roc_chart(
    scores: NDArray[np.float64], is_defect: NDArray[np.bool_], thresholds: Thresholds
) -> Markup:
    """Defects caught against good parts not passed, with both thresholds where they are."""
    fpr, tpr = roc_curve(scores, is_defect)
    marks = [
        (name, float(np.mean(above[~is_defect])), float(np.mean(above[is_defect])))
        for name, above in _above(scores, thresholds)
    ]
    return _chart(
        "ROC",
        "good parts not passed, %",
        "defects caught, %",
        _line([(0, 0), (1, 1)], "chance"),
        _line(zip(fpr, tpr, strict=True), "curve"),
        *_marks(marks),
    )


def precision_recall_chart(
    scores: NDArray[np.float64], is_defect: NDArray[np.bool_], thresholds: Thresholds
) -> Markup:
    """Precision against recall in steps, with both thresholds where they are."""
    recall, precision = precision_recall_curve(scores, is_defect)
    chance = float(is_defect.mean())
    steps = [(0.0, float(precision[0]))]
    for x, y in zip(recall, precision, strict=True):
        steps += [(steps[-1][0], y), (x, y)]
    marks = [
        (name, float(np.mean(above[is_defect])), float(np.mean(is_defect[above])))
        for name, above in _above(scores, thresholds)
        if above.any()
    ]
    return _chart(
        "Precision and recall",
        "defects caught, %",
        "defective among those not passed, %",
        _line([(0, chance), (1, chance)], "chance"),
        _line(steps, "curve"),
        *_marks(marks),
    )


def score_chart(
    scores: NDArray[np.float64], is_defect: NDArray[np.bool_], thresholds: Thresholds
) -> Markup:
    """Histograms of scores, good parts upwards and defects downwards, with both thresholds."""
    low = float(min(scores.min(), thresholds.review))
    # Beyond, every part is ejected, and how far beyond changes nothing.
    high = thresholds.reject + max(thresholds.reject - low, 1e-6)
    edges = np.linspace(low, high, BINS + 1)
    x = _Scale(0, BINS + 2, LEFT, WIDTH - RIGHT)  # a bar's width is left free before the last
    kinds = [
        np.bincount(np.minimum(np.searchsorted(edges, some, "right") - 1, BINS), minlength=BINS + 1)
        for some in (scores[~is_defect], scores[is_defect])
    ]
    most = [max(int(counts.max()), 1) for counts in kinds]
    y = _Scale(most[0], -most[1], TOP + 14, HEIGHT - BOTTOM)
    bars = [
        _rectangle(x(i + (i == BINS)), y(sign * count), x(1) - x(0) - 1, y(0), kind)
        for kind, sign, counts in (("good", 1, kinds[0]), ("defect", -1, kinds[1]))
        for i, count in enumerate(counts)
        if count
    ]
    place = _Scale(low, high, x(0), x(BINS))
    ticks = [value for value in _round_values(low, high) if place(value) < x(BINS) - 20]
    return _svg(
        "Scores of good parts, upwards, and of defective parts, downwards",
        *(_rule(place(value), y(0) - 2, place(value), y(0) + 2, "axis") for value in ticks),
        *bars,
        _rule(x(0), y(0), x(BINS), y(0), "axis"),
        _rule(x(BINS + 1), y(0), x(BINS + 2), y(0), "axis"),
        *(_text(place(v), HEIGHT - BOTTOM + 14, signed(v, "g"), "tick", "middle") for v in ticks),
        _text(x(BINS + 2), HEIGHT - BOTTOM + 14, f"> {high:.3g}", "tick", "end"),
        *_threshold_lines(thresholds, place),
        _text(LEFT - 6, y(most[0]) + 4, str(most[0]), "tick", "end"),
        _text(LEFT - 6, y(-most[1]) + 4, str(most[1]), "tick", "end"),
        _text(12, (y(most[0]) + y(0)) / 2, "good", "side", "middle", turned=True),
        _text(12, (y(-most[1]) + y(0)) / 2, "defective", "side", "middle", turned=True),
        _text(_middle(), HEIGHT - 4, "score, robust σ above the median good part", "label"),
    )


def interval_bar(value: float, ends: Sequence[float] | None, low: float = 0.0) -> Markup:
    """A figure as a dot and its interval as a line, on a track from `low` to 1."""
    x = _Scale(low, 1, 4, 116)
    parts = [_rule(4, 7, 116, 7, "track")]
    parts += [_rule(x(each), 4, x(each), 10, "track") for each in (low, (1 + low) / 2, 1)]
    if ends is not None and ends[0] < ends[1]:
        parts.append(_rule(x(max(ends[0], low)), 7, x(max(ends[1], low)), 7, "interval"))
    parts.append(tag("circle", cx=x(max(value, low)), cy=7, r=3, class_="dot"))
    said = f"{100 * value:.1f} %" + (
        f", from {100 * ends[0]:.1f} to {100 * ends[1]:.1f}" if ends is not None else ""
    )
    return _svg(said, *parts, box=(120, 14), class_="bar")


def _above(
    scores: NDArray[np.float64], thresholds: Thresholds
) -> list[tuple[str, NDArray[np.bool_]]]:
    """What lies above either threshold; reject first, so that review is drawn over it."""
    return [
        ("reject", scores > thresholds.reject),
        ("review", scores > thresholds.review),
    ]


def _chart(title: str, x_label: str, y_label: str, *drawn: Markup) -> Markup:
    """A square of shares from 0 to 100 % with what is drawn in it."""
    grid = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        grid += [
            _rule(X_SHARE(share), Y_SHARE(0), X_SHARE(share), Y_SHARE(1), "grid"),
            _rule(X_SHARE(0), Y_SHARE(share), X_SHARE(1), Y_SHARE(share), "grid"),
            _text(X_SHARE(share), Y_SHARE(0) + 14, f"{100 * share:.0f}", "tick", "middle"),
            _text(X_SHARE(0) - 5, Y_SHARE(share) + 4, f"{100 * share:.0f}", "tick", "end"),
        ]
    return _svg(
        f"{title}: {y_label} against {x_label}",
        *grid,
        *drawn,
        _text(_middle(), HEIGHT - 4, x_label, "label"),
        _text(11, (Y_SHARE(0) + Y_SHARE(1)) / 2, y_label, "side", "middle", turned=True),
    )


def _marks(marks: Sequence[tuple[str, float, float]]) -> list[Markup]:
    """Review as a full dot and reject as an open square, which also holds the dot."""
    drawn: list[Markup] = []
    for name, share_x, share_y in marks:
        x, y = X_SHARE(share_x), Y_SHARE(share_y)
        if name == "review":
            drawn.append(tag("circle", cx=x, cy=y, r=4, class_="dot"))
        else:
            drawn.append(tag("rect", x=x - 6, y=y - 6, width=12, height=12, class_="square"))
    return drawn


def _threshold_lines(thresholds: Thresholds, place: _Scale) -> list[Markup]:
    """Review dashed and reject drawn through, named at the top on either side."""
    review, reject = place(thresholds.review), place(thresholds.reject)
    return [
        _rule(review, TOP - 6, review, HEIGHT - BOTTOM, "review"),
        _rule(reject, TOP - 6, reject, HEIGHT - BOTTOM, "reject"),
        _text(review - 4, TOP, "review", "tick", "end"),
        _text(reject + 4, TOP, "reject", "tick", "start"),
    ]


def _round_values(low: float, high: float) -> list[float]:
    """Four to nine round numbers from low to high."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= max(each for each in (1, 2, 5) if each * step <= (high - low) / 4)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 9) + 0.0 for i in range(first, last + 1)]


def _middle() -> float:
    return (LEFT + WIDTH - RIGHT) / 2


def _line(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    said = " ".join(f"{X_SHARE(x)},{Y_SHARE(y)}" for x, y in points)
    return tag("polyline", points=said, class_=class_)


def _rule(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _rectangle(x: float, y1: float, width: float, y2: float, class_: str) -> Markup:
    top, height = min(y1, y2), round(abs(y2 - y1), 2)
    return tag("rect", x=x, y=top, width=round(width, 2), height=height, class_=class_)


def _text(
    x: float, y: float, said: str, class_: str, anchor: str = "middle", *, turned: bool = False
) -> Markup:
    x, y = round(x, 2), round(y, 2)
    turn = f"rotate(-90 {x} {y})" if turned else None
    return tag("text", said, x=x, y=y, class_=class_, text_anchor=anchor, transform=turn)


def _svg(
    title: str, *parts: Markup, box: tuple[int, int] = (WIDTH, HEIGHT), class_: str = "chart"
) -> Markup:
    view = f"0 0 {box[0]} {box[1]}"
    return tag("svg", tag("title", title), join(*parts), viewBox=view, role="img", class_=class_)

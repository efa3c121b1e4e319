"""What the station asks of whoever scores its frames, and what it is answered.

On the CPU that is `edge.onnx_scorer`, on a GPU `edge.gpu_scorer`; `edge.standby` puts one in place
of the other, `edge.relay` one of another bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.outcome import Arrival, NoScoreError
from inspection.bundle import Bundle, Route
from inspection.errors import InputError
from inspection.golden import Tolerance
from inspection.preprocessing import Preprocessing
from inspection.verdicts import Reason


@dataclass(frozen=True, slots=True)
class Question:
    """A frame that wants a score.

    Attributes:
        pixels: (H, W, 3) uint8 RGB as decoded, or the canvas; may be a view of the message.
        is_canvas: Whether it has been resized already.
        product: As the camera said; None has the scorer find out.
        recognised: Whether a frame without a product is taken as it is: judged by the rows of all
            products, unless there is but one. Golden frames are.
        made_by: What made it a canvas, where bundles may change before it is scored; else None.
    """

    pixels: NDArray[np.uint8]
    is_canvas: bool
    product: str | None
    recognised: bool = False
    made_by: Preprocessing | None = None


@dataclass(frozen=True, slots=True)
class PreparedFrame:
    """A frame that waits for the scorer.

    Attributes:
        arrival: Where it came from.
        question: What the scorer is asked.
        shape: (H, W) of the frame as sent.
    """

    arrival: Arrival
    question: Question
    shape: tuple[int, int]

    @property
    def remaining_ms(self) -> float:
        """Time until its deadline, below 0 if that has passed; infinite if it has none."""
        deadline_ms = self.arrival.deadline_ms
        if deadline_ms is None:
            return float("inf")
        return deadline_ms - self.arrival.receipt.stopwatch.total_ms


@dataclass(frozen=True, slots=True)
class Scored:
    """What the model says of one frame.

    Attributes:
        anomaly_map: (Mh, Mw) float32, in units of feature distance.
        score: Raw image score; NaN if the map holds one.
        route: How the frame is judged.
        bundle: Whose rows and heads have said so.
    """

    anomaly_map: NDArray[np.float32]
    score: float
    route: Route
    bundle: Bundle


Answer = Scored | NoScoreError


class Scorer(Protocol):
    """Scores frames, in batches that it answers in their order; several may be under way.

    All but `bundle`, `question` and `offer` belong to the thread that opened it.
    """

    @property
    def name(self) -> str:
        """What it runs, for logs."""
        ...

    @property
    def bundle(self) -> Bundle:
        """By which the next frames are judged."""
        ...

    @property
    def tolerance(self) -> Tolerance:
        """How far its answers to golden frames may lie from the stored ones."""
        ...

    @property
    def depth(self) -> int:
        """How many batches may be under way at once."""
        ...

    @property
    def most_frames(self) -> int:
        """How many frames a batch may have; they must all be `alike`."""
        ...

    def question(self, image: NDArray[np.uint8], product: str | None) -> Question:
        """Do what can be done on another thread for an (H, W, 3) uint8 RGB frame."""
        ...

    def submit(self, questions: Sequence[Question]) -> None:
        """Begin a batch; fewer than `depth` are under way."""
        ...

    def poll(self) -> list[Answer] | None:
        """Give the answers of the oldest batch if they are there; never waits."""
        ...

    def expected_ms(self, frames: int) -> float:
        """How long a batch of so many frames takes; 0 while nobody knows."""
        ...

    def offer(self, bundle: Bundle) -> None:
        """Let another bundle take over between two batches, as soon as it is loaded.

        Raises:
            InputError: It has another trunk, another preprocessing or other sizes.
        """
        ...

    def tend(self) -> None:
        """Do a little of what lies waiting, such as loading an offered bundle."""
        ...


class Provable(Scorer, Protocol):
    """A scorer whose resize can be looked at too."""

    def canvas_of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring an (H, W, 3) uint8 frame to its canvas."""
        ...


def alike(one: Question, other: Question) -> bool:
    """Whether two frames can be scored in one batch."""
    return (one.pixels.shape, one.is_canvas, one.made_by) == (
        other.pixels.shape,
        other.is_canvas,
        other.made_by,
    )


def named_route(product: str | None, bundle: Bundle) -> Route:
    """Choose how a frame is judged by what its camera named.

    Raises:
        NoScoreError: The bundle does not know the product.
    """
    try:
        return bundle.route(product)
    except InputError as error:
        raise NoScoreError(Reason.UNKNOWN_PRODUCT, str(error)) from error


def route_of(question: Question, bundle: Bundle) -> Route | None:
    """Choose how a frame is judged; None if its product must be recognised first.

    Raises:
        NoScoreError: The bundle does not know the product.
    """
    route = named_route(question.product, bundle)
    return route if route.category is not None or question.recognised else None


def check_same_trunk(running: Bundle, offered: Bundle) -> None:
    """Make sure that a bundle differs in nothing but what can be replaced while frames run.

    Raises:
        InputError: It differs in more; the text says in what.
    """
    for what, mine, theirs in (
        ("trunk", *(each.manifest.files["trunk.onnx"].sha256[:12] for each in (running, offered))),
        ("preprocessing", running.preprocessing, offered.preprocessing),
        ("k", running.manifest.scoring.k, offered.manifest.scoring.k),
        ("products", sorted(running.heads), sorted(offered.heads)),
        *(
            (
                f"{side} bank",
                getattr(running, side).features.shape,
                getattr(offered, side).features.shape,
            )
            for side in ("normal", "abnormal")
        ),
    ):
        if mine != theirs:
            raise InputError(
                f"a running station takes over rows, heads and thresholds only: expected {what} "
                f"{mine}, got {theirs}; start a station with this bundle instead"
            )

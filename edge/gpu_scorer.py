"""Scores frames on a GPU: batches in several slots at once, banks replaced while frames go on.

Everything here belongs to the thread that opened the device, but `question` and `offer`. What a
slot does with a batch is `edge.slot`; what happens when the GPU fails, `edge.standby`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.bank_rows import BankShape, LocatedRows, locate_rows
from edge.device import Device, open_event, open_stream
from edge.device_bank import DeviceBank, open_bank
from edge.device_heads import HeadsShape, open_heads
from edge.intake import FrameShape
from edge.lane import Model
from edge.outcome import NoScoreError
from edge.resize import is_repeated, repeated
from edge.scorer import Answer, Question, Scored, check_same_trunk, route_of
from edge.slot import Slot, open_slot
from edge.streams import DeviceHangsError, DeviceMemoryError, Event, Stream
from edge.trunk import Trunk
from inspection.bank import MemoryBank
from inspection.bundle import Bundle, Route
from inspection.errors import DeviceError
from inspection.golden import EXACT
from inspection.verdicts import Reason

SMOOTHING = 0.1
"""Share of the latest batch in how long such a batch is expected to take."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch under way: frames that the slot was given have routes, the others their answers."""

    slot: Slot
    bundle: Bundle
    routes: list[Route | NoScoreError]
    begun_s: float

    @property
    def scored(self) -> int:
        """How many frames the slot was given."""
        return sum(isinstance(each, Route) for each in self.routes)


@dataclass(frozen=True, slots=True)
class _Incoming:
    """A bundle on its way in; each step of the iterator sends a piece of its rows."""

    bundle: Bundle
    staging: Iterator[None]


class GpuScorer:
    """A `Scorer` on a GPU; made by `open_gpu_scorer`.

    Attributes:
        tolerance: See `Scorer`; whoever knows the precision of the trunk sets it.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        slots: Sequence[Slot],
        loading: tuple[Stream, Event],
        bundle: Bundle,
        most_frames: int,
    ) -> None:
        self.name, self.bundle, self.tolerance = name, bundle, EXACT
        self.depth, self.most_frames = len(slots), most_frames
        self._model = model
        self._free = deque(slots)
        self._under_way: deque[_Batch] = deque()
        self._loading, self._staged = loading
        self._expected_ms: dict[int, float] = {}
        # What `offer` of another thread leaves for `tend`; the last one offered counts.
        self._offered: deque[_Incoming] = deque(maxlen=1)
        self._incoming: _Incoming | None = None
        self._load(bundle)

    def canvas_of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring an (H, W, 3) uint8 frame to its canvas on the GPU, and wait for it."""
        return self._free[0].canvas(_shape_of(image, is_canvas=False), image)

    def question(self, image: NDArray[np.uint8], product: str | None) -> Question:
        """Leave the frame as it is: it is resized on the GPU. See `Scorer`."""
        pixels = repeated(image[:, :, 0]) if is_repeated(image) else image
        return Question(pixels, False, product)

    def submit(self, questions: Sequence[Question]) -> None:
        """See `Scorer`.

        Raises:
            DeviceError: The GPU failed, and is of no more use.
        """
        slot, begun_s = self._free[0], time.monotonic()
        shape = _shape_of(questions[0].pixels, is_canvas=questions[0].is_canvas)
        routes = [self._route(slot, shape, question) for question in questions]
        wanted = [
            (question.pixels, route)
            for question, route in zip(questions, routes, strict=True)
            if isinstance(route, Route)
        ]
        if wanted:
            pixels, chosen = zip(*wanted, strict=True)
            try:
                slot.submit(shape, pixels, chosen, self.bundle)
            except DeviceMemoryError as error:
                # There is no room for frames like these: others go on.
                failed = NoScoreError(Reason.SCORER_FAILED, str(error))
                routes = [failed if isinstance(each, Route) else each for each in routes]
        self._free.popleft()
        self._under_way.append(_Batch(slot, self.bundle, routes, begun_s))

    def poll(self) -> list[Answer] | None:
        """See `Scorer`.

        Raises:
            DeviceHangsError: The oldest batch has been under way for too long.
            DeviceError: The GPU failed, and is of no more use.
        """
        if not self._under_way:
            return None
        batch = self._under_way[0]
        took_s = time.monotonic() - batch.begun_s
        if not batch.slot.done.reached():
            if took_s > (limit_s := batch.slot.patience_s):
                raise DeviceHangsError(f"a batch was not scored within {limit_s:g} s")
            return None
        self._under_way.popleft()
        self._free.append(batch.slot)
        if batch.scored:
            self._learn(batch.scored, 1e3 * took_s)
        return _answered(batch)

    def expected_ms(self, frames: int) -> float:
        """See `Scorer`: a running mean of such batches."""
        return self._expected_ms.get(frames, 0.0)

    def offer(self, bundle: Bundle) -> None:
        """See `Scorer`: rows are made ready on the caller's thread and sent on the scorer's."""
        check_same_trunk(self.bundle, bundle)
        self._model.heads.check(bundle.heads)
        # Nothing is sent before the first step, and `tend` takes that.
        self._offered.append(_Incoming(bundle, self._stage(self._located(bundle))))

    def tend(self) -> None:
        """Send a piece of an offered bundle; once all of it is there, let it take over.

        Raises:
            DeviceError: The GPU failed, and is of no more use.
        """
        if self._offered:
            # What of an earlier offer is staged already is of no use.
            self._incoming = self._offered.popleft()
        if self._incoming is None:
            return
        if next(self._incoming.staging, "staged") == "staged":
            self._take_over(self._incoming.bundle)
            self._incoming = None

    def _load(self, bundle: Bundle) -> None:
        for _ in self._stage(self._located(bundle)):
            pass
        self._take_over(bundle)

    def _located(self, bundle: Bundle) -> tuple[LocatedRows, LocatedRows]:
        scorings = {route.category: route.scoring for route in bundle.routes.values()}
        normal, abnormal = self._model.banks
        return (
            locate_rows(normal.shape, bundle.normal, scorings),
            locate_rows(abnormal.shape, bundle.abnormal, scorings),
        )

    def _stage(self, rows: tuple[LocatedRows, LocatedRows]) -> Iterator[None]:
        for bank, each in zip(self._model.banks, rows, strict=True):
            yield from bank.stage(self._loading, each)
        self._staged.record(self._loading)
        # Rows that are still on their way would keep the next frames waiting behind the swap.
        while not self._staged.reached():
            yield

    def _take_over(self, bundle: Bundle) -> None:
        """Put staged rows and the heads in place, between two batches: both belong together."""
        for bank in self._model.banks:
            bank.swap(self._loading)
        self._model.heads.replace(self._loading, bundle.heads)
        self.bundle = bundle

    def _route(self, slot: Slot, shape: FrameShape, question: Question) -> Route | NoScoreError:
        try:
            route = route_of(question, self.bundle)
            if route is None:
                patches = slot.recognised_patches(shape, question.pixels)
                route = self.bundle.recognise(patches)
        except NoScoreError as error:
            return error
        except DeviceMemoryError as error:
            return NoScoreError(Reason.SCORER_FAILED, str(error))
        return route

    def _learn(self, frames: int, took_ms: float) -> None:
        before_ms = self._expected_ms.get(frames, took_ms)
        self._expected_ms[frames] = before_ms + SMOOTHING * (took_ms - before_ms)


@contextmanager
def open_gpu_scorer(
    device: Device, trunk: Trunk, bundle: Bundle, slots: int = 2, most_frames: int = 4
) -> Iterator[GpuScorer]:
    """Hold a scorer and everything it needs of a device; at the end, wait for what is under way.

    Args:
        device: Holds everything.
        trunk: Of the bundle; outlives the scorer.
        bundle: Judges until another one is offered.
        slots: Batches under way at once.
        most_frames: Frames of a batch at most; no more than the trunk takes.

    Raises:
        DeviceError: The trunk is another bundle's, or not enough memory is left.
    """
    spec, k = bundle.preprocessing, bundle.manifest.scoring.k
    D = bundle.normal.dimensions
    wanted = (spec.size_px, spec.patches, D)
    if (trunk.side_px, trunk.patches, trunk.dimensions) != wanted:
        raise DeviceError(
            f"expected a trunk of S, P, D = {wanted}, got "
            f"{(trunk.side_px, trunk.patches, trunk.dimensions)}: {trunk.name} is not this bundle's"
        )
    units = max(len(head.hidden_bias) for head in bundle.heads.values())
    shape = HeadsShape(len(bundle.heads), D, k, units)
    most = min(most_frames, trunk.most_frames)
    with ExitStack() as held:
        banks = _open_banks(device, held, bundle)
        heads = held.enter_context(open_heads(device, shape))
        loading = held.enter_context(open_stream(device))
        staged = held.enter_context(open_event(device))
        model = Model(banks, heads, trunk, spec, k)
        opened = [held.enter_context(open_slot(device, model, most)) for _ in range(slots)]
        held.callback(loading.synchronize)
        name = f"{trunk.name} on {device.name}"
        yield GpuScorer(name, model, opened, (loading, staged), bundle, most)


def _open_banks(device: Device, held: ExitStack, bundle: Bundle) -> tuple[DeviceBank, DeviceBank]:
    def opened(bank: MemoryBank, *, placed: bool) -> DeviceBank:
        # A bundle of one product never judges by the rows of all.
        any_product = bundle.route(None).category is None
        N, D = bank.features.shape
        shape = BankShape(N, D, placed=placed, any_product=any_product)
        return held.enter_context(open_bank(device, shape))

    return opened(bundle.normal, placed=True), opened(bundle.abnormal, placed=False)


def _shape_of(pixels: NDArray[np.uint8], *, is_canvas: bool) -> FrameShape:
    height_px, width_px = pixels.shape[:2]
    return FrameShape(height_px, width_px, is_canvas)


def _answered(batch: _Batch) -> list[Answer]:
    """Put together what the slot has scored and what was answered without it."""
    maps = iter(batch.slot.maps() if batch.scored else [])
    return [
        _scored(next(maps), each, batch.bundle) if isinstance(each, Route) else each
        for each in batch.routes
    ]


def _scored(anomaly_map: NDArray[np.float32], route: Route, bundle: Bundle) -> Scored:
    # 784 numbers: the rule of the score stays where it is written, in plain numpy.
    return Scored(anomaly_map, bundle.image_score(anomaly_map, route), route, bundle)

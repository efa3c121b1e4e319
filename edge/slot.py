"""What one batch in flight takes of the GPU: a stream, its own memory, and graphs of its work.

On the stream, in one graph a batch of views: pixels to the device → resize → views → trunk → search
of both banks → heads → scores to the host. A slot has lanes for 1, 2, 4 … views; frames of each
shape have layouts, made when such frames first come and kept for the next. Letters: B views of a
lane, P patches a view, D feature dimensions, K neighbours, S side of a view, n frames of a batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.device import Device, DeviceArray, open_event, open_stream, page_locked
from edge.device_pixels import PixelPasses, cut_view
from edge.graphs import Graph, record_graph
from edge.intake import FrameShape, Intake, open_intake
from edge.lane import Lane, Model, open_lane
from edge.streams import PATIENCE_S, Event, Stream
from inspection.bundle import Bundle, Route
from inspection.preprocessing import PATCH_PX
from inspection.views import View, recognised_by, views_of

MOST_LAYOUTS = 8
"""Of one slot: shapes of frames times sizes of batches. A line has one or two cameras' shapes."""

MOST_LAYOUT_BYTES = 256 << 20
"""Page-locked memory for the pixels of a slot's layouts, unless one alone takes more."""


@dataclass(slots=True)
class Pass:
    """Some views of a batch that go through a lane together.

    Attributes:
        lane: Whose B is at least the number of views.
        places: Number of the frame in its batch, and the view, for each of the lane's B; those
            that are left over repeat the last one, and nobody looks at what comes of them.
        used: How many are not left over.
        scores: (B, P) float32, page-locked.
        work: Puts everything on a stream, with the intake of the frames before the first pass.
        graph: Of that work, recorded at its second time: at its first, libraries and driver still
            load what they need, which no recording may hold.
    """

    lane: Lane
    places: tuple[tuple[int, View], ...]
    used: int
    scores: NDArray[np.float32]
    work: Callable[[Stream], None]
    has_run: bool = False
    graph: Graph | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """How n frames of one shape go through a slot."""

    intake: Intake
    passes: tuple[Pass, ...]
    held: ExitStack = field(repr=False)


class Slot:
    """One batch at a time; made by `open_slot`.

    Attributes:
        done: Behind the last batch.
    """

    def __init__(
        self, device: Device, model: Model, stream: Stream, lanes: Sequence[Lane], done: Event
    ) -> None:
        self.done = done
        self._device, self._model, self._stream = device, model, stream
        self._lanes = sorted(lanes, key=lambda lane: lane.views)
        self._layouts: OrderedDict[tuple[FrameShape, int], Layout] = OrderedDict()
        self._under_way: Layout | None = None

    def submit(
        self,
        shape: FrameShape,
        frames: Sequence[NDArray[np.uint8]],
        routes: Sequence[Route],
        bundle: Bundle,
    ) -> None:
        """Put a batch on the stream; the one before it is done.

        Args:
            shape: Of every frame.
            frames: n of (H, W, 3) uint8; copied before this returns.
            routes: Of each frame, of that bundle.
            bundle: Whose rows and heads are on the device.

        Raises:
            DeviceError: The device failed; with `DeviceMemoryError`, only this batch has no room.
        """
        layout = self._layout(shape, len(frames))
        for room, pixels in zip(layout.intake.rooms, frames, strict=True):
            room[...] = pixels
        for each in layout.passes:
            self._aim(each, layout.intake.map_shape, routes, bundle)
            for fence in (*(bank.fence for bank in self._model.banks), self._model.heads.fence):
                self._stream.wait_for(fence.ready)
            self._launch(each, layout)
            each.lane.scan.done.record(self._stream)
            each.lane.judge.done.record(self._stream)
        self.done.record(self._stream)
        self._under_way = layout

    @property
    def patience_s(self) -> float:
        """How long the last batch may take: a line scan has hundreds of passes."""
        return PATIENCE_S * (len(self._under_way.passes) if self._under_way else 1)

    def maps(self) -> list[NDArray[np.float32]]:
        """Give the anomaly map, (Mh, Mw), of each frame of the batch, which is done; copies."""
        assert self._under_way is not None
        intake, grid = self._under_way.intake, self._model.spec.grid
        maps = [np.empty(intake.map_shape, np.float32) for _ in intake.rooms]
        for each in self._under_way.passes:
            shown, said = each.places[: each.used], each.scores[: each.used]
            for (frame, view), scores in zip(shown, said, strict=True):
                own = scores.reshape(grid)[view.own]  # (P,) → (Gh, Gw)
                maps[frame][view.rows, view.columns] = own
        return maps

    def recognised_patches(
        self, shape: FrameShape, pixels: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Give the patches that tell which product a frame shows, and wait for them.

        Only the trunk runs, view by view. See `inspection.views.recognised_patches`.

        Args:
            shape: Of the frame.
            pixels: (H, W, 3) uint8.

        Returns:
            (some, D) float32.
        """
        layout, lane = self._layout(shape, 1), self._lanes[0]
        layout.intake.rooms[0][...] = pixels
        layout.intake.launch(self._stream)
        seen = []
        grid, D = self._model.spec.grid, self._model.trunk.dimensions
        with page_locked(self._device, lane.features.shape, np.float32) as room:
            for view in recognised_by(views_of(layout.intake.map_shape, self._model.spec)):
                self._cut(layout.intake, view, 0, lane, 0).run(self._stream)
                lane.trunk.launch(self._stream)
                self._fetch(room, lane.features)
                # (P, D) → (Gh, Gw, D) → what belongs to the view → (n, D)
                seen.append(room.reshape(*grid, D)[view.own].reshape(-1, D).copy())
        return np.concatenate(seen)

    def canvas(self, shape: FrameShape, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring a frame to its canvas and wait for it: (H, W, 3) → (8 · Mh, 8 · Mw, 3) uint8."""
        intake = self._layout(shape, 1).intake
        intake.rooms[0][...] = pixels
        (canvas,) = intake.canvases
        with page_locked(self._device, canvas.shape, canvas.dtype) as room:
            intake.launch(self._stream)
            self._fetch(room, canvas)
            return np.array(room)

    def close(self) -> None:
        """Free the layouts; the slot's work is over."""
        while self._layouts:
            self._layouts.popitem()[1].held.close()

    def _fetch(self, room: NDArray[Any], array: DeviceArray) -> None:
        """Copy what the stream makes of an array to page-locked memory, and wait for it."""
        self._device.copy_out(self._stream, room, array)
        self.done.record(self._stream)
        self.done.wait()

    def _layout(self, shape: FrameShape, frames: int) -> Layout:
        """Find how such a batch goes through, or make it; those used longest ago go."""
        key = (shape, frames)
        if key in self._layouts:
            self._layouts.move_to_end(key)
            return self._layouts[key]
        nbytes = frames * shape.nbytes
        while self._layouts and (
            len(self._layouts) == MOST_LAYOUTS or self._held_bytes + nbytes > MOST_LAYOUT_BYTES
        ):
            self._layouts.popitem(last=False)[1].held.close()
        with ExitStack() as held:
            spec = self._model.spec
            intake = held.enter_context(
                open_intake(self._device, self._stream, shape, frames, spec)
            )
            every = [(i, view) for i in range(frames) for view in views_of(intake.map_shape, spec)]
            most = self._lanes[-1].views
            passes = [
                self._make_pass(held, intake, every[at : at + most], with_intake=at == 0)
                for at in range(0, len(every), most)
            ]
            layout = Layout(intake, tuple(passes), held.pop_all())
        self._layouts[key] = layout
        return layout

    @property
    def _held_bytes(self) -> int:
        return sum(frames * shape.nbytes for shape, frames in self._layouts)

    def _make_pass(
        self, held: ExitStack, intake: Intake, views: list[tuple[int, View]], *, with_intake: bool
    ) -> Pass:
        lane = next(each for each in self._lanes if each.views >= len(views))
        shape = (lane.views, self._model.spec.patches)
        scores = held.enter_context(page_locked(self._device, shape, np.float32))
        flat = scores.reshape(-1)
        places = (*views, *[views[-1]] * (lane.views - len(views)))
        cuts = [
            self._cut(intake, view, frame, lane, place)
            for place, (frame, view) in enumerate(places)
        ]

        def work(stream: Stream) -> None:
            if with_intake:
                intake.launch(stream)
            for cut in cuts:
                cut.run(stream)
            lane.launch(stream)
            self._device.copy_out(stream, flat, lane.judge.scores)

        return Pass(lane, places, len(views), scores, work)

    def _launch(self, each: Pass, layout: Layout) -> None:
        if not each.has_run:
            each.work(self._stream)
            each.has_run = True
            return
        if each.graph is None:
            each.graph = layout.held.enter_context(record_graph(self._stream, each.work))
        each.graph.launch(self._stream)

    def _cut(self, intake: Intake, view: View, frame: int, lane: Lane, place: int) -> PixelPasses:
        side = self._model.spec.size_px
        target = DeviceArray(
            lane.pixels.address + place * side * side * 3, (side, side, 3), lane.pixels.dtype
        )
        corner = (PATCH_PX * view.top, PATCH_PX * view.left)
        return cut_view(self._device, intake.canvases[frame], corner, target)

    def _aim(
        self, each: Pass, map_shape: tuple[int, int], routes: Sequence[Route], bundle: Bundle
    ) -> None:
        """Aim a lane at the rows, heads and places of a pass, unless it is aimed there already."""
        model, lane = self._model, each.lane
        versions = (*(bank.fence.version for bank in model.banks), model.heads.fence.version)
        chosen = [routes[frame] for frame, _ in each.places]
        at = [(view.top, view.left) for _, view in each.places]
        wanted = (versions, [route.category for route in chosen], at, map_shape)
        if lane.aimed == wanted:
            return
        lane.aimed = None
        categories, weights = zip(*((r.category, r.abnormal_weight) for r in chosen), strict=True)
        grid = np.argwhere(np.ones(model.spec.grid, np.bool_))  # (P, 2)
        position = np.stack([grid + np.array(corner) for corner in at])
        inspected = [
            view.inspected(bundle.foreground(route, map_shape), model.spec).reshape(-1)
            for route, (_, view) in zip(chosen, each.places, strict=True)
        ]
        lane.scan.aim(self._stream, categories, position, weights)
        lane.judge.aim(self._stream, categories, weights, np.stack(inspected))
        lane.aimed = wanted


@contextmanager
def open_slot(device: Device, model: Model, most_views: int) -> Iterator[Slot]:
    """Hold a slot; at the end, wait for what is still under way.

    Args:
        device: Holds everything.
        model: Outlives the slot.
        most_views: Views that go through together, at most: 1, 2, 4 or 8.

    Raises:
        DeviceError: Not enough memory is left, or the trunk cannot be run.
    """
    with ExitStack() as held:
        stream = held.enter_context(open_stream(device))
        done = held.enter_context(open_event(device))
        sizes = [B for B in (1, 2, 4, 8) if most_views >= B]
        lanes = [held.enter_context(open_lane(device, model, B)) for B in sizes]
        held.callback(stream.synchronize)
        slot = Slot(device, model, stream, lanes, done)
        held.callback(slot.close)
        held.callback(stream.synchronize)
        yield slot

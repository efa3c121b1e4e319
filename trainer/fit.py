"""Images in, model out: the whole of training on one page, and what labels teach below.

There is one schedule and one outcome: nothing is chosen by looking at test images, which are not
opened here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from inspection.bank import MemoryBank
from inspection.bundle import ANY_PRODUCT
from inspection.foreground import Foreground, laid_over
from inspection.frame_checks import FrameLimits, limits_of, loosest
from inspection.lineage import NOTHING_LABELLED, Lineage
from inspection.preprocessing import PATCH_PX, Preprocessing
from inspection.routing import Router
from inspection.scoring import Scoring
from inspection.thresholds import Calibration
from inspection.views import map_of_canvas
from trainer.banks import located_rows, textures
from trainer.calibrate import calibrate
from trainer.contrast import imagine, unseen
from trainer.coreset import Rows
from trainer.dataset import Category, read_prepared
from trainer.features import extract, frame_features
from trainer.good_parts import GoodParts, learn_good_parts
from trainer.labelled import Labelled, LabelledDefect, lineage_of, outline_of, patch_share
from trainer.lessons import Lesson, Seen, joined, see, telling
from trainer.marking import COVERED, lesson_of, marks_of
from trainer.outlines import covered_share, marked_patches
from trainer.progress import Progress
from trainer.routing import learn_router
from trainer.search import locate
from trainer.settings import FitSettings
from trainer.shifts import draw_shifts, shifted_canvas, shifted_share
from trainer.teaching import AbnormalSide, Terms, heads_taught, teach
from trainer.trunk import Trunk

TEXTURES = 24
"""Drawn pictures that stand for foreign material."""

FOREIGN = 40_000
"""Foreign patches of all categories together, about; as many examples are drawn from them as the
heads have and the abnormal banks need."""

SHIFTED = 256
"""Patches kept of the shifted copies of a labelled image; a large defect has thousands."""

GOOD_IMAGES = 64
"""Good images of each category, spread over it, that the head learns not to raise."""


@dataclass(frozen=True, slots=True)
class Model:
    """Everything that training found out; `trainer.packing` makes a bundle of it."""

    trunk: Trunk
    preprocessing: Preprocessing
    scorings: Mapping[str, Scoring]
    normal: MemoryBank
    sides: Mapping[str, AbnormalSide]
    calibrations: Mapping[str, Calibration]
    router: Router
    foregrounds: Mapping[str, Foreground]
    limits: Mapping[str, FrameLimits]
    settings: FitSettings
    lineage: Lineage = NOTHING_LABELLED


def fit(
    categories: Sequence[Category],
    settings: FitSettings,
    progress: Progress,
    labelled: Labelled = MappingProxyType({}),
    masked: Mapping[str, Foreground] = MappingProxyType({}),
) -> Model:
    """Learn one model of all categories from their good training images, and from labelled defects.

    Args:
        categories: Each with at least `trainer.folds.LEAST_IMAGES` training images.
        settings: The same for every category.
        progress: Shows how far the work is.
        labelled: Defects by category; none of them among the test images.
        masked: From `trainer.foreground`, by category; those without are inspected everywhere.

    Raises:
        DatasetError: An image cannot be used; it is named.
        InputError: The backbone or its weights cannot be used.
        NotEnoughSamplesError: A category is too small.
    """
    with learn_good_parts(categories, settings, progress, masked) as good:
        sides = learn_defects(good, settings, progress, labelled)
        with progress.task("scores of good parts", sum(map(_images, categories))) as advance:
            known, unknown = calibrate(
                good.stores, good.fold_banks, sides, good.scorings, good.foregrounds, advance
            )
        # Of its own, so that the rest of the model does not depend on it.
        router = learn_router(good.stores, np.random.default_rng(settings.seed))
        limits = {name: limits_of(store.measures) for name, store in good.stores.items()}
        return Model(
            trunk=good.trunk,
            preprocessing=good.spec,
            scorings=good.scorings,
            normal=good.normal,
            sides=sides,
            calibrations={**known, ANY_PRODUCT: unknown},
            router=router,
            foregrounds=good.foregrounds,
            limits={**limits, ANY_PRODUCT: loosest(limits.values())},
            settings=settings,
            lineage=lineage_of(labelled),
        )


def learn_defects(
    good: GoodParts, settings: FitSettings, progress: Progress, labelled: Labelled
) -> dict[str, AbnormalSide]:
    """Make the abnormal side of every category: of its labelled defects, or of made-up ones.

    Raises:
        DatasetError: A labelled image cannot be used; it is named.
    """
    taught = {name: defects for name, defects in labelled.items() if defects}
    # Foreign patches take a look at every texture: not where every product is taught.
    foreign = _foreign(good, settings) if set(good.stores) - set(taught) else {}
    steps = sum(
        heads_taught(len(taught.get(name, ())), settings.abnormal_weight) for name in good.stores
    )
    with progress.task("heads", steps) as advance:
        sides = {}
        for name in good.stores:
            if name in taught:
                shown = good_images(good, name)
                sides[name] = teach(
                    [_lesson(good, name, defect, shown) for defect in taught[name]],
                    shown,
                    _terms(good, name, settings),
                    settings.abnormal_weight,
                    advance,
                )
            else:
                sides[name] = _imagined(good, name, foreign[name], settings)
                advance(1)
    return sides


def good_images(good: GoodParts, name: str) -> list[Seen]:
    """Look at good images of a category, each by the bank of its fold, where it is inspected."""
    store, scoring = good.stores[name], good.scorings[name]
    count = min(GOOD_IMAGES, len(store.images))
    found = []
    for image in np.linspace(0, len(store.images) - 1, count).astype(int):
        shape = store.shapes[image]
        inspected = np.flatnonzero(laid_over(good.foregrounds[name], shape))
        position = np.stack(np.unravel_index(inspected, shape), axis=1)
        patches = store.patches_of(image)[inspected].astype(np.float32)
        located = locate(
            torch.from_numpy(patches), torch.from_numpy(position), scoring.position_weight
        )
        seen = see(located, good.fold_banks[name][good.folds[name][image]], scoring)
        found.append(seen[telling(seen, np.random.default_rng(image))])
    return found


def look_at(good: GoodParts, name: str, canvas: NDArray[np.uint8]) -> Seen:
    """Look at a prepared frame, (8 · Mh, 8 · Mw, 3) uint8, by the bank that ships; all patches."""
    features = frame_features(good.trunk, canvas, good.spec)
    scoring = good.scorings[name]
    normal = located_rows(good.normal, name, scoring)
    position = torch.from_numpy(np.argwhere(np.ones(features.shape[:2], np.bool_)))
    patches = torch.from_numpy(features.reshape(len(position), -1))  # (Mh, Mw, D) → (n, D)
    return see(locate(patches, position, scoring.position_weight), normal, scoring)


def _lesson(good: GoodParts, name: str, defect: LabelledDefect, shown: Sequence[Seen]) -> Lesson:
    canvas = read_prepared(defect.image, good.spec)
    shape = map_of_canvas(canvas)
    inspected = laid_over(good.foregrounds[name], shape)
    outline = outline_of(defect)
    share = patch_share(outline, good.spec)
    seen = look_at(good, name, canvas)
    marks = marks_of(defect, seen, share, inspected, shown)
    lesson = lesson_of(defect, seen, share, inspected, marks)
    if shape != good.spec.grid:
        # A frame of many views takes as many times longer to look at, and copies that many again.
        return lesson
    if outline is not None and defect.regions == "mask":
        pixels = covered_share(outline, canvas.shape[:2])
    else:
        # What is marked is all that is known of its outline.
        pixels = marks.astype(np.float32).repeat(PATCH_PX, axis=0).repeat(PATCH_PX, axis=1)
    rng = np.random.default_rng(int(defect.sha256[:8], 16))
    copies = []
    for shift in draw_shifts(rng):
        moved = look_at(good, name, shifted_canvas(canvas, shift))
        marked = marked_patches(shifted_share(pixels, shift), COVERED) & inspected.astype(bool)
        copies.append(moved[torch.from_numpy(marked.ravel())])
    shifted = joined(copies)
    kept = rng.permutation(len(shifted.evidence))[:SHIFTED]
    return replace(lesson, shifted=shifted[torch.from_numpy(kept)])


def _imagined(
    good: GoodParts, name: str, foreign: NDArray[np.float32], settings: FitSettings
) -> AbnormalSide:
    pool, banks, terms = good.evidence[name], good.fold_banks[name], _terms(good, name, settings)
    rng = np.random.default_rng(settings.seed)
    seen = unseen(pool, good.folds[name], banks, terms.scoring, rng)
    return imagine(pool, seen, banks[0], foreign, terms, settings.abnormal_weight or 0.0)


def _terms(good: GoodParts, name: str, settings: FitSettings) -> Terms:
    return Terms(
        good.scorings[name],
        settings.abnormal_rows_each,
        good.spec.patches,
        settings.seed,
        settings.recipe,
    )


def _images(category: Category) -> int:
    return len(category.train)


def _foreign(good: GoodParts, settings: FitSettings) -> dict[str, NDArray[np.float32]]:
    """Gather, for every category, patches of anything but it: other products and plain textures."""
    pictures = textures(TEXTURES, good.spec.size_px, np.random.default_rng(settings.seed))
    drawn = np.concatenate([extract(good.trunk, some[None])[0] for some in pictures])
    return {
        name: _thinned(
            [drawn, *(pool.features for other, pool in good.evidence.items() if other != name)],
            FOREIGN // len(good.evidence),
        )
        for name in good.evidence
    }


def _thinned(pools: Sequence[Rows], count: int) -> NDArray[np.float32]:
    """Join pools, each to its share of `count`: whole, C categories would take C² of memory."""
    share = min(1.0, count / sum(map(len, pools)))
    return np.concatenate(
        [pool[np.linspace(0, len(pool) - 1, int(share * len(pool))).astype(int)] for pool in pools]
    )

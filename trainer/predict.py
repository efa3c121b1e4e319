"""Single images through a bundle, with a picture of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from inspection.preprocessing import prepare
from inspection.verdicts import Region, Verdict, find_regions, judge
from trainer.dataset import read_image, resize
from trainer.pictures import overlay
from trainer.runtime import Runtime


def predict(
    runtime: Runtime, images: Sequence[Path], product: str | None, folder: Path
) -> list[dict[str, Any]]:
    """Judge images and write an overlay of each.

    Args:
        runtime: Of the bundle.
        images: Files.
        product: Whose route judges them; None for that of the product that each looks like.
        folder: For the overlays, PNG; made if need be.

    Returns:
        One answer an image, in order: image, verdict, score, p_value, thresholds, regions, overlay;
        `product` is the one whose route judged, null for the route of unknown products.

    Raises:
        InputError: The bundle does not know the product.
        DatasetError: An image cannot be used.
        OSError: An overlay cannot be written.
    """
    bundle, spec = runtime.bundle, runtime.bundle.preprocessing
    known = bundle.route(product)
    folder.mkdir(parents=True, exist_ok=True)
    answers = []
    for number, path in enumerate(images):
        image = read_image(path)
        prepared = prepare(image, spec, resize)
        route = known if known.category is not None else runtime.recognise(prepared)
        found = runtime.inspect(prepared, route)
        judgement = judge(found.score, route.calibration, route.thresholds)
        verdict = judgement.decision.verdict
        standardised = route.calibration.standardise(found.anomaly_map)
        regions: tuple[Region, ...] = ()
        if verdict is not Verdict.PASS:
            regions = find_regions(standardised, route.thresholds.review, image.shape)
        # Two folders often hold images of the same name.
        target = folder / f"{number:04d}-{path.stem}.png"
        drawn = overlay(image, standardised, route.thresholds, regions, verdict)
        target.write_bytes(cv2.imencode(".png", drawn[:, :, ::-1])[1].tobytes())
        answers.append(
            {
                "image": str(path),
                "product": route.category,
                "verdict": verdict.value,
                "score": judgement.score,
                "p_value": judgement.p_value,
                "review": route.thresholds.review,
                "reject": route.thresholds.reject,
                "regions": [[box.x_px, box.y_px, box.width_px, box.height_px] for box in regions],
                "overlay": str(target),
            }
        )
    return answers

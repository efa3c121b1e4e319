"""The station remembers what each camera sent last, and believes no camera that sends it again."""

from __future__ import annotations

import dataclasses
from hashlib import sha256

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.outcome import NoScoreError
from edge.plausibility import Plausibility
from inspection.bundle import Bundle, Route
from inspection.verdicts import Reason
from tests.bundles import PRODUCTS, SPEC, bad_frame, doubtful_frame, good_frame

A, B = "left", "right"


@pytest.fixture
def route(tiny_bundle: Bundle) -> Route:
    return tiny_bundle.route("bolt")


def digest(image: NDArray[np.uint8]) -> str:
    return sha256(image.tobytes()).hexdigest()


def refusal(call: object, *given: object) -> Reason | None:
    """Why a check refuses, or None."""
    try:
        call(*given)  # type: ignore[operator]
    except NoScoreError as error:
        return error.reason
    return None


def nearly(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same picture in other bytes."""
    other = image.copy()
    other[0, 0] ^= 1
    return other


@pytest.mark.parametrize("product", PRODUCTS)
def test_good_doubtful_and_bad_parts_in_turn_are_let_through(
    tiny_bundle: Bundle, product: str
) -> None:
    station, route = Plausibility(), tiny_bundle.route(product)

    for image in (
        *(good_frame(product, seed) for seed in range(20)),
        *(bad_frame(product, seed, 50) for seed in range(20)),
        doubtful_frame(product),
    ):
        station.check_digest(A, True, digest(image))
        station.check_image(A, True, image, route, SPEC)


def test_the_same_bytes_twice_in_a_row_are_refused_each_time_they_come_again() -> None:
    station = Plausibility()

    found = [refusal(station.check_digest, A, True, each) for each in "xxxyx"]

    assert found == [None, Reason.REPEATED, Reason.REPEATED, None, None]


def test_the_text_of_a_repeated_frame_names_the_digest_and_the_way_out() -> None:
    station = Plausibility()
    station.check_digest(A, True, "0123456789abcdef")

    with pytest.raises(NoScoreError, match=r"0123456789ab….*live = false"):
        station.check_digest(A, True, "0123456789abcdef")


def test_what_is_played_from_files_may_come_again(route: Route) -> None:
    station, image = Plausibility(), good_frame()

    for _ in range(2):
        station.check_digest(A, False, digest(image))
        station.check_image(A, False, image, route, SPEC)


def test_a_live_frame_is_compared_with_one_that_was_not_live(route: Route) -> None:
    station, image = Plausibility(), good_frame()
    station.check_digest(A, False, digest(image))
    station.check_image(A, False, image, route, SPEC)

    assert refusal(station.check_digest, A, True, digest(image)) is Reason.REPEATED
    assert refusal(station.check_image, A, True, nearly(image), route, SPEC) is Reason.FROZEN


def test_cameras_are_not_compared_with_each_other(route: Route) -> None:
    station, image = Plausibility(), good_frame()

    for camera in (A, B):
        station.check_digest(camera, True, digest(image))
        station.check_image(camera, True, image, route, SPEC)

    assert refusal(station.check_image, A, True, nearly(image), route, SPEC) is Reason.FROZEN
    assert refusal(station.check_image, B, True, good_frame(seed=2), route, SPEC) is None


def test_products_of_one_camera_share_its_last_frame(tiny_bundle: Bundle) -> None:
    station, image = Plausibility(), good_frame("bolt")
    station.check_image(A, True, image, tiny_bundle.route("bolt"), SPEC)

    found = refusal(station.check_image, A, True, image, tiny_bundle.route("nut"), SPEC)

    assert found is Reason.FROZEN


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        pytest.param(np.zeros((32, 32, 3), np.uint8), Reason.TOO_DARK, id="black"),
        pytest.param(np.full((32, 32, 3), 255, np.uint8), Reason.OVEREXPOSED, id="white"),
        pytest.param(
            np.tile(np.linspace(60, 120, 32).astype(np.uint8)[:, None, None], (1, 32, 3)),
            Reason.BLURRED,
            id="a gradient",
        ),
    ],
)
def test_what_no_good_part_looked_like_is_refused(
    route: Route, image: NDArray[np.uint8], reason: Reason
) -> None:
    assert refusal(Plausibility().check_image, A, True, image, route, SPEC) is reason
    assert refusal(Plausibility().check_image, A, False, image, route, SPEC) is reason


def test_a_frame_that_was_refused_is_still_the_one_before(route: Route) -> None:
    station, image = Plausibility(), good_frame()
    limits = dataclasses.replace(route.limits, least_brightness=200.0)  # type: ignore[type-var]
    strict = dataclasses.replace(route, limits=limits)
    assert refusal(station.check_image, A, True, image, strict, SPEC) is Reason.TOO_DARK

    assert refusal(station.check_image, A, True, image, route, SPEC) is Reason.FROZEN


def test_a_frame_that_cannot_be_decoded_does_not_hide_that_the_picture_stands_still(
    route: Route,
) -> None:
    station, image = Plausibility(), good_frame()
    station.check_digest(A, True, digest(image))
    station.check_image(A, True, image, route, SPEC)
    station.check_digest(A, True, "of what is no image")

    assert refusal(station.check_digest, A, True, digest(image)) is None
    assert refusal(station.check_image, A, True, image, route, SPEC) is Reason.FROZEN


def test_a_bundle_without_limits_refuses_repeated_frames_alone(route: Route) -> None:
    station, black = Plausibility(), np.zeros((32, 32, 3), np.uint8)
    older = dataclasses.replace(route, limits=None)

    for _ in range(2):
        station.check_image(A, True, black, older, SPEC)

    station.check_digest(A, True, digest(black))
    assert refusal(station.check_digest, A, True, digest(black)) is Reason.REPEATED


def test_the_camera_that_sent_nothing_for_longest_is_forgotten() -> None:
    station = Plausibility(most_cameras=2)
    for camera in (A, B, A, "third"):
        station.check_digest(camera, False, camera)

    assert refusal(station.check_digest, A, True, A) is Reason.REPEATED
    assert refusal(station.check_digest, B, True, B) is None


def test_nothing_of_an_image_is_kept_but_a_thumbnail(route: Route) -> None:
    station, image = Plausibility(), good_frame()
    station.check_image(A, True, image, route, SPEC)
    same = image.copy()

    image[:] = 0  # a buffer is used again

    assert refusal(station.check_image, A, True, same, route, SPEC) is Reason.FROZEN

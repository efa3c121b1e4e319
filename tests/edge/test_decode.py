"""Decoding: every kind of pixel that the wire allows, and every kind of damage."""

from __future__ import annotations

import random
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.decode import decode
from edge.outcome import NoScoreError
from edge.resize import is_repeated, prepare_frame
from inspection.messages import Frame, FrameHeader
from inspection.preprocessing import TOLERANCE_LEVELS, Preprocessing, prepare, resize_exactly
from inspection.verdicts import Reason
from tests.line.hostile import jpeg_of, png_of

LIMIT = 256 << 20

RGB = np.random.default_rng(3).integers(0, 256, (13, 31, 3), dtype=np.uint8)
DEEP = np.random.default_rng(4).integers(0, 1 << 16, (13, 31, 3), dtype=np.uint16)


def frame_of(pixels: bytes, encoding: str, **fields: Any) -> Frame:
    header = FrameHeader.model_validate(
        {"camera": "c", "session": "s", "seq": 0, "encoding": encoding, **fields}
    )
    return Frame(header, memoryview(pixels))


def encode(kind: str, image: NDArray[Any]) -> bytes:
    """Encode RGB, RGBA or grey pixels with OpenCV, which wants BGR."""
    if image.ndim == 3:
        image = image[:, :, [2, 1, 0, 3][: image.shape[2]]]
    return bytes(cv2.imencode(f".{kind}", image)[1])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(RGB, RGB, id="colour"),
        pytest.param(RGB[:, :, 0], np.repeat(RGB[:, :, :1], 3, 2), id="grey"),
        pytest.param(np.dstack([RGB, RGB[:, :, :1]]), RGB, id="alpha is dropped"),
        pytest.param(DEEP, (DEEP >> 8).astype(np.uint8), id="16 bits keep the upper 8"),
        pytest.param(
            DEEP[:, :, 0], np.repeat((DEEP[:, :, :1] >> 8).astype(np.uint8), 3, 2), id="16 bit grey"
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_the_same_part_gives_the_same_pixels_however_it_was_sent(
    image: NDArray[Any], expected: NDArray[np.uint8], encoding: str
) -> None:
    pixels = image.tobytes() if encoding == "raw" else encode("png", image)
    sides = list(image.shape)

    decoded = decode(frame_of(pixels, encoding, shape=sides, dtype=str(image.dtype)), LIMIT)

    assert np.array_equal(decoded, expected)


def test_a_jpeg_comes_out_in_rgb_order() -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[:, :, 0] = 250

    decoded = decode(frame_of(encode("jpg", red), "jpeg"), LIMIT)

    assert decoded[16, 16, 0] > 200
    assert decoded[16, 16, 2] < 50


@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_the_channels_of_a_grey_frame_are_one(encoding: str) -> None:
    grey = np.ascontiguousarray(RGB[:, :, 0])
    pixels = grey.tobytes() if encoding == "raw" else encode(encoding.replace("e", ""), grey)

    decoded = decode(frame_of(pixels, encoding, shape=[13, 31]), LIMIT)

    assert decoded.shape == (13, 31, 3)
    assert is_repeated(decoded)


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_a_grey_frame_with_a_side_that_is_too_short_is_refused(encoding: str) -> None:
    grey = np.zeros((7, 31), np.uint8)
    pixels = grey.tobytes() if encoding == "raw" else encode(encoding, grey)

    with pytest.raises(NoScoreError, match="at least 8 px"):
        decode(frame_of(pixels, encoding, shape=[7, 31]), LIMIT)


def test_zeros_after_the_end_of_an_image_are_padding() -> None:
    for kind, encoding in (("jpg", "jpeg"), ("png", "png")):
        padded = encode(kind, RGB) + b"\0" * 1000

        assert decode(frame_of(padded, encoding), LIMIT).shape == RGB.shape


@pytest.mark.parametrize(("kind", "encoding"), [("jpg", "jpeg"), ("png", "png")])
def test_an_image_cut_anywhere_is_never_scored(kind: str, encoding: str) -> None:
    whole = encode(kind, RGB)

    for length in range(1, len(whole), 7):
        with pytest.raises(NoScoreError) as caught:
            decode(frame_of(whole[:length], encoding), LIMIT)
        assert caught.value.reason is Reason.BAD_IMAGE


@pytest.mark.parametrize(
    ("pixels", "encoding"), [(jpeg_of(65535, 65535), "jpeg"), (png_of(32768, 32768), "png")]
)
def test_a_bomb_is_refused_by_its_header(pixels: bytes, encoding: str) -> None:
    with pytest.raises(NoScoreError, match="bytes are allowed") as caught:
        decode(frame_of(pixels, encoding), LIMIT)

    assert caught.value.reason is Reason.FRAME_TOO_LARGE


@pytest.mark.parametrize("shape", [[31, 13], [13, 32], [1, 1, 3]])
def test_a_shape_that_the_image_does_not_have_is_refused(shape: list[int]) -> None:
    with pytest.raises(NoScoreError, match="the header says") as caught:
        decode(frame_of(encode("png", RGB), "png", shape=shape), LIMIT)

    assert caught.value.reason is Reason.BAD_PAYLOAD


def test_a_damaged_image_is_decoded_or_refused_and_nothing_else() -> None:
    chance = random.Random(5)
    for kind, encoding in (("jpg", "jpeg"), ("png", "png")):
        whole = encode(kind, RGB)
        for _ in range(300):
            damaged = bytearray(whole)
            for _ in range(chance.randrange(1, 4)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            try:
                image = decode(frame_of(bytes(damaged), encoding), 1 << 20)
            except NoScoreError as error:
                assert error.reason in (Reason.BAD_IMAGE, Reason.FRAME_TOO_LARGE)  # noqa: PT017
            else:
                assert image.nbytes <= 1 << 20


@pytest.mark.parametrize(
    "sides", [(8, 8), (13, 31), (31, 300), (300, 31), (33, 32), (240, 320), (700, 500)]
)
def test_opencv_prepares_like_the_definition(sides: tuple[int, int]) -> None:
    image = np.random.default_rng(6).integers(0, 256, (*sides, 3), dtype=np.uint8)
    spec = Preprocessing(64)

    ours = prepare_frame(image, spec).astype(int)

    assert np.abs(ours - prepare(image, spec, resize_exactly)).max() <= TOLERANCE_LEVELS

"""Headers of images: what they claim, and what is refused before it is decoded."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import pytest

from inspection.errors import ImageError
from inspection.images import ImageInfo, image_format, probe
from tests.line.hostile import JPEG, PNG, jpeg_of, png_of

IMAGE = np.random.default_rng(0).integers(0, 256, (13, 31, 3), dtype=np.uint8)


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_is_as_high_and_wide_as_its_frame_header_says(
    progressive: int, channels: int
) -> None:
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    data = cv2.imencode(".jpg", IMAGE[:, :, :channels], options)[1].tobytes()

    assert probe(data) == ImageInfo("jpeg", 13, 31, channels, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_a_png_may_decode_to_is_never_understated(channels: int, dtype: type) -> None:
    image = np.zeros((13, 31, channels), dtype)
    data = cv2.imencode(".png", image)[1]

    info = probe(data.tobytes())

    decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert (info.height_px, info.width_px) == decoded.shape[:2]
    assert decoded.nbytes <= info.decoded_bytes


def test_a_thumbnail_inside_is_not_taken_for_the_image() -> None:
    thumbnail = b"\xff\xe1" + (len(JPEG) + 2).to_bytes(2, "big") + jpeg_of(5, 5)
    nested = JPEG[:2] + thumbnail + JPEG[2:]

    assert probe(nested).width_px == 64
    with pytest.raises(ImageError, match=r"frame header|marker|ends"):
        probe(nested[: 2 + len(thumbnail)])


@pytest.mark.parametrize("whole", [JPEG, PNG], ids=["jpeg", "png"])
def test_a_file_cut_anywhere_is_truncated(whole: bytes) -> None:
    assert probe(whole + b"\0" * 99)

    for length in range(len(whole)):
        with pytest.raises(ImageError):
            probe(whole[:length])


@pytest.mark.parametrize("data", [b"", b"\xff", b"GIF89a" * 9, b"\0" * 99, bytes(range(256))])
def test_what_is_neither_is_refused(data: bytes) -> None:
    assert image_format(data) is None
    with pytest.raises(ImageError, match="expected a JPEG or PNG"):
        probe(data)


@pytest.mark.parametrize(
    "data", [jpeg_of(0, 8), jpeg_of(8, 0), png_of(0, 8), png_of(8, 0), png_of(1 << 31, 8)]
)
def test_an_image_without_area_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="px"):
        probe(data)


@pytest.mark.parametrize("whole", [JPEG, PNG], ids=["jpeg", "png"])
@pytest.mark.parametrize("notes", [b"\0" * (1 << 17), b"camera 7, lane 2", b"\xff\xd8\xff"])
def test_what_a_camera_puts_behind_the_end_does_no_harm(whole: bytes, notes: bytes) -> None:
    assert probe(whole + notes) == probe(whole)


def test_an_end_before_the_frame_header_is_not_the_images() -> None:
    comment = b"\xff\xfe\x00\x04\xff\xd9"
    cut = JPEG[:2] + comment + JPEG[2:-2]

    with pytest.raises(ImageError, match="truncated"):
        probe(cut)


@pytest.mark.parametrize("filler", [b"\xff", b"\xff\xd0", b"\xff\xe0\x00\x02", b"\xff\xe0\x00\x00"])
def test_a_header_without_end_is_given_up(filler: bytes) -> None:
    data = b"\xff\xd8" + filler * 200_000 + b"\xff\xd9"

    with pytest.raises(ImageError, match="frame header"):
        probe(data)


def scans(count: int) -> bytes:
    """Give a progressive JPEG that goes over its image so many times more than it has to."""
    whole = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8), PROGRESSIVE)[1].tobytes()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * count + b"\xff\xd9"


PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


def test_a_jpeg_that_goes_over_its_image_without_end_is_refused_before_it_is_decoded() -> None:
    assert probe(scans(30)).format == "jpeg"
    with pytest.raises(ImageError, match="more than 64 scans"):
        probe(scans(100))


def test_scans_that_a_comment_pretends_to_hide_are_counted_and_those_inside_one_are_not() -> None:
    whole = scans(0)
    scan = whole.index(b"\xff\xda")
    inside = b"\xff\xfe" + (2 + 200).to_bytes(2, "big") + b"\xff\xda" * 100
    # The frame header's own bytes, taken for a marker, would hide what follows.
    at = whole.index(b"\xff\xc2") + 10
    hidden = scans(100)[:at] + b"\xff\x11\xff" + scans(100)[at + 3 :]

    assert probe(whole[:scan] + inside + whole[scan:]).format == "jpeg"
    with pytest.raises(ImageError, match="more than 64 scans"):
        probe(hidden)


def test_segments_without_end_behind_the_frame_header_are_given_up() -> None:
    whole = scans(0)
    scan = whole.index(b"\xff\xda")

    with pytest.raises(ImageError, match="more than 1024 segments"):
        probe(whole[:scan] + b"\xff\x01" * 100_000 + whole[scan:])


@pytest.mark.parametrize("announced", [1 << 20, 1 << 30, (1 << 32) - 1])
def test_a_png_whose_chunk_announces_more_than_there_is_is_refused(announced: int) -> None:
    at = PNG.index(b"IDAT") - 4

    with pytest.raises(ImageError, match="PNG is truncated"):
        probe(PNG[:at] + announced.to_bytes(4, "big") + PNG[at + 4 :])


def test_a_png_of_chunks_without_end_is_given_up() -> None:
    empty = (b"\0\0\0\0tEXt" + zlib.crc32(b"tEXt").to_bytes(4, "big")) * 70_000
    at = PNG.index(b"IDAT") - 4

    with pytest.raises(ImageError, match="more than 65536 chunks"):
        probe(PNG[:at] + empty + PNG[at:])

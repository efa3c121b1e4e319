"""Files played as a camera would send them: what is sent, and when."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import pytest
import zmq

from edge.player import find_images, load, pace, play
from inspection.errors import ImageError, InputError
from inspection.messages import Frame, decode_frame
from tests.bundles import good_frame
from tests.line.push_camera import PushCamera


class Station:
    """The receiving end: binds, and decodes what comes."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self.address = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"

    def take(self) -> Frame:
        assert self._socket.poll(10_000), "no frame came"
        return decode_frame(self._socket.recv_multipart(), 1 << 30)

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def station() -> Iterator[Station]:
    opened = Station()
    yield opened
    opened.close()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for name in ("b/2.png", "b/10.jpg", "a.bmp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), good_frame()[:, :, ::-1])
    (folder / "notes.txt").write_text("no image")
    return folder


def test_images_come_sorted_with_their_path_as_part(images: Path) -> None:
    assert [file.part for file in find_images([images])] == ["a.bmp", "b/10.jpg", "b/2.png"]
    assert [file.part for file in find_images([images / "b" / "2.png"])] == ["2.png"]


def test_links_are_followed_and_a_loop_of_them_ends(images: Path) -> None:
    (images / "c").symlink_to(images / "b")
    (images / "b" / "up").symlink_to(images)

    found = [file.part for file in find_images([images])]

    assert len(found) == 3
    assert "a.bmp" in found


def test_a_folder_without_images_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png"):
        find_images([tmp_path])
    with pytest.raises(InputError, match="neither a file nor a folder"):
        find_images([tmp_path / "missing"])


def test_as_is_sends_jpeg_and_png_unchanged_and_the_rest_raw(
    images: Path, station: Station
) -> None:
    with PushCamera(station.address) as camera:
        play(camera, find_images([images]), rate_hz=0)

    for name, encoding in (("a.bmp", "raw"), ("b/10.jpg", "jpeg"), ("b/2.png", "png")):
        frame = station.take()
        assert (frame.header.part, frame.header.encoding) == (name, encoding)
        if encoding == "raw":
            assert bytes(frame.pixels) == good_frame().tobytes()
        else:
            assert bytes(frame.pixels) == (images / name).read_bytes()


@pytest.mark.parametrize(("encoding", "start"), [("jpeg", b"\xff\xd8"), ("png", b"\x89PNG")])
def test_a_file_can_be_sent_in_another_encoding(images: Path, encoding: str, start: bytes) -> None:
    data = load(images / "a.bmp", encoding)  # type: ignore[arg-type]

    assert bytes(data).startswith(start)


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    for content in (b"", b"no image"):
        path = tmp_path / "x.bmp"
        path.write_bytes(content)

        with pytest.raises(ImageError, match=r"x\.bmp"):
            load(path, "as-is")


def test_a_loop_goes_on_until_the_count(images: Path, station: Station) -> None:
    with PushCamera(station.address) as camera:
        play(camera, find_images([images]), rate_hz=0, loop=True, count=7)

    assert [station.take().header.part for _ in range(7)][3::3] == ["a.bmp", "a.bmp"]


class LazyClock:
    """Time that passes only in `sleep`, which wakes late as clocks do, or when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + 0.001


def test_a_frame_that_is_late_does_not_delay_the_rest() -> None:
    clock = LazyClock()
    late = []

    for number in islice(pace(10.0, clock, clock.sleep), 50):
        late.append(clock.now - 100.0 - number / 10.0)
        clock.now += 0.35 if number == 20 else 0.01  # one frame takes long

    assert max(late[:20]) <= 0.0011, "waking late does not add up"
    assert max(late[30:]) <= 0.0011, "what was lost is caught up"


def test_no_rate_means_no_waiting() -> None:
    def sleep(_: float) -> None:
        raise AssertionError("slept")

    assert list(islice(pace(0.0, lambda: 0.0, sleep), 3)) == [0, 1, 2]

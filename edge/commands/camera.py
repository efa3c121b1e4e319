"""`camera`: files, sent as a camera would send them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from edge.camera import STATION, Camera, CameraError
from edge.commands.options import (
    DONE,
    FAILED,
    above_zero,
    add_keys,
    client_keys,
    not_negative,
    positive,
    print_json,
)
from edge.player import ImageFile, find_images, play
from inspection.errors import StationError


def add_camera(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser("camera", help="send images as a camera would")
    verb.set_defaults(verb=_camera)
    verb.add_argument("paths", nargs="+", type=Path, metavar="DIR|FILE", help="images to send")
    verb.add_argument("--to", default=STATION, help="the station [%(default)s]")
    verb.add_argument(
        "--rate", type=not_negative, default=10.0, metavar="HZ", help="[%(default)s]; 0 = at once"
    )
    verb.add_argument("--name", default="cam0", help="of the camera [%(default)s]")
    verb.add_argument("--product", help="what the camera looks at")
    verb.add_argument("--count", type=positive, help="stop after so many frames")
    verb.add_argument("--loop", action="store_true", help="start again after the last image")
    verb.add_argument(
        "--encoding",
        choices=("as-is", "jpeg", "png", "raw"),
        default="as-is",
        help="as-is sends JPEG and PNG unchanged, other files as raw pixels [%(default)s]",
    )
    verb.add_argument("--deadline-ms", type=above_zero, help="when a verdict comes too late")
    verb.add_argument(
        "--timeout",
        type=not_negative,
        default=30.0,
        metavar="S",
        help="give up when no station takes frames for so long [%(default)s]",
    )
    add_keys(verb)
    verb.add_argument("--json", action="store_true", help="at the end, the count as JSON")


def _camera(given: argparse.Namespace) -> int:
    images = find_images(given.paths)
    keys = client_keys(given)
    try:
        camera = Camera(
            *(given.to, given.name),
            product=given.product,
            live=False,
            timeout_s=given.timeout,
            keys=None if keys is None else (keys.public_key, keys.secret_key, keys.server_key),
        )
        with camera:
            return _play(camera, images, given)
    except CameraError as error:
        raise StationError(str(error)) from error


def _play(camera: Camera, images: Sequence[ImageFile], given: argparse.Namespace) -> int:
    if not camera.wait_for_station():
        raise StationError(
            f"no station takes frames at {given.to} within {given.timeout:g} s; "
            "is it running, and is this its address for cameras?"
        )
    try:
        play(
            camera,
            images,
            given.rate,
            count=given.count,
            loop=given.loop,
            encoding=given.encoding,
            deadline_ms=given.deadline_ms,
        )
    except KeyboardInterrupt:
        pass  # how a loop ends; what was sent is still told
    finally:
        open_frames = camera.close()
        account = {
            **{"camera": camera.name, "session": camera.session, "sent": camera.sent},
            **{"unacknowledged": open_frames},
            "verdicts": dict(camera.recorded),
        }
        if given.json:
            print_json(account)
        else:
            shown = ", ".join(f"{n} {verdict}" for verdict, n in sorted(camera.recorded.items()))
            print(f"{camera.sent} frames sent to {given.to} as {camera.name}: {shown}")
            if open_frames:
                print(f"{open_frames} of them were not acknowledged: the station has to be asked")
    return FAILED if open_frames else DONE

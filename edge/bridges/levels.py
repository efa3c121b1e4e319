"""A camera's name as one level of a topic or a path; which topics and paths, says each bridge."""

from __future__ import annotations

from urllib.parse import quote

WILD = "+#/%"


def level_of(camera: str) -> str:
    """Write a camera's name as one level; no two names give the same.

    `+` and `#` are MQTT's wildcards, `/` would be two levels, and a broker drops whoever sends a
    control character: all of them, and `%`, become `%` and two hex digits a byte.
    """
    return "".join(
        sign if sign.isprintable() and sign not in WILD else quote(sign, safe="") for sign in camera
    )

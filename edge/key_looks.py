"""Looks at who may reach a station, and with which key. Nothing is changed."""

from __future__ import annotations

from pathlib import Path

from edge.findings import Finding, State, user
from edge.keys import SECRET, STATION, Role, list_keys, station_pair
from edge.settings import StationSettings, plain_addresses
from inspection.errors import InputError

_OTHERS_WRITE = 0o022


def look_at_keys(settings: StationSettings) -> list[Finding]:
    """Look at the keys, and at what of the addresses is encrypted."""
    return [_keys(settings.keys), _addresses(settings)]


def _keys(keys: Path | None) -> Finding:
    if keys is None:
        found = "none: whoever reaches the sockets is let in, users of this machine too"
        return Finding("keys", State.FINE, found)
    try:
        station_pair(keys)
    except InputError as error:
        there = (keys / (STATION + SECRET)).exists()
        remedy = "put the right file back" if there else f"dualbank-edge keys new-station {keys}"
        return Finding("keys", State.BROKEN, str(error), remedy)
    open_folders = [each for each in _folders(keys) if each.stat().st_mode & _OTHERS_WRITE]
    if open_folders:
        found = f"other users may let peers in: they may write to {open_folders[0]}"
        return Finding("keys", State.BROKEN, found, f"chmod -R go-w {keys.absolute()}")
    try:
        allowed = list_keys(keys)
    except InputError as error:
        return Finding("keys", State.LACKING, str(error), "make that peer's key anew")
    counts = ", ".join(f"{len(peers)} {role.value}" for role, peers in allowed.items())
    if not allowed[Role.CAMERA]:
        remedy = f"dualbank-edge keys new camera NAME --keys {keys} --out DIR"
        return Finding("keys", State.LACKING, f"no camera may enter: {counts}", remedy)
    return Finding("keys", State.FINE, f"the secret is {user()}'s own; {counts} may enter")


def _folders(keys: Path) -> list[Path]:
    places = [keys, *(keys / role.value for role in Role)]
    return [each for each in places if each.is_dir()]


def _addresses(settings: StationSettings) -> Finding:
    plain = plain_addresses(settings)
    if plain:
        found = f"other machines reach in plain text: {', '.join(plain)}"
        remedy = "set keys; or keep it to a network that nobody else can reach"
        return Finding("addresses", State.LACKING, found, remedy)
    if settings.insecure:
        found = "insecure is set, and nothing needs it"
        return Finding("addresses", State.LACKING, found, "set insecure = false")
    how = "tcp is encrypted" if settings.keys is not None else "only this machine reaches them"
    return Finding("addresses", State.FINE, how)

"""`keys`: who may enter a station."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge.commands.options import DONE, add_json, print_json
from edge.keys import (
    PUBLIC,
    STATION,
    Role,
    list_keys,
    new_peer,
    new_station,
    read_public,
    revoke,
)

_ROLES = {role.name.lower(): role for role in Role}


def add_keys(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser("keys", help="make, list and revoke the keys of a station")
    verb.description = "docs/security.md says who may do what, and where which file belongs."
    kinds = verb.add_subparsers(required=True, metavar="WHAT")

    station = kinds.add_parser("new-station", help="make the folder of keys of a station")
    station.set_defaults(verb=_new_station)
    station.add_argument("keys", type=Path, metavar="DIR", help="for the setting `keys`")
    add_json(station, "what was made, as JSON")

    peer = kinds.add_parser("new", help="make a key for a peer, and let it in")
    peer.set_defaults(verb=_new)
    _add_peer(peer)
    peer.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the pair")
    add_json(peer, "what was made, as JSON")

    listed = kinds.add_parser("list", help="tell who is let in")
    listed.set_defaults(verb=_list)
    listed.add_argument("keys", type=Path, metavar="DIR", help="the station's folder of keys")
    add_json(listed, "public keys by role and name, as JSON")

    revoked = kinds.add_parser("revoke", help="let a peer in no more")
    revoked.set_defaults(verb=_revoke)
    revoked.description = "A peer that is in stays until its connection or the station ends."
    _add_peer(revoked)
    add_json(revoked, "who was revoked, as JSON")


def _add_peer(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("role", choices=_ROLES, help="what the peer may do")
    verb.add_argument("name", metavar="NAME", help="of the peer: letters, digits, dots, _ and -")
    verb.add_argument(
        "--keys", type=Path, required=True, metavar="DIR", help="the station's folder of keys"
    )


def _new_station(given: argparse.Namespace) -> int:
    public = new_station(given.keys)
    if given.json:
        print_json({"public": str(public), "key": read_public(public).decode()})
    else:
        print(f"{given.keys} is for the setting keys; peers need {public}")
    return DONE


def _new(given: argparse.Namespace) -> int:
    secret = new_peer(_ROLES[given.role], given.name, given.keys, given.out)
    station = given.keys / (STATION + PUBLIC)
    if given.json:
        print_json({"role": given.role, "secret": str(secret), "station": str(station)})
    else:
        print(f"give the {given.role} {secret} and {station}; then remove {secret} here")
    return DONE


def _list(given: argparse.Namespace) -> int:
    station = read_public(given.keys / (STATION + PUBLIC)).decode()
    allowed = list_keys(given.keys)
    if given.json:
        by_role = {
            role.value: {name: key.decode() for name, key in keys.items()}
            for role, keys in allowed.items()
        }
        print_json({"station": station, **by_role})
        return DONE
    print(f"{'station':<12}{'':<24}{station}")
    for role, keys in allowed.items():
        for name, key in keys.items():
            print(f"{role.name.lower():<12}{name:<24}{key.decode()}")
    return DONE


def _revoke(given: argparse.Namespace) -> int:
    revoke(_ROLES[given.role], given.name, given.keys)
    if given.json:
        print_json({"role": given.role, "revoked": given.name})
    else:
        print(f"{given.name} is let in no more; restart the station if it may be connected now")
    return DONE

"""CURVE keys as files: a station's own, and those of the peers that it lets in.

A folder of keys is one station's:

    station.key_secret   its secret, 0600; `station.key` is what its peers must know
    cameras/NAME.key     one public key a peer that may enter, in the folder of what it may do
    subscribers/NAME.key
    control/NAME.key

The files are pyzmq's certificates. Who is let in by them is `edge.access`'s to say.
"""

from __future__ import annotations

import difflib
import os
import re
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import zmq
from zmq.auth import create_certificates, load_certificate
from zmq.utils import z85

from inspection.errors import InputError

STATION = "station"
PUBLIC, SECRET = ".key", ".key_secret"

CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""Where systemd shows a service its credentials."""

MOST_FILE_BYTES = 4096
KEY_BYTES = 32

_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOT_THE_OWNERS = 0o077


class Role(Enum):
    """What a peer may do; the value is the folder of its keys."""

    CAMERA = "cameras"
    SUBSCRIBER = "subscribers"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Both halves of a key, each 40 characters of Z85."""

    public_key: bytes
    secret_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """What a peer needs to enter: its own key, and the public one of the station; all Z85."""

    public_key: bytes
    secret_key: bytes = field(repr=False)
    server_key: bytes


def read_client_keys(secret_file: Path, station_file: Path) -> CurveKeys:
    """Read what a peer enters with.

    Args:
        secret_file: The peer's own `NAME.key_secret`.
        station_file: The station's public `station.key`.

    Raises:
        InputError: A file cannot be used, or the secret one can be read by others.
    """
    own = read_pair(secret_file)
    return CurveKeys(own.public_key, own.secret_key, read_public(station_file))


def station_pair(keys: Path | None, environment: Mapping[str, str] | None = None) -> KeyPair | None:
    """Read a station's own key: systemd's credential if there is one, else that of the folder.

    Args:
        keys: The setting; None: the station has none, and encrypts nothing.
        environment: None means this process's.

    Raises:
        InputError: There is none, or it cannot be used.
    """
    if keys is None:
        return None
    environment = os.environ if environment is None else environment
    if (given := environment.get(CREDENTIALS)) and (Path(given) / (STATION + SECRET)).exists():
        # Its mode is systemd's: with an access list for the service's user it shows 0440.
        return _read_pair(Path(given) / (STATION + SECRET))
    return read_pair(keys / (STATION + SECRET))


def read_pair(file: Path) -> KeyPair:
    """Read a secret key that only its owner may read.

    Raises:
        InputError: Not there, no key, or open to others.
    """
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise InputError(f"cannot read the secret key {file}: {error.strerror}") from error
    if mode & _NOT_THE_OWNERS:
        raise InputError(
            f"other users may read the secret key {file} (mode {mode & 0o777:03o}, expected 600): "
            f"chmod 600 {file}, and make a new one if somebody may have"
        )
    return _read_pair(file)


def read_public(file: Path) -> bytes:
    """Read a public key, 40 characters of Z85.

    Raises:
        InputError: Not there, or no key.
    """
    return _load(file)[0]


def new_station(folder: Path) -> Path:
    """Make a folder of keys: a key for the station, and nobody whom it lets in.

    Returns:
        The file of its public key, for its peers.

    Raises:
        InputError: There is a key already, which is left as it is, or the folder cannot be made.
    """
    _make_folder(folder)
    for role in Role:
        _make_folder(folder / role.value)
    _write_pair(folder, STATION, [folder])
    return folder / (STATION + PUBLIC)


def new_peer(role: Role, name: str, keys: Path, out: Path) -> Path:
    """Make a key for a peer, and let it in.

    Args:
        role: What it may do.
        name: Of its files, for people: a camera may call itself otherwise in its frames.
        keys: The station's folder.
        out: Where the pair is written: to be carried to the peer, and removed here.

    Returns:
        The file of its secret key.

    Raises:
        InputError: The name cannot be one of a file, or is taken; nothing is overwritten.
    """
    _check_name(name)
    if not (keys / (STATION + PUBLIC)).exists():
        raise InputError(f"{keys} is no folder of keys: make one with keys new-station {keys}")
    _make_folder(keys / role.value)
    _make_folder(out)
    _write_pair(out, name, [out, keys / role.value])
    return out / (name + SECRET)


def list_keys(keys: Path) -> dict[Role, dict[str, bytes]]:
    """Give the public key of every peer that may enter, by role and name.

    Raises:
        InputError: A file is no key, or a folder cannot be read.
    """
    return {role: read_allowed(keys / role.value) for role in Role}


def read_allowed(folder: Path) -> dict[str, bytes]:
    """Give the public keys of one role by name; a folder that is not there lets nobody in.

    Raises:
        InputError: A file is no key, or the folder cannot be read.
    """
    return {file.stem: read_public(file) for file in key_files(folder)}


def key_files(folder: Path) -> list[Path]:
    """List the public keys of one role.

    Raises:
        InputError: The folder cannot be read.
    """
    try:
        return sorted(each for each in folder.iterdir() if each.suffix == PUBLIC)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot read the keys in {folder}: {error.strerror}") from error


def revoke(role: Role, name: str, keys: Path) -> None:
    """Let a peer in no more. Whoever is in stays until its connection ends.

    Raises:
        InputError: No such peer.
    """
    _check_name(name)
    file = keys / role.value / (name + PUBLIC)
    try:
        file.unlink()
    except OSError as error:
        known = [each.stem for each in key_files(keys / role.value)]
        near = difflib.get_close_matches(name, known) or known
        there = f"; did you mean {' or '.join(near)}?" if near else "; there is none"
        raise InputError(
            f"cannot revoke the {role.name.lower()} {name}: {error.strerror}{there}"
        ) from error


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"expected a name of 1 to 64 letters, digits, dots, _ and -, got {name!r:.80}"
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from error


def _write_pair(secret_folder: Path, name: str, public_folders: list[Path]) -> None:
    """Make a pair and write both halves where they belong, all or nothing, over nothing."""
    written: list[Path] = []
    try:
        # pyzmq writes over what is there, for everybody to read: it does so in a place of its own.
        with tempfile.TemporaryDirectory(dir=secret_folder) as closed:
            public, secret = create_certificates(closed, name)
            places = [(secret, secret_folder / (name + SECRET), 0o600)]
            places += [(public, folder / (name + PUBLIC), 0o644) for folder in public_folders]
            for source, target, mode in places:
                descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                written.append(target)
                with os.fdopen(descriptor, "wb") as to:
                    to.write(Path(source).read_bytes())
    except OSError as error:
        for target in written:
            target.unlink(missing_ok=True)
        taken = "; no key is overwritten" if isinstance(error, FileExistsError) else ""
        raise InputError(
            f"cannot write the key {error.filename}: {error.strerror}{taken}"
        ) from error


def _read_pair(file: Path) -> KeyPair:
    public, secret = _load(file)
    if secret is None:
        raise InputError(f"{file} has no secret key; expected the {SECRET} of a pair")
    if not _is_key(secret) or zmq.curve_public(secret) != public:
        raise InputError(f"the two keys in {file} are no pair; make a new one")
    return KeyPair(public, secret)


def _load(file: Path) -> tuple[bytes, bytes | None]:
    try:
        if file.stat().st_size > MOST_FILE_BYTES:
            raise InputError(f"{file} is no key: it has more than {MOST_FILE_BYTES} bytes")
        public, secret = load_certificate(file)
    except OSError as error:
        raise InputError(f"cannot read the key {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{file} is no key: {error}") from error
    if not _is_key(public):
        raise InputError(f"{file} is no key: expected {KEY_BYTES} bytes in Z85; make a new one")
    return public, secret


def _is_key(text: bytes) -> bool:
    try:
        return len(z85.decode(text)) == KEY_BYTES
    except (KeyError, ValueError, struct.error):
        return False  # what z85 says of other letters, of a part, and of a number too large

"""Keys as files: whose they are, what is refused, and that nothing is ever written over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zmq

from edge.cli import main
from edge.keys import (
    CREDENTIALS,
    CurveKeys,
    KeyPair,
    Role,
    list_keys,
    new_peer,
    new_station,
    read_client_keys,
    read_pair,
    read_public,
    revoke,
    station_pair,
)
from inspection.errors import InputError


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    new_station(folder)
    return folder


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(each): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def test_secrets_are_their_owners_and_the_folder_is_closed(keys: Path, tmp_path: Path) -> None:
    secret = new_peer(Role.CAMERA, "left", keys, tmp_path / "out")

    assert keys.stat().st_mode & 0o777 == 0o700
    for file in (secret, keys / "station.key_secret"):
        assert file.stat().st_mode & 0o777 == 0o600
    assert not list((keys / "cameras").glob("*secret"))


def test_a_peer_gets_a_pair_of_its_own_and_its_public_half_is_allowed(
    keys: Path, tmp_path: Path
) -> None:
    secret = new_peer(Role.SUBSCRIBER, "mes-1.b", keys, tmp_path / "out")

    own = read_client_keys(secret, keys / "station.key")

    assert zmq.curve_public(own.secret_key) == own.public_key
    assert own.server_key == read_public(keys / "station.key")
    assert list_keys(keys)[Role.SUBSCRIBER] == {"mes-1.b": own.public_key}
    assert list_keys(keys)[Role.CAMERA] == {}


def test_no_key_is_written_over(keys: Path, tmp_path: Path) -> None:
    new_peer(Role.CAMERA, "left", keys, tmp_path / "out")
    before = everything_in(tmp_path)

    with pytest.raises(InputError, match="no key is overwritten"):
        new_station(keys)
    with pytest.raises(InputError, match="no key is overwritten"):
        new_peer(Role.CAMERA, "left", keys, tmp_path / "elsewhere")
    with pytest.raises(InputError, match="no key is overwritten"):
        new_peer(Role.CONTROL, "left", keys, tmp_path / "out")

    assert everything_in(tmp_path) == before
    assert not list(tmp_path.rglob("tmp*"))


@pytest.mark.parametrize(
    "name", ["", "..", "../left", "a/b", ".hidden", "a\nb", "left\0", "-x", "c" * 65, "é", "a b"]
)
def test_a_name_cannot_lead_out_of_the_folder(keys: Path, tmp_path: Path, name: str) -> None:
    before = everything_in(tmp_path)

    with pytest.raises(InputError, match="expected a name of 1 to 64"):
        new_peer(Role.CAMERA, name, keys, tmp_path / "out")
    with pytest.raises(InputError, match="expected a name of 1 to 64"):
        revoke(Role.CAMERA, name, keys)

    assert everything_in(tmp_path) == before


def test_a_peer_of_no_station_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="new-station"):
        new_peer(Role.CAMERA, "left", tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602])
def test_a_secret_that_others_may_read_is_refused_with_the_remedy(keys: Path, mode: int) -> None:
    secret = keys / "station.key_secret"
    secret.chmod(mode)

    with pytest.raises(InputError, match=f"chmod 600 {secret}"):
        station_pair(keys, {})


def test_a_credential_of_systemd_wins_whatever_mode_it_shows(keys: Path, tmp_path: Path) -> None:
    new_station(tmp_path / "credentials")
    (tmp_path / "credentials" / "station.key_secret").chmod(0o440)
    given = {CREDENTIALS: str(tmp_path / "credentials")}

    pair = station_pair(keys, given)

    assert pair is not None
    assert pair.public_key == read_public(tmp_path / "credentials" / "station.key")


def test_without_a_key_of_its_own_a_station_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the secret key .*station\.key_secret"):
        station_pair(tmp_path, {})
    assert station_pair(None, {CREDENTIALS: str(tmp_path)}) is None


def test_credentials_for_something_else_change_nothing(keys: Path, tmp_path: Path) -> None:
    assert station_pair(keys, {CREDENTIALS: str(tmp_path)}) == station_pair(keys, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(b"", "No public key", id="empty"),
        pytest.param(b"curve\n  public-key = 'short'\n", "32 bytes in Z85", id="short"),
        pytest.param(b"curve\n  public-key = '" + b"~" * 40 + b"'", "32 bytes", id="no Z85"),
        pytest.param(b"curve\n  public-key = '" + b"#" * 40 + b"'", "32 bytes", id="too large"),
        pytest.param(b"\xff" * 100, "No public key", id="noise"),
        pytest.param(b"#" * 5000, "more than 4096 bytes", id="long"),
    ],
)
def test_a_file_that_is_no_key_is_told_as_one(tmp_path: Path, text: bytes, said: str) -> None:
    file = tmp_path / "left.key"
    file.write_bytes(text)

    with pytest.raises(InputError, match=said) as caught:
        read_public(file)

    assert str(file) in str(caught.value)


def test_a_public_key_is_no_secret_one_and_halves_of_two_are_no_pair(
    keys: Path, tmp_path: Path
) -> None:
    public = keys / "station.key"
    public.chmod(0o600)
    mixed = tmp_path / "mixed.key_secret"
    own = (keys / "station.key_secret").read_bytes()
    mixed.write_bytes(own.replace(read_public(public), zmq.curve_keypair()[0]))
    mixed.chmod(0o600)

    with pytest.raises(InputError, match="has no secret key"):
        read_pair(public)
    with pytest.raises(InputError, match="are no pair"):
        read_pair(mixed)
    with pytest.raises(InputError, match="cannot read"):
        read_pair(tmp_path / "missing")


def test_secrets_are_not_shown_where_keys_are_printed() -> None:
    pair = KeyPair(b"public", b"hidden-1")

    assert "hidden" not in f"{pair!r} {CurveKeys(b'public', b'hidden-2', b'server')!r}"


def test_who_is_revoked_is_listed_no_more_and_a_typing_error_names_the_nearest(
    keys: Path, tmp_path: Path
) -> None:
    new_peer(Role.CAMERA, "left", keys, tmp_path / "out")

    with pytest.raises(InputError, match="did you mean left"):
        revoke(Role.CAMERA, "lift", keys)
    revoke(Role.CAMERA, "left", keys)

    assert list_keys(keys)[Role.CAMERA] == {}
    with pytest.raises(InputError, match="there is none"):
        revoke(Role.CAMERA, "left", keys)


def test_the_verb_makes_lists_and_revokes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, out = str(tmp_path / "keys"), str(tmp_path / "out")

    def said(*arguments: str) -> dict[str, object]:
        assert main(["keys", *arguments, "--json"]) == 0
        answer: dict[str, object] = json.loads(capsys.readouterr().out)
        return answer

    station = said("new-station", keys)
    camera = said("new", "camera", "left", "--keys", keys, "--out", out)
    public = read_pair(Path(str(camera["secret"]))).public_key.decode()

    assert said("list", keys) == {
        "station": station["key"],
        "cameras": {"left": public},
        "subscribers": {},
        "control": {},
    }
    assert said("revoke", "camera", "left", "--keys", keys) == {
        "role": "camera",
        "revoked": "left",
    }
    assert said("list", keys)["cameras"] == {}


def test_the_verb_says_for_people_where_the_files_belong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = str(tmp_path / "keys")

    assert main(["keys", "new-station", keys]) == 0
    assert main(["keys", "new", "control", "desk", "--keys", keys, "--out", str(tmp_path)]) == 0
    assert main(["keys", "list", keys]) == 0
    assert main(["keys", "revoke", "camera", "desk", "--keys", keys]) == 1

    out, err = capsys.readouterr()
    assert f"{tmp_path}/desk.key_secret and {keys}/station.key" in out
    assert "desk" in out.splitlines()[-1]
    assert "cannot revoke the camera desk" in err

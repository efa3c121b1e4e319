"""Settings: which layer wins, and what a typing error is told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edge.addresses import is_private
from edge.settings import (
    ADDRESSES,
    SettingsError,
    StationSettings,
    plain_addresses,
    read_settings,
)
from tests.line.processes import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "edge.toml"
    path.write_text('slots = 3\nbacklog_frames = 7\nstate_dir = "from-toml"\n')
    return path


def test_the_command_line_wins_over_environment_over_toml_over_defaults(toml: Path) -> None:
    environment = {"EDGE_SLOTS": "5", "EDGE_STATE_DIR": "from-env", "PATH": "/bin"}

    settings = read_settings(toml, {"state_dir": "from-line"}, environment)

    assert settings.state_dir == Path("from-line")
    assert settings.slots == 5
    assert settings.backlog_frames == 7
    assert settings.drain_s == StationSettings.model_fields["drain_s"].default


def test_settings_cannot_be_changed_after_start() -> None:
    settings = read_settings(environment={})

    with pytest.raises(ValueError, match="frozen"):
        settings.slots = 9  # type: ignore[misc]


def test_an_unknown_key_in_toml_is_told_with_the_nearest_known_one(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text("backlog_frame = 7\n")

    with pytest.raises(SettingsError, match=r"'backlog_frame' in .*edge\.toml.*backlog_frames"):
        read_settings(path, environment={})


def test_a_typing_error_in_the_environment_is_no_silent_default() -> None:
    with pytest.raises(SettingsError, match=r"EDGE_STATEDIR' in the environment.*EDGE_STATE_DIR"):
        read_settings(environment={"EDGE_STATEDIR": "/x"})


def test_a_wrong_value_is_told_with_the_layer_it_came_from(toml: Path) -> None:
    with pytest.raises(SettingsError, match="slots = 'many' in the environment") as caught:
        read_settings(toml, environment={"EDGE_SLOTS": "many"})

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("slots = ", "TOML"), ("slots = 0", "slots = 0"), ("[slots]\nx = 1", "slots")],
)
def test_toml_that_cannot_be_used_says_why(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(text)

    with pytest.raises(SettingsError, match=said):
        read_settings(path, environment={})


def test_a_settings_file_that_is_not_there_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no settings file"):
        read_settings(tmp_path / "missing.toml", environment={})


@pytest.mark.parametrize(
    "address",
    [
        "tcp://*:5555",
        "tcp://0.0.0.0:5555",
        "tcp://192.168.0.4:5555",
        "tcp://[::]:1",
        "tcp://eth0:1",
    ],
)
@pytest.mark.parametrize("key", ["frames", "verdicts"])
def test_an_address_that_others_reach_is_refused_unless_insecure(key: str, address: str) -> None:
    assert not is_private(address)

    with pytest.raises(SettingsError, match="insecure = true"):
        read_settings(command_line={key: address}, environment={})

    allowed = read_settings(command_line={key: address, "insecure": True}, environment={})
    assert getattr(allowed, key) == address


@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:*", "tcp://127.9.9.9:1", "tcp://localhost:1", "tcp://[::1]:1", "ipc:///x"],
)
def test_an_address_of_this_machine_alone_is_allowed(address: str) -> None:
    assert read_settings(command_line={"frames": address}, environment={}).frames == address


@pytest.mark.parametrize("key", [key for key in ADDRESSES if key != "imagezmq"])
def test_with_keys_any_interface_will_do(key: str) -> None:
    chosen = {key: "tcp://0.0.0.0:5555", "keys": "keys"}

    settings = read_settings(command_line=chosen, environment={})

    assert plain_addresses(settings) == []


@pytest.mark.parametrize(
    ("key", "address"),
    [
        ("imagezmq", "tcp://*:5560"),
        ("imagezmq_from", "tcp://192.0.2.7:5561"),
        ("imagezmq_from", "tcp://127.0.0.1:5561, tcp://camera7:5561"),
        ("http", "0.0.0.0:8787"),
        ("http", "[::]:8787"),
        ("http", "station7:8787"),
    ],
)
def test_what_cannot_encrypt_is_for_this_machine_alone_unless_insecure(
    key: str, address: str
) -> None:
    chosen = {key: address, "keys": "keys"}

    with pytest.raises(SettingsError, match=f"{key} = .*cannot encrypt.*insecure = true"):
        read_settings(command_line=chosen, environment={})

    settings = read_settings(command_line={**chosen, "insecure": True}, environment={})
    assert plain_addresses(settings) == [f"{key} {address.split(', ')[-1]}"]


def test_insecure_lists_every_address_that_others_reach_and_no_other() -> None:
    chosen = {"insecure": True, "frames": "tcp://*:1", "verdicts": "tcp://[::]:2", "http": ""}

    settings = read_settings(command_line=chosen, environment={})

    assert plain_addresses(settings) == ["frames tcp://*:1", "verdicts tcp://[::]:2"]
    assert plain_addresses(settings.model_copy(update={"keys": Path("keys")})) == []


@pytest.mark.parametrize(
    "host",
    [
        "0",
        "*",
        "[*]",
        "0.0.0.0",
        "[::]",
        "lo",
        "eth0",
        "127.1",
        "[fe80::1%eth0]",
        "[::ffff:10.0.0.1]",
    ],
)
def test_a_host_that_is_not_surely_loopback_is_not_private(host: str) -> None:
    assert not is_private(f"tcp://{host}:5555")


@pytest.mark.parametrize("address", ["inproc://x", "ws://127.0.0.1:1", "udp://127.0.0.1:1", ""])
def test_another_transport_is_not_private(address: str) -> None:
    assert not is_private(address)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.255.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_loopback_is_private_in_every_spelling(host: str) -> None:
    assert is_private(f"tcp://{host}:5555")


@pytest.mark.parametrize(
    ("key", "address", "said"),
    [
        ("frames", "ipc://@frames", "every user of this machine"),
        ("control", "ipc://", "has no path"),
        ("frames", "tcp://::1:5555", "stands in brackets"),
        ("http", "8787", "expected host:port"),
        ("http", ":8787", "expected host:port"),
        ("http", "127.0.0.1:*", "expected host:port"),
        ("http", "http://127.0.0.1:8787", "expected host:port"),
        ("http", "::1:8787", "stands in brackets"),
        ("http", "127.0.0.1:65536", "expected host:port"),
        ("imagezmq_from", "tcp://*:5555", "names no host"),
        ("imagezmq_from", "tcp://127.0.0.1:*", "expected 1 to 65535"),
        ("imagezmq_from", "tcp://127.0.0.1:0", "expected 1 to 65535"),
        ("imagezmq_from", "tcp://127.0.0.1:1,nonsense", "'nonsense' must begin with"),
        ("imagezmq_from", ",".join(["tcp://127.0.0.1:1"] * 65), "has 65 addresses"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_what_is_wrong(
    key: str, address: str, said: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(command_line={key: address}, environment={})

    assert said in str(caught.value)


def test_an_address_that_is_no_address_is_refused() -> None:
    with pytest.raises(SettingsError, match="must begin with tcp"):
        read_settings(command_line={"frames": "127.0.0.1:5555"}, environment={})


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tcp://127.0.0.1:99999", "port '99999', expected 0 to 65535, or *"),
        ("tcp://127.0.0.1:65536", "port '65536'"),
        ("tcp://127.0.0.1:-5", "port '-5'"),
        ("tcp://127.0.0.1:http", "port 'http'"),
        ("tcp://127.0.0.1:+80", "port '+80'"),
        ("tcp://127.0.0.1", "has no port"),
        ("tcp://127.0.0.1:", "has no port"),
        ("tcp://[::1]", "has no port"),
        ("tcp://5555", "has no port"),
        ("inproc://frames", "must begin with tcp:// or ipc://"),
    ],
)
def test_an_address_that_would_bind_elsewhere_is_refused(address: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(command_line={"frames": address}, environment={})

    assert said in str(caught.value)
    assert "other machines" not in str(caught.value)


@pytest.mark.parametrize("port", ["0", "1", "65535", "*"])
def test_every_port_that_there_is_can_be_chosen(port: str) -> None:
    address = f"tcp://127.0.0.1:{port}"

    assert read_settings(command_line={"verdicts": address}, environment={}).verdicts == address


@pytest.mark.parametrize("key", [key for key in StationSettings.model_fields if "bytes" in key])
def test_bytes_beyond_63_bits_are_refused(key: str) -> None:
    most = str((1 << 63) - 1)

    assert getattr(read_settings(command_line={key: most}, environment={}), key) == int(most)
    with pytest.raises(SettingsError, match=key):
        read_settings(command_line={key: str(1 << 63)}, environment={})


@pytest.mark.parametrize("key", ["slots", "backlog_bytes", "drain_s"])
def test_a_boolean_is_no_number(tmp_path: Path, key: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(f"{key} = true\n")

    with pytest.raises(SettingsError, match=f"{key} = True in .*expected a number"):
        read_settings(path, environment={})


def test_a_time_that_no_clock_can_wait_for_is_refused() -> None:
    with pytest.raises(SettingsError, match="drain_s"):
        read_settings(command_line={"drain_s": "1e300"}, environment={})


def test_the_example_lists_every_setting_with_its_default(tmp_path: Path) -> None:
    example = (ROOT / "examples" / "edge.toml").read_text("utf-8")
    path = tmp_path / "edge.toml"
    path.write_text(example)

    without_default = ("bundle", "keys", "deadline_ms")
    for key in without_default:
        example = example.replace(f"# {key} = ", f"{key} = ")
    listed: dict[str, Any] = tomllib.loads(example)

    assert read_settings(path, environment={}) == StationSettings()
    assert set(listed) == set(StationSettings.model_fields)


def test_no_threshold_is_a_setting() -> None:
    assert not [name for name in StationSettings.model_fields if "threshold" in name]

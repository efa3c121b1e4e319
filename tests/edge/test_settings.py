"""Settings: which layer wins, and what a typing error is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.settings import SettingsError, StationSettings, is_private, read_settings


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


def test_an_address_that_is_no_address_is_refused() -> None:
    with pytest.raises(SettingsError, match="must begin with tcp"):
        read_settings(command_line={"frames": "127.0.0.1:5555"}, environment={})


def test_no_threshold_is_a_setting() -> None:
    assert not [name for name in StationSettings.model_fields if "threshold" in name]

"""What several verbs take, and the exit codes they give."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from edge.keys import CurveKeys, read_client_keys
from edge.settings import SettingsError, StationSettings, read_settings

DONE, FAILED, USAGE, GATE = 0, 1, 2, 3


def add_json(verb: argparse.ArgumentParser, what: str) -> None:
    """Declare `--json`."""
    verb.add_argument("--json", action="store_true", help=what)


def settings_of(given: argparse.Namespace) -> StationSettings:
    """Read the settings that a verb was given, in all layers."""
    command_line = {
        name: getattr(given, name) for name in StationSettings.model_fields if name in given
    }
    return read_settings(given.config, command_line)


def add_settings(verb: argparse.ArgumentParser) -> None:
    """Declare every setting of a station as an option."""
    verb.description = "Command line > EDGE_… in the environment > TOML > defaults."
    verb.add_argument("--config", type=Path, metavar="TOML", help="settings file")
    for name, field in StationSettings.model_fields.items():
        flag = "--" + name.replace("_", "-")
        text = f"{field.description}"
        if field.default is not None:
            text += f" [{field.default}]"
        if isinstance(field.default, bool):
            verb.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
            )
        else:
            verb.add_argument(flag, default=argparse.SUPPRESS, metavar=_metavar(name), help=text)


def add_keys(verb: argparse.ArgumentParser) -> None:
    """Declare `--key` and `--station-key`, for a verb that connects to a station."""
    verb.add_argument(
        "--key", type=Path, metavar="FILE", help="own NAME.key_secret, where the station has keys"
    )
    verb.add_argument(
        "--station-key", type=Path, metavar="FILE", help="the station's public station.key"
    )


def client_keys(given: argparse.Namespace) -> CurveKeys | None:
    """Read the keys that a verb was given; None if none was.

    Raises:
        SettingsError: One of the two is missing.
        InputError: A file cannot be used.
    """
    if given.key is None and given.station_key is None:
        return None
    if given.key is None or given.station_key is None:
        raise SettingsError("--key and --station-key go together: give both, or neither")
    return read_client_keys(given.key, given.station_key)


def print_json(document: dict[str, Any]) -> None:
    """Print a document as one line."""
    print(json.dumps(document), flush=True)


def positive(text: str) -> int:
    """Parse a count of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return value


def number(text: str) -> int:
    """Parse a number of 0 or more that a message can hold."""
    value = int(text)
    if not 0 <= value < 1 << 63:
        raise argparse.ArgumentTypeError(f"expected 0 to 2^63 - 1, got {text}")
    return value


def not_negative(text: str) -> float:
    """Parse a finite number of 0 or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text}")
    return value


def above_zero(text: str) -> float:
    """Parse a finite number above 0."""
    value = not_negative(text)
    if value == 0:
        raise argparse.ArgumentTypeError("expected more than 0")
    return value


def _metavar(name: str) -> str:
    """The unit that ends the name of a setting, if one does."""
    unit = name.rpartition("_")[2]
    return unit.upper() if unit in ("bytes", "s") else "…"

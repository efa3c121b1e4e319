"""What an operator may set on a station: command line > environment > TOML > defaults.

No threshold lives here: what changes a verdict travels in the bundle.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from edge.addresses import (
    MOST_SENDERS,
    connected_addresses,
    is_loopback,
    is_private,
    wrong_in,
    wrong_in_connected,
    wrong_in_http,
)
from inspection.errors import InputError

ENV_PREFIX = "EDGE_"

MIB = 1 << 20
GIB = 1 << 30

MOST_BYTES = (1 << 63) - 1
"""What ZeroMQ and the disk count bytes in has 64 bits and a sign."""

MOST_DRAIN_S = 86_400.0


ADDRESSES = ("cameras", "frames", "imagezmq", "verdicts", "catch_up", "reject", "control")
"""Settings that are an address to bind a ZeroMQ socket to; one whose default is empty may be."""

NEVER_ENCRYPTED = ("imagezmq", "imagezmq_from", "http")
"""Settings whose peers cannot: imageZMQ's senders know no keys, a browser none of ours."""


class SettingsError(InputError):
    """Settings cannot be used: a command that meets this prints the line and exits 2."""


class StationSettings(BaseSettings):
    """One frozen object, read once at start; made by `read_settings`."""

    # Unknown names in the environment are found by `read_settings`: pydantic-settings ignores them.
    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=ENV_PREFIX)

    cameras: str = Field(
        "tcp://127.0.0.1:5557", description="address of cameras whose frames are acknowledged"
    )
    frames: str = Field("tcp://127.0.0.1:5555", description="address that plain cameras push to")
    imagezmq: str = Field("", description="address that imageZMQ senders ask; empty = none")
    imagezmq_from: str = Field(
        "", description="addresses that imageZMQ senders publish at, separated by commas"
    )
    verdicts: str = Field("tcp://127.0.0.1:5556", description="address that verdicts come from")
    catch_up: str = Field(
        "tcp://127.0.0.1:5558", description="address that missed verdicts are asked of"
    )
    reject: str = Field(
        "tcp://127.0.0.1:5559", description="address of the question: eject this part?"
    )
    control: str = Field("", description="address of swaps; empty = ipc, in state_dir")
    http: str = Field(
        "127.0.0.1:8787", description="host:port of status page and metrics; empty = none"
    )
    keys: Path | None = Field(
        None, description="folder of CURVE keys; given, every tcp address is encrypted"
    )
    bundle: Path | None = Field(None, description="folder of the model bundle")
    state_dir: Path = Field(Path("station"), description="where ledger and label queue live")
    overload: Literal["newest", "oldest", "block"] = Field(
        "newest", description="what a full backlog keeps: newest, oldest, or block the camera"
    )
    deadline_ms: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="deadline of frames that name none"
    )
    backlog_frames: int = Field(
        64, ge=1, le=1 << 16, description="frames of one camera that may wait"
    )
    backlog_bytes: int = Field(
        512 * MIB, ge=1, le=MOST_BYTES, description="memory that waiting frames may take"
    )
    scorer: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="what scores: cpu, gpu, or auto, a GPU if one can"
    )
    gpu: int = Field(0, ge=0, le=63, description="which GPU, as the driver counts")
    slots: int = Field(2, ge=1, le=8, description="batches under way at once on a GPU")
    batch_frames: int = Field(
        4, ge=1, le=8, description="frames that a GPU scores together, when more than one waits"
    )
    max_frame_bytes: int = Field(
        256 * MIB, ge=1, le=MOST_BYTES, description="largest decoded frame"
    )
    max_message_bytes: int = Field(
        64 * MIB, ge=1, le=MOST_BYTES, description="largest part of a message"
    )
    label_queue_bytes: int = Field(
        2 * GIB, ge=0, le=MOST_BYTES, description="disk that the label queue may take"
    )
    publish_heatmaps: bool = Field(False, description="publish anomaly maps beside verdicts")
    scorer_threads: int = Field(
        0, ge=0, le=1024, description="threads of the scorer; 0 = all cores"
    )
    drain_s: float = Field(
        20.0, ge=0, le=MOST_DRAIN_S, allow_inf_nan=False, description="time to score at stop"
    )
    log_format: Literal["text", "json"] = Field("text", description="of the log on stderr")
    insecure: bool = Field(
        False, description="allow addresses that other machines reach in plain text"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what `read_settings` merged, so that it can say where a value is from."""
        return (init_settings,)

    @field_validator("*", mode="before")
    @classmethod
    def _booleans_are_no_numbers(cls, value: object, info: ValidationInfo) -> object:
        # Python's True is 1, and `slots = true` would quietly mean `slots = 1`.
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and kind in (int, float):
            raise ValueError("expected a number, got a boolean")
        return value

    @model_validator(mode="after")
    def _addresses_can_be_used(self) -> StationSettings:
        for key in ADDRESSES:
            address = getattr(self, key)
            if address or type(self).model_fields[key].default:
                _refuse(key, address, wrong_in(address))
        senders = connected_addresses(self.imagezmq_from)
        for address in senders:
            _refuse("imagezmq_from", address, wrong_in_connected(address))
        if len(senders) > MOST_SENDERS:
            raise ValueError(f"imagezmq_from has {len(senders)} addresses, of {MOST_SENDERS}")
        if self.http:
            _refuse("http", self.http, wrong_in_http(self.http))
        return self

    @model_validator(mode="after")
    def _what_others_reach_is_encrypted(self) -> StationSettings:
        if self.insecure or not (plain := plain_addresses(self)):
            return self
        key, _, address = plain[0].partition(" ")
        found = f"{key} = {address!r} can be reached from other machines, and "
        if key in NEVER_ENCRYPTED:
            raise ValueError(
                f"{found}its peers cannot encrypt; use 127.0.0.1 or ipc:// and a tunnel, or set "
                "insecure = true"
            )
        raise ValueError(
            f"{found}nothing on it is encrypted; set keys, bind to 127.0.0.1 or ipc://, or set "
            "insecure = true"
        )


def plain_addresses(settings: StationSettings) -> list[str]:
    """List what other machines can reach in plain text: `setting address`; empty if all is well.

    Only `insecure = true` allows any: it is for status and metrics to show.
    """
    plain = []
    for key in ADDRESSES:
        address = getattr(settings, key)
        encrypted = settings.keys is not None and key not in NEVER_ENCRYPTED
        if address and not is_private(address) and not encrypted:
            plain.append(f"{key} {address}")
    senders = connected_addresses(settings.imagezmq_from)
    plain += [f"imagezmq_from {each}" for each in senders if not is_private(each)]
    if settings.http and not is_loopback(settings.http.rpartition(":")[0]):
        plain.append(f"http {settings.http}")
    return plain


def read_settings(
    config: Path | None = None,
    command_line: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> StationSettings:
    """Merge the layers and check every name and value.

    Args:
        config: TOML file, or None.
        command_line: By field; only what was given.
        environment: None means this process's.

    Raises:
        SettingsError: The file cannot be read, or a name or value is wrong; the text names the
            key, the layer it came from, and the nearest known keys.
    """
    environment = os.environ if environment is None else environment
    layers = {
        str(config): {} if config is None else _from_toml(config),
        "the environment": {
            name[len(ENV_PREFIX) :].lower(): value
            for name, value in environment.items()
            if name.startswith(ENV_PREFIX)
        },
        "the command line": dict(command_line or {}),
    }
    merged: dict[str, Any] = {}
    for layer, values in layers.items():
        for key in values:
            _check_known(key, layer)
        merged.update(values)
    try:
        return StationSettings(**merged)
    except ValidationError as error:
        raise SettingsError(_first(error, layers)) from error


def _refuse(key: str, address: str, wrong: str | None) -> None:
    if wrong is not None:
        raise ValueError(f"{key} = {address!r} {wrong}")


def _from_toml(config: Path) -> dict[str, Any]:
    # pydantic-settings takes a missing file for an empty one; a typing error must not do that.
    if not config.is_file():
        raise SettingsError(f"there is no settings file {config}")
    try:
        return dict(TomlConfigSettingsSource(StationSettings, config).toml_data)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{config} cannot be read as TOML: {error}") from error


def _check_known(key: str, layer: str) -> None:
    known = list(StationSettings.model_fields)
    if key in known:
        return
    near = difflib.get_close_matches(key, known) or known
    if layer == "the environment":
        key, near = f"{ENV_PREFIX}{key}".upper(), [f"{ENV_PREFIX}{each}".upper() for each in near]
    raise SettingsError(f"{key!r} in {layer} is no setting; did you mean {' or '.join(near)}?")


def _first(error: ValidationError, layers: Mapping[str, Mapping[str, Any]]) -> str:
    """Say the first thing that is wrong in one line, with the layer that won."""
    first = error.errors(include_url=False, include_context=False)[0]
    text = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return text
    key = str(first["loc"][0])
    winner = [layer for layer, values in layers.items() if key in values][-1]
    return f"{key} = {first['input']!r} in {winner}: {text}"

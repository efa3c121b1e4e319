"""A station in the process of a test: everything that it needs around it, and not yet running."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from edge.access import open_access
from edge.health import Health
from edge.keys import station_pair
from edge.peers import open_peers
from edge.pipeline import Station
from edge.scorer import Scorer
from edge.settings import StationSettings
from edge.sockets import StationSockets, context


@contextmanager
def open_sockets(
    settings: StationSettings, health: Health | None = None
) -> Iterator[StationSockets]:
    """What opens the sockets of a station."""
    health = health or Health()
    with (
        context() as owner,
        open_peers(health, _never) as peers,
        open_access(owner, settings.keys, health),
    ):
        yield StationSockets(owner, settings, station_pair(settings.keys), peers)


@contextmanager
def open_station(
    settings: StationSettings, scorer: AbstractContextManager[Scorer]
) -> Iterator[Station]:
    """A station with this scorer."""
    health = Health()
    with open_sockets(settings, health) as sockets:
        yield Station(settings, health, scorer, sockets)


def _never(error: BaseException) -> None:
    raise AssertionError("a thread died") from error

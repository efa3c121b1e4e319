"""The station as a process: opens everything, runs until it is told to stop, and gives account."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from edge.bundle_folder import open_bundle
from edge.check import warm_up
from edge.pipeline import Station
from edge.settings import SettingsError, StationSettings
from edge.sockets import context
from edge.standby import open_scorer
from edge.state_dir import hold_state_dir, private_files

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(settings: StationSettings, report: Callable[[dict[str, Any]], None]) -> None:
    """Run a station until SIGTERM or SIGINT, or until it cannot go on.

    Args:
        settings: With a bundle.
        report: Called once at the end with every counter, also when the end is a failure.

    Raises:
        SettingsError: No bundle is named.
        BundleError: The bundle cannot be used.
        ParityError: This machine does not give the golden frames' answers.
        StationError: An address or folder cannot be used, another station has the folder, or a
            frame has no recorded verdict.
    """
    if settings.bundle is None:
        raise SettingsError("no bundle: give --bundle, EDGE_BUNDLE, or bundle in the TOML")
    if settings.insecure:
        log.warning("insecure: other machines may reach the station, in plain text")
    bundle = open_bundle(settings.bundle)
    # The folder first: a station clears away in it what only its own crash can have left.
    with private_files(), hold_state_dir(settings.state_dir), context() as owner:
        station = Station(settings, open_scorer(settings, bundle, warm_up), owner)
        # Held to the very end: a second signal, while the backlog drains, must cost nothing.
        with _on_stop_signals(station.request_stop):
            with station.running():
                log.info("station ready", extra=_whereabouts(station, settings, bundle.id))
                station.wait()
                log.info("station stopping")
            report(
                {
                    **station.health.report(),
                    "label_queue": station.labels.report(),
                    "scorer": station.scorer.name,
                }
            )
    station.check()


def _whereabouts(station: Station, settings: StationSettings, bundle_id: str) -> dict[str, Any]:
    return {
        **station.addresses,
        "bundle": bundle_id[:12],
        "scorer": station.scorer.name,
        "state_dir": settings.state_dir,
    }


@contextmanager
def _on_stop_signals(request_stop: Callable[[], None]) -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        request_stop()

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""The station as a process: opens everything, runs until it is told to stop, and gives account."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

from edge.bundle_store import BundleStore
from edge.check import prove_beside, warm_up
from edge.control import ControlSocket
from edge.first_bundle import choose_bundle
from edge.pipeline import Station
from edge.relay import RelayScorer
from edge.scorer import Scorer
from edge.settings import SettingsError, StationSettings
from edge.sockets import context
from edge.standby import open_scorer
from edge.state_dir import hold_state_dir, private_files
from edge.swapping import Means, Swapping
from inspection.bundle import Bundle

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
    # The folder first: a station clears away in it what only its own crash can have left.
    with private_files(), hold_state_dir(settings.state_dir), context() as owner:
        store = BundleStore(settings.state_dir)
        first = choose_bundle(settings.bundle, store)
        relay = RelayScorer(open_scorer(settings, first.bundle, warm_up))
        swapping = Swapping(settings, first, store, relay, _means(settings))
        control = ControlSocket(owner, settings, swapping.desk.ask)
        station = Station(settings, relay.opened(), owner, saw=swapping.sightings.saw)
        # Held to the very end: a second signal, while the backlog drains, must cost nothing.
        with _on_stop_signals(station.request_stop):
            with station.running(), swapping.running(), control.running():
                log.info("station ready", extra=_whereabouts(station, settings, first.bundle.id))
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
        swapping.ended_in_order()


def _means(settings: StationSettings) -> Means:
    def open_gpu(bundle: Bundle) -> AbstractContextManager[Scorer]:
        # The CPU in the place of a GPU that cannot run a bundle is for a start, not for a swap.
        return open_scorer(settings.model_copy(update={"scorer": "gpu"}), bundle, warm_up)

    return Means(prove_beside, open_gpu)


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

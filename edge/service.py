"""The station as a process: opens everything, runs until it is told to stop, and gives account."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from types import FrameType
from typing import Any

from edge.access import open_access
from edge.bundle_store import BundleStore
from edge.check import prove_beside, warm_up
from edge.control import ControlSocket
from edge.first_bundle import choose_bundle
from edge.health import Health
from edge.http_server import open_http
from edge.keys import station_pair
from edge.notify import Notifier, open_notifier
from edge.peers import open_peers, raise_descriptor_limit
from edge.pipeline import JOIN_S, Station
from edge.pulse import BEATS_PER_PERIOD, open_pulse
from edge.relay import RelayScorer
from edge.scorer import Scorer
from edge.settings import SettingsError, StationSettings, plain_addresses
from edge.sockets import StationSockets, context
from edge.sources import LatestSwap, Model, StatusSources
from edge.stages import Stages
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
        StationError: An address, key or folder cannot be used, another station has the folder, or a
            frame has no recorded verdict.
    """
    if settings.bundle is None:
        raise SettingsError("no bundle: give --bundle, EDGE_BUNDLE, or bundle in the TOML")
    if settings.insecure:
        exposed = ", ".join(plain_addresses(settings)) or "nothing yet"
        log.warning("INSECURE: others may read and forge what goes over", extra={"plain": exposed})
    raise_descriptor_limit()
    health, stages = Health(), Stages(settings.drain_s + JOIN_S)
    gpu_died = partial(health.count, "gpu_deaths")
    with ExitStack() as held:
        # The folder first: a station clears away in it what only its own crash can have left.
        held.enter_context(private_files())
        held.enter_context(hold_state_dir(settings.state_dir))
        store = BundleStore(settings.state_dir)
        first = choose_bundle(settings.bundle, store)
        owner = held.enter_context(context())
        # Without it, strangers could stop every socket: see `edge.peers`.
        peers = held.enter_context(open_peers(health, stages.died))
        held.enter_context(open_access(owner, settings.keys, health))
        sockets = StationSockets(owner, settings, station_pair(settings.keys), peers)
        relay = RelayScorer(open_scorer(settings, first.bundle, warm_up, gpu_died))
        swapping = Swapping(settings, first, store, relay, _means(settings, gpu_died))
        control = ControlSocket(sockets, settings, swapping.desk.ask)
        station = Station(
            settings, health, relay.opened(), sockets, saw=swapping.sightings.saw, stages=stages
        )
        # Held to the very end: a second signal, while the backlog drains, must cost nothing.
        held.enter_context(_on_stop_signals(station.request_stop))
        notifier = held.enter_context(open_notifier())
        with (
            station.running(),
            swapping.running(),
            control.running(),
            _shown(settings, station, swapping) as page,
            _pulse(notifier, station),
        ):
            whereabouts = {**station.addresses, "control": control.address, "http": page}
            log.info("station ready", extra=_whereabouts(station, settings, whereabouts))
            notifier.ready(f"scoring on {station.scorer.name}")
            station.wait()
            log.info("station stopping")
            notifier.stopping()
        report(
            {
                **health.report(),
                "label_queue": station.labels.report(),
                "scorer": station.scorer.name,
            }
        )
        station.check()
        swapping.ended_in_order()


def _means(settings: StationSettings, gpu_died: Callable[[], object]) -> Means:
    def open_gpu(bundle: Bundle) -> AbstractContextManager[Scorer]:
        # The CPU in the place of a GPU that cannot run a bundle is for a start, not for a swap.
        insisting = settings.model_copy(update={"scorer": "gpu"})
        return open_scorer(insisting, bundle, warm_up, gpu_died)

    return Means(prove_beside, open_gpu)


@contextmanager
def _shown(settings: StationSettings, station: Station, swapping: Swapping) -> Iterator[str]:
    """Serve page, metrics and probes, if they are asked for; gives their address."""
    if not settings.http:
        yield "-"
        return
    # A page that dies is no reason to stop a line: its worker has logged why.
    with open_http(settings.http, _sources(settings, station, swapping), _has_been_logged) as page:
        yield page


def _sources(settings: StationSettings, station: Station, swapping: Swapping) -> StatusSources:
    def model() -> Model:
        bundle = station.scorer.bundle
        return Model(bundle.id, bundle.bank_id, station.scorer.name)

    def swap() -> LatestSwap:
        state = swapping.desk.state()
        return LatestSwap(
            state.step,
            state.candidate or state.running,
            state.why or "",
            state.swaps,
            state.rollbacks,
        )

    return StatusSources(
        name=f"{os.uname().nodename} {settings.state_dir.name}",
        state_dir=settings.state_dir,
        health=station.health,
        model=model,
        ledger=lambda: station.ledger_state,
        labels=station.labels.report,
        swap=swap,
        stopping=station.is_stopping,
        insecure=settings.insecure,
        plain=tuple(plain_addresses(settings)),
    )


def _pulse(notifier: Notifier, station: Station) -> AbstractContextManager[None]:
    patience_s = (notifier.watchdog_s or 0.0) / BEATS_PER_PERIOD / 2
    return open_pulse(
        notifier, station.health, partial(station.self_test, patience_s), _has_been_logged
    )


def _whereabouts(
    station: Station, settings: StationSettings, addresses: dict[str, str]
) -> dict[str, Any]:
    return {
        **addresses,
        "bundle": station.scorer.bundle.id[:12],
        "scorer": station.scorer.name,
        "state_dir": settings.state_dir,
    }


def _has_been_logged(_: BaseException) -> None:
    """A worker that dies says so itself; the line goes on without it."""


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

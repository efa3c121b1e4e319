"""The latest verdict of each camera as an OPC UA server: a state, not a history.

Names follow OPC 40100-1 (machine vision) where it has one, without its node set: see
`docs/bridges.md`. A control system that needs every verdict takes MQTT or follows the station.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone

from asyncua import Server, ua
from asyncua.common.events import Event
from asyncua.common.node import Node
from asyncua.server.event_generator import EventGenerator

from edge.bridges.latest import Latest
from edge.bridges.levels import level_of
from edge.bridges.serving import NAMESPACE, Serving, make_server
from edge.catch_up import Secure, last_by_camera, plain
from edge.follow import follow
from edge.workers import Ready, Worker
from inspection.errors import StationError
from inspection.messages import VerdictMessage
from inspection.station_messages import Heartbeat

log = logging.getLogger(__name__)

TURN_S = 0.05
"""How often the newest state is written."""

_STATION = {
    "State": ("silent", ua.VariantType.String),
    "Heartbeat": (datetime.fromtimestamp(0, timezone.utc), ua.VariantType.DateTime),
    "StationSeq": (0, ua.VariantType.Int64),
    "Bundle": ("", ua.VariantType.String),
    "UptimeS": (0.0, ua.VariantType.Double),
    "Skipped": (0, ua.VariantType.Int64),
}
_CAMERA = {
    "Verdict": ua.VariantType.String,
    "Reason": ua.VariantType.String,
    "Score": ua.VariantType.Double,
    "PartId": ua.VariantType.String,
    "ProductId": ua.VariantType.String,
    "ResultId": ua.VariantType.String,
    "StationSeq": ua.VariantType.Int64,
    "Bundle": ua.VariantType.String,
}
_EVENT = {"Camera": ua.VariantType.String, **_CAMERA}


def bridge(
    serving: Serving,
    verdicts: str,
    catch_up: str,
    stopping: threading.Event,
    secure: Secure = plain,
) -> None:
    """Serve until stopped.

    Raises:
        StationError: An address or a certificate cannot be used.
    """
    latest, failures = Latest(), list[BaseException]()

    def died(failure: BaseException) -> None:
        failures.append(failure)
        stopping.set()

    worker = Worker(
        "follow",
        lambda ready: _feed(latest, verdicts, catch_up, stopping, secure, ready),
        died,
    )
    try:
        asyncio.run(_serve(serving, latest, stopping))
    finally:
        stopping.set()
        worker.join(5.0)
    if failures:
        raise StationError(f"the bridge stopped: {failures[0]}") from failures[0]


async def _serve(serving: Serving, latest: Latest, stopping: threading.Event) -> None:
    async with _server(serving) as station:
        log.info("bridge ready", extra={"endpoint": serving.endpoint})
        while not stopping.is_set():
            await station.show(latest)
            await asyncio.sleep(TURN_S)
        log.info("bridge ends", extra={"skipped": latest.skipped})


@asynccontextmanager
async def _server(serving: Serving) -> AsyncIterator[Station]:
    try:
        server = await make_server(serving)
        station = await _make_station(server)
        await server.start()
    except (OSError, ValueError, ua.UaError) as error:
        raise StationError(f"cannot serve on {serving.endpoint}: {error}") from error
    try:
        yield station
    finally:
        await server.stop()


class Station:
    """The object `Station`: its variables, and an object for each camera that was heard of."""

    def __init__(
        self,
        server: Server,
        index: int,
        cameras: Node,
        variables: dict[str, Node],
        ready: EventGenerator,
    ) -> None:
        self._server = server
        self._index = index
        self._cameras = cameras
        self._variables = variables
        self._ready = ready
        self._shown: dict[str, tuple[dict[str, Node], VerdictMessage]] = {}
        self._heartbeat: Heartbeat | None = None
        self._skipped = -1
        self._was_silent = True

    async def show(self, latest: Latest) -> None:
        """Write what is new; all is Bad while the station is silent."""
        messages, heartbeat, is_silent = latest.take()
        turned = is_silent != self._was_silent
        if turned:
            self._was_silent = is_silent
            for variables, message in self._shown.values():
                await self._write_camera(variables, message)
            await self._write_station(heartbeat or self._heartbeat, latest.skipped)
        elif heartbeat is not None or latest.skipped != self._skipped:
            await self._write_station(heartbeat or self._heartbeat, latest.skipped)
        for message, is_new in messages:
            known = self._shown.get(message.camera)
            variables = known[0] if known else await self._add_camera(message.camera)
            self._shown[message.camera] = variables, message
            await self._write_camera(variables, message)
            if is_new:
                await self._announce(message)
        if turned:
            log.info("station silent" if is_silent else "station heard")

    async def _add_camera(self, camera: str) -> dict[str, Node]:
        path = f"Station/Cameras/{level_of(camera)}"
        added = await self._cameras.add_object(
            ua.NodeId(path, self._index), ua.QualifiedName(camera, self._index)
        )
        return {
            name: await added.add_variable(
                ua.NodeId(f"{path}/{name}", self._index),
                ua.QualifiedName(name, self._index),
                ua.get_default_value(kind),
                varianttype=kind,
            )
            for name, kind in _CAMERA.items()
        }

    async def _write_camera(self, variables: dict[str, Node], message: VerdictMessage) -> None:
        for name, value in _values(message).items():
            await self._write(variables[name], value, _CAMERA[name])

    async def _write_station(self, heartbeat: Heartbeat | None, skipped: int) -> None:
        self._heartbeat, self._skipped = heartbeat, skipped
        values: dict[str, object] = {"Skipped": skipped}
        if self._was_silent:
            values["State"] = "silent"
        elif heartbeat is not None:
            values["State"] = heartbeat.state
        if heartbeat is not None:
            values["Heartbeat"] = datetime.fromtimestamp(heartbeat.unix_ns / 1e9, timezone.utc)
            values["StationSeq"] = heartbeat.station_seq
            values["Bundle"] = heartbeat.bundle
            values["UptimeS"] = heartbeat.uptime_s
        for name, (otherwise, kind) in _STATION.items():
            await self._write(self._variables[name], values.get(name, otherwise), kind)

    async def _write(self, node: Node, value: object, kind: ua.VariantType) -> None:
        status = ua.StatusCodes.BadNoCommunication if self._was_silent else ua.StatusCodes.Good
        await self._server.write_attribute_value(
            node.nodeid,
            ua.DataValue(
                ua.Variant(value, kind),
                ua.StatusCode(ua.UInt32(status)),
                SourceTimestamp=datetime.now(timezone.utc),
            ),
        )

    async def _announce(self, message: VerdictMessage) -> None:
        event: Event = self._ready.event
        for name, value in {"Camera": message.camera, **_values(message)}.items():
            setattr(event, name, value)
        await self._ready.trigger(message=f"{message.camera} {message.verdict.value}")


async def _make_station(server: Server) -> Station:
    index = await server.register_namespace(NAMESPACE)
    station = await server.nodes.objects.add_object(
        ua.NodeId("Station", index), ua.QualifiedName("Station", index)
    )
    cameras = await station.add_folder(
        ua.NodeId("Station/Cameras", index), ua.QualifiedName("Cameras", index)
    )
    variables = {
        name: await station.add_variable(
            ua.NodeId(f"Station/{name}", index), ua.QualifiedName(name, index), value, kind
        )
        for name, (value, kind) in _STATION.items()
    }
    kind = await server.create_custom_event_type(
        index, "ResultReadyEventType", properties=list(_EVENT.items())
    )
    ready = await server.get_event_generator(kind, emitting_node=station.nodeid)
    made = Station(server, index, cameras, variables, ready)
    await made._write_station(None, 0)
    return made


def _values(message: VerdictMessage) -> dict[str, object]:
    """A verdict as values of `_CAMERA`; what it lacks is empty, and a score NaN."""
    return {
        "Verdict": message.verdict.value,
        "Reason": message.reason.value if message.reason else "",
        "Score": float("nan") if message.score is None else message.score,
        "PartId": message.part or "",
        "ProductId": message.product or "",
        "ResultId": f"{message.camera}/{message.session}/{message.seq}",
        "StationSeq": message.station_seq,
        "Bundle": message.bundle,
    }


def _feed(
    latest: Latest,
    verdicts: str,
    catch_up: str,
    stopping: threading.Event,
    secure: Secure,
    ready: Ready,
) -> None:
    """Follow a station until stopped: first the last verdict of each camera, then what comes.

    Raises:
        StationError: Not an address.
    """
    ready()
    page = last_by_camera(catch_up, stopping, secure)
    if page is None:
        return
    for record in page.records:
        latest.put(record.message, is_new=False)
    for said in follow(
        verdicts, catch_up, page.last, heartbeats=True, stopping=stopping, secure=secure
    ):
        if isinstance(said, VerdictMessage):
            latest.put(said)
        elif said is not None:
            latest.beat(said)

"""Every verdict to an MQTT broker, at least once and in order, whatever breaks in between.

The broker is behind a process of its own: one that is slow or gone costs the station nothing, for
what waits here is bounded, and the rest stays in the ledger. Topics are in `docs/bridges.md`.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge.bridges.levels import level_of
from edge.catch_up import Secure, plain
from edge.follow import follow
from inspection.errors import StationError
from inspection.messages import VerdictMessage
from inspection.station_messages import Heartbeat

log = logging.getLogger(__name__)

WINDOW = 256
"""Verdicts that the broker may owe an acknowledgement; beyond it the ledger keeps them."""

SILENCE_S = 3.0
"""A station that has not been heard of for so long is told to be silent."""

KEEPALIVE_S = 15
SAVE_S = 0.2
FAREWELL_S = 2.0
"""How long the broker may take at the end for what it owes."""


_OFFLINE = json.dumps({"v": 1, "state": "offline"})


@dataclass(frozen=True, slots=True)
class Broker:
    """Where to publish, and how to be let in.

    Attributes:
        host: Of the broker.
        port: 1 to 65535.
        prefix: What every topic begins with.
        client_id: Known to the broker; no two bridges may have the same.
        user: None for none.
        password: None for none.
        tls: Whether to encrypt; with it, certificates are checked.
        ca: PEM file of who signs the broker's certificate; None for the system's.
        certificate: PEM file to be let in with; None for none.
        private_key: PEM file of its key.
    """

    host: str
    port: int
    prefix: str
    client_id: str
    user: str | None = None
    password: str | None = None
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None


def bridge(
    broker: Broker,
    verdicts: str,
    catch_up: str,
    memory: Path,
    stopping: threading.Event,
    after: int | None = None,
    secure: Secure = plain,
) -> None:
    """Publish until stopped.

    Args:
        broker: Where to.
        verdicts: The station's address of this name.
        catch_up: The station's address of this name.
        memory: File with the `station_seq` that the broker acknowledged last.
        stopping: Set it in another thread to end.
        after: Where to begin if there is no such file; None begins with what comes next.
        secure: Encrypts a socket before it connects.

    Raises:
        StationError: An address, a certificate or the file cannot be used.
    """
    begin = _remembered(memory, after)
    with _connected(broker) as client:
        outbox = Outbox(client, broker.prefix, memory, stopping)
        for said in follow(
            verdicts, catch_up, begin, heartbeats=True, stopping=stopping, secure=secure
        ):
            if isinstance(said, VerdictMessage):
                outbox.publish(said)
            else:
                outbox.tell_station(said)
            outbox.tend()
        outbox.close()


class Outbox:
    """What the broker owes an acknowledgement; used in one thread.

    `publish` waits when it is full: nobody but this process waits with it.
    """

    def __init__(
        self, client: paho.Client, prefix: str, memory: Path, stopping: threading.Event
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._memory = memory
        self._stopping = stopping
        # Told by the thread of the client, with locks of its own held: it may only add.
        self._acknowledged: deque[int] = deque()
        self._may_go_on = threading.Event()
        client.on_publish = self._on_publish
        # Message id → station_seq and whether it is acknowledged, in order of publication.
        self._open: OrderedDict[int, tuple[int, bool]] = OrderedDict()
        self._last: int | None = None
        self._saved: int | None = None
        self._saved_at = self._heard_at = time.monotonic()
        self._is_silent = False

    def publish(self, said: VerdictMessage) -> None:
        """Hand a verdict to the client, waiting for room; it sends it again until acknowledged."""
        self._collect()
        while len(self._open) >= WINDOW and not self._stopping.is_set():
            self._may_go_on.wait(SAVE_S)
            self.tend()
        if self._stopping.is_set():
            return  # the ledger has it, and the next run begins with it
        topic = f"{self._prefix}/verdict/{level_of(said.camera)}"
        sent = self._client.publish(topic, said.model_dump_json(), qos=1, retain=True)
        self._open[sent.mid] = (said.station_seq, False)
        self._heard_at = time.monotonic()

    def tell_station(self, heartbeat: Heartbeat | None) -> None:
        """Publish how the station is; None if nothing was heard of it now."""
        if heartbeat is not None:
            self._heard_at, self._is_silent = time.monotonic(), False
            self._tell(heartbeat.model_dump(mode="json"))
        elif not self._is_silent and time.monotonic() - self._heard_at > SILENCE_S:
            self._is_silent = True
            self._tell({"v": 1, "state": "silent"})

    def tend(self) -> None:
        """Take what was acknowledged, and write it down now and then."""
        self._collect()
        if time.monotonic() - self._saved_at >= SAVE_S:
            self._save()

    def close(self) -> None:
        """Wait a little for what the broker owes, and say farewell."""
        until = time.monotonic() + FAREWELL_S
        while self._open and self._client.is_connected() and time.monotonic() < until:
            self._may_go_on.wait(SAVE_S)
            self._collect()
        self._save()
        told = self._client.publish(f"{self._prefix}/station", _OFFLINE, qos=1, retain=True)
        if self._client.is_connected():
            told.wait_for_publish(FAREWELL_S)
        log.info("bridge ends", extra={"acknowledged": self._last, "open": len(self._open)})

    def _tell(self, state: dict[str, Any]) -> None:
        # Each second anew, so that one which is lost does not matter, and none waits for a broker.
        if self._client.is_connected():
            self._client.publish(f"{self._prefix}/station", json.dumps(state), retain=True)

    def _on_publish(self, _: Any, __: Any, mid: int, ___: Any, ____: Any) -> None:
        self._acknowledged.append(mid)
        self._may_go_on.set()

    def _collect(self) -> None:
        self._may_go_on.clear()
        while self._acknowledged:
            mid = self._acknowledged.popleft()
            if mid in self._open:
                self._open[mid] = (self._open[mid][0], True)
        # Only what has nothing open before it: the next run begins behind it.
        while self._open and next(iter(self._open.values()))[1]:
            _, (self._last, _) = self._open.popitem(last=False)

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self._last is not None and self._last != self._saved:
            _remember(self._memory, self._last)
            self._saved = self._last


@contextmanager
def _connected(broker: Broker) -> Iterator[paho.Client]:
    """Connect in the background, again and again; the broker tells everyone if we vanish."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=broker.client_id)
    client.max_queued_messages_set(2 * WINDOW)
    client.max_inflight_messages_set(WINDOW)
    client.reconnect_delay_set(1, 10)
    client.will_set(f"{broker.prefix}/station", _OFFLINE, qos=1, retain=True)
    client.on_connect = _on_connect
    client.on_disconnect = _on_disconnect
    if broker.user is not None:
        client.username_pw_set(broker.user, broker.password)
    try:
        if broker.tls:
            client.tls_set(
                ca_certs=_text(broker.ca),
                certfile=_text(broker.certificate),
                keyfile=_text(broker.private_key),
            )
        client.connect_async(broker.host, broker.port, KEEPALIVE_S)
    except (OSError, ValueError) as error:
        raise StationError(
            f"cannot use the broker {broker.host}:{broker.port}: {error}; "
            "look at the address and the certificates"
        ) from error
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _on_connect(_: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
    if reason.is_failure:
        log.warning("the broker refuses the bridge", extra={"reason": str(reason)})
    else:
        log.info("broker connected")


def _on_disconnect(_: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
    log.warning("broker disconnected", extra={"reason": str(reason)})


def _remembered(memory: Path, otherwise: int | None) -> int | None:
    try:
        number = json.loads(memory.read_text("utf-8"))["station_seq"]
    except FileNotFoundError:
        return otherwise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _no_memory(memory, error) from error
    if type(number) is not int or not 0 <= number < 1 << 63:
        raise _no_memory(memory, f"station_seq is {number!r}")
    return number


def _no_memory(memory: Path, why: object) -> StationError:
    return StationError(
        f'{memory} is no memory of a bridge, which is {{"station_seq": 7}}: {why}; remove it to '
        "begin with what comes next"
    )


def _remember(memory: Path, number: int) -> None:
    """Write the file whole, or leave the one before.

    Raises:
        StationError: It cannot be written.
    """
    beside = memory.with_name(memory.name + ".new")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"station_seq": number}))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(memory)
    except OSError as error:
        raise StationError(f"cannot write {memory}: {error}; free the disk") from error

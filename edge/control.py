"""The control socket: where an operator's requests come in, one at a time, and are answered.

Requests are granted by `edge.swap_desk`; what they mean is `inspection.control_messages`'. By
default the socket is a file in `state_dir` that only its owner can open.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import zmq

from edge.keys import CurveKeys
from edge.settings import StationSettings
from edge.sockets import StationSockets, apply_client_keys, connect, context, refusals, socket
from edge.workers import Ready, Worker
from inspection.control_messages import (
    ControlReply,
    ControlRequest,
    decode_reply,
    decode_request,
    encode,
)
from inspection.errors import StationError
from inspection.wire import MessageError

log = logging.getLogger(__name__)

FILE = "control"
MOST_SOCKET_PATH = 107
"""Bytes of a socket's path, fixed by the kernel."""

MOST_WAITING = 64
POLL_MS = 200
JOIN_S = 5.0

Ask = Callable[[ControlRequest], ControlReply]


def control_address(state_dir: Path, control: str = "") -> str:
    """Say where a station is asked: its setting `control`, or a file in its state_dir.

    Raises:
        StationError: The path is longer than the kernel takes.
    """
    address = control or f"ipc://{state_dir / FILE}"
    path = address.removeprefix("ipc://")
    if path != address and len(os.fsencode(path)) > MOST_SOCKET_PATH:
        raise StationError(
            f"a socket's path has at most {MOST_SOCKET_PATH} bytes, and {path} has "
            f"{len(os.fsencode(path))}; choose a shorter state_dir, or set control = "
            '"ipc:///run/…" to a shorter path'
        )
    return address


class ControlSocket:
    """Answers requests in a thread of its own.

    Attributes:
        address: Where, once running.
    """

    def __init__(self, sockets: StationSockets, settings: StationSettings, ask: Ask) -> None:
        self.address = control_address(settings.state_dir, settings.control)
        self._sockets, self._ask = sockets, ask
        self._stopping = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Answer until the end.

        Raises:
            StationError: The address cannot be used.
        """
        worker = Worker("control", self._work, lambda _: None)
        try:
            yield
        finally:
            self._stopping.set()
            if not worker.join(JOIN_S):
                log.error("control socket hangs")

    def _work(self, ready: Ready) -> None:
        with ExitStack() as held:
            router, self.address = held.enter_context(self._sockets.open("control", self.address))
            if self.address.startswith("ipc://"):
                # ZeroMQ leaves it, and a client would wait for a station that is not there.
                held.callback(Path(self.address.removeprefix("ipc://")).unlink, missing_ok=True)
            ready()
            while not self._stopping.is_set():
                if router.poll(POLL_MS):
                    # All but the last part say who asked, and what a REQ socket put between.
                    *who, data = router.recv_multipart()
                    router.send_multipart([*who, encode(self._answer(data))])

    def _answer(self, data: bytes) -> ControlReply:
        try:
            return self._ask(decode_request(data))
        except MessageError as error:
            state = self._ask(ControlRequest(ask="status")).state
            return ControlReply(granted=False, why=str(error), state=state)


def ask_station(
    address: str, request: ControlRequest, timeout_s: float, keys: CurveKeys | None = None
) -> ControlReply:
    """Ask a running station.

    Raises:
        StationError: No station answers there, or it does not let these keys in.
        MessageError: What answers is of another version.
    """
    path = address.removeprefix("ipc://")
    if path != address and not Path(path).exists():
        raise StationError(f"no station runs there: {path} is missing; is state_dir right?")
    with (
        context() as owner,
        socket(owner, zmq.REQ, {zmq.LINGER: 0}) as asking,
        refusals(asking, address) as check,
    ):
        apply_client_keys(asking, keys)
        connect(asking, address)
        asking.send(encode(request))
        if not asking.poll(int(1e3 * timeout_s)):
            check()
            raise StationError(
                f"no answer from {address} within {timeout_s:g} s; is the station running?"
            )
        return decode_reply(asking.recv())

"""The station's one web address: status page, metrics and probes, for people and for monitors.

A server that can do little: GET and HEAD of a handful of fixed paths, one request a connection, a
few connections at once, all in one thread. It reads no file after its start, and knows no way to
change anything. What is shown: `edge.status` and `edge.metrics`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from importlib import metadata, resources

from edge.metrics import CONTENT_TYPE, metrics_text
from edge.sources import StatusSources, look
from edge.status import document, why_not_live, why_not_ready
from edge.workers import Ready, Worker
from inspection.errors import InputError, StationError

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 8
MOST_HEAD_BYTES = 8192
REQUEST_S = 5.0
"""A request has so long to arrive, and an answer to leave."""

FRESH_S = 0.25
"""Answers are made no more often: whoever asks without a pause takes little from the scorer."""

JOIN_S = 5.0

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

_HEADERS = (
    "Connection: close",
    "Cache-Control: no-store",
    "Content-Security-Policy: default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options: nosniff",
    "Referrer-Policy: no-referrer",
    "Cross-Origin-Resource-Policy: same-origin",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path answers.

    Attributes:
        status: Of HTTP.
        kind: Content-Type.
        body: What a GET is given.
    """

    status: HTTPStatus
    kind: str
    body: bytes


class HttpError(InputError):
    """A request is not answered; what is said instead is its text."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


def host_and_port(address: str) -> tuple[str, int]:
    """Take `host:port` apart; [::1]:8787 for IPv6, port 0 for any that is free.

    Raises:
        InputError: It is nothing of the kind.
    """
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise InputError(f"http = {address!r} is no address; expected host:port, as 127.0.0.1:8787")
    if (":" in bare) != (host != bare):
        raise InputError(f"http = {address!r}: an IPv6 address goes in brackets, as [::1]:8787")
    return bare, int(port)


def allows_host(host: str, bound: str) -> bool:
    """Whether a request's Host header may be answered.

    A page of elsewhere can have its own name lead to this machine, and would then read along in a
    visitor's browser: the name would be wrong here. A literal address cannot be bent like that.
    """
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.removeprefix("[").removesuffix("]").lower()
    if name in ("localhost", bound.lower()):
        return True
    try:
        found = ipaddress.ip_address(name)
    except ValueError:
        # Bound to every address, a machine is known by its own name too.
        return bound in ("0.0.0.0", "::") and name == socket.gethostname().lower()
    return found.is_loopback or bound in ("0.0.0.0", "::")


def requested(head: bytes, bound: str) -> tuple[str, str]:
    """Read the head of a request.

    Returns:
        Method, GET or HEAD, and path without its query.

    Raises:
        HttpError: It is not HTTP, wants something that is not done here, or is for another host.
    """
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0") or parts[1][:1] != "/":
        raise HttpError(HTTPStatus.BAD_REQUEST, "expected GET /path HTTP/1.1")
    if parts[0] not in ("GET", "HEAD"):
        raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD: nothing changes here")
    hosts = [value.strip() for key, _, value in _fields(lines[1:]) if key.lower() == "host"]
    if len(hosts) != 1 or not allows_host(hosts[0], bound):
        raise HttpError(HTTPStatus.MISDIRECTED_REQUEST, "the Host is not this station's")
    return parts[0], parts[1].partition("?")[0]


class Paths:
    """What there is to be had, and how it is made."""

    def __init__(self, sources: StatusSources, clock_s: Callable[[], float]) -> None:
        version = metadata.version("dualbank")
        files = resources.files("edge") / "status_page"
        self._clock_s = clock_s
        self._fixed = {
            path: Answer(HTTPStatus.OK, kind, (files / name).read_bytes())
            for path, (name, kind) in PAGE.items()
        }
        self._made: dict[str, tuple[float, Answer]] = {}
        self._makers: Mapping[str, Callable[[], Answer]] = {
            "/metrics": lambda: Answer(HTTPStatus.OK, CONTENT_TYPE, metrics_text(sources, version)),
            "/status.json": lambda: Answer(
                HTTPStatus.OK,
                "application/json",
                json.dumps(document(sources, version), allow_nan=False).encode(),
            ),
            "/livez": lambda: _probe(why_not_live(look(sources))),
            "/readyz": lambda: _probe(why_not_ready(look(sources))),
        }

    def answer(self, path: str) -> Answer:
        """Give what a path has, made now or a moment ago.

        Raises:
            HttpError: There is no such path.
        """
        if path in self._fixed:
            return self._fixed[path]
        if path not in self._makers:
            raise HttpError(HTTPStatus.NOT_FOUND, f"there is {', '.join(self.names())}")
        now_s = self._clock_s()
        made = self._made.get(path)
        if made is None or now_s - made[0] > FRESH_S:
            made = self._made[path] = now_s, self._makers[path]()
        return made[1]

    def names(self) -> list[str]:
        """Every path that answers."""
        return [*self._makers, *self._fixed]


class HttpServer:
    """Answers requests until it is stopped; made by `open_http`.

    Attributes:
        address: host:port as it became.
    """

    def __init__(self, listener: socket.socket, bound: str, paths: Paths) -> None:
        host, port = listener.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._listener = listener
        self._bound = bound
        self._paths = paths
        self._talking: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()

    def work(self, ready: Ready) -> None:
        """Serve; the thread's work."""
        asyncio.run(self._serve(ready))

    def stop(self) -> None:
        """Let `work` end, whoever is still talking; from any thread, once it is ready."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)

    async def _serve(self, ready: Ready) -> None:
        self._loop = asyncio.get_running_loop()
        served = await asyncio.start_server(
            self._connection, sock=self._listener, limit=MOST_HEAD_BYTES, backlog=MOST_CONNECTIONS
        )
        ready()
        await self._stopping.wait()
        served.close()
        for writer in self._talking.values():
            writer.transport.abort()
        while self._talking:
            await asyncio.wait(list(self._talking))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._talking) >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        self._talking[task] = writer
        try:
            await asyncio.wait_for(self._converse(reader, writer), 2 * REQUEST_S)
        # Whoever asks too slowly, or goes away, is not the station's trouble.
        except (asyncio.TimeoutError, ConnectionError):
            writer.transport.abort()
        finally:
            del self._talking[task]

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method = "GET"
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), REQUEST_S)
            method, path = requested(head, self._bound)
            answer = self._paths.answer(path)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the peer went away") from error
        except asyncio.LimitOverrunError:
            answer = _refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request is too long")
        except HttpError as error:
            answer = _refusal(error.status, str(error))
        writer.write(_head(answer) + (b"" if method == "HEAD" else answer.body))
        writer.close()
        await writer.wait_closed()


@contextmanager
def open_http(
    address: str,
    sources: StatusSources,
    died: Callable[[BaseException], None],
    clock_s: Callable[[], float] = time.monotonic,
) -> Iterator[str]:
    """Serve the page, the metrics and the probes, in a thread of its own.

    Args:
        address: host:port to bind to.
        sources: What is shown.
        died: Called from the thread if it ends by an error; nobody can look at the station then.
        clock_s: Monotonic seconds.

    Returns:
        The address as it became.

    Raises:
        InputError: Not an address.
        StationError: It cannot be bound.
    """
    host, port = host_and_port(address)
    with _listener(host, port) as listener:
        server = HttpServer(listener, host, Paths(sources, clock_s))
        worker = Worker("http", server.work, died)
        try:
            yield server.address
        finally:
            server.stop()
            if not worker.join(JOIN_S):
                log.error("the status page does not end")


@contextmanager
def _listener(host: str, port: int) -> Iterator[socket.socket]:
    """Bind here and now, so that a wrong address is told by whoever starts the station."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        opened = socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    except OSError as error:
        raise StationError(f"cannot bind http to {host}:{port}: {error}") from error
    with opened:
        yield opened


def _probe(trouble: str | None) -> Answer:
    status = HTTPStatus.OK if trouble is None else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, "text/plain; charset=utf-8", f"{trouble or 'ok'}\n".encode())


def _refusal(status: HTTPStatus, text: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())


def _head(answer: Answer) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.kind}",
        f"Content-Length: {len(answer.body)}",
        *_HEADERS,
    ]
    if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _fields(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    return (line.partition(":") for line in lines if line)

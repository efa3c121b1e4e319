"""Peers that send mutated messages to every socket of a station, as fast as it takes them.

Each runs in a thread, counts what it sent, and knows what the station owes it.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import cv2
import msgpack
import zmq

from tests.bundles import bad_frame, good_frame
from tests.line.mutations import (
    GOOD_SEEDS,
    GREETING,
    NAMES,
    Mutator,
    framing,
    named,
    pack,
    part,
    pixels_of,
    ready,
)

PATIENCE_S = 20.0
"""Only a run that fails waits so long."""

KNOWN_EVERY = 10
"""One message of so many is a frame whose verdict is known beforehand."""

KNOWN = {
    "good": ("PASS", None),
    "bad": ("FAIL", "score_above_reject"),
    "lost": ("UNKNOWN", "frame_lost"),
}

Key = tuple[str, str, int]


class HostileError(AssertionError):
    """The station does not do what it owes."""


@dataclass
class Books:
    """What was sent to the doors for frames, and what must therefore be recorded.

    Attributes:
        received: Messages that the station must have counted.
        malformed: Of these, those without a name.
        redelivered: Of these, frames that came before.
        rows: By name, how many verdicts must be in the ledger.
        known: By name, verdict and reason.
        imagezmq: Replies of each kind.
    """

    received: int = 0
    malformed: int = 0
    redelivered: int = 0
    rows: Counter[Key] = field(default_factory=Counter)
    known: dict[Key, tuple[str, str | None]] = field(default_factory=dict)
    imagezmq: Counter[str] = field(default_factory=Counter)
    _digests: dict[Key, str | None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, parts: list[bytes]) -> Key | None:
        """Note a message to `cameras` or `frames`; gives its name."""
        key, pixels = named(parts), pixels_of(parts)
        with self._lock:
            self.received += 1
            if key is None:
                self.malformed += 1
            elif key not in self._digests:
                self._digests[key] = pixels
                self.rows[key] += 1
            elif None not in (pixels, self._digests[key]) and pixels != self._digests[key]:
                self.rows[key] += 1  # recorded too: name_reused
            else:
                self.redelivered += 1
        return key

    def enter_reply(self, reply: bytes) -> None:
        """Note a message to `imagezmq` by what was replied."""
        kind = "OK" if reply == b"OK" else "ERROR"
        with self._lock:
            self.received += 1
            self.imagezmq[kind] += 1
            self.malformed += kind == "ERROR"


class Peer:
    """One socket's worth of trouble.

    Attributes:
        name: Of the setting.
        target: How many messages are to be sent.
        sent: How many were.
        answered: How many were answered, where each is.
        connections: That were broken on purpose.
    """

    def __init__(self, name: str, address: str, target: int, seed: int, books: Books) -> None:
        self.name, self.address, self.target = name, address, target
        self.sent = self.answered = self.connections = self.known = 0
        self.failure: BaseException | None = None
        self.took_s = 0.0
        self.chance = random.Random(f"{seed} {name}")
        self.mutator = Mutator(self.chance, f"hostile {name}")
        self.books = books
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the end.

        Raises:
            HostileError: It failed, or does not end.
        """
        self._thread.join(timeout_s)
        if self.failure is not None:
            raise HostileError(f"{self.name}: {self.failure!r}") from self.failure
        if self._thread.is_alive():
            raise HostileError(f"{self.name} hangs after {self.sent} of {self.target} messages")

    def work(self) -> None:
        """Send them all."""
        raise NotImplementedError

    def next_known(self) -> tuple[Key, list[bytes]]:
        """Give a frame whose verdict is known, of a camera that sends nothing else."""
        kind = ("good", "bad", "good", "lost")[self.known % 4]
        seed = GOOD_SEEDS[self.known % len(GOOD_SEEDS)]
        header: dict[str, Any] = {
            **{"v": 1, "camera": f"known {self.name}", "session": "s", "seq": self.known},
            **{"encoding": "raw", "shape": [32, 32, 3], "product": "bolt", "live": False},
            "part": f"{kind} part of {self.name}",
        }
        self.known += 1
        pixels = (bad_frame if kind == "bad" else good_frame)("bolt", seed).tobytes()
        if kind == "lost":
            header["encoding"], pixels = "none", b""
        parts = [pack(header), pixels]
        key = self.books.enter(parts)
        assert key is not None
        self.books.known[key] = KNOWN[kind]
        return key, parts

    def _run(self) -> None:
        began = time.monotonic()
        try:
            self.work()
        except BaseException as failure:  # noqa: BLE001 - `join` raises it
            self.failure = failure
        self.took_s = time.monotonic() - began


class PlainCamera(Peer):
    """Pushes frames."""

    def work(self) -> None:
        with opened(zmq.PUSH, self.address) as push:
            while self.sent < self.target:
                if self.sent % KNOWN_EVERY == 0:
                    parts = self.next_known()[1]
                else:
                    parts = self.mutator.frame()
                    self.books.enter(parts)
                push.send_multipart(parts)
                self.sent += 1


class AcknowledgedCamera(Peer):
    """Sends frames and hellos; frames whose verdict is known keep to the window."""

    def work(self) -> None:
        self._open: set[int] = set()
        self._credits = 0
        with opened(zmq.DEALER, self.address) as dealer:
            while self.sent < self.target:
                if self.sent % KNOWN_EVERY == 0:
                    (_, _, seq), parts = self.next_known()
                    self._open.add(seq)
                elif self.chance.randrange(4) == 0:
                    parts = self.mutator.hello()
                else:
                    parts = self.mutator.frame()
                    self.books.enter(parts)
                dealer.send_multipart(parts)
                self.sent += 1
                self._hear(dealer, 0)
                if self.sent % 40 == 0:
                    self._wait(dealer)
            self._wait(dealer, 0)

    def _wait(self, dealer: zmq.Socket[bytes], most_open: int = 24) -> None:
        """Until the station has taken all that was sent, and has judged all but a few."""
        before, session = self._credits, f"barrier {self.sent}"
        hello = {"v": 1, "camera": f"known {self.name}", "session": session, "open": []}
        dealer.send(pack(hello))
        until = time.monotonic() + PATIENCE_S
        while self._credits == before or len(self._open) > most_open:
            if time.monotonic() > until:
                raise HostileError(f"no answer for {PATIENCE_S} s; open: {sorted(self._open)[:5]}")
            self._hear(dealer, 100)

    def _hear(self, dealer: zmq.Socket[bytes], timeout_ms: int) -> None:
        while dealer.poll(timeout_ms):
            kind, data = dealer.recv_multipart()
            said = msgpack.unpackb(data)
            if kind == b"credit":
                self._credits += said["session"].startswith("barrier")
            elif said["camera"] == f"known {self.name}":
                self.answered += 1
                self._open.discard(said["seq"])
            timeout_ms = 0


class Asking(Peer):
    """Sends requests, and counts answers. Several sockets, with few requests under way at each."""

    window, sockets = 24, 2
    patience_ms: int | None = None
    """After so long without an answer, what is under way is given up; None: each must come."""

    def work(self) -> None:
        with zmq.Context() as context:
            dealers = [context.socket(zmq.DEALER) for _ in range(self.sockets)]
            open_at = dict.fromkeys(dealers, 0)
            poller = zmq.Poller()
            for dealer in dealers:
                dealer.setsockopt(zmq.LINGER, 0)
                dealer.connect(self.address)
                poller.register(dealer, zmq.POLLIN)
            try:
                while self.sent < self.target or any(open_at.values()):
                    self._fill(open_at)
                    if not any(open_at.values()):
                        continue
                    came = poller.poll(self.patience_ms or int(PATIENCE_S * 1000))
                    if not came and self.patience_ms is None:
                        raise HostileError(f"{sum(open_at.values())} requests were not answered")
                    if not came:
                        open_at = dict.fromkeys(dealers, 0)
                    for dealer, _ in came:
                        self.heard(dealer.recv_multipart())
                        open_at[dealer] = max(0, open_at[dealer] - 1)
                        self.answered += 1
            finally:
                for dealer in dealers:
                    dealer.close(0)

    def _fill(self, open_at: dict[zmq.Socket[bytes], int]) -> None:
        for at, dealer in enumerate(open_at):
            while self.sent < self.target and open_at[dealer] < self.window:
                parts = self.request(at)
                dealer.send_multipart(parts)
                self.sent += 1
                open_at[dealer] += self.is_answered(parts)

    def request(self, at: int) -> list[bytes]:
        """Make one, for the socket of that number."""
        document = self.document()
        chance = self.chance.randrange(10)
        if chance == 0:
            return [pack(document)]
        if chance == 1:
            envelope = [self.chance.randbytes(5)] * self.chance.choice((1, 2, 6, 7, 300))
            return [*envelope, pack(document)]
        # ZeroMQ hangs up on whoever sends a longer part: see `break_framing`.
        data = self.mutator.document(document)[:8192]
        return [b"", data] if chance < 5 else [data]

    def document(self) -> dict[str, Any]:
        """A request in order."""
        raise NotImplementedError

    def is_answered(self, parts: list[bytes]) -> bool:
        """Whether the station owes an answer."""
        return len(parts) <= 7

    def heard(self, parts: list[bytes]) -> None:
        """Look at an answer."""


class ImageZmq(Asking):
    """Sends what imageZMQ's REQ senders do, a few at a time."""

    # Up to 8 replies wait for a sender; those of imageZMQ have one under way.
    window, sockets = 4, 8

    def request(self, at: int) -> list[bytes]:
        return [b"", *self._next(is_known=at == 0)]

    def is_answered(self, parts: list[bytes]) -> bool:
        return True

    def heard(self, parts: list[bytes]) -> None:
        self.books.enter_reply(parts[-1])

    def _next(self, is_known: bool) -> list[bytes]:
        chance = self.chance
        seed = chance.choice(GOOD_SEEDS)
        good, bad = (make("bolt", seed) for make in (good_frame, bad_frame))
        says = {"msg": self.mutator.camera, "dtype": "uint8", "shape": [32, 32, 3]}
        if is_known:  # over one socket: they are numbered as they come
            says["msg"] = f"known {self.name}"
            image, kind = ((good, "good"), (bad, "bad"))[self.known % 2]
            self.books.known[says["msg"], "", self.known] = KNOWN[kind]
            self.known += 1
            return [json.dumps(says).encode(), image[:, :, ::-1].tobytes()]
        bgr = bad[:, :, ::-1].tobytes()
        match chance.randrange(8):
            case 0:
                return [json.dumps(says).encode(), self.mutator.damaged(bgr)]
            case 1:
                jpeg = bytes(cv2.imencode(".jpg", bad[:, :, ::-1])[1])
                return [json.dumps({"msg": says["msg"]}).encode(), self.mutator.damaged(jpeg)]
            case 2:
                return [json.dumps(says).encode(), bgr, *[b"x"] * chance.choice((1, 2, 300))]
            case 3:
                return [chance.randbytes(chance.choice((0, 20, 9000))), bgr][
                    : chance.randrange(1, 3)
                ]
            case 4:
                named_oddly = says | {"msg": chance.choice(NAMES)}
                return [json.dumps(named_oddly).encode(), good[:, :, ::-1].tobytes()]
            case _:
                return [self.mutator.json(says), bgr]


class CatchingUp(Asking):
    """Asks for verdicts that were missed; now and then for many."""

    # A ROUTER drops answers that a peer does not fetch in time: 4 wait.
    window, sockets, patience_ms = 3, 6, 3000

    def document(self) -> dict[str, Any]:
        return self.chance.choice(
            (
                {"v": 1, "after": self.chance.choice((0, 1, 50, 1 << 62)), "most": 3},
                {"v": 1, "after": 5, "most": 2, "camera": self.chance.choice(NAMES)},
                {"v": 1, "latest": self.chance.choice((1, 2, 3) * 30 + (1000,))},
                {"v": 1, "after": 0, "most": self.chance.choice((1, 2, 3) * 30 + (1000,))},
            )
        )

    def heard(self, parts: list[bytes]) -> None:
        if msgpack.unpackb(parts[-1]).get("v") != 1:
            raise HostileError(f"expected an answer or a verdict, got {parts[-1][:80]!r}")


class Ejector(Asking):
    """Asks whether parts may go on: only the good one may."""

    # A flipped bit makes a deadline of a minute: who asks so waits, 64 questions of a peer at most.
    patience_ms = 300

    def document(self) -> dict[str, Any]:
        kind = self.chance.choice(("good", "bad", "lost", "no"))
        document: dict[str, Any] = {
            "v": 1,
            "part": f"{kind} part of {self.chance.choice(('cameras', 'frames'))}",
            "deadline_ms": self.chance.choice((0, 0, 0.5, 5.0, 20.0)),
        }
        if self.chance.randrange(3) == 0:
            document["cameras"] = ["known cameras", *self.chance.choices(NAMES, k=2)]
        if self.chance.randrange(3) == 0:
            document["max_age_ms"] = self.chance.choice((1.0, 1e6))
        return document

    def heard(self, parts: list[bytes]) -> None:
        answer = msgpack.unpackb(parts[-1])
        if answer["answer"] == "PASS" and not str(answer["part"]).startswith("good part of"):
            raise HostileError(f"a part that is not good may go on: {answer}")


class Operator(Asking):
    """Asks for swaps of what is no bundle, and for steps that are not to be taken."""

    window = 16

    def document(self) -> dict[str, Any]:
        ask = self.chance.choice(("status", "activate", "abort", "rollback", "swap", "shutdown"))
        document: dict[str, Any] = {"v": 1, "ask": ask}
        if ask == "swap":
            document["bundle"] = self.chance.choice(
                ("/dev", "/", "/proc/self", "relative", "/\0", "/" * 4096)
            )
        if self.chance.randrange(3) == 0:
            document["terms"] = {"shadow_frames": 10, "shadow_s": 1.0, "margin": 0.5}
        return document

    def is_answered(self, parts: list[bytes]) -> bool:
        return True

    def heard(self, parts: list[bytes]) -> None:
        reply = msgpack.unpackb(parts[-1])
        if reply["state"]["swaps"] or reply["state"]["rollbacks"]:
            raise HostileError(f"a bundle was changed: {reply}")


class Subscriber(Peer):
    """Subscribes to too much, to nothing, and to what is none; connection after connection."""

    def work(self) -> None:
        while self.sent < self.target:
            self._talk(self._messages())
            self.connections += 1

    def _messages(self) -> list[bytes]:
        chance = self.chance
        kind = chance.randrange(8)
        if kind == 0 or self.sent == 0:
            # Beyond what the station keeps: it sends every listener away.
            return [b"\x01" + chance.randbytes(12) for _ in range(5000)]
        count = min(self.target - self.sent, 400)
        made = []
        for _ in range(count):
            topic = chance.randbytes(chance.choice((0, 1, 5, 40, 590)))
            if chance.randrange(4) == 0:
                topic = chance.choice((b"last/", b"verdict/", b"heartbeat/", b"")) + topic[:5]
            made.append(chance.choice((b"\x01", b"\x01", b"\x00", b"\x02", b"")) + topic)
        if kind == 1:
            made[-1] = b"\x01" + b"x" * 5000  # longer than any topic: hung up on
        return made

    def _talk(self, messages: list[bytes]) -> None:
        with suppress(ConnectionError, TimeoutError), connected(self.address) as talking:
            shake_hands(talking, "SUB")
            data = b"".join(part(each) for each in messages)
            for at in range(0, len(data), 8192):
                talking.sendall(data[at : at + 8192])
            talking.shutdown(socket.SHUT_WR)
            while talking.recv(65536):
                pass
        self.sent += len(messages)


class Browser(Peer):
    """Asks the page for what it has, and in every wrong way."""

    paths = ("/", "/page.js", "/metrics", "/status.json", "/livez", "/readyz", "/nothing", "/../..")

    def work(self) -> None:
        self.statuses: Counter[str] = Counter()
        while self.sent < self.target:
            self.sent += 1
            data, must_be = self._request()
            status = "hung up"
            with suppress(ConnectionError, TimeoutError):
                said = self._talk(data)
                status = said[9:12].decode() if said else status
            self.statuses[status] += 1
            self.answered += status != "hung up"
            if must_be and status not in (must_be, "hung up"):
                raise HostileError(f"{data[:100]!r} was answered {status}, not {must_be}")

    def _talk(self, data: bytes) -> bytes:
        with connected(self.address) as talking:
            talking.sendall(data)
            with suppress(OSError):
                talking.shutdown(socket.SHUT_WR)
            said = b""
            while more := talking.recv(65536):
                said += more
            return said

    def _request(self) -> tuple[bytes, str | None]:
        chance = self.chance
        path = chance.choice(self.paths)
        good = f"{chance.choice(('GET', 'HEAD'))} {path} HTTP/1.1\r\nHost: {self.address}\r\n\r\n"
        match chance.randrange(8):
            case 0 | 1:
                return good.encode(), "404" if path in self.paths[-2:] else "200"
            case 2:
                method = chance.choice(("POST", "PUT", "DELETE", "get", "CONNECT"))
                return f"{method}{good[good.index(' ') :]}".encode(), "405"
            case 3:
                return good.replace(self.address, "elsewhere.example").encode(), "421"
            case 4:
                return good.encode()[:-2] + b"X: " + b"x" * 9000 + b"\r\n\r\n", "431"
            case 5:
                return chance.randbytes(chance.choice((1, 300, 9000))), None
            case _:
                return self.mutator.damaged(good.encode()), None


def break_framing(peer: Peer, kind: str, count: int) -> None:
    """Connect again and again, shake hands in order, and break the framing of messages."""
    chance = random.Random(f"framing {peer.name}")
    for _ in range(count):
        with suppress(ConnectionError, TimeoutError), connected(peer.address) as talking:
            shake_hands(talking, kind)
            talking.sendall(framing(chance))
            talking.shutdown(socket.SHUT_WR)
            while talking.recv(65536):
                pass
        peer.connections += 1


def shake_hands(talking: socket.socket, kind: str) -> None:
    """Greet as a socket of a kind, and wait until the station has let it in."""
    talking.sendall(GREETING + ready(kind))
    said = b""
    # Its greeting, and a command with its length; a message before that is none.
    while len(said) < len(GREETING) + 2 or len(said) < len(GREETING) + 2 + said[len(GREETING) + 1]:
        more = talking.recv(4096)
        if not more:
            raise ConnectionResetError("hung up on while shaking hands")
        said += more


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    """Connect over TCP alone."""
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as talking:
        yield talking


@contextmanager
def opened(kind: int, address: str) -> Iterator[zmq.Socket[bytes]]:
    """Connect a socket; what it sent still leaves at its end."""
    with zmq.Context() as context, context.socket(kind) as peer:
        peer.setsockopt(zmq.LINGER, int(PATIENCE_S * 1000))
        peer.setsockopt(zmq.SNDTIMEO, int(PATIENCE_S * 1000))
        peer.connect(address)
        yield peer


PEERS: dict[str, tuple[Callable[..., Peer], str | None]] = {
    "cameras": (AcknowledgedCamera, "DEALER"),
    "frames": (PlainCamera, "PUSH"),
    "imagezmq": (ImageZmq, "DEALER"),
    "verdicts": (Subscriber, "SUB"),
    "catch_up": (CatchingUp, "DEALER"),
    "reject": (Ejector, "DEALER"),
    "control": (Operator, "DEALER"),
    "http": (Browser, None),
}
"""By socket: who sends to it, and as what over a connection of bytes."""

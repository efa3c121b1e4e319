"""Whom a station lets in: for each role the keys in its folder, asked anew at every handshake.

pyzmq answers ZeroMQ's questions (ZAP) in a thread of its own. Who has been let in is not asked
again: a key that is revoked ends no connection.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq
from zmq.auth.thread import ThreadAuthenticator

from edge.health import Health, is_milestone
from edge.keys import Role, key_files, read_public
from inspection.errors import InputError

log = logging.getLogger(__name__)

ALLOWED = {role: f"allowed_{role.value}" for role in Role}
REFUSED = {role: f"refused_{role.value}" for role in Role}
"""Counters of `Health`: handshakes of each role whose key was known, and whose was not."""


class AllowList:
    """The keys of one role, as its folder has them now.

    A file that cannot be read keeps only its own peer out; a folder that cannot, everybody.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: object = None
        self._keys: frozenset[bytes] = frozenset()

    def now(self) -> frozenset[bytes]:
        """Give the public keys (Z85); the folder is read again if it has changed."""
        seen = self._look()
        if seen != self._seen:
            self._keys = self._read()
            self._seen = seen
        return self._keys

    def _look(self) -> object:
        """Tell one state of the folder from another."""
        try:
            stats = [(file.name, file.stat()) for file in key_files(self._folder)]
        except (InputError, OSError) as error:
            return str(error)
        return [(name, each.st_ino, each.st_size, each.st_mtime_ns) for name, each in stats]

    def _read(self) -> frozenset[bytes]:
        keys = set()
        try:
            for file in key_files(self._folder):
                try:
                    keys.add(read_public(file))
                except InputError as error:
                    log.warning("a peer cannot enter", extra={"error": error})
        except InputError as error:
            log.warning("nobody can enter", extra={"error": error})
        return frozenset(keys)


class Gate:
    """Answers for one role whether a key may enter; pyzmq asks it in its own thread."""

    def __init__(self, role: Role, allowed: AllowList, health: Health) -> None:
        self._role = role
        self._allowed = allowed
        self._health = health

    def callback(self, domain: str, key: bytes) -> bool:
        """Answer, and count; what pyzmq calls.

        Args:
            domain: The role's; what ZeroMQ calls it.
            key: Public, Z85.
        """
        if key in self._allowed.now():
            self._health.count(ALLOWED[self._role])
            return True
        refused = self._health.count(REFUSED[self._role])
        if is_milestone(refused):
            log.warning(
                "key refused", extra={"role": domain, "key": key.decode(), "refused": refused}
            )
        return False


@contextmanager
def open_access(
    context: zmq.Context[zmq.Socket[bytes]], keys: Path | None, health: Health
) -> Iterator[None]:
    """Answer handshakes of a context's sockets until the end; they must be closed before.

    Args:
        context: Of the station's sockets.
        keys: Folder of keys; None: nothing is encrypted, and there is nothing to answer.
        health: Counts who is let in and who is not, by role.
    """
    if keys is None:
        yield
        return
    answering = ThreadAuthenticator(context, log=log)
    for role in Role:
        allowed = AllowList(keys / role.value)
        if not allowed.now():
            log.warning("no key may enter", extra={"role": role.value, "keys": keys})
        answering.configure_curve_callback(role.value, Gate(role, allowed, health))
    answering.start()
    try:
        yield
    finally:
        answering.stop()

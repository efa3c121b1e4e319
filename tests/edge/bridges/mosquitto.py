"""A real MQTT broker on a free port of this machine, which can be killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from tests.edge.published_station import PATIENCE_S, eventually

FOUND = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class Mosquitto:
    """Keeps sessions over its death, as a broker in a plant would: it writes at every change."""

    def __init__(
        self, folder: Path, more: Sequence[str] = ("allow_anonymous true",), save_after: int = 1
    ) -> None:
        assert FOUND, "there is no mosquitto on this machine; apt install mosquitto"
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            "\n".join(
                [
                    f"listener {self.port} 127.0.0.1",
                    "persistence true",
                    f"persistence_location {folder}/",
                    "autosave_on_changes true",
                    # Of changes; at 1 it writes for every message, and takes 300 a second.
                    f"autosave_interval {save_after}",
                    "max_queued_messages 0",
                    f"user {os.environ.get('USER', 'root')}",
                    *more,
                ]
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Mosquitto:
        assert FOUND
        self._process = subprocess.Popen(
            [FOUND, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        eventually(self._answers)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL: it says goodbye to nobody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop it in the middle: it keeps its connections and does not answer; it may be killed."""
        frozen = self._process
        assert frozen is not None
        frozen.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            frozen.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        assert self._process is not None
        assert self._process.poll() is None, "mosquitto does not start"
        return False


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

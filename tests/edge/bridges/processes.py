"""A bridge as a process of its own, as it runs in a plant."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.edge.published_station import PATIENCE_S, FakeStation, eventually


class BridgeProcess:
    """Its log is read as it comes."""

    def __init__(self, *arguments: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge.cli", "bridge", *arguments],
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def says(self, words: str, times: int = 1) -> None:
        """Wait for a line of the log."""
        eventually(lambda: sum(words in line for line in self.lines) >= times)

    def number(self, name: str) -> int:
        """The last value of a field of the log."""
        return int(re.findall(rf" {name}=(\d+)", "\n".join(self.lines))[-1])

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop it; gives its exit code."""
        self.process.send_signal(how)
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())


@contextmanager
def bridging(kind: str, station: FakeStation, *arguments: str) -> Iterator[BridgeProcess]:
    """Run a bridge to a station; at the end it is stopped, if it still runs."""
    bridge = BridgeProcess(
        kind, "--from", station.verdicts, "--catch-up", station.catch_up, *arguments
    )
    try:
        yield bridge
    finally:
        if bridge.process.poll() is None:
            bridge.end()
        bridge.process.stderr.close()  # type: ignore[union-attr]

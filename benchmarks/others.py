"""What other programs take of the cores meanwhile: figures of a shared machine tell it too."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SAMPLE_S = 0.5
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def watching_others(found: list[tuple[float, float]], station: int) -> Iterator[None]:
    """Note at what times others have taken how many cores, in a thread, until the end."""
    ending, ours = threading.Event(), (station, os.getpid())

    def look() -> None:
        before, before_s = others_s(ours), time.perf_counter()
        while not ending.wait(SAMPLE_S):
            now, now_s = others_s(ours), time.perf_counter()
            found.append((now_s, (now - before) / (now_s - before_s)))
            before, before_s = now, now_s

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def others_s(ours: Sequence[int]) -> float:
    """CPU time, s, of everything on this machine but our processes, since some fixed moment."""
    first = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq = map(int, first[:7])
    return (user + nice + system + irq + softirq) / TICKS - sum(map(cpu_s, ours))


def cpu_s(pid: int) -> float:
    """CPU time, s, that a process has taken."""
    # The name may hold spaces; what follows it does not.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS

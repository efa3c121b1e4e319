"""What other programs take of the cores meanwhile: figures of a shared machine tell it too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


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

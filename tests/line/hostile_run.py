"""A flood of mutated messages to every socket of a real station, and what became of each.

    python -m tests.line.hostile_run --messages 100000

Ends with status 1 if the station owes an answer: it lives, accounts for every frame, passes nothing
but pixels of good parts, has a ledger that holds, a listener that missed nothing, and no more
memory, threads or descriptors than before.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from benchmarks.recording import record
from edge.follow import follow
from edge.ledger_audit import audit
from edge.ledger_reader import open_reader
from tests.bundles import good_frame, write_tiny_bundle
from tests.line.hostile_handshakes import run as knock
from tests.line.hostile_peers import PEERS, Books, HostileError, Peer, break_framing
from tests.line.mutations import BOMBS
from tests.line.processes import StationProcess

MOST_GROWTH_MB = 48
"""Resident memory in the second half, above the most in the first: what an allocator may keep."""

MOST_S = 3600.0
TAKES_S = 30.0
"""How long what was sent may take to come to its end."""

OPTIONS = (
    *("--overload", "block"),  # so that frames whose verdict is known are judged, not forgotten
    *("--imagezmq", "tcp://127.0.0.1:*", "--control", "tcp://127.0.0.1:*"),
    *("--max-message-bytes", str(1 << 20), "--max-frame-bytes", str(16 << 20)),
    *("--label-queue-bytes", str(4 << 20)),
)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds."""

    rss_mb: float
    threads: int
    descriptors: int


def footprint(pid: int) -> Footprint:
    """Look at a process of this machine."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Footprint(int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"]), descriptors)


class Watch:
    """Looks at the station while it is under fire: whether it lives, and what it holds."""

    def __init__(self, station: StationProcess, peers: list[Peer]) -> None:
        self.seen: list[tuple[float, float]] = []
        self.livez: Counter[str] = Counter()
        self._station, self._peers = station, peers
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join()

    def growth_mb(self) -> float:
        """By how much the second half's memory exceeds the first half's."""
        first = [rss for done, rss in self.seen if done <= 0.5]
        second = [rss for done, rss in self.seen if done > 0.5]
        return max(second) - max(first) if first and second else 0.0

    def _look(self) -> None:
        wanted = sum(peer.target for peer in self._peers)
        while not self._stopping.wait(0.25):
            done = sum(min(peer.sent, peer.target) for peer in self._peers) / wanted
            try:
                self.seen.append((done, footprint(self._station.process.pid).rss_mb))
            except (OSError, KeyError, ValueError):
                self.livez["gone"] += 1
                return
            self.livez[get(f"http://{self._station.addresses['http']}/livez")] += 1


class Following(threading.Thread):
    """A listener that means well, and is sent away whenever others subscribe to too much."""

    def __init__(self, station: StationProcess) -> None:
        super().__init__(daemon=True)
        self._addresses = station.addresses
        self._stopping = threading.Event()
        self.last = self.gaps = 0

    def run(self) -> None:
        """Follow until stopped."""
        where = self._addresses["verdicts"], self._addresses["catch_up"]
        for said in follow(*where, after=0, stopping=self._stopping):
            self.gaps += said.station_seq != self.last + 1
            self.last = said.station_seq

    def stop(self) -> None:
        """Let it end."""
        self._stopping.set()
        self.join()


def warm_up(station: StationProcess, books: Books) -> None:
    """Have a few frames judged, so that what is opened at the first is open."""
    with station.camera("first", product="bolt") as camera:
        # OpenCV starts threads of its own at the first large one.
        for image in (*[good_frame()] * 20, *[BOMBS[0][1]] * 5):
            name = camera.send(image).frame_name
            books.received += 1
            books.rows[name.camera, name.session, name.seq] += 1


def get(url: str) -> str:
    """Ask a probe: `ok`, what it says is wrong, or `busy` if no connection was free."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode().strip())
    except urllib.error.HTTPError as error:
        return error.read().decode().strip()
    except OSError:
        return "busy"


def run(messages: int, folder: Path, seed: int = 1) -> dict[str, Any]:
    """Send so many messages to every socket of a station of its own.

    Raises:
        HostileError: The station owes something.
    """
    folder.joinpath("bundle").mkdir()
    bundle, state = write_tiny_bundle(folder / "bundle"), folder / "state"
    with StationProcess(bundle, state, *OPTIONS) as station:
        books, pid = Books(), station.process.pid
        following = Following(station)
        following.start()
        peers = [
            make(name, station.addresses[name], messages, seed, books)
            for name, (make, _) in PEERS.items()
        ]
        warm_up(station, books)
        wait_for(lambda: following.last == books.received, "the listener to hear the first frames")
        before, began = footprint(pid), time.monotonic()
        watch = Watch(station, peers)
        for peer in peers:
            peer.start()
        for peer, (_, kind) in zip(peers, PEERS.values(), strict=True):
            if kind is not None:
                break_framing(peer, kind, max(10, messages // 500))
        try:
            for peer in peers:
                peer.join(MOST_S)
            took_s = time.monotonic() - began
            wait_until_quiet(station, books)
        except HostileError as error:
            raise HostileError("\n".join([str(error), *station_log(station)[-40:]])) from error
        finally:
            watch.stop()
        after = settled(pid, before)
        head = recorded(state)
        wait_for(lambda: following.last >= head, "the listener to have every verdict")
        following.stop()
        account = station.stop()
        log_lines = len(station_log(station))
        floods = [line.rpartition("floods=")[2] for line in station.lines if "floods=" in line]
    faults = [
        *account_faults(account, books),
        *ledger_faults(state, peers, books),
        *watch_faults(watch, before, after),
    ]
    if following.gaps or following.last != head:
        faults.append(f"the listener has {following.last} of {head}, {following.gaps} out of turn")
    if faults:
        raise HostileError("; ".join(faults))
    return {
        "messages_each": messages,
        "seconds": round(took_s, 1),
        "sockets": {
            peer.name: {
                "sent": peer.sent,
                "known_frames": peer.known,
                "answered": peer.answered,
                "broken_connections": peer.connections,
                "seconds": round(peer.took_s, 1),
            }
            for peer in peers
        },
        "http_statuses": dict(sorted(peers[-1].statuses.items())),  # type: ignore[attr-defined]
        "account": {
            key: account[key]
            for key in ("received", "malformed", "redelivered", "recorded", "unaccounted")
        },
        "verdicts": account["verdicts"],
        "unknown": account["unknown"],
        "events": account["events"],
        "peers": account["peers"],
        "livez": dict(watch.livez),
        "followed": following.last,
        "floods_at_least": int(floods[-1]) if floods else 0,
        "log_lines": log_lines,
        "rss_mb": {
            "before": round(before.rss_mb),
            "after": round(after.rss_mb),
            "second_half_grew_by": round(watch.growth_mb(), 1),
            "bound": MOST_GROWTH_MB,
            "by_tenth": by_tenth(watch.seen),
        },
        "threads": [before.threads, after.threads],
        "descriptors": [before.descriptors, after.descriptors],
    }


def station_log(station: StationProcess) -> list[str]:
    """What the station said, without what libpng and libjpeg say of damaged images."""
    theirs = ("libpng", "Corrupt JPEG", "Inconsistent", "Invalid ", "Premature", "Unsupported")
    return [line for line in station.lines if not line.startswith(theirs)]


def by_tenth(seen: list[tuple[float, float]]) -> list[int]:
    """Most resident memory in each tenth of the run, MB."""
    most = [0.0] * 10
    for done, rss in seen:
        tenth = min(9, int(10 * done))
        most[tenth] = max(most[tenth], rss)
    return [round(each) for each in most]


def wait_for(holds: Any, what: str) -> None:
    """Wait for what must come true."""
    until = time.monotonic() + TAKES_S
    while not holds():
        if time.monotonic() > until:
            raise HostileError(f"waited {TAKES_S:g} s for {what}")
        time.sleep(0.05)


def wait_until_quiet(station: StationProcess, books: Books) -> None:
    """Until the station has counted all that was sent, and nothing is under way."""
    url = f"http://{station.addresses['http']}/status.json"

    def quiet() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                frames = json.load(answer)["frames"]
        except OSError:
            return False
        return bool(frames["received"] >= books.received and not frames["under_way"])

    wait_for(quiet, "all that was sent to be counted")


def settled(pid: int, before: Footprint) -> Footprint:
    """Look at the station once those who left have been noticed, if they are."""
    until = time.monotonic() + TAKES_S
    while True:
        now = footprint(pid)
        held = now.descriptors > before.descriptors or now.threads > before.threads
        if not held or time.monotonic() > until:
            return now
        time.sleep(0.1)


def recorded(state: Path) -> int:
    """How many verdicts are in the ledger."""
    with open_reader(state) as reader:
        return reader.last_seq()


def account_faults(account: dict[str, Any], books: Books) -> list[str]:
    """Hold the station's counters to each other and to what was sent."""
    expected = {
        "received": books.received,
        "malformed": books.malformed,
        "redelivered": books.redelivered,
        "recorded": sum(books.rows.values()) + books.imagezmq["OK"],
        "published": sum(books.rows.values()) + books.imagezmq["OK"],
        "unaccounted": 0,
    }
    faults = [
        f"{key} is {account[key]}, not {value}"
        for key, value in expected.items()
        if account[key] != value
    ]
    ends = account["malformed"] + account["redelivered"] + account["recorded"]
    if account["received"] != ends:
        faults.append(f"{account['received']} were received, and {ends} came to an end")
    return faults


def ledger_faults(state: Path, peers: list[Peer], books: Books) -> list[str]:
    """Hold the ledger to its chain, and every verdict to what was sent."""
    may_pass = set().union(*(peer.mutator.may_pass for peer in peers))
    rows: Counter[Any] = Counter()
    known: dict[Any, tuple[str, str | None]] = {}
    faults = []
    with open_reader(state) as reader:
        found = audit(reader)
        if not found.holds:
            faults.append(f"the ledger does not hold: {found.problems[:2]}")
    asked = "SELECT camera, session, seq, verdict, reason, transport, record FROM verdicts"
    with closing(sqlite3.connect(f"file:{state / 'ledger.sqlite'}?mode=ro", uri=True)) as ledger:
        for camera, session, seq, verdict, reason, transport, data in ledger.execute(asked):
            if transport == "imagezmq":
                session = ""
            else:
                rows[camera, session, seq] += 1
            if reason != "name_reused" and (camera, session, seq) in books.known:
                known[camera, session, seq] = verdict, reason
            if verdict == "PASS" and msgpack.unpackb(data)["frame_sha256"] not in may_pass:
                faults.append(f"{camera!r} {seq} passes, and its pixels are no good part's")
    if rows != books.rows:
        wrong = [
            (key, rows[key], books.rows[key])
            for key in rows | books.rows
            if rows[key] != books.rows[key]
        ]
        faults.append(f"{len(wrong)} names have another number of verdicts, as {wrong[:3]}")
    if known != books.known:
        wrong = [key for key in books.known if known.get(key) != books.known[key]]
        faults.append(f"{len(wrong)} known frames: {wrong[0]} is {known.get(wrong[0])}")
    return faults[:10]


def watch_faults(watch: Watch, before: Footprint, after: Footprint) -> list[str]:
    """Hold what was seen meanwhile to its bounds."""
    faults = []
    if set(watch.livez) - {"ok", "busy"} or not watch.livez["ok"]:
        faults.append(f"/livez said {dict(watch.livez)}")
    if watch.growth_mb() > MOST_GROWTH_MB:
        faults.append(f"memory grew by {watch.growth_mb():.0f} MB: {by_tenth(watch.seen)}")
    if after.threads != before.threads:
        faults.append(f"threads were {before.threads}, are {after.threads}")
    if after.descriptors > before.descriptors:
        faults.append(f"descriptors were {before.descriptors}, are {after.descriptors}")
    return faults


def table(figures: dict[str, Any]) -> str:
    """Write the figures for people."""
    lines = [f"{'socket':10}{'sent':>9}{'known':>8}{'answered':>10}{'broken':>8}{'s':>8}"]
    for name, row in figures["sockets"].items():
        lines.append(
            f"{name:10}{row['sent']:>9}{row['known_frames']:>8}{row['answered']:>10}"
            f"{row['broken_connections']:>8}{row['seconds']:>8}"
        )
    rest = ("account", "verdicts", "unknown", "events", "http_statuses", "livez", "rss_mb")
    lines += [f"{key}: {figures[key]}" for key in (*rest, "handshakes")]
    return "\n".join(lines)


def main() -> int:
    """Run, print and record."""
    parser = argparse.ArgumentParser(prog="python -m tests.line.hostile_run", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000, help="to every socket")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-record", action="store_true", help="leave the recorded result alone")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(chosen.messages, Path(folder), chosen.seed)
        keyed = Path(folder) / "keyed"
        keyed.mkdir()
        times = max(2, chosen.messages // 2000)
        figures["handshakes"] = knock(times, Path(folder) / "bundle", keyed)
    print(table(figures))
    if not chosen.no_record:
        command = f"python -m tests.line.hostile_run --messages {chosen.messages}"
        print(record("hostile", {"command": command, **figures}).name)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What mutated messages and wrong keys do to a station: the result of `tests.line.hostile_run`."""

from __future__ import annotations

from typing import Any

WHO = {
    "cameras": "frames and hellos, acknowledged",
    "frames": "frames, pushed",
    "imagezmq": "imageZMQ messages",
    "verdicts": "subscriptions",
    "catch_up": "requests for missed verdicts",
    "reject": "questions for parts",
    "control": "requests for swaps",
    "http": "HTTP requests, a connection each",
}


def section(result: dict[str, Any]) -> str:
    """What was sent to each socket, what became of it, and what the station held."""
    account, verdicts, memory = result["account"], result["verdicts"], result["rss_mb"]
    knocks, machine = result["handshakes"], result["machine"]
    known = sum(row["known_frames"] for row in result["sockets"].values())
    livez = result["livez"]
    lines = [
        f"{result['messages_each']:,} mutated messages to every socket of one station, all at once, in {result['seconds']:.0f} s; {machine['cores']} cores. Bits "
        "flipped, ends missing, other types, sizes announced that never come, nesting, hundreds of parts, names that were used before, images whose headers lie, "
        "bombs; among them frames whose verdict is known. Broken connections shake hands in order and then break the framing of messages, with parts of up to 2⁶⁴ bytes announced.",
        "",
        "| socket | what | sent | verdict known | answered | broken connections |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name, row in result["sockets"].items():
        cells = (row["sent"], row["known_frames"], row["answered"], row["broken_connections"])
        lines.append(f"| `{name}` | {WHO[name]} | {' | '.join(f'{n:,}' for n in cells)} |")
    lines += [
        "",
        f"The run fails unless all of this holds. The station lived, and `/livez` was fine whenever it was asked ({livez['ok']:,} times"
        f"{_busy(livez)}). Received {account['received']:,} = malformed {account['malformed']:,} + redelivered {account['redelivered']:,} + recorded "
        f"{account['recorded']:,}, each as counted by the senders; every name has as many verdicts as it was owed. All {known:,} known frames have their "
        f"verdict; of {verdicts['PASS']:,} PASS none is of other pixels than a good part's; the ledger's chain holds. A listener that follows, sent away in "
        f"at least {result['floods_at_least']} floods of subscriptions, has all {result['followed']:,} verdicts, each once and in order. The ejector never let a part go that is not good. "
        f"Threads {_both(result['threads'])}, descriptors {_both(result['descriptors'])}, before and after.",
        "",
        f"Resident memory: {memory['before']} MB before, {memory['after']} MB after; most in each tenth of the run: {', '.join(map(str, memory['by_tenth']))} MB. The second half's most is "
        f"{memory['second_half_grew_by']:g} MB above the first's (bound: {memory['bound']}).",
        "",
        "Not checked: what a JPEG of a good part is judged that was damaged inside its scan; JPEG has no checksum, and it is judged as it looks. The scan of bad parts is damaged, and none passed.",
        "",
        f"With keys: {', '.join(knocks['kinds'])}, {knocks['times']} times each at each of {len(knocks['sockets'])} sockets. All {knocks['tried']:,} were refused and counted: "
        + ", ".join(
            f"{count:,} `{name}`"
            for name, count in knocks.items()
            if name.startswith("refused") and count
        )
        + ".",
    ]
    return "\n".join(lines)


def _busy(livez: dict[str, int]) -> str:
    busy = livez.get("busy", 0)
    return f"; {busy:,} more times all its connections were taken" if busy else ""


def _both(pair: list[int]) -> str:
    return f"{pair[0]} and {pair[1]}"

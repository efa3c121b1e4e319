"""The watchdog lives on frames that were scored, and on nothing else."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from edge.health import Health
from edge.notify import Notifier
from edge.pulse import Pulse, open_pulse
from inspection.verdicts import Reason, Verdict
from tests.edge.stations import record, said


@pytest.fixture
def heard() -> Iterator[tuple[Notifier, socket.socket]]:
    """A notifier, and the other end of its socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.settimeout(10)
    with ours, theirs:
        yield Notifier(ours, 0.02), theirs


def no_self_test() -> bool | None:
    raise AssertionError("a self-test, though a frame was scored")


def test_a_frame_that_was_scored_feeds_once_and_spares_the_self_test(
    heard: tuple[Notifier, socket.socket],
) -> None:
    notifier, systemd = heard
    health = Health()
    pulse = Pulse(notifier, health, no_self_test)
    health.ask_scorer()
    health.hear_scorer(scored=True)

    assert pulse.beat()

    assert systemd.recv(64) == b"WATCHDOG=1"
    with pytest.raises(AssertionError, match="self-test"):
        pulse.beat()


@pytest.mark.parametrize(("answer", "fed"), [(True, True), (False, False), (None, False)])
def test_in_quiet_hours_only_the_right_answer_to_a_golden_frame_feeds(
    answer: bool | None, fed: bool, heard: tuple[Notifier, socket.socket]
) -> None:
    notifier, systemd = heard
    systemd.settimeout(0)

    assert Pulse(notifier, Health(), lambda: answer).beat() is fed

    if fed:
        assert systemd.recv(64) == b"WATCHDOG=1"
    else:
        with pytest.raises(BlockingIOError):
            systemd.recv(64)


def test_a_wrong_answer_is_an_error_in_the_log_and_counted(
    heard: tuple[Notifier, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    health = Health()
    pulse = Pulse(heard[0], health, lambda: False)

    assert [pulse.beat(), pulse.beat()] == [False, False]

    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    counts = health.snapshot().counts
    assert (counts["self_tests"], counts["self_test_failures"]) == (2, 2)


def test_verdicts_without_a_score_do_not_feed(heard: tuple[Notifier, socket.socket]) -> None:
    health = Health()
    pulse = Pulse(heard[0], health, lambda: None)
    record(health, said(Verdict.UNKNOWN, reason=Reason.BACKLOG_FULL))
    health.ask_scorer()
    health.hear_scorer(scored=False)

    assert not pulse.beat()


def test_the_pulse_beats_in_its_thread_until_it_is_closed(
    heard: tuple[Notifier, socket.socket],
) -> None:
    notifier, systemd = heard
    with open_pulse(notifier, Health(), lambda: True, lambda _: pytest.fail("it died")):
        said = [systemd.recv(64) for _ in range(3)]

    assert said == [b"WATCHDOG=1"] * 3


def test_without_a_watchdog_nothing_is_tested() -> None:
    with open_pulse(Notifier(None, None), Health(), no_self_test, lambda _: None):
        pass

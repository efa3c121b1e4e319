"""`bridge`: a station's verdicts to an MQTT broker, or as an OPC UA server."""

from __future__ import annotations

import argparse
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from edge.addresses import is_private
from edge.catch_up import CATCH_UP, Secure
from edge.commands.options import DONE, add_keys, client_keys, number
from edge.settings import SettingsError
from edge.sockets import apply_client_keys
from edge.watch import VERDICTS
from inspection.errors import StationError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

MQTT_PORT, MQTT_TLS_PORT = 1883, 8883


def add_bridge(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    kinds = verbs.add_parser("bridge", help="pass verdicts on to MQTT or OPC UA").add_subparsers(
        required=True, metavar="KIND"
    )
    _add_mqtt(kinds.add_parser("mqtt", help="publish every verdict to an MQTT broker"))
    _add_opcua(kinds.add_parser("opcua", help="show the latest verdicts as an OPC UA server"))


def _add_mqtt(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(verb=_mqtt)
    _add_station(verb)
    verb.add_argument(
        "--broker", default="127.0.0.1", metavar="HOST[:PORT]", help="[%(default)s]; port 1883"
    )
    verb.add_argument("--prefix", default="dualbank", help="of every topic [%(default)s]")
    verb.add_argument("--client-id", default="dualbank-bridge", help="[%(default)s]")
    verb.add_argument(
        "--memory",
        type=Path,
        default=Path("mqtt-bridge.json"),
        metavar="FILE",
        help="keeps what the broker acknowledged last [%(default)s]",
    )
    verb.add_argument(
        "--after", type=number, metavar="SEQ", help="where to begin if there is no memory yet"
    )
    verb.add_argument("--user", help="at the broker")
    verb.add_argument("--password-file", type=Path, metavar="FILE", help="its first line")
    verb.add_argument("--tls", action="store_true", help="encrypt, and check the broker; port 8883")
    verb.add_argument("--ca", type=Path, metavar="PEM", help="who signs the broker's certificate")
    verb.add_argument("--certificate", type=Path, metavar="PEM", help="our own")
    verb.add_argument("--private-key", type=Path, metavar="PEM", help="of our certificate")
    verb.add_argument(
        "--insecure", action="store_true", help="allow a broker elsewhere without TLS"
    )


def _add_opcua(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(verb=_opcua)
    _add_station(verb)
    verb.add_argument(
        "--endpoint", default="opc.tcp://127.0.0.1:4840", metavar="URL", help="[%(default)s]"
    )
    verb.add_argument("--certificate", type=Path, metavar="FILE", help="PEM or DER; encrypts")
    verb.add_argument("--private-key", type=Path, metavar="FILE", help="of the certificate")
    verb.add_argument(
        "--trusted", type=Path, metavar="DIR", help="certificates of clients that may connect"
    )


def _add_station(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--from", dest="from_", default=VERDICTS, metavar="ADDRESS", help="[%(default)s]"
    )
    verb.add_argument("--catch-up", default=CATCH_UP, metavar="ADDRESS", help="[%(default)s]")
    add_keys(verb)


def _secure(given: argparse.Namespace) -> Secure:
    return partial(apply_client_keys, keys=client_keys(given))


def _mqtt(given: argparse.Namespace) -> int:
    host, port = _host_and_port(given.broker, MQTT_TLS_PORT if given.tls else MQTT_PORT)
    if not (given.tls or given.insecure or is_private(f"tcp://{host}:{port}")):
        raise SettingsError(
            f"--broker {given.broker} is another machine, and nothing would be encrypted; "
            "add --tls, or --insecure on a network that nobody else can reach"
        )
    if (given.ca or given.certificate) and not given.tls:
        raise SettingsError("--ca and --certificate are for --tls; add it")
    if not given.prefix or not given.prefix.isprintable() or set(given.prefix) & set("+#"):
        raise SettingsError(
            f"--prefix {given.prefix!r} cannot begin a topic: no +, no #, not empty"
        )
    with _installed():
        from edge.bridges import mqtt

    broker = mqtt.Broker(
        host=host,
        port=port,
        prefix=given.prefix.rstrip("/"),
        client_id=given.client_id,
        user=given.user,
        password=_first_line(given.password_file),
        tls=given.tls,
        ca=given.ca,
        certificate=given.certificate,
        private_key=given.private_key,
    )
    with _stopped_by_signals() as stopping:
        mqtt.bridge(
            *(broker, given.from_, given.catch_up, given.memory, stopping, given.after),
            secure=_secure(given),
        )
    return DONE


def _opcua(given: argparse.Namespace) -> int:
    with _installed():
        from edge.bridges import opcua, serving

    # It tells of every session and request.
    logging.getLogger("asyncua").setLevel(logging.ERROR)
    who = serving.Serving(
        endpoint=given.endpoint,
        certificate=given.certificate,
        private_key=given.private_key,
        trusted=given.trusted,
    )
    with _stopped_by_signals() as stopping:
        opcua.bridge(who, given.from_, given.catch_up, stopping, secure=_secure(given))
    return DONE


def _host_and_port(text: str, default_port: int) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or text.endswith("]"):
        return text.strip("[]"), default_port
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise SettingsError(f"--broker {text} has the port {port!r}, expected 1 to 65535")
    return host.strip("[]"), int(port)


def _first_line(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text("utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the password from {path}: {error}") from error


@contextmanager
def _installed() -> Iterator[None]:
    """Say what to install; a station itself needs none of it, so it is imported late."""
    try:
        yield
    except ImportError as error:
        raise StationError(f"{error}; a bridge needs: pip install 'dualbank[bridges]'") from error


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    stopping = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopping.set()

    before = {number_: signal.signal(number_, stop) for number_ in STOP_SIGNALS}
    try:
        yield stopping
    finally:
        for number_, handler in before.items():
            signal.signal(number_, handler)

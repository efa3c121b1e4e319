"""Who may connect to the OPC UA server, and how. What it shows is in `edge.bridges.opcua`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from asyncua import Server, ua
from asyncua.crypto import uacrypto
from asyncua.server.user_managers import PermissiveUserManager

from edge.addresses import is_private
from inspection.errors import StationError

NAMESPACE = "urn:dualbank:station"

MOST_MESSAGE_BYTES = 4 << 20
"""Of what a client asks: the library's own limit is 100 MB."""

_POLICIES = [
    ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
    ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
]


@dataclass(frozen=True, slots=True)
class Serving:
    """Where to serve, and whom.

    Attributes:
        endpoint: `opc.tcp://host:port`; without a certificate on loopback only.
        certificate: PEM or DER file; with it, everything is signed and encrypted.
        private_key: PEM or DER file of its key.
        trusted: Folder with the certificates of clients that may connect, PEM or DER; needed beyond
            loopback.
    """

    endpoint: str
    certificate: Path | None = None
    private_key: Path | None = None
    trusted: Path | None = None

    def __post_init__(self) -> None:
        url = urlparse(self.endpoint)
        try:
            port = url.port
        except ValueError:
            port = None
        if url.scheme != "opc.tcp" or not url.hostname or port is None:
            raise StationError(f"{self.endpoint!r} is no endpoint; expected opc.tcp://host:port")
        if (self.certificate is None) != (self.private_key is None):
            raise StationError("a certificate and its private key go together; give both")
        if self.trusted is not None and not self.trusted.is_dir():
            raise StationError(f"there is no folder {self.trusted} of trusted certificates")
        if self.trusted is not None and self.certificate is None:
            raise StationError("trusted clients need an encrypted endpoint; give a certificate")
        if self.trusted is None and not is_private(f"tcp://{url.hostname}:{port}"):
            raise StationError(
                f"{self.endpoint} can be reached from other machines, by anybody; give a "
                "certificate, its private key and the folder of trusted clients, or serve on "
                "127.0.0.1"
            )


class Clients:
    """Lets in whose certificate is known: the one that encrypts the connection itself.

    The library asks this for every session, also of a connection that is not encrypted: of those
    it takes any, whatever policies the server has. Its own check of certificates is of the one
    that a client shows, if it shows one, which need not be its own.
    """

    def __init__(self, *, is_encrypted: bool, trusted: Collection[bytes] | None) -> None:
        """Say who may read.

        Args:
            is_encrypted: Whether a connection must be.
            trusted: Certificates in DER; None: any.
        """
        self._is_encrypted = is_encrypted
        self._trusted = trusted

    def get_user(
        self,
        server: Any,
        username: str | None = None,
        password: str | None = None,
        certificate: bytes | None = None,
    ) -> Any:
        """Give the library's user who may read and nothing else; None refuses."""
        if self._is_encrypted and not certificate:
            return None
        if self._trusted is not None and not self._knows(certificate):
            return None
        return PermissiveUserManager().get_user(server)

    def _knows(self, certificate: bytes | None) -> bool:
        # What came may be a whole chain: the first of it is the client's.
        shown = None if not certificate else uacrypto.x509_from_der(certificate)
        return (
            shown is not None
            and uacrypto.der_from_x509(shown) in (self._trusted or ())
            and shown.not_valid_before_utc
            <= datetime.now(timezone.utc)
            <= shown.not_valid_after_utc
        )


async def make_server(serving: Serving) -> Server:
    """Make a server that lets in whom it may, and nobody change anything.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file holds no certificate, or no key.
    """
    trusted = None if serving.trusted is None else await _certificates_in(serving.trusted)
    is_encrypted = serving.certificate is not None
    server = Server(user_manager=Clients(is_encrypted=is_encrypted, trusted=trusted))
    await server.init()
    server.set_endpoint(serving.endpoint)
    server.set_server_name("dualbank station")
    await server.set_application_uri(NAMESPACE)
    server.limits.max_message_size = MOST_MESSAGE_BYTES
    server.limits.max_chunk_count = MOST_MESSAGE_BYTES // server.limits.max_recv_buffer + 1
    server.set_identity_tokens([ua.AnonymousIdentityToken])
    if serving.certificate is None or serving.private_key is None:
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        return server
    await server.load_certificate(serving.certificate, _format(serving.certificate))
    await server.load_private_key(serving.private_key, None, _format(serving.private_key))
    server.set_security_policy(_POLICIES)
    return server


async def _certificates_in(folder: Path) -> frozenset[bytes]:
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    certificates = [await uacrypto.load_certificate(path, _format(path)) for path in paths]
    if not certificates:
        raise ValueError(f"{folder} has no certificate, so nobody could connect")
    return frozenset(uacrypto.der_from_x509(each) for each in certificates)


def _format(path: Path) -> str:
    """Tell PEM from DER by the file's beginning; the library goes by its ending."""
    return "pem" if path.read_bytes().startswith(b"-----BEGIN") else "der"

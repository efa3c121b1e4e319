"""Who may connect to the OPC UA server, and how. What it shows is in `edge.bridges.opcua`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from asyncua import Server, ua
from asyncua.crypto.truststore import TrustStore
from asyncua.crypto.validator import CertificateValidator, CertificateValidatorOptions

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
        trusted: Folder with the certificates of clients that may connect, or of who signs them;
            needed beyond loopback.
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


async def secure_server(server: Server, serving: Serving) -> None:
    """Set up who is let in, before the server starts; nobody may change anything."""
    server.set_endpoint(serving.endpoint)
    server.set_server_name("dualbank station")
    await server.set_application_uri(NAMESPACE)
    server.allow_remote_admin(False)
    server.limits.max_message_size = MOST_MESSAGE_BYTES
    server.limits.max_chunk_count = MOST_MESSAGE_BYTES // server.limits.max_recv_buffer + 1
    server.set_identity_tokens([ua.AnonymousIdentityToken])
    if serving.certificate is None or serving.private_key is None:
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        return
    await server.load_certificate(serving.certificate, _format(serving.certificate))
    await server.load_private_key(serving.private_key, None, _format(serving.private_key))
    server.set_security_policy(_POLICIES)
    if serving.trusted is not None:
        trusted = TrustStore([serving.trusted], [])
        await trusted.load()
        options = CertificateValidatorOptions.TIME_RANGE | CertificateValidatorOptions.TRUSTED
        server.set_certificate_validator(
            CertificateValidator(options | CertificateValidatorOptions.PEER_CLIENT, trusted)
        )


def _format(path: Path) -> str:
    """Tell PEM from DER by the file's beginning; the library goes by its ending."""
    return "pem" if path.read_bytes().startswith(b"-----BEGIN") else "der"

"""What a node shows clients over TLS and asks of them: a self-signed certificate with its key, and a token's secret.

They are made on first use and kept in the data folder, readable by this user alone. The certificate stays, so that
clients can pin it; the secret is replaced when its owner asks for a new token.
"""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ..protocols.client_door import SECRET_SIZE, ClientToken, fingerprint_of
from ..protocols.errors import AccelError, ErrorCode
from .config import Paths
from .mesh.identity import load_or_create_secret, write_secret

_NAME: Final = "ipfs-accel-node"
#: Nobody looks at these dates, as clients pin the certificate; machines whose clock is wrong are let in too.
_FROM, _UNTIL = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


class ClientKeys:
    """Those of one data folder, made if need be.

    Raises:
        AccelError: bad-config for a damaged file.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._secret = load_or_create_secret(paths.client_secret, SECRET_SIZE)
        self._certificate = _load_or_create_certificate(paths.client_certificate)

    @property
    def token(self) -> ClientToken:
        return ClientToken(self._secret, fingerprint_of(self._certificate))

    def describe(self) -> dict[str, str]:
        """The token as people copy it, and the certificate's SHA-256."""
        return {"token": self.token.encode(), "fingerprint": self.token.fingerprint.hex()}

    def renew(self) -> None:
        """Makes a new secret; from now on a token with the old one is refused."""
        secret = os.urandom(SECRET_SIZE)
        write_secret(self._paths.client_secret, secret)
        self._secret = secret

    def tls_context(self) -> ssl.SSLContext:
        """TLS 1.3 and nothing older, with the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        context.load_cert_chain(self._paths.client_certificate)
        return context


def _load_or_create_certificate(path: Path) -> bytes:
    """The certificate as DER out of a PEM file that holds its key too."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        text = make_certificate()
        write_secret(path, text.encode())
    except UnicodeDecodeError:
        text = ""
    try:
        begin = text.index("-----BEGIN CERTIFICATE-----")
        der = ssl.PEM_cert_to_DER_cert(text[begin:].strip())
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
    except (ValueError, ssl.SSLError):
        raise AccelError(
            ErrorCode.BAD_CONFIG,
            f"{path} is damaged",
            "Remove it to have a new one made; clients need a new token then.",
        ) from None
    return der


def make_certificate() -> str:
    """A key of its own and a self-signed certificate for it, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(_FROM).not_valid_after(_UNTIL)
    certificate = builder.sign(key, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (secret + certificate.public_bytes(serialization.Encoding.PEM)).decode()

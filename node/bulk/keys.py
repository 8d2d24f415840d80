"""The keys of one bulk process, which live as long as it does: a certificate to be known by, a key to open with."""

from __future__ import annotations

import hashlib
import ssl
import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ...protocols.bulk import signed_part
from ..client_keys import make_certificate


class BulkKeys:
    """Nothing of them is kept on disk."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        raw, public = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        self.public: bytes = self._key.public_key().public_bytes(raw, public)
        certificate = make_certificate()
        begin = certificate.index("-----BEGIN CERTIFICATE-----")
        self.fingerprint = fingerprint_of(ssl.PEM_cert_to_DER_cert(certificate[begin:].strip()))
        self.server_context = _server_context(certificate)

    def sign(self, ticket: bytes, fingerprint: bytes) -> bytes:
        return self._key.sign(signed_part(ticket, fingerprint))

    def is_signed(self, ticket: bytes, signature: bytes, key: bytes) -> bool:
        """Whether whoever has `key` signed the ticket for this process."""
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, signed_part(ticket, self.fingerprint))
        except (InvalidSignature, ValueError):
            return False
        return True


def fingerprint_of(certificate: bytes) -> bytes:
    """SHA-256 of a certificate (DER)."""
    return hashlib.sha256(certificate).digest()


def client_context() -> ssl.SSLContext:
    """TLS 1.3 without any authority or name: the ticket says which certificate it must be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _server_context(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    with tempfile.TemporaryDirectory(prefix="ipfs-accel-node-") as folder:  # the library reads files only
        path = Path(folder) / "bulk.pem"
        path.touch(mode=0o600)
        path.write_text(certificate)
        context.load_cert_chain(path)
    return context

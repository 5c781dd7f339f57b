"""Authorities and certificates for tests, made anew each time."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
LOCAL = ("127.0.0.1", "localhost")


def pem_of(key: PrivateKey) -> bytes:
    """A private key as PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass
class Pair:
    """A certificate with its key, as PEM."""

    cert: bytes
    key: bytes
    serial: int

    def write(self, folder: Path, ca: bytes = b"") -> Path:
        """Write ``cert.pem``, ``key.pem`` (mode 0600) and ``ca.pem``; each appears complete."""
        folder.mkdir(exist_ok=True)
        for name, data in (("cert.pem", self.cert), ("key.pem", self.key), ("ca.pem", ca)):
            temporary = folder / f".{name}"
            temporary.write_bytes(data)
            temporary.chmod(0o600)
            temporary.replace(folder / name)
        return folder


def flags(folder: Path, *more: str) -> list[str]:
    """The TLS flags of a program whose files are in ``folder``."""
    return [f"-tls-{name}={folder / name}.pem" for name in ("cert", "key", "ca")] + list(more)


@dataclass
class Authority:
    """Signs certificates."""

    name: str = "authority"
    private: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        builder = self._builder(self.name, self.private.public_key(), dt.timedelta(days=1), 1)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.cert = builder.sign(self.private, hashes.SHA256()).public_bytes(Encoding.PEM)

    def issue(
        self,
        names: Sequence[str] = LOCAL,
        *,
        ends: dt.timedelta = dt.timedelta(hours=1),
        begins: dt.timedelta = dt.timedelta(days=-2),
        key: PrivateKey | None = None,
        serial: int | None = None,
        unknown: bool = False,
    ) -> Pair:
        """Issue a certificate for ``names``; ``begins`` and ``ends`` count from now.

        ``unknown`` adds a critical extension that nobody knows.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        number = serial or x509.random_serial_number()
        alternatives = x509.SubjectAlternativeName([_general(name) for name in names])
        builder = self._builder(names[0], key.public_key(), ends, number, begins)
        builder = builder.add_extension(alternatives, critical=False)
        if unknown:
            strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
            builder = builder.add_extension(strange, critical=True)
        certificate = builder.sign(self.private, hashes.SHA256())
        return Pair(certificate.public_bytes(Encoding.PEM), pem_of(key), number)

    def _builder(
        self,
        name: str,
        public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey,
        ends: dt.timedelta,
        serial: int,
        begins: dt.timedelta = dt.timedelta(days=-2),
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.name)]))
            .public_key(public)
            .serial_number(serial)
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
        )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)

"""Certificates of a program: parsed, checked, and written anew, so that servers see clean PEM only.

The HTTP server ends the whole process on a key it cannot use, and gRPC fails each handshake with
one. So what is handed on is only what both of them can use.
"""

from __future__ import annotations

import datetime as dt
import warnings
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.utils import CryptographyDeprecationWarning

from deltadatabase.errors import StartupError

RSA_BITS: Final = (2048, 3072, 4096)
RSA_EXPONENT: Final = 65_537
CURVES: Final = (ec.SECP256R1, ec.SECP384R1)

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"


class Pem(msgspec.Struct, frozen=True, kw_only=True):
    """One usable set of certificates, as PEM.

    Attributes:
        cert: the certificate chain, the program's own certificate first.
        key: its private key, PKCS #8, not encrypted.
        ca: authorities that peers are checked with; b"" leaves it to the system's.
        serial: serial number of the program's own certificate, in hex.
        not_after_ms: when that one expires, milliseconds since the Unix epoch.
    """

    cert: bytes
    key: bytes
    ca: bytes
    serial: str
    not_after_ms: int

    def __repr__(self) -> str:
        """Return which one it is, without the key."""
        return f"Pem(serial={self.serial})"


def examine(cert: bytes, key: bytes, ca: bytes | None, *, now_ms: int) -> Pem:
    """Return the set that three files make up, if servers and clients can use it now.

    Args:
        cert: PEM of a certificate chain, the program's own certificate first.
        key: PEM of the first one's private key: RSA of 2048, 3072 or 4096 bits, or P-256, P-384.
        ca: PEM of authorities; None where there is no such file.
        now_ms: the present, milliseconds since the Unix epoch.

    Raises:
        StartupError: ``bad_flag``; the first words name the flag whose file is at fault.
    """
    with warnings.catch_warnings():
        # Of old habits such as a serial number of 0, which would be told on stderr.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return _examined(cert, key, ca, now_ms)


def _examined(cert: bytes, key: bytes, ca: bytes | None, now_ms: int) -> Pem:
    chain = _certificates("-tls-cert", cert)
    private = _private_key(key)
    own = chain[0]
    if _public_bytes(own) != _public_bytes(private):
        raise _bad("-tls-key: the private key does not belong to the certificate of -tls-cert")
    if own.version is not x509.Version.v3:
        raise _bad("-tls-cert: an X.509 certificate of version 3 is needed, as one with a name in it is")
    _check_time(own, now_ms)
    authorities = _certificates("-tls-ca", ca) if ca is not None else []
    if ca is not None and all(_ms(one.not_valid_after_utc) <= now_ms for one in authorities):
        raise _bad("-tls-ca: every certificate of an authority in it has expired")
    return Pem(
        cert=_pem(chain),
        key=private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        ca=_pem(authorities),
        serial=f"{own.serial_number:x}",
        not_after_ms=_ms(own.not_valid_after_utc),
    )


def _certificates(flag: str, data: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(data)
        # A block that was cut off is passed over by the parser, and would be missed in the chain.
        if len(found) == data.count(_BEGIN):
            return found
    except (ValueError, x509.InvalidVersion):
        pass
    raise _bad(f"{flag}: the file holds no certificate in PEM form, or a damaged one")


def _public_bytes(holder: x509.Certificate | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    try:
        return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return b""


def _private_key(data: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        raise _bad("-tls-key: the private key is locked by a passphrase: give one that is not") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _bad("-tls-key: the file holds no private key in PEM form, or a damaged one") from None
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, CURVES):
        return key
    if (
        isinstance(key, rsa.RSAPrivateKey)
        and key.key_size in RSA_BITS
        and key.public_key().public_numbers().e == RSA_EXPONENT
    ):
        return key
    raise _bad("-tls-key: a key of this kind cannot be used: RSA of 2048, 3072 or 4096 bits, P-256 or P-384")


def _check_time(certificate: x509.Certificate, now_ms: int) -> None:
    if _ms(certificate.not_valid_after_utc) <= now_ms:
        raise _bad("-tls-cert: the certificate has expired")
    if _ms(certificate.not_valid_before_utc) > now_ms:
        raise _bad("-tls-cert: the certificate is not valid yet; or this machine's clock is wrong")


def _pem(certificates: list[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def _ms(moment: dt.datetime) -> int:
    return int(moment.timestamp() * 1000)


def _bad(detail: str) -> StartupError:
    return StartupError(detail, code="bad_flag")

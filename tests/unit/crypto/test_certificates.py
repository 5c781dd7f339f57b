from __future__ import annotations

import datetime as dt
import random
import ssl
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from support.certificates import Authority, Pair, pem_of

from deltadatabase.crypto.certificates import Pem, examine
from deltadatabase.errors import StartupError

AUTHORITY = Authority()
PAIR = AUTHORITY.issue()


def now_ms() -> int:
    return int(time.time() * 1000)


def refused(cert: bytes, key: bytes, ca: bytes | None = None) -> str:
    with pytest.raises(StartupError) as caught:
        examine(cert, key, ca, now_ms=now_ms())
    assert caught.value.code == "bad_flag"
    assert "\n" not in caught.value.detail
    return caught.value.detail


def test_a_set_that_fits():
    pem = examine(PAIR.cert, PAIR.key, AUTHORITY.cert, now_ms=now_ms())
    assert (pem.cert, pem.key, pem.ca) == (PAIR.cert, PAIR.key, AUTHORITY.cert)
    assert pem.serial == f"{PAIR.serial:x}"
    assert 0 < pem.not_after_ms - now_ms() <= 3_600_000
    assert examine(PAIR.cert, PAIR.key, None, now_ms=now_ms()).ca == b""
    assert "PRIVATE" not in repr(pem) and "PRIVATE" not in str(pem)


def test_what_is_handed_on_is_clean():
    key = load_pem_private_key(PAIR.key, None)
    old_style = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    pem = examine(
        b"# our shop\n" + PAIR.cert + b"\n\n" + AUTHORITY.cert, b"x\n" + old_style, None, now_ms=now_ms()
    )
    assert pem.cert == PAIR.cert + AUTHORITY.cert
    assert pem.key == PAIR.key


@pytest.mark.parametrize("bits", [2048, 3072])
def test_rsa_keys(bits):
    pair = AUTHORITY.issue(key=rsa.generate_private_key(65537, bits))
    assert isinstance(examine(pair.cert, pair.key, None, now_ms=now_ms()), Pem)


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 1024),
        rsa.generate_private_key(3, 2048),
    ],
    ids=["ed25519", "p521", "secp256k1", "rsa1024", "exponent3"],
)
def test_kinds_of_keys_that_a_server_cannot_use(key):
    pair = AUTHORITY.issue(key=key)
    assert refused(pair.cert, pair.key).startswith("-tls-key: a key of this kind cannot be used")


def test_a_key_of_another_certificate():
    assert "does not belong" in refused(PAIR.cert, AUTHORITY.issue().key)


def test_a_locked_key():
    key = load_pem_private_key(PAIR.key, None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame"))
    assert "passphrase" in refused(PAIR.cert, locked)


@pytest.mark.parametrize(
    "nonsense", [b"", b"\0\xff", b"hello", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_pem(nonsense):
    assert refused(nonsense, PAIR.key).startswith("-tls-cert: the file holds no certificate")
    assert refused(PAIR.cert, nonsense).startswith("-tls-key: the file holds no private key")
    assert refused(PAIR.cert, PAIR.key, nonsense).startswith("-tls-ca: the file holds no certificate")
    assert refused(PAIR.key, PAIR.cert).startswith("-tls-cert")


def test_dates():
    hour = dt.timedelta(hours=1)
    gone, coming = AUTHORITY.issue(ends=-hour), AUTHORITY.issue(begins=hour, ends=2 * hour)
    assert "expired" in refused(gone.cert, gone.key)
    assert "not valid yet" in refused(coming.cert, coming.key)
    assert "-tls-ca: every certificate" in refused(PAIR.cert, PAIR.key, gone.cert)
    assert examine(PAIR.cert, PAIR.key, gone.cert + AUTHORITY.cert, now_ms=now_ms())


@pytest.mark.parametrize("which", ["cert", "ca"])
def test_a_file_that_ends_early_is_never_taken(which):
    whole = PAIR.cert + AUTHORITY.cert
    boundary = len(PAIR.cert)
    for length in range(0, len(whole) - 1, 7):
        # Up to the certificate's end nothing is missing that could be seen: a look later will tell.
        if boundary - 1 <= length <= boundary:
            continue
        cut = whole[:length]
        if length > boundary and b"-----BEGIN CERTIFICATE-----" not in cut[boundary:]:
            continue
        if which == "cert":
            refused(cut, PAIR.key)
        else:
            refused(PAIR.cert, PAIR.key, cut)


def test_damaged_certificates_are_refused_or_read_and_nothing_else():
    draw = random.Random(7)
    original = x509.load_pem_x509_certificate(PAIR.cert).public_bytes(Encoding.DER)
    for _ in range(3000):
        der = bytearray(original)
        for _ in range(draw.randint(1, 3)):
            der[draw.randrange(len(der))] = draw.randrange(256)
        try:
            examine(_as_pem(bytes(der)), PAIR.key, _as_pem(bytes(der)), now_ms=now_ms())
        except StartupError as exc:
            assert exc.code == "bad_flag"


def _as_pem(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).encode()


def test_pem_of_a_key_is_what_is_handed_on():
    key = ec.generate_private_key(ec.SECP384R1())
    pair: Pair = AUTHORITY.issue(key=key)
    assert examine(pair.cert, pair.key, None, now_ms=now_ms()).key == pem_of(key)

"""Certificates, keys and revocation lists for tests."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One of a few keys: making them takes long."""
    return _made(number, bits)


@cache
def _made(_: int, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@dataclass(frozen=True)
class Authority:
    name: str = "authority"
    key: int = 1

    @property
    def certificate(self) -> str:
        return certificate(self.name, key=self.key)

    def crl(self, *serials: int) -> str:
        builder = x509.CertificateRevocationListBuilder().issuer_name(_name(self.name))
        builder = builder.last_update(NOW - DAY).next_update(NOW + DAY)
        for serial in serials:
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - DAY).build()
            builder = builder.add_revoked_certificate(revoked)
        signed = builder.sign(rsa_key(self.key), hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()


def certificate(
    name: str = "host",
    *,
    issuer: Authority | None = None,
    key: int = 0,
    begins: datetime.datetime = NOW - DAY,
    ends: datetime.datetime = NOW + DAY,
    digest: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None = None,
) -> str:
    """PEM. Signed by itself when nobody else issues it."""
    signer = rsa_key(issuer.key if issuer else key)
    made = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer.name if issuer else name))
        .public_key(rsa_key(key).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(signer, digest or hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

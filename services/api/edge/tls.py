"""Certificates: one RSA key of the process and one self-signed certificate per host, made at first start.

RSA, because old clients (the stunnel of the xe program) know TLS 1.2 with ECDHE-RSA on secp384r1 and nothing else.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from shared.config import ConfigError, HostConfig

KEY_BITS = 2048
LIFETIME = datetime.timedelta(days=3650)


class Certificates:
    """Keeps `key.pem` and `<host uuid>.pem` in `folder`. What is there is used; what is missing is made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def context(self, host: HostConfig) -> ssl.SSLContext:
        """What a TLS listener of that host needs. Raises `ConfigError` for files that cannot be used."""
        key, certificate = self._key(), self._path(host)
        if not certificate.exists():
            _write(certificate, _self_signed(host, key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(certificate, self._folder / "key.pem")
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                f"cannot use the certificate {certificate} with {self._folder / 'key.pem'}: {error}"
            ) from None
        return context

    def pem(self, host: HostConfig) -> str:
        """The certificate, as `host.get_server_certificate` gives it."""
        return self._path(host).read_text()

    def fingerprint(self, host: HostConfig, algorithm: str) -> str:
        """In lower-case hex. `algorithm`: sha-256 | sha-1."""
        digest: hashes.HashAlgorithm = hashes.SHA256() if algorithm == "sha-256" else hashes.SHA1()
        return x509.load_pem_x509_certificate(self._path(host).read_bytes()).fingerprint(digest).hex()

    def _path(self, host: HostConfig) -> Path:
        return self._folder / f"{host.uuid}.pem"

    def _key(self) -> rsa.RSAPrivateKey:
        path = self._folder / "key.pem"
        if not path.exists():
            made = rsa.generate_private_key(65537, KEY_BITS)
            _write(
                path,
                made.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                ),
            )
            return made
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path} is not a private key: {error}") from None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ConfigError(f"{path} is not an RSA key")
        return key


def _self_signed(host: HostConfig, key: rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host.address or host.name)])
    now = datetime.datetime.now(datetime.UTC)
    alternatives: list[x509.GeneralName] = [x509.DNSName(host.name)] if host.name.isascii() and host.name else []
    try:
        alternatives.append(x509.IPAddress(ipaddress.ip_address(host.address)))
    except ValueError:
        alternatives.append(x509.DNSName(host.address))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, and never readable for others, not even for a moment."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    temporary.replace(path)

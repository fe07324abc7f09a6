"""The certificates that hosts show: to clients, and (server name `pool`) to each other.

At first start they are self-signed, with one RSA key of the process. RSA, because old clients (the stunnel of the xe
program) know TLS 1.2 with ECDHE-RSA on secp384r1 and nothing else. Listeners ask for their context at every connection:
when a certificate changes, connections go on and the next ones see the new one.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from services.api.edge.client_trust import ClientTrust
from shared.config import ConfigError, HostConfig

KEY_BITS = 2048
LIFETIME = datetime.timedelta(days=3650)
POOL_NAME = "pool"
"""The server name by which the pool's hosts ask for the certificate that they know."""

_BEGIN_KEY = b"PRIVATE KEY-----"
_END_KEY = b"-----END PRIVATE KEY-----\n"


class Shown(Enum):
    """To whom a certificate is shown. The value ends its file's name."""

    CLIENTS = ".pem"
    HOSTS = ".pool.pem"


class Certificates:
    """Keeps `key.pem`, `<host uuid>.pem` and `<host uuid>.pool.pem` in `folder`. What is there is used; what is missing
    is made. A file that begins with a key has its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contexts: dict[str, dict[Shown, ssl.SSLContext]] = {}
        self._trust: ClientTrust | None = None
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def context(self, host: HostConfig) -> ssl.SSLContext:
        """What a TLS listener of that host needs. Raises `ConfigError` for files that cannot be used."""
        if host.uuid not in self._contexts:
            made = {shown: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for shown in Shown}
            for shown, context in made.items():
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                self._load(context, self._there(host, shown))

            def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
                if name == POOL_NAME:
                    connection.context = made[Shown.HOSTS]

            made[Shown.CLIENTS].sni_callback = choose
            if self._trust is not None:
                self._trust.apply(made[Shown.CLIENTS])
            self._contexts[host.uuid] = made
        return self._contexts[host.uuid][Shown.CLIENTS]

    def trust(self, trust: ClientTrust | None) -> None:
        """Which certificates of clients count, from the next connection on; None: they are not asked for.

        Raises `ConfigError`; then all is as before.
        """
        if trust is not None:
            trust.apply(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self._trust = trust
        self._contexts.clear()  # an authority cannot be taken from a context again

    def reload(self, host: HostConfig) -> None:
        """The next connection sees what is in the files now."""
        self._contexts.pop(host.uuid, None)

    def pem(self, host: HostConfig, shown: Shown = Shown.CLIENTS) -> str:
        """The certificate and its chain, without a key."""
        return _without_key(self._there(host, shown).read_bytes()).decode()

    def fingerprint(self, host: HostConfig, algorithm: str) -> str:
        """In lower-case hex. `algorithm`: sha-256 | sha-1."""
        digest: hashes.HashAlgorithm = hashes.SHA256() if algorithm == "sha-256" else hashes.SHA1()
        return x509.load_pem_x509_certificate(self.pem(host).encode()).fingerprint(digest).hex()

    def install(self, host: HostConfig, certificate: str, private_key: str, chain: str) -> None:
        """What clients see after `reload`. Blocking. Raises `ConfigError`; then all is as before."""
        key = _rsa_key(private_key.encode(), "the private key")
        parts = (part.strip() + "\n" for part in (certificate, chain) if part.strip())
        self._replace(host, Shown.CLIENTS, _key_pem(key) + "".join(parts).encode())

    def self_sign(self, host: HostConfig, shown: Shown) -> None:
        """A new certificate with a new key, seen after `reload`. Blocking: seconds on a slow machine."""
        key = rsa.generate_private_key(65537, KEY_BITS)
        self._replace(host, shown, _key_pem(key) + _self_signed(host, key, shown))

    def _replace(self, host: HostConfig, shown: Shown, content: bytes) -> None:
        """Tried out before it is used."""
        trial = self._path(host, shown).with_suffix(".trial")
        _write(trial, content)
        try:
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), trial)
            trial.replace(self._path(host, shown))
        finally:
            trial.unlink(missing_ok=True)

    def _load(self, context: ssl.SSLContext, path: Path) -> None:
        own = _BEGIN_KEY in path.read_bytes()
        key = path if own else self._folder / "key.pem"
        try:
            context.load_cert_chain(path, key)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"cannot use the certificate {path} with {key}: {error}") from None

    def _there(self, host: HostConfig, shown: Shown) -> Path:
        path = self._path(host, shown)
        if not path.exists():
            _write(path, _self_signed(host, self._key(), shown))
        return path

    def _path(self, host: HostConfig, shown: Shown) -> Path:
        return self._folder / f"{host.uuid}{shown.value}"

    def _key(self) -> rsa.RSAPrivateKey:
        path = self._folder / "key.pem"
        if not path.exists():
            made = rsa.generate_private_key(65537, KEY_BITS)
            _write(path, _key_pem(made))
            return made
        return _rsa_key(path.read_bytes(), str(path))


def _rsa_key(pem: bytes, what: str) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{what} cannot be read: {error}") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ConfigError(f"{what} is not an RSA key")
    return key


def _key_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _without_key(content: bytes) -> bytes:
    head, end, rest = content.partition(_END_KEY)
    return rest if end else head


def _self_signed(host: HostConfig, key: rsa.RSAPrivateKey, shown: Shown) -> bytes:
    """For clients it names the host's address, for hosts the host's uuid.

    Clients are given it to verify the host by (VDI.get_nbd_info), and some believe only what calls itself an authority
    (QEMU), or are strict about what authorities have to say (Python 3.13). Hosts know each other's.
    """
    authority = shown is Shown.CLIENTS
    common = host.address or host.name if shown is Shown.CLIENTS else host.uuid
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = list(_names(host)) if shown is Shown.CLIENTS else [x509.DNSName(host.uuid)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        .add_extension(_usage(authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _usage(authority: bool) -> x509.KeyUsage:
    unused = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only", "decipher_only"),
        False,
    )
    return x509.KeyUsage(digital_signature=True, key_encipherment=True, key_cert_sign=authority, **unused)


def _names(host: HostConfig) -> Iterator[x509.GeneralName]:
    if host.name.isascii() and host.name:
        yield x509.DNSName(host.name)
    try:
        yield x509.IPAddress(ipaddress.ip_address(host.address))
    except ValueError:
        yield x509.DNSName(host.address)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, and never readable for others, not even for a moment."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    temporary.replace(path)

"""Who is at the other end: proxies in front, certificates of clients, the certificate that hosts ask for."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.api.edge.client_trust import ClientTrust
from services.api.edge.dispatcher import Caller, Certificate
from services.api.edge.endpoint import Kind
from shared.config import ConfigError
from tests.api.edge.conftest import HOST, Running, Start
from tests.api.edge.fakes import call, post, unverified

ECHO = post(call("test.echo", "s", "x"))
LINE = b"PROXY TCP6 ::ffff:192.0.2.7 ::1 40000 443\r\n"
LOCAL = "127.0.0.0/8"


def callers(edge: Running) -> list[Caller]:
    return [caller for caller, _, _ in edge.dispatcher.calls]


# ---- a proxy in front


async def test_a_proxys_line_counts_for_all_requests_of_its_connection(start: Start) -> None:
    edge = await start(proxies=LOCAL)
    client = await edge.client()
    await client.ask(LINE + ECHO)
    await client.ask(ECHO)
    assert [(caller.address, caller.secure) for caller in callers(edge)] == [("192.0.2.7", True)] * 2


async def test_a_proxys_line_may_come_byte_by_byte(start: Start) -> None:
    edge = await start(proxies=LOCAL)
    client = await edge.client()
    for byte in LINE:
        await client.send(bytes([byte]))
    await client.ask(ECHO)
    assert callers(edge)[0].address == "192.0.2.7"


@pytest.mark.parametrize(
    ("line", "address", "secure"),
    [
        (b"PROXY TCP4 192.0.2.9 127.0.0.1 1 2\r\n", "192.0.2.9", True),
        (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n", "2001:db8::7", True),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1", False),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "127.0.0.1", False),
        (b"", "127.0.0.1", False),
    ],
)
async def test_what_a_proxy_may_say(start: Start, line: bytes, address: str, secure: bool) -> None:
    edge = await start(proxies=LOCAL)
    await (await edge.client()).ask(line + ECHO)
    assert (callers(edge)[0].address, callers(edge)[0].secure) == (address, secure)


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4 192.0.2.9 127.0.0.1 1\r\n",
        b"PROXY TCP4 nonsense 127.0.0.1 1 2\r\n",
        b"PROXY UDP4 192.0.2.9 127.0.0.1 1 2\r\n",
        b"PROXY \r\n",
        b"PROXY " + b"x" * 200,
    ],
)
async def test_a_line_that_cannot_be_read_ends_the_connection(start: Start, line: bytes) -> None:
    edge = await start(proxies=LOCAL)
    client = await edge.client()
    assert (await client.ask(line)).status == 500
    assert await client.at_end()
    assert not edge.dispatcher.calls


async def test_the_line_counts_once(start: Start) -> None:
    """A client behind the proxy cannot name itself by sending another one."""
    edge = await start(proxies=LOCAL)
    client = await edge.client()
    assert (await client.ask(LINE + LINE + ECHO)).status == 500
    again = await edge.client()
    await again.ask(LINE + ECHO)
    assert (await again.ask(LINE + ECHO)).status == 500
    assert len(callers(edge)) == 1


@pytest.mark.parametrize("proxies", ["", "192.0.2.0/24, ::1"])
async def test_others_are_not_believed(start: Start, proxies: str) -> None:
    edge = await start(proxies=proxies)
    assert (await (await edge.client()).ask(LINE + ECHO)).status == 500
    assert not edge.dispatcher.calls


async def test_nobody_speaks_for_others_inside_tls_or_on_the_unix_socket(start: Start) -> None:
    edge = await start(proxies=LOCAL)
    for kind in (Kind.TLS, Kind.UNIX):
        assert (await (await edge.client(kind)).ask(LINE + ECHO)).status == 500
    assert not edge.dispatcher.calls


async def test_networks_that_are_none_are_refused(start: Start) -> None:
    with pytest.raises(ConfigError, match="proxies"):
        await start(proxies="here, there")


# ---- certificates of clients


class Authority:
    """Signs certificates of clients, in files for `ssl`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        made = self._certificate(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.pem = made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int = 1
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    def client(self, common_name: str, alternative: str = "", days: int = 1) -> ssl.SSLContext:
        """How a client connects that has such a certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        made = self._certificate(subject, key, days)
        if alternative:
            made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(alternative)]), critical=False)
        path = self._folder / f"{common_name}-{alternative}-{days}.pem".replace("*", "any")
        path.write_bytes(
            made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = unverified()
        context.load_cert_chain(path)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


async def asked(edge: Running, context: ssl.SSLContext | None = None) -> bool:
    """Whether a client that connects so is known by its certificate."""
    client = await edge.client(Kind.TLS, context)
    assert (await client.ask(ECHO)).value == "x"
    return callers(edge)[-1].certificate


async def test_a_client_is_known_by_a_certificate_of_the_right_name(edge: Running, authority: Authority) -> None:
    edge.edge.trust_clients(ClientTrust(authority.pem, "backup.example.org"))
    assert await asked(edge, authority.client("backup.example.org"))
    assert await asked(edge, authority.client("x", alternative="Backup.Example.org"))
    assert await asked(edge, authority.client("x", alternative="*.example.org"))


async def test_without_a_certificate_or_with_another_name_one_is_an_ordinary_client(
    edge: Running, authority: Authority
) -> None:
    edge.edge.trust_clients(ClientTrust(authority.pem, "backup.example.org"))
    assert not await asked(edge)
    for common_name, alternative in (
        ("other.example.org", ""),
        ("backup.example.org", "other.example.org"),
        ("backup.example.org.evil.test", ""),
        ("*.org", ""),
        ("x", "*.backup.example.org"),
    ):
        assert not await asked(edge, authority.client(common_name, alternative)), (common_name, alternative)


async def test_a_certificate_that_nobody_vouches_for_gets_no_connection(
    edge: Running, authority: Authority, tmp_path: Path
) -> None:
    edge.edge.trust_clients(ClientTrust(authority.pem, "backup.example.org"))
    stranger = Authority(tmp_path, "authority")  # the same name, another key
    for context in (stranger.client("backup.example.org"), authority.client("backup.example.org", days=-1)):
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await asked(edge, context)
    assert not edge.dispatcher.calls
    assert not await asked(edge)


async def test_a_revoked_certificate_is_one_of_an_ordinary_client(edge: Running, authority: Authority) -> None:
    seen: list[bytes] = []

    def is_revoked(certificate: bytes) -> bool:
        seen.append(certificate)
        return True

    edge.edge.trust_clients(ClientTrust(authority.pem, "backup", is_revoked))
    assert not await asked(edge, authority.client("backup"))
    assert x509.load_der_x509_certificate(seen[0]).subject.rfc4514_string() == "CN=backup"


async def test_nobody_is_known_while_it_is_off_or_without_a_name(edge: Running, authority: Authority) -> None:
    context = authority.client("backup")
    assert not await asked(edge, context)
    edge.edge.trust_clients(ClientTrust(authority.pem, ""))
    assert not await asked(edge, context)
    edge.edge.trust_clients(None)
    assert not await asked(edge, context)


async def test_when_it_is_switched_off_connections_end_that_counted(edge: Running, authority: Authority) -> None:
    edge.edge.trust_clients(ClientTrust(authority.pem, "backup"))
    known, ordinary = await edge.client(Kind.TLS, authority.client("backup")), await edge.client(Kind.TLS)
    for client in (known, ordinary):
        await client.ask(ECHO)
    edge.edge.trust_clients(None)
    assert await known.at_end()
    assert (await ordinary.ask(ECHO)).value == "x"


async def test_an_authority_that_is_taken_back_does_not_count_any_more(
    edge: Running, authority: Authority, tmp_path: Path
) -> None:
    edge.edge.trust_clients(ClientTrust(authority.pem, "backup"))
    assert await asked(edge, authority.client("backup"))
    other = Authority(tmp_path, "other")
    edge.edge.trust_clients(ClientTrust(other.pem, "backup"))
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await asked(edge, authority.client("backup"))
    assert await asked(edge, other.client("backup"))


async def test_authorities_that_are_none_change_nothing(edge: Running, authority: Authority) -> None:
    edge.edge.trust_clients(ClientTrust(authority.pem, "backup"))
    for rubbish in ("", "rubbish"):
        with pytest.raises(ConfigError, match="authorities"):
            edge.edge.trust_clients(ClientTrust(rubbish, "backup"))
    assert await asked(edge, authority.client("backup"))


async def test_a_certificate_is_the_last_proof_that_a_handler_looks_for(edge: Running, authority: Authority) -> None:
    edge.edge.trust_clients(ClientTrust(authority.pem, "backup"))
    context = authority.client("backup")

    def ask(headers: str = "") -> bytes:
        return f"GET /export?uuid=x HTTP/1.1\r\nHost: h\r\n{headers}\r\n".encode()

    await (await edge.client(Kind.TLS, context)).ask(ask())
    await (await edge.client(Kind.TLS, context)).ask(ask("Cookie: session_id=good\r\n"))
    await (await edge.client(Kind.TLS)).ask(ask())
    kinds = [type(found).__name__ for found, _ in edge.authenticator.log]
    assert kinds == [Certificate.__name__, "Session"]


# ---- the certificate that hosts ask for


async def shown(edge: Running, server_name: str | None) -> x509.Certificate:
    context = unverified()
    _, writer = await asyncio.open_connection(
        HOST.address, edge.tls_port, ssl=context, server_hostname=server_name or ""
    )
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der)


async def test_by_the_name_pool_hosts_see_another_certificate(edge: Running) -> None:
    ordinary, other, internal = await shown(edge, None), await shown(edge, "example.org"), await shown(edge, "pool")
    assert ordinary == other
    assert internal != ordinary
    assert internal.subject.rfc4514_string() == f"CN={HOST.uuid}"


async def test_hosts_see_their_certificate_also_while_clients_are_asked_for_theirs(
    edge: Running, authority: Authority
) -> None:
    before = await shown(edge, "pool")
    edge.edge.trust_clients(ClientTrust(authority.pem, "backup"))
    assert await shown(edge, "pool") == before

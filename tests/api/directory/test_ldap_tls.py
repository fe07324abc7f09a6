"""LDAP over TLS with a certificate authority of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.api.directory.ldap import SCHEMAS, LdapPlugin
from services.api.directory.plugin import ServiceError, Tag
from tests.api.directory import people
from tests.api.directory.authority import Authority
from tests.support import slapd
from tests.support.slapd import Slapd


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("ours")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Slapd]:
    """It refuses passwords that come in the clear."""
    slapd.required()
    server = Slapd(tmp_path_factory.mktemp("tls"), people.openldap(), ["nis"], ["security simple_bind=64"])
    server.certificate(*authority.issue("localhost", "127.0.0.1"))
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def asking(url: str, /, trusted: tuple[Path, ...] = (), **config: str) -> AsyncIterator[LdapPlugin]:
    given = {"server": url, "user": people.READER, "pass": people.READER_PASSWORD, **config}
    plugin = LdapPlugin(SCHEMAS["LDAP"], "example.test", given, trusted)
    yield plugin
    await plugin.on_xapi_exit()


async def works(plugin: LdapPlugin) -> None:
    await plugin.on_enable({})
    await plugin.authenticate_username_password("alice", people.password("alice"))


async def refusal(plugin: LdapPlugin) -> Tag:
    with pytest.raises(ServiceError) as caught:
        await plugin.on_enable({})
    return caught.value.tag


async def test_ldaps_with_the_authority_in_the_configuration(server: Slapd, authority: Authority) -> None:
    async with asking(server.tls_url, ca_certificates=authority.certificate) as plugin:
        await works(plugin)
    async with asking(f"ldaps://localhost:{server.tls_port}", ca_certificates=authority.certificate) as plugin:
        await works(plugin)


async def test_ldaps_with_the_authority_in_a_file(server: Slapd, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(authority.certificate)
    async with asking(server.tls_url, ca_file=str(tmp_path / "ca.pem")) as plugin:
        await works(plugin)


async def test_ldaps_with_an_authority_that_the_host_trusts(
    server: Slapd, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "ours.pem").write_text(authority.certificate)
    async with asking(server.tls_url, (tmp_path, tmp_path / "none")) as plugin:
        await works(plugin)


async def test_starttls_comes_before_any_password(server: Slapd, authority: Authority) -> None:
    async with asking(server.url, ca_certificates=authority.certificate) as plugin:
        await works(plugin)
    async with asking(server.url, starttls="false") as plugin:
        assert await refusal(plugin) is Tag.E_TLS


async def test_a_server_of_an_unknown_authority_is_not_told_any_password(server: Slapd) -> None:
    for url in (server.url, server.tls_url):
        async with asking(url, ca_certificates=Authority("other").certificate) as plugin:
            assert await refusal(plugin) is Tag.E_INVALID_TRUSTED_CERTS
        async with asking(url) as plugin:
            assert await refusal(plugin) is Tag.E_INVALID_TRUSTED_CERTS


@pytest.mark.parametrize(("hosts", "days"), [(("ldap.example.test",), 1), (("127.0.0.1",), -1)])
async def test_a_certificate_of_another_server_or_time_is_refused(
    tmp_path: Path, authority: Authority, hosts: tuple[str, ...], days: int
) -> None:
    slapd.required()
    server = Slapd(tmp_path / "slapd", people.openldap(), ["nis"])
    server.certificate(*authority.issue(*hosts, days=days))
    server.start()
    try:
        async with asking(server.tls_url, ca_certificates=authority.certificate) as plugin:
            assert await refusal(plugin) is Tag.E_INVALID_TRUSTED_CERTS
    finally:
        server.stop()


async def test_the_choice_of_ldaps_is_tried_first_unless_forced(server: Slapd, authority: Authority) -> None:
    """On one port a server speaks either."""
    async with asking(server.url, ca_certificates=authority.certificate) as plugin:
        with pytest.raises(ServiceError):
            await plugin.set_ldaps(True, False)
        assert await plugin.set_ldaps(True, True) == {"ldaps": "true"}
        assert await plugin.set_ldaps(False, False) == {"ldaps": "false"}

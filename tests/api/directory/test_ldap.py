"""The LDAP plug-in against a real slapd, in the style of OpenLDAP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.api.directory.ldap import SCHEMAS, LdapPlugin
from services.api.directory.plugin import AuthFailure, ServiceError, SubjectNotFound, Tag
from tests.api.directory import people
from tests.support.slapd import SUFFIX, Slapd


def plugin_for(server: Slapd, /, **config: str) -> LdapPlugin:
    given = {"server": server.url, "starttls": "false", "user": people.READER, "pass": people.READER_PASSWORD}
    return LdapPlugin(SCHEMAS["LDAP"], "example.test", {**given, **config})


@asynccontextmanager
async def asking(server: Slapd, /, **config: str) -> AsyncIterator[LdapPlugin]:
    plugin = plugin_for(server, **config)
    yield plugin
    await plugin.on_xapi_exit()


@pytest.fixture
async def plugin(openldap: Slapd) -> AsyncIterator[LdapPlugin]:
    async with asking(openldap) as plugin:
        yield plugin


async def names_of_groups(plugin: LdapPlugin, name: str) -> set[str]:
    groups = await plugin.query_group_membership(await plugin.get_subject_identifier(name))
    assert len(set(groups)) == len(groups)
    return {(await plugin.query_subject_information(group))["subject-name"] for group in groups}


# ---- who logs in


@pytest.mark.parametrize("spelling", ["alice", "ALICE", "alice@example.test", r"EXAMPLE.TEST\alice"])
async def test_a_user_is_known_by_name_with_or_without_the_directory(plugin: LdapPlugin, spelling: str) -> None:
    found = await plugin.authenticate_username_password(spelling, people.password("alice"))
    assert found == await plugin.get_subject_identifier("alice")


async def test_what_the_directory_tells_about_a_user(plugin: LdapPlugin) -> None:
    alice = await plugin.get_subject_identifier("alice")
    assert await plugin.query_subject_information(alice) == {
        "subject-name": "alice",
        "subject-displayname": "Alice Example",
        "subject-gecos": "Alice Example",
        "subject-upn": "alice@example.test",
        "subject-uid": "2000",
        "subject-gid": "100",
        "subject-sid": alice,
        "subject-is-group": "false",
        "subject-account-disabled": "false",
        "subject-account-expired": "false",
        "subject-account-locked": "false",
        "subject-password-expired": "false",
    }


HOSTILE = [
    "*",
    "a*",
    "alice)(uid=*",
    "*)(uid=*))(|(uid=*",
    "alice)(!(uid=x",
    "alice\\",
    "\\2a",
    "alice\x00",
    "(",
    ")",
    "&",
    " ",
    "uid=alice," + people.PEOPLE,
    "ali" + "c" * 100_000 + "e",
    "älice",
    "alice\n",
    " alice",
    "cn=admin," + SUFFIX,
    "@example.test",
    "EXAMPLE.TEST\\",
]


@pytest.mark.parametrize("name", HOSTILE, ids=[name[:20].encode("unicode_escape").decode() for name in HOSTILE])
async def test_a_name_never_becomes_part_of_the_question(plugin: LdapPlugin, name: str) -> None:
    """Whatever it holds, it means the user of exactly that name, whom nobody has."""
    with pytest.raises(AuthFailure):
        await plugin.authenticate_username_password(name, people.password("alice"))
    with pytest.raises(SubjectNotFound):
        await plugin.get_subject_identifier(name)


@pytest.mark.parametrize("identifier", ["", "*", "entryUUID=*", "x)(objectClass=*", "\x00", "0" * 10_000])
async def test_an_identifier_never_becomes_part_of_the_question(plugin: LdapPlugin, identifier: str) -> None:
    with pytest.raises(SubjectNotFound):
        await plugin.query_subject_information(identifier)
    with pytest.raises(SubjectNotFound):
        await plugin.query_group_membership(identifier)


@pytest.mark.parametrize("password", ["", "wrong", people.password("bob"), "\x00", "\u00ad\u200b", "x" * 100_000])
async def test_a_password_that_is_not_the_users_is_refused(plugin: LdapPlugin, password: str) -> None:
    with pytest.raises(AuthFailure):
        await plugin.authenticate_username_password("alice", password)


async def test_two_users_of_one_name_are_nobody(openldap: Slapd) -> None:
    async with asking(openldap, user_attribute="gidNumber") as plugin:
        with pytest.raises(AuthFailure, match="more than one"):
            await plugin.authenticate_username_password("100", people.password("alice"))


async def test_a_directory_that_answers_anybody_needs_no_user(openldap: Slapd) -> None:
    async with asking(openldap, user="", **{"pass": ""}) as plugin:
        await plugin.on_enable({})
        await plugin.authenticate_username_password("bob", people.password("bob"))


# ---- groups


async def test_groups_are_followed_however_deep_and_in_circles(plugin: LdapPlugin) -> None:
    assert await names_of_groups(plugin, "alice") == {"operators", "circle"}
    assert await names_of_groups(plugin, "bob") == {"night-shift", "operators", "circle"}
    assert await names_of_groups(plugin, "carol") == {"admins", "staff"}
    assert await names_of_groups(plugin, "dave") == set()
    assert await names_of_groups(plugin, "circle") == {"operators"}


async def test_a_group_is_no_user(plugin: LdapPlugin) -> None:
    group = await plugin.get_subject_identifier("operators")
    assert (await plugin.query_subject_information(group))["subject-is-group"] == "true"
    with pytest.raises(AuthFailure):
        await plugin.authenticate_username_password("operators", "x")


# ---- closed accounts


async def test_a_lock_of_the_password_policy_shows(openldap: Slapd, plugin: LdapPlugin) -> None:
    dave = await plugin.get_subject_identifier("dave")
    openldap.set(people.user("dave"), "pwdAccountLockedTime", "000001010000Z")
    try:
        assert (await plugin.query_subject_information(dave))["subject-account-locked"] == "true"
    finally:
        openldap.change(f"dn: {people.user('dave')}\nchangetype: modify\ndelete: pwdAccountLockedTime\n")


async def test_an_expired_account_shows(openldap: Slapd, plugin: LdapPlugin) -> None:
    dave = await plugin.get_subject_identifier("dave")
    openldap.set(people.user("dave"), "shadowExpire", "1")
    try:
        assert (await plugin.query_subject_information(dave))["subject-account-expired"] == "true"
    finally:
        openldap.set(people.user("dave"), "shadowExpire", "-1")


# ---- what can be wrong with the directory


@pytest.mark.parametrize(
    ("config", "tag"),
    [
        ({"pass": "wrong"}, Tag.E_CREDENTIALS),
        ({"user": "not a name"}, Tag.E_INVALID_ACCOUNT),
        ({"user": ""}, Tag.E_CREDENTIALS),
        ({"base": "ou=nowhere," + SUFFIX}, Tag.E_INVALID_OU),
        ({"server": "ldap://127.0.0.1:1"}, Tag.E_UNAVAILABLE),
        ({"server": "ldap://name.invalid"}, Tag.E_UNAVAILABLE),
        ({"server": "http://127.0.0.1"}, Tag.E_GENERIC),
        ({"server": "ldap://127.0.0.1:99999"}, Tag.E_GENERIC),
        ({"starttls": "true"}, Tag.E_TLS),
        ({"starttls": "perhaps"}, Tag.E_GENERIC),
        ({"timeout": "forever"}, Tag.E_GENERIC),
        ({"user_filter": "objectClass=*"}, Tag.E_GENERIC),
        ({"user_attribute": "uid=*)(x"}, Tag.E_GENERIC),
        ({"usr": "x"}, Tag.E_GENERIC),
        ({"ca_file": "/nowhere/ca.pem", "starttls": "true"}, Tag.E_NO_TRUSTED_CERTS),
        ({"ca_certificates": "no certificate", "starttls": "true"}, Tag.E_INVALID_TRUSTED_CERTS),
    ],
    ids=str,
)
async def test_what_is_wrong_is_told_when_joining(openldap: Slapd, config: dict[str, str], tag: Tag) -> None:
    async with asking(openldap, **config) as plugin:
        with pytest.raises(ServiceError) as caught:
            await plugin.on_enable({})
        assert caught.value.tag is tag
        assert people.READER_PASSWORD not in caught.value.message


async def test_the_next_server_is_asked_when_one_is_away(openldap: Slapd) -> None:
    async with asking(openldap, server=f"ldap://127.0.0.1:1, {openldap.url}") as plugin:
        await plugin.authenticate_username_password("alice", people.password("alice"))


async def test_a_server_that_says_nothing_is_given_up(openldap: Slapd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ldap://127.0.0.1:{silent.getsockname()[1]}"
        async with asking(openldap, server=url, timeout="1") as plugin:
            with pytest.raises(ServiceError) as caught:
                await plugin.authenticate_username_password("alice", people.password("alice"))
    assert caught.value.tag is Tag.E_UNAVAILABLE


async def test_a_server_that_talks_nonsense_is_no_directory(openldap: Slapd) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        url = f"ldap://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asking(openldap, server=url, timeout="1") as plugin:
            with pytest.raises(ServiceError):
                await plugin.on_enable({})

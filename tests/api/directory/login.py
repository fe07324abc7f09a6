"""How the tests of logins put a pool into a directory."""

from __future__ import annotations

from typing import Any

from shared.datamodel.roles import role_ref
from tests.api.directory import people
from tests.api.harness import Client, Pool, error_of
from tests.support.slapd import Slapd

SERVICE = "example.test"


def config(server: Slapd, **more: str) -> dict[str, str]:
    """Plain LDAP: the connection is the loopback's."""
    return {
        "server": server.url,
        "starttls": "false",
        "user": people.READER,
        "pass": people.READER_PASSWORD,
        "timeout": "5",
        **more,
    }


async def enable(root: Client, server: Slapd, auth_type: str = "LDAP", **more: str) -> None:
    [pool] = await root.call("pool.get_all")
    await root.call("pool.enable_external_auth", pool, config(server, **more), SERVICE, auth_type)


async def disable(root: Client) -> None:
    [pool] = await root.call("pool.get_all")
    await root.call("pool.disable_external_auth", pool, {})


async def add_subject(root: Client, name: str, *roles: str) -> str:
    """A subject of that name with these roles and no other."""
    identifier = await root.call("auth.get_subject_identifier", name)
    information = await root.call("auth.get_subject_information_from_identifier", identifier)
    fields = {"subject_identifier": identifier, "other_config": information}
    subject = str(await root.call("subject.create", fields))
    for role in await root.call("subject.get_roles", subject):
        await root.call("subject.remove_from_roles", subject, role)
    for role in roles:
        await root.call("subject.add_to_roles", subject, role_ref(role))
    return subject


async def login(pool: Pool, name: str, password: str | None = None) -> Client:
    """A session of that user."""
    client = pool.client()
    given = people.password(name) if password is None else password
    client.session = await client.raw("session.login_with_password", name, given, "1.0", "tests")
    return client


async def refusal(pool: Pool, name: str, password: str | None = None) -> list[str]:
    return await error_of(login(pool, name, password))


async def session_row(pool: Pool, client: Client) -> Any:
    return pool.row("session", client.session)

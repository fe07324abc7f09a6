"""External authentication: the directory, its subjects and their roles, sessions of its users."""

from __future__ import annotations

from services.cli.server.command import Call, Handler, command
from services.cli.server.failures import CommandError
from services.cli.server.simple import message
from services.cli.server.values import parsed
from shared.datamodel.types import BOOL, NULL_REF


async def _pool(call: Call) -> str:
    """The one named by `uuid`, or the only one there is."""
    named = await call.optional_ref("uuid", "pool")
    return named or next(iter(await call.objects.all("pool")))


async def _pool_enable(call: Call) -> None:
    given = (call.params.mapping("config"), call.params["service-name"], call.params["auth-type"])
    await call.api.call("pool.enable_external_auth", await _pool(call), *given)


async def _pool_disable(call: Call) -> None:
    await call.api.call("pool.disable_external_auth", await _pool(call), call.params.mapping("config"))


async def _pool_set_ldaps(call: Call) -> None:
    ldaps = await parsed(BOOL, "ldaps", call.params["ldaps"], call.objects)
    await call.api.call("pool.external_auth_set_ldaps", await _pool(call), ldaps, call.params.flag("force"))


async def _host_disable(call: Call) -> None:
    """`force` counts by being there, whatever it says."""
    host = await call.ref("host-uuid", "host")
    await call.api.call("host.disable_external_auth", host, call.params.mapping("config"), "force" in call.params)


async def _host_set_ldaps(call: Call) -> None:
    ldaps = await parsed(BOOL, "ldaps", call.params["ldaps"], call.objects)
    host = await call.ref("host-uuid", "host")
    await call.api.call("host.external_auth_set_ldaps", host, ldaps, call.params.flag("force"))


async def _subject_add(call: Call) -> None:
    identifier = await call.api.call("auth.get_subject_identifier", call.params["subject-name"])
    information = await call.api.call("auth.get_subject_information_from_identifier", identifier)
    fields = {"subject_identifier": identifier, "other_config": information}
    await call.print_uuid("subject", await call.api.call("subject.create", fields))


def _with_role(method: str) -> Handler:
    async def change(call: Call) -> None:
        role = await _role(call)
        await call.api.call(method, await call.ref("uuid", "subject"), role)

    return change


async def _role(call: Call) -> str:
    """Null for a name that no role has."""
    name, uuid = call.params.get("role-name"), call.params.get("role-uuid")
    if not name and not uuid:
        raise CommandError("Required parameter not found: role-uuid or role-name")
    if name and uuid:
        raise CommandError("Parameters role-uuid and role-name cannot be used together")
    if uuid:
        return await call.ref("role-uuid", "role")
    found = await call.api.call("role.get_by_name_label", name)
    return str(found[0]) if found else NULL_REF


async def _logout_all(call: Call) -> None:
    for identifier in await call.api.call("session.get_all_subject_identifiers"):
        await call.api.call("session.logout_subject_identifier", identifier)


_ROLE = "role-name role-uuid"

COMMANDS = (
    command(
        "pool-enable-external-auth",
        _pool_enable,
        "Lets users of a directory log in: auth-type=LDAP, AD, PAM or a program's name.",
        required="auth-type service-name",
        optional="uuid config:",
    ),
    command(
        "pool-disable-external-auth",
        _pool_disable,
        "Lets nobody but the pool's own users log in.",
        optional="uuid config:",
    ),
    command(
        "pool-external-auth-set-ldaps",
        _pool_set_ldaps,
        "Chooses between LDAP over TLS and plain LDAP.",
        required="ldaps",
        optional="uuid force",
    ),
    message(
        "host-enable-external-auth",
        "host.enable_external_auth",
        "host-uuid",
        ("config:", {}),
        "service-name",
        "auth-type",
        flags="Hidden",
        required="host-uuid auth-type service-name",
    ),
    command(
        "host-disable-external-auth",
        _host_disable,
        "Takes one host out of the directory.",
        required="host-uuid",
        optional="config:",
        also="force",
        flags="Hidden",
    ),
    command(
        "host-external-auth-set-ldaps",
        _host_set_ldaps,
        "Chooses between LDAP over TLS and plain LDAP, for one host.",
        required="host-uuid ldaps",
        optional="force",
        flags="Hidden",
    ),
    command("subject-add", _subject_add, "Lets a user or group of the directory log in.", required="subject-name"),
    message("subject-remove", "subject.destroy", "subject-uuid"),
    command("subject-role-add", _with_role("subject.add_to_roles"), "Gives a role.", required="uuid", optional=_ROLE),
    command(
        "subject-role-remove",
        _with_role("subject.remove_from_roles"),
        "Takes a role away.",
        required="uuid",
        optional=_ROLE,
    ),
    message("session-subject-identifier-list", "session.get_all_subject_identifiers"),
    message("session-subject-identifier-logout", "session.logout_subject_identifier", "subject-identifier"),
    command("session-subject-identifier-logout-all", _logout_all, "Ends all sessions of the directory's users."),
)

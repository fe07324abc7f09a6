"""A pool joins and leaves a directory as a whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from shared.contracts.alerts import ALERT, Alert
from tests.api.directory import people, programs
from tests.api.directory.login import SERVICE, add_subject, config, disable, enable, login, refusal
from tests.api.harness import PATIENCE, Client, Pool
from tests.support.slapd import Slapd


async def started(folder: Path, hosts: int) -> Pool:
    """Each host with its API process; programs of all are in the folders `extauth` and `plugins`."""
    programs.install(folder / "extauth", "demo", programs.DIRECTORY)
    pool = await Pool.start(folder, hosts=hosts, directories=str(folder / "extauth"), plugins=str(folder / "plugins"))
    for member in range(1, hosts):
        await pool.start_api(host=member)
    pool.api.directory.logins.failure_delay = 0.0
    return pool


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pool]:
    pool = await started(tmp_path, 2)
    yield pool
    await pool.stop()


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Pool]:
    pool = await started(tmp_path, 1)
    yield pool
    await pool.stop()


@pytest.fixture
async def admin(request: pytest.FixtureRequest) -> Client:
    """A session of root in the test's pool."""
    pool: Pool = request.getfixturevalue(next(name for name in ("pair", "alone") if name in request.fixturenames))
    return await pool.login()


def types(pool: Pool) -> list[str]:
    return [row["external_auth_type"] for row in pool.store.rows("host").values()]


def the_pool(pool: Pool) -> str:
    return next(iter(pool.store.rows("pool")))


def kept(pool: Pool, host: int) -> Any:
    """What the host keeps to itself."""
    name = f"api-host{host}"
    return json.loads((pool.folder / name / "directory" / f"{pool.hosts[host].uuid}.json").read_text())


async def eventually(holds: Callable[[], bool]) -> None:
    """For what happens in files, where nobody tells of it."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def enable_demo(admin: Client, pool: Pool, **config: str) -> None:
    await admin.call("pool.enable_external_auth", the_pool(pool), config, "somewhere", "demo")


def trouble(pool: Pool, function: str, what: str) -> None:
    (pool.folder / "extauth" / function).write_text(what)


def calls(pool: Pool) -> list[tuple[str, dict[str, Any]]]:
    path = pool.folder / "extauth" / "calls"
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


# ---- all hosts or none


async def test_every_host_joins_and_keeps_the_password_to_itself(pair: Pool, admin: Client, openldap: Slapd) -> None:
    await enable(admin, openldap)
    for number in (0, 1):
        row = pair.row("host", pair.host_ref(number))
        assert (row["external_auth_type"], row["external_auth_service_name"]) == ("LDAP", SERVICE)
        shown = {key: value for key, value in config(openldap).items() if key != "pass"}
        assert row["external_auth_configuration"] == shown
        assert kept(pair, number)["secrets"] == {"pass": people.READER_PASSWORD}
    for path in pair.folder.rglob("*"):
        if path.is_file() and path.parent.name != "directory":
            assert people.READER_PASSWORD.encode() not in path.read_bytes(), path
        if path.is_file() and path.parent.name == "directory":
            assert path.stat().st_mode & 0o777 == 0o600
    await disable(admin)
    assert types(pair) == ["", ""]
    await eventually(lambda: not kept(pair, 0)["secrets"] and not kept(pair, 1)["secrets"])


async def test_one_host_that_cannot_join_takes_the_others_back(pair: Pool, admin: Client, openldap: Slapd) -> None:
    (pair.folder / "api-host1" / "directory").write_text("in the way")
    refused = await admin.refusal("pool.enable_external_auth", the_pool(pair), config(openldap), SERVICE, "LDAP")
    assert refused[:2] == ["POOL_AUTH_ENABLE_FAILED", pair.host_ref(1)]
    assert types(pair) == ["", ""]
    (pair.folder / "api-host1" / "directory").unlink()
    await enable(admin, openldap)


async def test_a_host_that_is_away_keeps_the_pool_out(pair: Pool, admin: Client) -> None:
    await pair.stop_api(host=1)
    refused = await admin.refusal("pool.enable_external_auth", the_pool(pair), {}, "somewhere", "demo")
    assert refused[:2] == ["POOL_AUTH_ENABLE_FAILED", pair.host_ref(1)]
    assert types(pair) == ["", ""]
    assert [function for function, _ in calls(pair)].count("on_disable") == 1


WRONG = [
    ({"pass": "wrong"}, "WRONG_CREDENTIALS"),
    ({"user": "nobody"}, "INVALID_ACCOUNT"),
    ({"base": "ou=nowhere,dc=example,dc=test"}, "INVALID_OU"),
    ({"server": "ldap://127.0.0.1:1"}, "UNAVAILABLE"),
    ({"starttls": "true"}, "SETUP_TLS_CONNECTION"),
    ({"starttls": "true", "ca_file": "/nowhere"}, "NO_TRUSTED_CERTS"),
    ({"no_such_key": "x"}, ""),
]


async def test_what_is_wrong_with_the_directory_is_in_the_code(pool: Pool, root: Client, openldap: Slapd) -> None:
    for changed, words in WRONG:
        given = {**config(openldap), **changed}
        refused = await root.refusal("pool.enable_external_auth", the_pool(pool), given, SERVICE, "LDAP")
        assert refused[:2] == ["_".join(filter(None, ("POOL_AUTH_ENABLE_FAILED", words))), pool.host_ref(0)]
        refused = await root.refusal("host.enable_external_auth", pool.host_ref(0), given, SERVICE, "LDAP")
        assert refused[0].startswith("AUTH_")
        assert refused[0].endswith(words)
    assert types(pool) == [""]


async def test_what_cannot_be_joined_is_refused(pair: Pool, admin: Client) -> None:
    for unknown in ("frob", "", "../demo", "calls"):
        refused = await admin.refusal("pool.enable_external_auth", the_pool(pair), {}, "x", unknown)
        assert refused == ["AUTH_UNKNOWN_TYPE", unknown]
    await enable_demo(admin, pair)
    refused = await admin.refusal("pool.enable_external_auth", the_pool(pair), {}, "x", "demo")
    assert refused == ["POOL_AUTH_ALREADY_ENABLED", pair.host_ref(0)]
    refused = await admin.refusal("host.enable_external_auth", pair.host_ref(1), {}, "x", "demo")
    assert refused == ["AUTH_ALREADY_ENABLED", "demo", "somewhere"]


async def test_a_program_that_others_may_write_is_none_of_ours(alone: Pool, admin: Client) -> None:
    (alone.folder / "extauth" / "demo").chmod(0o777)
    refused = await admin.refusal("pool.enable_external_auth", the_pool(alone), {}, "x", "demo")
    assert refused == ["AUTH_UNKNOWN_TYPE", "demo"]


async def test_a_host_that_cannot_leave_stays_unless_forced(pair: Pool, admin: Client) -> None:
    await enable_demo(admin, pair)
    trouble(pair, "on_disable", "fail('E_DENIED', 'not you')")
    refused = await admin.refusal("pool.disable_external_auth", the_pool(pair), {"user": "me"})
    assert refused == ["POOL_AUTH_DISABLE_FAILED_PERMISSION_DENIED", pair.host_ref(0), "not you"]
    assert types(pair) == ["demo", "demo"]
    refused = await admin.refusal("host.disable_external_auth", pair.host_ref(1), {})
    assert refused == ["AUTH_DISABLE_FAILED_PERMISSION_DENIED", "not you"]
    await admin.call("host.disable_external_auth", pair.host_ref(1), {}, True)
    assert types(pair) == ["demo", ""]
    (pair.folder / "extauth" / "on_disable").unlink()
    await disable(admin)
    await disable(admin)  # nothing is left to do
    assert types(pair) == ["", ""]


async def test_hosts_in_different_directories_are_told_of(pair: Pool, admin: Client) -> None:
    heard: asyncio.Queue[Alert] = asyncio.Queue()
    await pair.api_bus.subscribe(ALERT, lambda alert, _: heard.put_nowait(alert))
    await admin.call("host.enable_external_auth", pair.host_ref(0), {}, "somewhere", "demo")
    await admin.call("pool.detect_nonhomogeneous_external_auth", the_pool(pair))
    async with asyncio.timeout(PATIENCE):
        alert = await heard.get()
    assert (alert.name, alert.obj_uuid) == ("EXTAUTH_IN_POOL_IS_NON_HOMOGENEOUS", pair.hosts[1].uuid)
    await admin.call("host.enable_external_auth", pair.host_ref(1), {}, "somewhere", "demo")
    await admin.call("pool.detect_nonhomogeneous_external_auth", the_pool(pair))
    assert heard.empty()


# ---- LDAP over TLS


async def test_ldaps_is_tried_before_it_is_chosen(pair: Pool, admin: Client, openldap: Slapd) -> None:
    refused = await admin.refusal("pool.external_auth_set_ldaps", the_pool(pair), True)
    assert refused == ["AUTH_IS_DISABLED"]
    await enable(admin, openldap)
    refused = await admin.refusal("pool.external_auth_set_ldaps", the_pool(pair), True)
    assert refused[:2] == ["AUTH_SET_LDAPS_FAILED", pair.host_ref(0)]
    await admin.call("pool.external_auth_set_ldaps", the_pool(pair), True, True)
    for host in pair.store.rows("host").values():
        assert host["external_auth_configuration"]["ldaps"] == "true"
    await admin.call("pool.external_auth_set_ldaps", the_pool(pair), False)
    await add_subject(admin, "operators", "vm-operator")
    await login(pair, "alice")


# ---- programs


async def test_a_program_is_a_directory(alone: Pool, admin: Client) -> None:
    await enable_demo(admin, alone, color="blue", password="secret")
    shown = alone.row("host", alone.host_ref(0))["external_auth_configuration"]
    assert shown == {"color": "blue"}
    group = await admin.call("subject.create", {"subject_identifier": "id-group", "other_config": {}})
    await login(alone, "ann", "ann's")
    assert (await refusal(alone, "ann", "wrong"))[0] == "SESSION_AUTHENTICATION_FAILED"
    assert (await refusal(alone, "ben", "ben's"))[0] == "SESSION_AUTHORIZATION_FAILED"
    assert await admin.refusal("auth.get_subject_identifier", "zoe") == ["SUBJECT_CANNOT_BE_RESOLVED"]
    assert await admin.call("auth.get_group_membership", "id-ann") == ["id-group"]
    assert group in await admin.call("subject.get_all")
    for _, told in calls(alone):
        assert (told["auth_type"], told["service_name"]) == ("demo", "somewhere")
        assert told["config"] == {"color": "blue", "password": "secret"}


TROUBLE = [
    "raise SystemExit(3)",
    "print('nonsense'); sys.exit()",
    "sys.exit()",
    "fail('E_UNAVAILABLE', 'gone')",
    "fail('WHATEVER')",
    "succeed(['a'])",
    "succeed('')",
    "print(xmlrpc.client.dumps(xmlrpc.client.Fault(1, 'x'))); sys.exit()",
    "os.kill(os.getpid(), 9)",
]


async def test_trouble_in_a_program_is_not_the_users_fault(alone: Pool, admin: Client) -> None:
    await enable_demo(admin, alone)
    for what in TROUBLE:
        trouble(alone, "authenticate_username_password", what)
        refused = await refusal(alone, "ann", "ann's")
        assert refused[:2] == ["INTERNAL_ERROR", "session.login_with_password"], what


# ---- the hook


async def test_the_hook_hears_of_everything_on_every_host(pair: Pool, admin: Client) -> None:
    programs.install(pair.folder / "plugins", "extauth-hook", programs.HOOK)
    events = pair.folder / "plugins" / "events"

    def lines() -> list[str]:
        return events.read_text().splitlines() if events.exists() else []

    async def heard(times: int, event: str) -> None:
        await eventually(lambda: lines().count(f"{event} demo somewhere") == times)

    await enable_demo(admin, pair)
    await heard(2, "after-extauth-enable")
    subject = await admin.call("subject.create", {"subject_identifier": "id-ann", "other_config": {}})
    await heard(2, "after-subject-add")
    [role, *_] = await admin.call("subject.get_roles", subject)
    await admin.call("subject.remove_from_roles", subject, role)
    await heard(2, "after-roles-update")
    await pair.api.directory.revalidation.refresh_subjects()
    await heard(2, "after-subject-update")
    await admin.call("subject.destroy", subject)
    await heard(2, "after-subject-remove")
    await disable(admin)
    await heard(2, "before-extauth-disable")


# ---- starting again


async def test_after_a_restart_the_directory_is_asked_again(alone: Pool, admin: Client) -> None:
    await enable_demo(admin, alone, password="secret")
    await admin.call("subject.create", {"subject_identifier": "id-ann", "other_config": {}})
    await alone.kill_api()
    await alone.start_api()
    await login(alone, "ann", "ann's")
    told = next(told for function, told in calls(alone) if function == "on_xapi_initialize")
    assert told["config"] == {"password": "secret"}


async def test_logins_wait_for_a_directory_that_is_being_initialised(alone: Pool, admin: Client) -> None:
    await enable_demo(admin, alone)
    await admin.call("subject.create", {"subject_identifier": "id-ann", "other_config": {}})
    trouble(alone, "on_xapi_initialize", "fail('E_UNAVAILABLE', 'still starting')")
    await alone.kill_api()
    await alone.start_api()
    alone.api.directory.own.retry = (0.05,)
    waiting = asyncio.create_task(login(alone, "ann", "ann's"))
    await asyncio.sleep(0)
    assert not waiting.done()
    (alone.folder / "extauth" / "on_xapi_initialize").unlink()
    async with asyncio.timeout(PATIENCE):
        await waiting


async def test_a_directory_that_is_not_initialised_for_long_is_alerted(alone: Pool, admin: Client) -> None:
    alone.set_password("root", "local")
    await enable_demo(admin, alone)
    trouble(alone, "on_xapi_initialize", "fail('E_UNAVAILABLE', 'no server')")
    await alone.kill_api()
    await alone.start_api()
    own = alone.api.directory.own
    own.retry, own.overdue = (0.05,), 0.2
    alone.api.directory.logins.failure_delay = 0.0
    heard: asyncio.Queue[Alert] = asyncio.Queue()
    await alone.api_bus.subscribe(ALERT, lambda alert, _: heard.put_nowait(alert))
    async with asyncio.timeout(PATIENCE):
        alert = await heard.get()
    assert (alert.name, alert.obj_uuid) == ("EXTAUTH_INIT_IN_HOST_FAILED", alone.hosts[0].uuid)
    assert "no server" in alert.body
    refused = await refusal(alone, "ann", "ann's")
    assert refused[:2] == ["INTERNAL_ERROR", "session.login_with_password"]
    assert "no server" in refused[2]
    await login(alone, "root", "local")

"""What drivers call back: each message as they call it, by the module that they import, over the host's socket."""

from __future__ import annotations

import asyncio
import uuid
import xmlrpc.client
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from shared.contracts.db import Create, Update
from shared.datamodel import model
from shared.host_programs import XenAPI
from tests.storage.smapiv1.conftest import Socket

pytestmark = pytest.mark.asyncio(loop_scope="module")

NULL = "OpaqueRef:NULL"
EPOCH = xmlrpc.client.DateTime("19700101T00:00:00Z")

GETTERS = {
    "VDI": (
        *("get_sm_config", "get_name_label", "get_record", "get_is_a_snapshot", "get_name_description", "get_uuid"),
        *("get_other_config", "get_managed", "get_type", "get_snapshot_time", "get_metadata_of_pool", "get_SR"),
        *("get_allow_caching", "get_location", "get_on_boot", "get_read_only", "get_snapshot_of", "get_virtual_size"),
    ),
    "SR": (
        *("get_sm_config", "get_other_config", "get_record", "get_VDIs", "get_name_label", "get_name_description"),
        *("get_type", "get_uuid", "get_virtual_allocation", "get_PBDs", "get_shared"),
    ),
    "PBD": ("get_device_config", "get_other_config"),
    "SM": ("get_driver_filename",),
    "host": ("get_record", "get_other_config", "get_local_cache_sr"),
    "host_metrics": ("get_record",),
    "pool": ("get_master",),
    "VM": ("get_record",),
    "message": ("get_record",),
    "secret": ("get_uuid", "get_value"),
    "task": ("get_status",),
}
LISTS = (
    *("VDI.get_all_records", "SR.get_all_records", "PBD.get_all_records", "host.get_all_records"),
    *("pool.get_all_records", "pool.get_all", "VBD.get_all_records", "PUSB.get_all_records"),
)
WHERE = ("VDI", "SR", "PBD", "SM", "VM", "VBD")
BY_UUID = ("VDI", "SR", "host", "VM", "secret")
SETTERS: dict[str, tuple[Any, ...]] = {
    "VDI.set_managed": (False,),
    "VDI.set_physical_utilisation": ("7",),
    "VDI.set_virtual_size": ("8192",),
    "VDI.set_cbt_enabled": (False,),
    "VDI.set_is_a_snapshot": (True,),
    "VDI.set_metadata_of_pool": (NULL,),
    "VDI.set_missing": (True,),
    "VDI.set_read_only": (True,),
    "VDI.set_snapshot_of": (NULL,),
    "VDI.set_snapshot_time": (EPOCH,),
    "SR.set_physical_size": ("1000",),
    "SR.set_physical_utilisation": ("10",),
    "SR.set_virtual_allocation": ("10",),
    "PBD.set_device_config": ({"location": "l"},),
}
"""Only for sessions of the SR; arguments after the reference."""
OPEN_SETTERS: dict[str, tuple[Any, ...]] = {
    "VDI.set_sm_config": ({"a": "b"},),
    "VDI.set_name_label": ("n",),
    "VDI.set_name_description": ("d",),
    "SR.set_sm_config": ({"a": "b"},),
    "task.set_status": ("pending",),
    "task.set_progress": (0.5,),
    "task.set_other_config": ({"a": "b"},),
}
MAPS = ("VDI.sm_config", "VDI.other_config", "SR.sm_config", "SR.other_config", "PBD.other_config", "host.other_config")


class Driver:
    """A driver's side: a session of its SR, and rows to work on."""

    def __init__(self, api: Socket, refs: dict[str, str]) -> None:
        self.api, self.refs = api, refs

    async def call(self, method: str, *args: Any, session: str | None = None) -> Any:
        """As drivers do it, which block."""

        def ask() -> Any:
            proxy = XenAPI.Session("http://localhost/", XenAPI.UDSTransport(path=str(self.api.site.socket)))
            proxy._session = self.refs["session"] if session is None else session
            try:
                return getattr(proxy.xenapi, method)(*args)
            finally:
                proxy("close")()

        return await asyncio.to_thread(ask)

    async def refused(self, method: str, *args: Any, session: str | None = None) -> list[str]:
        try:
            answer = await self.call(method, *args, session=session)
        except XenAPI.Failure as failure:
            return failure.details
        raise AssertionError(f"{method}{args} answered {answer!r}")

    async def introduced(self, location: str, *, sr: str = "", new: str = "", snapshot_of: str = "") -> str:
        ref: str = await self.call(
            "VDI.db_introduce",
            *(new or str(uuid.uuid4()), "name", "description", sr or self.refs["SR"], "user", False, False, {}),
            *(location, {}, {"k": "v"}, True, "4096", "4096", NULL, False, EPOCH, snapshot_of, False),
        )
        return ref


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driver(api: Socket) -> AsyncIterator[Driver]:
    pool, client = api.pool, api.client
    host = pool.host_ref(0)
    sr = await client.call("SR.introduce", str(uuid.uuid4()), "sr", "", "fake", "user", False, {})
    pbd = f"OpaqueRef:{uuid.uuid4()}"
    fields = {"host": host, "SR": sr, "device_config": {}, "currently_attached": True}
    await pool.write(Create(cls="PBD", ref=pbd, fields=fields))
    found = Driver(api, {})
    session = await _login(api)
    await client.raw("session.add_to_other_config", session, session, "_sm_session", sr)
    found.refs = {
        "session": session,
        "host": host,
        "SR": sr,
        "PBD": pbd,
        "SM": next(iter(pool.store.rows("SM"))),
        "pool": next(iter(pool.store.rows("pool"))),
        "VM": pool.store.get("host", host, "control_domain"),
        "host_metrics": pool.store.get("host", host, "metrics"),
        "task": await client.raw("task.create", session, "t", ""),
        "secret": await client.raw("secret.create", session, {"value": "hidden", "other_config": {}}),
        "message": await client.raw("message.create", session, "N", 3, "SR", pool.row("SR", sr)["uuid"], "body"),
    }
    found.refs["VDI"] = await found.introduced("first")
    yield found


async def _login(api: Socket) -> str:
    def login() -> str:
        proxy = XenAPI.Session("http://localhost/", XenAPI.UDSTransport(path=str(api.site.socket)))
        proxy.login_with_password("root", "", "", "SM")
        session: str = proxy.handle
        proxy("close")()
        return session

    return await asyncio.to_thread(login)


async def test_root_logs_in_on_the_socket_without_a_password_as_sm(driver: Driver) -> None:
    row = driver.api.pool.row("session", driver.refs["session"])
    assert (row["originator"], row["is_local_superuser"]) == ("SM", True)


async def test_every_getter_answers(driver: Driver) -> None:
    for cls, names in GETTERS.items():
        for name in names:
            await driver.call(f"{cls}.{name}", driver.refs[cls])
    for method in LISTS:
        assert isinstance(await driver.call(method), dict | list)
    for cls in BY_UUID:
        known = await driver.call(f"{cls}.get_uuid", driver.refs[cls])
        assert await driver.call(f"{cls}.get_by_uuid", known) == driver.refs[cls]


async def test_every_setter_works_for_the_srs_own_session(driver: Driver) -> None:
    for method, arguments in {**SETTERS, **OPEN_SETTERS}.items():
        assert await driver.call(method, driver.refs[method.partition(".")[0]], *arguments) == ""
    row = driver.api.pool.row("VDI", driver.refs["VDI"])
    assert (row["virtual_size"], row["managed"], row["missing"], row["is_a_snapshot"]) == (8192, False, True, True)
    assert driver.api.pool.row("SR", driver.refs["SR"])["physical_size"] == 1000


async def test_what_only_the_srs_own_session_may_is_refused_to_all_others(driver: Driver) -> None:
    other = await _login(driver.api)
    sr = await driver.api.client.call("SR.introduce", str(uuid.uuid4()), "another", "", "fake", "user", False, {})
    marked = await _login(driver.api)
    await driver.api.client.raw("session.add_to_other_config", marked, marked, "_sm_session", sr)
    for session in (other, marked):
        for method, arguments in SETTERS.items():
            refused = await driver.refused(method, driver.refs[method.partition(".")[0]], *arguments, session=session)
            assert refused[0] == "PERMISSION_DENIED", method
        assert (await driver.refused("VDI.db_forget", driver.refs["VDI"], session=session))[0] == "PERMISSION_DENIED"
    with pytest.raises(XenAPI.Failure, match="PERMISSION_DENIED"):
        await driver.introduced("elsewhere", sr=sr)


async def test_maps_serve_as_locks(driver: Driver) -> None:
    for name in MAPS:
        cls, _, field = name.partition(".")
        ref = driver.refs[cls]
        await driver.call(f"{cls}.add_to_{field}", ref, "lock", "mine")
        refused = await driver.refused(f"{cls}.add_to_{field}", ref, "lock", "mine")
        assert refused[0] == "MAP_DUPLICATE_KEY"
        for _ in range(2):
            assert await driver.call(f"{cls}.remove_from_{field}", ref, "lock") == ""


async def test_of_many_who_lock_at_once_one_does(driver: Driver) -> None:
    ref = driver.refs["VDI"]

    async def lock(number: int) -> bool:
        try:
            await driver.call("VDI.add_to_sm_config", ref, "paused", str(number))
        except XenAPI.Failure as failure:
            return failure.details[0] != "MAP_DUPLICATE_KEY"
        return True

    assert sum(await asyncio.gather(*(lock(number) for number in range(6)))) == 1
    await driver.call("VDI.remove_from_sm_config", ref, "paused")


async def test_rows_are_found_by_expressions_as_drivers_write_them(driver: Driver) -> None:
    sr, host = driver.refs["SR"], driver.refs["host"]
    location = await driver.call("VDI.get_location", driver.refs["VDI"])
    for expression in (
        f'field "SR" = "{sr}" and field "location" = "{location}"',
        f'field "SR" = "{sr}" andfield "location" = "{location}"',
        f'field"SR"="{sr}"and(not field "location" = "other")',
        f'(field "SR" = "{sr}" or false) and true and field "location" = "{location}"',
        f'true or false and field "location" = "{location}"',
    ):
        found = await driver.call("VDI.get_all_records_where", expression)
        assert list(found) == [driver.refs["VDI"]], expression
    found = await driver.call("PBD.get_all_records_where", f'field "SR" = "{sr}" andfield "host" = "{host}"')
    assert list(found) == [driver.refs["PBD"]]
    for cls in WHERE:
        assert await driver.call(f"{cls}.get_all_records_where", 'field "uuid" = "none"') == {}


async def test_a_driver_finds_its_host_by_its_control_domain(driver: Driver) -> None:
    known = await driver.call("VM.get_uuid", driver.refs["VM"])
    [found] = (await driver.call("VM.get_all_records_where", f'field "uuid" = "{known}"')).values()
    assert found["resident_on"] == driver.refs["host"]


async def test_disks_are_introduced_and_forgotten(driver: Driver) -> None:
    new = str(uuid.uuid4())
    ref = await driver.introduced("second", new=new, snapshot_of=driver.refs["VDI"])
    row = driver.api.pool.row("VDI", ref)
    assert (row["uuid"], row["location"], row["virtual_size"], row["sm_config"]) == (new, "second", 4096, {"k": "v"})
    assert row["snapshot_of"] == driver.refs["VDI"]
    with pytest.raises(XenAPI.Failure, match="LOCATION_NOT_UNIQUE"):
        await driver.introduced("second")
    with pytest.raises(XenAPI.Failure, match="UUID_INVALID"):
        await driver.introduced("third", new="not-a-uuid")
    await driver.call("VDI.db_forget", ref)
    assert driver.api.pool.row("VDI", ref) is None
    again = await driver.introduced("second", new=new)
    await driver.api.pool.write(Update(cls="VDI", ref=again, fields={"managed": True}))
    await driver.call("VDI.forget", again)


async def test_messages_tasks_secrets_and_sessions(driver: Driver) -> None:
    sr = await driver.call("SR.get_uuid", driver.refs["SR"])
    message = await driver.call("message.create", "POST_ATTACH_SCAN_FAILED", "2", "SR", sr, "why")
    await driver.call("message.destroy", message)
    task = await driver.call("task.create", "label", "description")
    await driver.call("task.set_status", task, "success")
    await driver.call("task.destroy", task)
    pending = await driver.call("Async.SR.update", driver.refs["SR"])
    await driver.call("task.get_status", pending)
    assert all(model.message(name) for name in ("VM.suspend", "VM.resume", "VDI.snapshot", "task.cancel"))
    secret = await driver.call("secret.create", {"value": "v", "other_config": {}})
    assert await driver.call("secret.get_value", secret) == "v"
    missing = await driver.refused("host.call_plugin", driver.refs["host"], "no-such-plugin", "f", {"a": "b"})
    assert missing == ["XENAPI_MISSING_PLUGIN", "no-such-plugin"]
    session = await _login(driver.api)
    await driver.call("session.logout", session=session)
    assert (await driver.refused("pool.get_all", session=session))[0] == "SESSION_INVALID"


@pytest.mark.parametrize(
    "ask",
    [
        lambda proxy, session: proxy.SR.get_sm_config(session, None),
        lambda proxy, session: proxy.SR.get_by_uuid(None, None),
        lambda proxy, session: proxy.SR.get_by_uuid(session),
        lambda proxy, session: proxy.VDI.db_introduce(session, "too", "few"),
        lambda proxy, session: proxy.VDI.get_all_records_where(session, None),
        lambda proxy, session: proxy.VDI.set_virtual_size(session, NULL, {"not": "a number"}),
        lambda proxy, session: proxy.No.such_message(session),
    ],
)
async def test_wrong_arguments_are_a_failure_in_its_envelope(driver: Driver, ask: Callable[..., Any]) -> None:
    def bare() -> Any:
        proxy = XenAPI.Session("http://localhost/", XenAPI.UDSTransport(path=str(driver.api.site.socket)))
        try:
            return ask(proxy, driver.refs["session"])
        finally:
            proxy("close")()

    reply = await asyncio.to_thread(bare)
    assert reply["Status"] == "Failure"
    assert all(isinstance(part, str) for part in reply["ErrorDescription"])

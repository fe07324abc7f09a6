"""Who may use the HTTP handlers that are not calls, and where their bytes come from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.api import emergency, roles, sessions
from services.api.api import Api
from services.api.decisions.rows import is_null
from services.api.edge.dispatcher import (
    Basic,
    Caller,
    Certificate,
    Credential,
    HttpRefusal,
    PoolSecret,
    Session,
    Trusted,
)
from services.api.identity import certified, is_certified
from services.api.role_rows import HOST_CONSOLES
from shared.contracts import vm as contract
from shared.errors import ApiError


class Access:
    """Credentials of a request, turned into a session for as long as it lasts."""

    def __init__(self, api: Api) -> None:
        self._api = api

    @asynccontextmanager
    async def session(self, caller: Caller, credential: Credential, permission: str) -> AsyncIterator[str]:
        """Raises SESSION_INVALID, SESSION_AUTHENTICATION_FAILED, RBAC_PERMISSION_DENIED, HOST_IS_SLAVE."""
        api = self._api
        match credential:
            case Session(ref):
                await self._catch_up(caller, ref)
                roles.require(api, ref, permission)
                yield ref
                return
            case Trusted():
                yield ""
                return
            case PoolSecret(secret):
                sessions.check_pool_secret(api, caller, secret, "localhost")
                host = api.store.ref_of_uuid("host", caller.host) or api.host_ref
                own = await sessions.open_pool_session(api, caller, host)
            case Basic(user, password):
                originator = f"{caller.user_agent} using Basic auth"
                own = await sessions.login(api, caller, user, password, originator)
            case Certificate():
                if not is_certified(api, caller):
                    raise ApiError("SESSION_AUTHENTICATION_FAILED", "", "Client certificates do not count any more.")
                originator = f"{caller.user_agent} using a certificate"
                own = await sessions.open_session(api, caller, certified(""), originator)
        try:
            roles.require(api, own, permission)
            yield own
        finally:
            await sessions.logout(api, own)

    async def _catch_up(self, caller: Caller, session: str) -> None:
        """A client that the coordinator has sent here may be faster than its session's row."""
        api = self._api
        if api.is_coordinator or api.store.row("session", session) is not None or sessions.is_local(api, session):
            return
        if emergency.reason(api, caller.host) is None:
            await api.database.transact([])


class ConsoleAccess:
    """Finds the console that a request names."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def console_endpoint(self, caller: Caller, session: str, query: dict[str, str], permission: str) -> str:
        """Path of the socket with the console's bytes. `HttpRefusal`: 404 no such console, 500 not on this host.

        Raises RBAC_PERMISSION_DENIED for a host's console, which is not for all who may use the path.
        """
        vm, protocol = self._named(query)
        store = self._api.store
        row = store.row("VM", vm)
        if row is None:
            raise HttpRefusal(500, "there is no such VM")
        if row["is_control_domain"]:
            roles.require(self._api, session, HOST_CONSOLES[permission])
        resident = row["resident_on"]
        host = store.row("host", resident) if not is_null(resident) else None
        if row["power_state"] != "Running" or host is None or host["uuid"] != caller.host:
            raise HttpRefusal(500, "the VM does not run on this host")
        request = contract.ConsoleRequest(vm=row["uuid"], protocol=protocol)
        return (await self._api.bus.call(contract.CONSOLE, request, host=caller.host)).path

    def _named(self, query: dict[str, str]) -> tuple[str, str]:
        """(VM, protocol) for the `ref` or `uuid` of a console, or of a VM (its framebuffer, else its serial line)."""
        store = self._api.store
        ref = query.get("ref", "")
        if not ref:
            uuid = query.get("uuid", "")
            ref = store.ref_of_uuid("console", uuid) or store.ref_of_uuid("VM", uuid) or ""
        console = store.row("console", ref)
        if console is not None:
            return str(console["VM"]), str(console["protocol"])
        vm = store.row("VM", ref)
        if vm is None:
            raise HttpRefusal(500, "there is no such console")
        protocols = [store.get("console", one, "protocol") for one in vm["consoles"]]
        return ref, "rfb" if "rfb" in protocols or not protocols else str(protocols[0])

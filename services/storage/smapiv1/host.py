"""One host's drivers: where they run, the API that they call back, and the calls they get."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.storage.plugins.errors import plugin_failed, volume_missing
from services.storage.plugins.interface import Unimplemented
from services.storage.smapiv1 import process
from services.storage.smapiv1.call import Call, result
from services.storage.smapiv1.marks import Marks
from services.storage.smapiv1.rows import Row
from services.storage.smapiv1.view import View, environment
from services.storage.smapiv1.xapi import NULL, Xapi
from shared.bus import context
from shared.errors import ApiError

log = logging.getLogger("storage.smapiv1")

_ONE_AT_A_TIME: Final = frozenset(("sr_attach", "sr_detach", "sr_probe"))
_FOR_RECOVERY: Final = frozenset(
    (
        *("sr_attach", "sr_detach", "sr_probe", "sr_scan", "sr_content_type"),
        *("vdi_attach", "vdi_detach", "vdi_activate", "vdi_deactivate"),
    )
)
"""What may be done to an SR that disaster recovery has brought in."""

_MAKING: Final = frozenset(("vdi_create", "vdi_clone", "vdi_snapshot"))
"""What makes a disk, whose row the driver writes."""

DRIVER_INFO: Final = "sr_get_driver_info"
_ASKED_AGAIN: Final = 2
"""How often a driver that was killed is asked again what it is: it is no broken one, and nobody else would ask."""

_FAILED: Final = "SR_BACKEND_FAILURE"
_TOLD: Final = 10_000
"""Characters of a driver's output that are told."""


@dataclass(frozen=True, slots=True)
class Program:
    """A driver's executable. `type`: SR type."""

    type: str
    path: str


class DriverHost:
    """`uuid`: of the host. Nothing is opened before somebody asks for something."""

    def __init__(self, uuid: str, xapi: Xapi, view: View) -> None:
        self.uuid = uuid
        self.xapi = xapi
        self.view = view
        self.marks = Marks(view)
        self.configurations: dict[str, Mapping[str, str]] = {}
        """What SRs (references) were attached with, should their PBD have gone."""
        self._ref = ""
        self._serial = asyncio.Lock()
        self._opening = asyncio.Lock()
        self._opened = False

    # -- what it needs -----------------------------------------------------------------------------------------------

    async def ref(self) -> str:
        """The host's reference; its drivers can run from then on. Raises `ApiError`."""
        async with self._opening:
            await self._open()
            if not self._ref:
                ref: str = await self.xapi.call("", "host.get_by_uuid", self.uuid)
                self.view.describe(await self._inventory(ref))
                self._ref = ref
        return self._ref

    async def _open(self) -> None:
        if not self._opened:
            await self.view.open()
            self.marks.load()
            self._opened = True

    async def _inventory(self, ref: str) -> dict[str, str]:
        domain: str = await self.xapi.call("", "host.get_control_domain", ref)
        uuid = "" if domain == NULL else await self.xapi.call("", "VM.get_uuid", domain)
        return {"INSTALLATION_UUID": self.uuid, "CONTROL_DOMAIN_UUID": uuid, "PRIMARY_DISK": ""}

    async def close(self) -> None:
        """What is attached stays attached; a view in which nothing is goes."""
        await self.xapi.logout()
        if self._opened and self.marks.nothing_attached:
            await self.view.close()

    # -- rows --------------------------------------------------------------------------------------------------------

    async def sr_ref(self, uuid: str) -> str:
        ref: str = await self.xapi.call("", "SR.get_by_uuid", uuid)
        return ref

    async def disks(self, sr: str) -> dict[str, Row]:
        """The disks of an SR (reference), by reference."""
        found: dict[str, Row] = await self.xapi.call(sr, "VDI.get_all_records_where", f'field "SR" = "{sr}"')
        return found

    async def disk(self, sr: str, sr_uuid: str, location: str) -> tuple[str, Row]:
        """Raises VDI_MISSING."""
        if not any(character in location for character in '"\\'):
            where = f'field "SR" = "{sr}" and field "location" = "{location}"'
            found = await self.xapi.call(sr, "VDI.get_all_records_where", where)
        else:
            found = await self.disks(sr)
        for ref, row in found.items():
            if row["location"] == location:
                return ref, row
        raise volume_missing(sr_uuid, location)

    async def pbd(self, sr: str) -> Row | None:
        """This host's."""
        where = f'field "SR" = "{sr}" and field "host" = "{await self.ref()}"'
        found = await self.xapi.call(sr, "PBD.get_all_records_where", where)
        return next(iter(found.values()), None)

    async def is_sr_master(self, row: Row) -> bool:
        """Of a shared SR it is the coordinator's host, of any other the only one that has it."""
        if not row["shared"]:
            return True
        pools: dict[str, Row] = await self.xapi.call("", "pool.get_all_records")
        return any(pool["master"] == self._ref for pool in pools.values())

    # -- calls -------------------------------------------------------------------------------------------------------

    async def describe_driver(self, program: Program) -> Any:
        """Needs no API. Raises `ApiError`, `Unimplemented`."""
        async with self._opening:
            await self._open()
        return await self._run(program, Call(DRIVER_INFO, host="", device_config={}), "")

    async def probe(self, program: Program, device_config: Mapping[str, str], sm_config: Mapping[str, str]) -> Any:
        call = Call(
            "sr_probe",
            host=await self.ref(),
            device_config={**device_config, "SRmaster": "true"},
            members=await self._common() | {"sr_sm_config": dict(sm_config)},
        )
        return await self._run(program, call, await self.xapi.session(""))

    async def sr_call(
        self,
        program: Program,
        sr: str,
        command: str,
        *args: str,
        device_config: Mapping[str, str] | None = None,
        master: bool | None = None,
        location: str = "",
        members: Mapping[str, Any] | None = None,
    ) -> Any:
        """`sr`: reference. None: the configuration is that of the host's PBD, and who is master is looked up.

        Raises OPERATION_NOT_ALLOWED, `Unimplemented`, and what the driver says.
        """
        host = await self.ref()
        row = await self.xapi.call(sr, "SR.get_record", sr)
        if row["introduced_by"] != NULL and command not in _FOR_RECOVERY:
            raise ApiError("OPERATION_NOT_ALLOWED", f"the SR is there for disaster recovery: {command} is not done")
        if device_config is None:
            pbd = await self.pbd(sr)
            device_config = pbd["device_config"] if pbd is not None else self.configurations.get(sr, {})
        if master is None:
            master = await self.is_sr_master(row)
        call = Call(
            command,
            host=host,
            device_config={**device_config, "SRmaster": "true" if master else "false"},
            args=args,
            members=await self._common() | {"sr_ref": sr, "sr_uuid": row["uuid"]} | dict(members or {}),
            sr=row["uuid"],
            location=location,
        )
        task = context.current.get().task
        if command in _MAKING and task:
            async with self.xapi.making(sr, task) as session:
                return await self._run(program, call, session)
        return await self._run(program, call, await self.xapi.session(sr))

    async def vdi_call(
        self, program: Program, sr: str, sr_uuid: str, location: str, command: str, *args: str, **members: Any
    ) -> Any:
        """On a disk that has a row. Raises VDI_MISSING and what `sr_call` raises."""
        ref, row = await self.disk(sr, sr_uuid, location)
        known = {
            "vdi_ref": ref,
            "vdi_location": location,
            "vdi_uuid": row["uuid"],
            "vdi_on_boot": row["on_boot"],
            "vdi_allow_caching": "true" if row["allow_caching"] else "false",
        }
        return await self.sr_call(program, sr, command, *args, location=location, members=known | members)

    async def _common(self) -> dict[str, Any]:
        """What every call has that has a session."""
        task = context.current.get().task
        cache: str = await self.xapi.call("", "host.get_local_cache_sr", self._ref)
        found = {} if not task else {"subtask_of": task}
        return found if cache == NULL else found | {"local_cache_sr": await self.xapi.call("", "SR.get_uuid", cache)}

    async def _run(self, program: Program, call: Call, session: str) -> Any:
        if call.command in _ONE_AT_A_TIME:
            async with self._serial:
                return await self._ask(program, call, session)
        return await self._ask(program, call, session)

    async def _ask(self, program: Program, call: Call, session: str) -> Any:
        run = secrets.token_hex(5)
        log.debug("log %s: driver %s: %s", run, program.type, call.command)
        ended = await self._ended(program, call, self.view.command([program.path, call.encoded(session)]))
        try:
            if ended.trouble:
                raise ApiError(_FAILED, f"{call.command}: {ended.trouble}", ended.stdout, ended.stderr)
            return result(call, ended.stdout, ended.stderr)
        except Unimplemented:
            log.info("log %s: driver %s does not know %s", run, program.type, call.command)
            raise
        except ApiError as error:
            log.error("log %s: driver %s: %s: %s: %s", run, program.type, call.command, error, ended.stderr[-_TOLD:])
            if error.code != _FAILED:
                raise
            reason, stdout, stderr = error.params
            raise ApiError(_FAILED, reason, stdout[-_TOLD:], f"{stderr[-_TOLD:]}log {run}") from error

    async def _ended(self, program: Program, call: Call, words: Sequence[str]) -> process.Ended:
        try:
            ended = await process.run(words, environment(self.xapi.socket))
            for _ in range(_ASKED_AGAIN if call.command == DRIVER_INFO else 0):
                if ended.status >= 0:
                    break
                ended = await process.run(words, environment(self.xapi.socket))
            return ended
        except (OSError, ValueError) as error:
            log.error("driver %s: %s cannot be run: %s", program.type, call.command, error)
            raise plugin_failed(f"{program.path} cannot be run", error) from error

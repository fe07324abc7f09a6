"""A driver of SMAPIv1 behind the interface of plug-ins.

Drivers keep what they know of disks in the rows of the database, which they write themselves: what the interface wants
to know is read from there after the driver has been asked. Handles name host and SR; URIs name SR and location.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.storage.plugins.errors import Failure, backend_failure
from services.storage.plugins.interface import Handle, Volume
from services.storage.smapiv1.datapaths import DatapathGroup
from services.storage.smapiv1.host import DriverHost, Program
from services.storage.smapiv1.repositories import SrGroup
from services.storage.smapiv1.rows import volume
from services.storage.smapiv1.volumes import VolumeGroup
from shared.contracts.storage import DriverInfo


@dataclass(frozen=True, slots=True)
class Attached:
    """An SR on a host. `sr`: its reference."""

    host: DriverHost
    sr: str
    uuid: str


class DriverPlugin:
    """`hosts`: of this process, by uuid."""

    traceless = False
    branches_in_use = True
    """Drivers pause what is open (`tapdisk-pause`)."""

    def __init__(self, program: Program, info: DriverInfo, hosts: Mapping[str, DriverHost]) -> None:
        self.program = program
        self.info = info
        self.hosts = hosts
        self._attached: dict[Handle, Attached] = {}
        self.sr = SrGroup(self)
        self.volume = VolumeGroup(self)
        self.datapath = DatapathGroup(self)

    def query(self) -> DriverInfo:
        return self.info

    async def close(self) -> None:
        """The hosts are closed by who made them: drivers share them."""

    def can(self, feature: str) -> bool:
        return feature in self.info.features

    def keep(self, attached: Attached) -> Handle:
        handle = Handle(f"{attached.host.uuid} {attached.uuid}")
        self._attached[handle] = attached
        return handle

    def forget(self, sr: Handle) -> None:
        self._attached.pop(sr, None)

    def of(self, sr: Handle) -> Attached:
        try:
            return self._attached[sr]
        except KeyError:
            raise backend_failure(Failure.SR_UNAVAILABLE, f"not attached: {sr}") from None

    def on(self, host: str, uuid: str) -> Attached:
        """`uuid`: of the SR."""
        return self.of(Handle(f"{host} {uuid}"))

    async def volumes(self, at: Attached) -> list[Volume]:
        rows = await at.host.disks(at.sr)
        uuids = {ref: row["uuid"] for ref, row in rows.items()}
        return [volume(at.uuid, row, uuids) for row in rows.values()]

    async def find(self, at: Attached, location: str) -> Volume:
        """Raises VDI_MISSING."""
        _, row = await at.host.disk(at.sr, at.uuid, location)
        origin = row["snapshot_of"]
        uuids = {}
        if row["is_a_snapshot"]:
            uuids = {ref: one["uuid"] for ref, one in (await at.host.disks(at.sr)).items() if ref == origin}
        return volume(at.uuid, row, uuids)

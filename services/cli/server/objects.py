"""What one command has read of the pool: each object once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.cli.server.xenapi import XenApi
from shared.datamodel.types import NULL_REF
from shared.errors import ApiError

Record = dict[str, Any]


class Objects:
    """A cache over the session, for the time of one look at the pool."""

    def __init__(self, api: XenApi) -> None:
        self.api = api
        self._records: dict[tuple[str, str], Record | None] = {}
        self._complete: set[str] = set()

    async def record(self, cls: str, ref: str) -> Record | None:
        """None if the reference is null or dangling."""
        if ref in (NULL_REF, ""):
            return None
        key = (cls, ref)
        if key not in self._records:
            if cls in self._complete:
                return None
            try:
                self._records[key] = await self.api.call(f"{cls}.get_record", ref)
            except ApiError as error:
                if error.code != "HANDLE_INVALID":
                    raise
                self._records[key] = None
        return self._records[key]

    async def all(self, cls: str) -> dict[str, Record]:
        """All records of a class by reference."""
        records: dict[str, Record] = await self.api.call(f"{cls}.get_all_records")
        self._records.update({(cls, ref): record for ref, record in records.items()})
        self._complete.add(cls)
        return records

    async def prefetch(self, classes: Iterable[str]) -> None:
        """Reads whole classes, for lists long enough that single look-ups would cost more."""
        for cls in sorted(set(classes) - self._complete):
            await self.all(cls)

    async def by_uuid(self, cls: str, uuid: str) -> str:
        """The reference. Raises UUID_INVALID."""
        ref: str = await self.api.call(f"{cls}.get_by_uuid", uuid)
        return ref

    async def uuid(self, cls: str, ref: str) -> str | None:
        record = await self.record(cls, ref)
        return None if record is None else str(record["uuid"])


class Row:
    """One object as the fields of a record class read it. `cls`: its XenAPI class."""

    __slots__ = ("cls", "objects", "record", "ref")

    def __init__(self, objects: Objects, cls: str, ref: str, record: Record) -> None:
        self.objects = objects
        self.cls = cls
        self.ref = ref
        self.record = record

    @property
    def api(self) -> XenApi:
        return self.objects.api

    @property
    def uuid(self) -> str:
        return str(self.record["uuid"])

    @property
    def name(self) -> str:
        return str(self.record.get("name_label", ""))

    async def behind(self, attribute: str, cls: str) -> Record | None:
        """The record that one of this object's references means."""
        return await self.objects.record(cls, self.record[attribute])

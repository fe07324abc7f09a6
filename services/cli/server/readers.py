"""Fields whose value is asked for when it is shown: calls and data sources."""

from __future__ import annotations

from typing import Final

from services.cli.server.objects import Row
from services.cli.server.record import Reader
from services.cli.server.values import MISSING, Value, shown
from shared.datamodel import model
from shared.datamodel.types import RefType
from shared.errors import ApiError

UNKNOWN: Final = "<unknown>"


def called(method: str, *, of_row: bool = True, failing: Value | None = None) -> Reader:
    """The result of a call, of the object unless `of_row` is false. `failing`: shown instead of an error."""
    result = model.messages[method].result

    async def read(row: Row) -> Value:
        try:
            value = await row.api.call(method, *([row.ref] if of_row else []))
        except ApiError:
            if failing is None:
                raise
            return failing
        return await shown(result, value, row.objects)

    return read


async def data_source(row: Row, method: str, ref: str, name: str) -> float | None:
    """The present value of a performance counter; None if there is none (the VM does not run, say)."""
    try:
        return float(await row.api.call(method, ref, name))
    except ApiError:
        return None


def throughput(method: str, owner: str, pattern: str) -> Reader:
    """KiB/s from a counter of bytes. `owner`: the attribute that names its owner; `pattern`: has the device as `{}`."""

    async def read(row: Row) -> Value:
        value = await data_source(row, method, row.record[owner], pattern.format(row.record["device"]))
        return UNKNOWN if value is None else f"{value / 1024:.3f}"

    return read


async def statefiles(row: Row) -> Value:
    """VDIs, kept as text that holds references."""
    return [await row.objects.uuid("VDI", ref) or MISSING for ref in row.record["ha_statefiles"]]


def on_all_hosts(attribute: str) -> Reader:
    """A setting of the hosts, if they agree."""
    type = model.classes["host"].fields[attribute].type

    async def read(row: Row) -> Value:
        found = [
            await shown(type, record[attribute], row.objects) for record in (await row.objects.all("host")).values()
        ]
        return found[0] if found and all(value == found[0] for value in found) else "<inconsistent>"

    return read


async def uuids_behind(row: Row, attribute: str, through: str, link: str) -> list[str]:
    """uuids of the objects that rows of class `through`, held in `attribute`, point to with their field `link`."""
    target = model.classes[through].fields[link].type
    if not isinstance(target, RefType):
        raise TypeError(f"{through}.{link} is no reference")
    uuids = []
    for ref in row.record[attribute]:
        record = await row.objects.record(through, ref)
        uuids.append(MISSING if record is None else await row.objects.uuid(target.cls, record[link]) or MISSING)
    return uuids

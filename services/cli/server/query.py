"""Choosing objects by `field=value` arguments, and showing their fields."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

from services.cli.server.failures import CommandError
from services.cli.server.objects import Objects, Row
from services.cli.server.record import Field, RecordClass
from services.cli.server.values import Value, flat
from shared.errors import ApiError

EXPENSIVE: Final = "<expensive field>"
INVALID: Final = "<invalid reference>"
FEW = 8
"""Up to so many rows, references are looked up one by one; for more, whole classes are read."""

Test = Callable[[Row], Awaitable[bool]]
Filter = tuple[str, str]


async def text(field: Field, row: Row) -> str:
    """A field as shown."""
    return flat(await value(field, row), field.joiner)


async def value(field: Field, row: Row) -> Value:
    try:
        return await field.read(row)
    except ApiError as error:
        if error.code != "HANDLE_INVALID":
            raise
        return INVALID


async def pairs(field: Field, row: Row) -> dict[str, str]:
    """A map field taken apart; nothing if the object behind it is missing."""
    found = await value(field, row)
    return dict(found) if isinstance(found, dict) else {}


async def members(field: Field, row: Row) -> list[str]:
    found = await value(field, row)
    return list(found) if isinstance(found, list | tuple) else []


def test_for(records: RecordClass, key: str, wanted: str) -> tuple[Test, Field] | None:
    """What the argument `key=wanted` asks of a row, and the field it reads; None if there is no such field.

    `field`, `field:key` of a map, `set:contains`, or the old `field-key` (maps first, longest name first).
    Raises `CommandError` for a word after `set:` that is not `contains`.
    """
    if (field := records.fields.get(key)) is not None:
        return _equals(field, wanted), field
    name, colon, rest = key.partition(":")
    if colon:
        field = records.fields.get(name)
        if field is None or not field.view:
            return None
        if field.view == "M":
            return _has_pair(field, rest, wanted), field
        if rest != "contains":
            raise CommandError("Invalid syntax for set filtering (should be set-param:contains=key)")
        return _contains(field, wanted), field
    for field in legacy(records, key, "M"):
        return _has_pair(field, key[len(field.name) + 1 :], wanted), field
    for field in legacy(records, key, "S"):
        if key == f"{field.name}-contains":
            return _contains(field, wanted), field
    return None


def legacy(records: RecordClass, key: str, view: str) -> list[Field]:
    """Fields of that view whose name and a `-` start the key, longest name first."""
    found = [field for field in records.fields.values() if field.view == view and key.startswith(f"{field.name}-")]
    return sorted(found, key=lambda field: len(field.name), reverse=True)


def _equals(field: Field, wanted: str) -> Test:
    async def test(row: Row) -> bool:
        shown = await text(field, row)
        return shown.lower() == wanted.lower() if field.ignore_case else shown == wanted

    return test


def _has_pair(field: Field, key: str, wanted: str) -> Test:
    async def test(row: Row) -> bool:
        return (await pairs(field, row)).get(key) == wanted

    return test


def _contains(field: Field, wanted: str) -> Test:
    async def test(row: Row) -> bool:
        return wanted in await members(field, row)

    return test


async def rows(objects: Objects, records: RecordClass, filters: Sequence[Filter]) -> list[Row]:
    """The objects that pass all filters, in the order the API gives them.

    Raises `CommandError` for an unknown field, if there is anything left to test by then.
    """
    found = await _candidates(objects, records, filters)
    for key, wanted in filters:
        if not found:
            break
        chosen = test_for(records, key, wanted)
        if chosen is None:
            raise CommandError(f"Unknown field '{key}'")
        test, field = chosen
        if len(found) > FEW:
            await objects.prefetch(field.needs)
        found = [row for row in found if await test(row)]
    return found


async def _candidates(objects: Objects, records: RecordClass, filters: Sequence[Filter]) -> list[Row]:
    """All rows of the class; only one is read where a filter names it and those before it are known to be sound."""
    for key, wanted in filters:
        if key == "uuid":
            return await _single(objects, records, wanted)
        if key not in records.fields:
            break
    everything = await objects.all(records.cls)
    return [Row(objects, records.cls, ref, record) for ref, record in everything.items() if records.only(record)]


async def _single(objects: Objects, records: RecordClass, uuid: str) -> list[Row]:
    try:
        ref = await objects.by_uuid(records.cls, uuid)
    except ApiError as error:
        if error.code != "UUID_INVALID":
            raise
        return []
    record = await objects.record(records.cls, ref)
    return [Row(objects, records.cls, ref, record)] if record is not None and records.only(record) else []


async def show(
    found: Sequence[Row], records: RecordClass, names: Collection[str] | None, *, expensive: bool = False
) -> list[list[tuple[str, str]]]:
    """Labels and values of the named fields (None: all), in the order of the record; hidden ones never.

    `expensive`: compute those too, instead of a placeholder.
    """
    fields = [f for f in records.fields.values() if not f.hidden and (names is None or f.name in names)]
    if len(found) > FEW and found:
        needed = {cls for f in fields if expensive or not f.expensive for cls in f.needs}
        await found[0].objects.prefetch(needed)
    return [
        [(f.label, EXPENSIVE if f.expensive and not expensive else await text(f, row)) for f in fields] for row in found
    ]


def names(asked: str | None, default: Collection[str]) -> Collection[str] | None:
    """The fields that `params=` asks for (None: it was not given); the result None means all of them."""
    if asked is None:
        return default or None
    return None if asked == "all" else asked.split(",")

"""The commands that every record class has: `list`, and `param-list`, `-get`, `-set`, `-add`, `-remove`, `-clear`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from services.cli.server.command import Call, Command, Flag, Handler
from services.cli.server.failures import CommandError
from services.cli.server.objects import Objects, Row
from services.cli.server.query import legacy, members, names, pairs, rows, show, text
from services.cli.server.record import Field, RecordClass
from services.cli.server.syntax import STANDARD
from services.cli.server.values import parsed, size
from shared.datamodel import model
from shared.datamodel.types import MapType, SetType
from shared.errors import ApiError

DATABASE = "database:"


def generated(records: RecordClass) -> list[Command]:
    """The commands of one record class; `param-add` and so on only where some field has the operation.

    (`param-clear` is there for every set and map, if only to say that it cannot be cleared: the original has it so.)
    """
    prefix = records.prefix
    fields = records.fields.values()
    writes = {word for field in fields for word in field.write}
    bound = _Bound(records)
    visible = [field for field in fields if not field.hidden]
    contains = [f"{field.name}:contains" for field in visible if field.view == "S"]
    optional = ("params", DATABASE, *(field.name for field in visible), *contains)
    made = [
        replace(
            _command(f"{prefix}-list", bound.list, f"Lists the {prefix} objects that match.", (), optional),
            flags=frozenset({Flag.GENERATED, Flag.STANDARD} if records.standard else {Flag.GENERATED}),
        ),
        _command(f"{prefix}-param-list", bound.param_list, f"Shows all fields of a {prefix}.", ("uuid",), (DATABASE,)),
        _command(
            f"{prefix}-param-get",
            bound.param_get,
            f"Shows one field of a {prefix}.",
            ("uuid", "param-name"),
            ("param-key", DATABASE),
        ),
    ]
    settable = [field for field in visible if "set" in field.write and field.view != "M"]
    maps = [field for field in visible if field.view == "M" and field.write & {"add", "set-key", "set-map"}]
    if settable or maps:
        arguments = (*(field.name for field in settable), *(f"{field.name}:" for field in maps))
        made.append(
            _command(f"{prefix}-param-set", bound.param_set, f"Sets fields of a {prefix}.", ("uuid",), arguments)
        )
    if "add" in writes:
        made.append(
            _command(
                f"{prefix}-param-add",
                bound.param_add,
                f"Adds to a set or map of a {prefix}.",
                ("uuid", "param-name"),
                ("param-key",),
            )
        )
        made.append(
            _command(
                f"{prefix}-param-remove",
                bound.param_remove,
                f"Removes from a set or map of a {prefix}.",
                ("uuid", "param-name", "param-key"),
                (),
            )
        )
    if writes or any(field.view for field in fields):
        made.append(
            _command(
                f"{prefix}-param-clear", bound.param_clear, f"Empties a field of a {prefix}.", ("uuid", "param-name")
            )
        )
    return made


def _command(name: str, run: Handler, help: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Command:
    return Command(name, help, run, required, optional, frozenset({Flag.GENERATED}))


@asynccontextmanager
async def _database(call: Call) -> AsyncIterator[Objects]:
    """The pool's objects, or those of another database that `database:` arguments name."""
    source = call.params.mapping("database")
    if not source:
        yield call.objects
        return
    if set(source) == {"vdi-uuid"}:
        vdi = await call.objects.by_uuid("VDI", source["vdi-uuid"])
        session = await call.api.call("VDI.open_database", vdi)
    elif set(source) == {"filename"}:
        session = await call.api.call("session.create_from_db_file", source["filename"])
    else:
        raise CommandError("Give either database:vdi-uuid or database:filename, not both")
    other = call.api.within(session)
    try:
        yield Objects(other)
    finally:
        await other.logout()


class _Bound:
    """The handlers for one record class."""

    def __init__(self, records: RecordClass) -> None:
        self._records = records

    async def list(self, call: Call) -> None:
        filters = [] if call.params.flag("all") else [*self._records.builtin, *_filters(call)]
        wanted = names(call.params.find("params"), self._records.defaults)
        async with _database(call) as objects:
            found = await rows(objects, self._records, filters)
            await call.printer.table(await show(found, self._records, wanted))

    async def param_list(self, call: Call) -> None:
        async with _database(call) as objects:
            row = await self._row(call, objects)
            await call.printer.table(await show([row], self._records, None, expensive=True))

    async def param_get(self, call: Call) -> None:
        async with _database(call) as objects:
            row = await self._row(call, objects)
            field = self._field(call)
            if "param-key" in call.params and field.view == "M":
                key = call.params["param-key"]
                found = await pairs(field, row)
                if key not in found:
                    raise CommandError(f"Key {key} not found in map")
                await call.printer.items([found[key]])
            else:
                await call.printer.items([await text(field, row)])

    async def param_set(self, call: Call) -> None:
        row = await self._row(call, call.objects)
        whole: dict[str, dict[str, str]] = {}
        known: dict[str, dict[str, str]] = {}
        for key, wanted in call.params:
            if key == "uuid" or key in STANDARD:
                continue
            if (field := self._records.fields.get(key)) is not None:
                await self._set(row, field, wanted)
                continue
            field, name = self._map_key(key)
            if "set-key" in field.write:
                await row.api.call(f"{row.cls}.set_property", row.ref, name, wanted)
            elif "set-map" in field.write:
                whole.setdefault(field.name, {})[name] = wanted
            elif "add" in field.write:
                if field.name not in known:
                    known[field.name] = await pairs(field, row)
                if name in known[field.name]:
                    await _remove(row, field, name)
                await _add(row, field, name, wanted)
            else:
                raise CommandError(f"Map field '{field.name}' is read-only.")
        for name, content in whole.items():
            field = self._records.fields[name]
            await row.api.call(f"{row.cls}.set_{field.attribute}", row.ref, content)

    async def _set(self, row: Row, field: Field, wanted: str) -> None:
        if "set" not in field.write:
            if field.view and field.write:
                raise CommandError(f"Field '{field.name}' is a map or set. use the 'name:key=value' syntax.")
            raise CommandError(f"Field '{field.name}' is read-only.")
        await _set_whole(row, field, wanted)

    def _map_key(self, key: str) -> tuple[Field, str]:
        """The map and the key that `map:key=` or the old `map-key=` means."""
        name, colon, rest = key.partition(":")
        if colon:
            field = self._records.fields.get(name)
            if field is None:
                raise CommandError(f"Unknown field '{key}'")
            if field.view == "S":
                raise CommandError("Cannot param-set on set fields")
            if field.view != "M":
                raise CommandError(f"Field '{name}' is not a set or map")
            return field, rest
        for field in legacy(self._records, key, "M"):
            return field, key[len(field.name) + 1 :]
        raise CommandError(f"Unknown field '{key}'")

    async def param_add(self, call: Call) -> None:
        row = await self._row(call, call.objects)
        field = self._field(call)
        if "add" not in field.write:
            raise CommandError(
                "Parameter is read-only" if field.view else "Can only add to parameters of type Set or Map"
            )
        if field.view == "S":
            if "param-key" not in call.params:
                raise CommandError(
                    "When adding a key to a set, use the syntax: *-param-add param-name=<name> param-key=<key>"
                )
            await _insert(row, field, call.params["param-key"])
            return
        for key, wanted in call.params.besides(("uuid", "param-name", "param-key")):
            await _add(row, field, key, wanted)

    async def param_remove(self, call: Call) -> None:
        row = await self._row(call, call.objects)
        field = self._field(call)
        key = call.params["param-key"]
        if "remove" not in field.write:
            raise CommandError(
                "Cannot remove parameters from read-only map"
                if field.view
                else "Can only remove from parameters of type Set or Map"
            )
        if field.view == "S":
            if key not in await members(field, row):
                raise CommandError(f"Key {key} is not in the set")
            await _withdraw(row, field, key)
        else:
            if key not in await pairs(field, row):
                raise CommandError(f"Key {key} is not in map")
            await _remove(row, field, key)

    async def param_clear(self, call: Call) -> None:
        row = await self._row(call, call.objects)
        field = self._field(call)
        if field.view == "S" and "remove" in field.write:
            for member in await members(field, row):
                await _withdraw(row, field, member)
        elif field.write & {"clear", "set-map"}:
            await row.api.call(f"{row.cls}.set_{field.attribute}", row.ref, {})
        elif field.view == "M" and "remove" in field.write:
            for key in await pairs(field, row):
                await _remove(row, field, key)
        elif "set" in field.write:
            try:
                await _set_whole(row, field, "")
            except (ApiError, CommandError) as error:
                raise CommandError("Cannot clear this parameter") from error
        else:
            raise CommandError("Can only clear RW parameters")

    async def _row(self, call: Call, objects: Objects) -> Row:
        ref = await objects.by_uuid(self._records.cls, call.params["uuid"])
        record = await objects.api.call(f"{self._records.cls}.get_record", ref)
        return Row(objects, self._records.cls, ref, record)

    def _field(self, call: Call) -> Field:
        name = call.params["param-name"]
        field = self._records.fields.get(name)
        if field is None:
            raise ApiError("Missing parameter", name)
        return field


def _filters(call: Call) -> list[tuple[str, str]]:
    """The arguments of a list command that are filters."""
    others = call.params.besides(("params", "database"))
    return [(key, wanted) for key, wanted in others if not key.startswith("database-")]


# ---- writing one field


async def _set_whole(row: Row, field: Field, wanted: str) -> None:
    message = f"{row.cls}.set_{field.attribute}"
    if field.size:
        new: Any = size(field.name, wanted)
    else:
        type = model.messages[message].params[-1].type
        new = await parsed(type, field.name, wanted, row.objects, field=True)
    await row.api.call(message, row.ref, new)


async def _add(row: Row, field: Field, key: str, wanted: str) -> None:
    await _change_map(row, field, f"add_to_{field.attribute}", lambda content: {**content, key: wanted}, key, wanted)


async def _remove(row: Row, field: Field, key: str) -> None:
    def without(content: dict[str, str]) -> dict[str, str]:
        return {name: kept for name, kept in content.items() if name != key}

    await _change_map(row, field, f"remove_from_{field.attribute}", without, key)


async def _change_map(
    row: Row, field: Field, name: str, change: Callable[[dict[str, str]], dict[str, str]], key: str, *rest: str
) -> None:
    """By the message for one key, or by setting the whole map where there is none. Enum keys are parsed."""
    type = model.classes[row.cls].fields[field.attribute].type
    if isinstance(type, MapType):
        key = str(await parsed(type.key, field.name, key, row.objects))
    if f"{row.cls}.{name}" in model.messages:
        await row.api.call(f"{row.cls}.{name}", row.ref, key, *rest)
        return
    content = change(await row.api.call(f"{row.cls}.get_{field.attribute}", row.ref))
    await row.api.call(f"{row.cls}.set_{field.attribute}", row.ref, content)


async def _insert(row: Row, field: Field, member: str) -> None:
    await _change_set(row, field, "add", lambda content, new: content if new in content else [*content, new], member)


async def _withdraw(row: Row, field: Field, member: str) -> None:
    await _change_set(row, field, "remove", lambda content, old: [kept for kept in content if kept != old], member)


async def _change_set(
    row: Row, field: Field, verb: str, change: Callable[[list[Any], Any], list[Any]], member: str
) -> None:
    """By the message for one member, or by setting the whole set where there is none."""
    type = model.classes[row.cls].fields[field.attribute].type
    new = await parsed(type.of, field.name, member, row.objects) if isinstance(type, SetType) else member
    message = f"{row.cls}.{verb}_{field.element or field.attribute}"
    if message in model.messages:
        await row.api.call(message, row.ref, new)
        return
    content = change(await row.api.call(f"{row.cls}.get_{field.attribute}", row.ref), new)
    await row.api.call(f"{row.cls}.set_{field.attribute}", row.ref, content)

"""Commands that are one API call: declared by the message and the parameters that fill it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from services.cli.server.command import Call, Command, Flag, Handler, Selector
from services.cli.server.objects import Row
from services.cli.server.selectors import on_each
from services.cli.server.values import parsed, shown, size
from shared.datamodel import model
from shared.datamodel.types import INT, VOID, MapType, Type

Argument = str | tuple[str, Any]
"""A parameter's name if it is required, or the name and the value it has if it is missing.

`name:` takes all `name:key=value` as a map; `size name` an amount of bytes (`4GiB`). None leaves it and the rest out.
"""


def message(
    name: str,
    method: str,
    *arguments: Argument,
    help: str = "",
    flags: str = "",
    selector: Selector | None = None,
    quiet: bool = False,
    deprecated: str = "",
    required: str = "",
) -> Command:
    """Calls `method` with the arguments in order, parsed by the types the data model gives them; prints the result.

    With a `selector` the selected object comes first. References are printed as uuids. `quiet`: print nothing.
    `required`: the order in which missing parameters are complained about, where it is another.
    """
    declared = model.messages[method]
    types = [param.type for param in declared.params][1 if selector else 0 :]
    if len(arguments) > len(types):
        raise TypeError(f"{name}: {method} does not take {len(arguments)} arguments")

    async def once(call: Call, *first: str) -> list[str]:
        given = await _given(call, arguments, types)
        result = await call.api.call(method, *first, *given)
        if quiet or declared.result is VOID:
            return []
        value = await shown(declared.result, result, call.objects)
        return [value] if isinstance(value, str) else _lines(value)

    async def run(call: Call) -> None:
        if selector is None:
            found = await once(call)
        else:

            async def on(row: Row) -> list[str]:
                return await once(call, row.ref)

            found = [line for lines in await on_each(call, on) for line in lines]
        if found or not (quiet or declared.result is VOID):
            await call.printer.items(found)

    made = _declared(name, run, help or declared.doc, arguments, flags, selector, deprecated)
    return replace(made, required=tuple(required.split())) if required else made


def create(
    name: str, cls: str, fields: Mapping[str, Argument], *, help: str = "", flags: str = "", **constant: Any
) -> Command:
    """Calls `<cls>.create` with a record of the fields (attribute: argument) and constants; prints the new uuid."""
    attributes = model.classes[cls].fields
    types = [attributes[attribute].type for attribute in fields]
    arguments = tuple(fields.values())

    async def run(call: Call) -> None:
        given = await _given(call, arguments, types)
        ref = await call.api.call(f"{cls}.create", {**constant, **dict(zip(fields, given, strict=True))})
        await call.print_uuid(cls, ref)

    return _declared(name, run, help or model.messages[f"{cls}.create"].doc, arguments, flags, None, "")


def _declared(
    name: str,
    run: Handler,
    help: str,
    arguments: tuple[Argument, ...],
    flags: str,
    selector: Selector | None,
    deprecated: str,
) -> Command:
    return Command(
        name,
        " ".join(help.split()),
        run,
        tuple(_bare(argument) for argument in arguments if isinstance(argument, str)),
        tuple(_bare(argument[0]) for argument in arguments if not isinstance(argument, str)),
        frozenset(Flag(flag) for flag in flags.split()),
        selector,
        deprecated=deprecated,
    )


def _bare(name: str) -> str:
    return name.removeprefix("size ")


async def _given(call: Call, arguments: tuple[Argument, ...], types: list[Type]) -> list[Any]:
    values: list[Any] = []
    for argument, type in zip(arguments, types, strict=False):
        spelling, default = (argument, None) if isinstance(argument, str) else argument
        name = _bare(spelling)
        if isinstance(type, MapType):
            values.append(call.params.mapping(name.removesuffix(":")))
        elif name in call.params:
            text = call.params[name]
            sized = spelling != name and type is INT
            values.append(size(name, text) if sized else await parsed(type, name, text, call.objects))
        elif default is None:
            break
        else:
            values.append(default)
    return values


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{key}: {item}" for key, item in value.items()]
    return list(value)

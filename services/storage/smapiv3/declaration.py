"""Reading the declaration of the interfaces: names, parameters and types of a function."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec


@dataclass(frozen=True)
class Function:
    """`name`: `<Interface>.<function>`, the name of its script. `parameters`: name to type, in order, without `dbg`."""

    name: str
    doc: str
    parameters: dict[str, Any]
    returns: Any

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """By name, as a script gets them."""
        return dict(zip(self.parameters, args, strict=False)) | kwargs


@cache
def function(declared: Callable[..., Any]) -> Function:
    """Of a method of an interface, such as `interface_v5.SR.attach`."""
    hints = get_type_hints(declared)
    returns = hints.pop("return")
    return Function(name=declared.__qualname__, doc=inspect.getdoc(declared) or "", parameters=hints, returns=returns)


def functions(interface: type) -> Iterator[Function]:
    """In the order in which they are declared."""
    for name, member in vars(interface).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            yield function(member)


_SCALARS: dict[Any, str] = {str: "string", int: "int", bool: "bool", float: "float", type(None): "null"}


def shape(kind: Any) -> Any:
    """A type as plain data: a scalar's name, or [constructor, ...]. See `bindings/xapi/storage/api/v5/dispatch.py`."""
    if kind in _SCALARS:
        return _SCALARS[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is list:
        return ["list", shape(arguments[0])]
    if origin is dict:
        return ["dict", shape(arguments[1])]
    if origin is tuple:
        return ["tuple", [shape(argument) for argument in arguments]]
    if origin is Literal:
        return ["enum", list(arguments)]
    if origin in (Union, types.UnionType):
        others = [argument for argument in arguments if argument is not type(None)]
        inner = shape(others[0]) if len(others) == 1 else _variant(others)
        return ["optional", inner] if len(others) < len(arguments) else inner
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind.__struct_config__.tag is not None:
            return _variant([kind])
        fields = msgspec.structs.fields(kind)
        return ["record", {field.encode_name: [shape(field.type), field.required] for field in fields}]
    raise TypeError(f"no type of SMAPIv3: {kind!r}")


def _variant(cases: list[Any]) -> Any:
    return ["variant", {case.__struct_config__.tag: shape(get_type_hints(case)["value"]) for case in cases}]

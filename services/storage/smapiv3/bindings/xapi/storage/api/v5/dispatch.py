"""What the generated interfaces stand on: checking values against declared types, and running one function.

A type is a scalar's name ("string", "int", "bool", "float", "null") or a list that begins with its constructor:
["list", T], ["dict", T] (keys are strings), ["tuple", [T, ...]], ["enum", [text, ...]], ["optional", T],
["record", {member: [T, required]}], ["variant", {case: T}].
"""

from __future__ import annotations

import json
import sys

from .... import TypeError as WrongType
from .... import UnknownMethod, UnmarshalException, handle_exception

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Type = Any

_SCALARS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (float, int),
    "null": (type(None),),
}


class Function:
    """`parameters`: name and type, in order; `dbg` is the first."""

    def __init__(self, doc: str, parameters: list[tuple[str, Type]], returns: Type) -> None:
        self.doc, self.parameters, self.returns = doc, parameters, returns


def check(value: Any, kind: Type, where: str) -> None:
    """Raises TypeError (ours) or UnmarshalException, naming the place."""
    if isinstance(kind, str):
        # a bool is an int to Python, and not to the interface
        if not isinstance(value, _SCALARS[kind]) or (isinstance(value, bool) and kind != "bool"):
            raise WrongType(f"{kind} ({where})", repr(value))
        return
    constructor, inner = kind
    if constructor == "optional":
        if value is not None:
            check(value, inner, where)
    elif constructor == "list":
        for number, each in enumerate(_instance(value, (list, tuple), "list", where)):
            check(each, inner, f"{where}[{number}]")
    elif constructor == "dict":
        for key, each in _instance(value, (dict,), "dict", where).items():
            check(key, "string", f"key of {where}")
            check(each, inner, f"{where}[{key!r}]")
    elif constructor == "tuple":
        _instance(value, (list, tuple), f"array of {len(inner)}", where)
        if len(value) != len(inner):
            raise WrongType(f"array of {len(inner)} ({where})", repr(value))
        for number, (each, one) in enumerate(zip(value, inner)):  # noqa: B905 (they have the same length)
            check(each, one, f"{where}[{number}]")
    elif constructor == "enum":
        if value not in inner:
            raise UnmarshalException(value, where, f"one of {', '.join(inner)}")
    elif constructor == "record":
        _instance(value, (dict,), "record", where)
        for member, (one, required) in inner.items():
            if member in value:
                check(value[member], one, f"{where}.{member}")
            elif required:
                raise UnmarshalException(value, where, f"it has no member {member}")
    else:
        _instance(value, (list, tuple), "variant", where)
        if len(value) != 2 or value[0] not in inner:
            raise UnmarshalException(value, where, f"one of {', '.join(inner)}, with its value")
        check(value[1], inner[value[0]], f"{where}.{value[0]}")


def _instance(value: Any, kinds: tuple[type, ...], name: str, where: str) -> Any:
    if not isinstance(value, kinds):
        raise WrongType(f"{name} ({where})", repr(value))
    return value


class Dispatcher:
    """Calls an implementation's functions with checked arguments, and checks what they return."""

    _functions: dict[str, Function] = {}

    def __init__(self, impl: object) -> None:
        self._impl = impl

    def _call(self, name: str, args: Any) -> Any:
        if not isinstance(args, dict):
            raise UnmarshalException("arguments", args, "a dict of named parameters")
        function = self._functions[name]
        for parameter, kind in function.parameters:
            if parameter not in args:
                raise UnmarshalException("argument missing", parameter, "")
            check(args[parameter], kind, parameter)
        implementation: Callable[..., Any] = getattr(self._impl, name)
        result = implementation(*(args[parameter] for parameter, _ in function.parameters))
        check(result, function.returns, "result")
        return result

    def _dispatch(self, method: str, params: list[Any]) -> Any:
        """`method`: `<Interface>.<function>`. `params`: one dict."""
        name = method.rpartition(".")[2]
        if name not in self._functions:
            raise UnknownMethod(method)
        return self._call(name, params[0])


class CommandLine:
    """A program for each function. Its arguments are on the command line, or with --json in a line on its input."""

    _functions: dict[str, Function] = {}
    _dispatcher: type[Dispatcher] = Dispatcher

    def __init__(self, impl: object) -> None:
        self._impl = impl

    def _main(self, name: str) -> None:
        machine = "--json" in sys.argv or "-j" in sys.argv
        try:
            args = json.loads(sys.stdin.readline()) if machine else _parse(self._functions[name])
            print(json.dumps(self._dispatcher(self._impl)._call(name, args)))
        except Exception as error:
            if not machine:
                raise
            _to_log(error)
            handle_exception(error)


def _to_log(error: Exception) -> None:
    """Where it happened, for who reads the log; on standard error, as standard output is the answer."""
    import traceback

    traceback.print_exception(type(error), error, error.__traceback__)


def _parse(function: Function) -> dict[str, Any]:
    """Parameters in the order of their declaration; dicts as repeated `--<name> KEY VALUE`."""
    import argparse

    from ....list_action import ListAction

    parser = argparse.ArgumentParser(description=function.doc)
    parser.add_argument("-j", "--json", action="store_true", help="read JSON from standard input, print JSON")
    for name, kind in function.parameters:
        if isinstance(kind, list) and kind[0] == "dict":
            parser.add_argument(
                "--" + name, default={}, nargs=2, action=ListAction, metavar=("KEY", "VALUE"), help="may be repeated"
            )
        else:
            parser.add_argument(name, type=_READERS.get(kind, str) if isinstance(kind, str) else json.loads)
    args = vars(parser.parse_args())
    del args["json"]
    return args


_READERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": lambda text: text.lower() in ("true", "yes", "1"),
}

"""The Python packages that SMAPIv3 plug-ins import: `xapi`, `xapi.storage`, and `xapi.storage.api.v5`.

What is the same for every interface lies in `xapi/` beside this file and is copied. The modules of the interfaces are
made from their declaration (`interface_v5`). Scripts run with the result on their PYTHONPATH, by the system's own
Python, so nothing of this service is imported there.
"""

from __future__ import annotations

import os
import pprint
from collections.abc import Iterator
from pathlib import Path

from services.storage.smapiv3 import interface_v5
from services.storage.smapiv3.declaration import Function, functions, shape

COMMON = Path(__file__).parent / "xapi"
_VERSIONED = Path("xapi/storage/api/v5")


def write(folder: Path) -> None:
    """Puts the packages into a folder. Each file is replaced as a whole, and only if it is another: scripts may run."""
    for path, text in sources():
        target = folder / path
        if target.is_file() and target.read_text() == text:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.new")
        beside.write_text(text)
        os.replace(beside, target)


def sources() -> Iterator[tuple[Path, str]]:
    """Path in the folder, and text."""
    for path in sorted(COMMON.rglob("*.py")):
        yield "xapi" / path.relative_to(COMMON), path.read_text()
    for name, interfaces in interface_v5.MODULES.items():
        exceptions = interface_v5.MODULE_EXCEPTIONS.get(name, (interface_v5.UNIMPLEMENTED,))
        yield _VERSIONED / f"{name}.py", module(interfaces, exceptions)


def module(interfaces: tuple[type, ...], exceptions: tuple[str, ...]) -> str:
    """The text of one module: its exceptions, and three classes for each interface."""
    names = " and ".join(interface.__name__ for interface in interfaces)
    parts = [
        f'"""{names}: made from the declaration of SMAPIv3; changes are lost."""\n\n'
        "from __future__ import annotations\n\n"
        "import xapi\n"
        "from xapi.storage.api.v5.dispatch import CommandLine, Dispatcher, Function\n",
        *(_exception(name) for name in exceptions),
        *(text for interface in interfaces for text in _interface(interface)),
    ]
    return "\n\n".join(parts)


def _exception(name: str) -> str:
    base = "xapi.Unimplemented" if name == interface_v5.UNIMPLEMENTED else "xapi.Rpc_light_failure"
    return _block(
        f"class {name}({base}):",
        f'    """{interface_v5.EXCEPTIONS[name]}"""',
        "",
        "    def __init__(self, arg_0):",
        "        if not isinstance(arg_0, str):",
        '            raise xapi.TypeError("string", repr(arg_0))',
        f'        xapi.Rpc_light_failure.__init__(self, "{name}", [arg_0])',
        "        self.arg_0 = arg_0",
    )


def _interface(interface: type) -> Iterator[str]:
    name = interface.__name__
    doc = (interface.__doc__ or "").strip()
    declared = {_method(each): each for each in functions(interface)}
    yield _block(f"_{name} = {{", *(_entry(method, each) for method, each in declared.items()), "}")
    yield _block(
        f"class {name}_skeleton:",
        f'    """{doc}"""',
        *(_stub(method, each) for method, each in declared.items()),
    )
    yield _block(
        f"class {name}_server_dispatcher(Dispatcher):",
        f'    """Calls an implementation of {name} with checked arguments, and checks what it returns."""',
        "",
        f"    _functions = _{name}",
        *(_forward(method, "args", f'return self._call("{method}", args)') for method in declared),
    )
    yield _block(
        f"class {name}_commandline(CommandLine):",
        f'    """A program for each function of {name}."""',
        "",
        f"    _functions = _{name}",
        f"    _dispatcher = {name}_server_dispatcher",
        *(_forward(method, "", f'self._main("{method}")') for method in declared),
    )


def _method(declared: Function) -> str:
    return declared.name.rpartition(".")[2]


def _entry(method: str, declared: Function) -> str:
    parameters = [("dbg", "string"), *((name, shape(kind)) for name, kind in declared.parameters.items())]
    value = f"{declared.doc!r},\n{pprint.pformat(parameters)},\n{pprint.pformat(shape(declared.returns))},"
    return f"    {method!r}: Function(\n" + "\n".join("        " + line for line in value.splitlines()) + "\n    ),"


def _stub(method: str, declared: Function) -> str:
    parameters = ", ".join(["self", "dbg", *declared.parameters])
    doc = "\n".join("        " + line if number else line for number, line in enumerate(declared.doc.splitlines()))
    return f'\n    def {method}({parameters}):\n        """{doc}"""\n        raise Unimplemented("{declared.name}")'


def _forward(method: str, parameter: str, body: str) -> str:
    return f"\n    def {method}(self{', ' + parameter if parameter else ''}):\n        {body}"


def _block(*lines: str) -> str:
    return "\n".join(lines) + "\n"

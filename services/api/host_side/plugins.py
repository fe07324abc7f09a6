"""Plug-ins and extensions: programs that an administrator has put into two folders of the host (host-services 4).

A plug-in gets one argument, the XML-RPC text of a call of one of its functions with a session and a map of texts; an
extension carries out a method of the API that xapi does not have, the call is its input. Both print an XML-RPC response
that holds a Status, as every XenAPI response.
"""

from __future__ import annotations

import os
import re
import xmlrpc.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from xml.parsers.expat import ExpatError

from services.api.host_side.programs import Ended, TimedOut, run
from shared import driver_view
from shared.contracts.host import ExtensionCall, Flag, Name, PluginCall, Text
from shared.errors import ApiError

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_METHOD: Final = re.compile(r"[A-Za-z_]\w*\.[A-Za-z_]\w*")


class Programs:
    """`plugins`, `extensions`: the two folders, which need not exist. `socket`: the API's, for what they call.

    `timeout`: seconds after which one that still runs is killed. `namespace`: the mount namespace of the host's storage
    drivers, if there is one; plug-ins that drivers call know the same paths. `bundled`: a folder of plug-ins that come
    with us; those of the same name in `plugins` are taken before them.
    """

    def __init__(
        self,
        plugins: Path,
        extensions: Path,
        socket: str,
        timeout: float,
        namespace: Path | None = None,
        bundled: Path | None = None,
    ) -> None:
        self._plugins = plugins
        self._extensions = extensions
        self._timeout = timeout
        self._namespace = namespace
        self._bundled = bundled
        modules = str(driver_view.MODULES)
        self._environment = {"PATH": _PATH, "LANG": "C.UTF-8", "XAPI_SOCKET": socket, "PYTHONPATH": modules}

    async def call_plugin(self, request: PluginCall) -> Text:
        """Raises XENAPI_MISSING_PLUGIN, XENAPI_PLUGIN_FAILURE, and what the plug-in says."""
        program = _program(self._plugins, request.plugin)
        if program is None and self._bundled is not None:
            program = _program(self._bundled, request.plugin)
        if program is None:
            raise ApiError("XENAPI_MISSING_PLUGIN", request.plugin)
        call = xmlrpc.client.dumps((request.session, request.arguments), request.function)
        try:
            command = [str(program), call]
            if self._namespace is not None and driver_view.is_kept(self._namespace):
                command = driver_view.entered(self._namespace, command)
            ended = await run(command, timeout=self._timeout, environment=self._environment)
        except TimedOut as late:
            raise _failure("timed out", late.ended.stdout, late.ended.stderr) from None
        except OSError as error:
            raise _failure("cannot be run", "", error.strerror or str(error)) from None
        if ended.signal:
            raise _failure(f"signal: {ended.signal}", ended.stdout, ended.stderr)
        if ended.status:
            raise _failure("non-zero exit", ended.stdout, ended.stderr)
        return Text(text=plugin_result(ended.stdout))

    async def has_extension(self, request: Name) -> Flag:
        return Flag(value=_extension(self._extensions, request.name) is not None)

    async def call_extension(self, request: ExtensionCall) -> Text:
        """The text it prints. Raises MESSAGE_METHOD_UNKNOWN; INTERNAL_ERROR [path, reason, stdout, stderr]."""
        program = _extension(self._extensions, request.name)
        if program is None:
            raise ApiError("MESSAGE_METHOD_UNKNOWN", request.name)

        def failed(reason: str, ended: Ended) -> ApiError:
            return ApiError("INTERNAL_ERROR", program, reason, ended.stdout, ended.stderr)

        command = [str(program), "--xmlrpc"]
        try:
            ended = await run(
                command, stdin=request.request.encode(), timeout=self._timeout, environment=self._environment
            )
        except TimedOut as late:
            raise failed("timed out", late.ended) from None
        except OSError as error:
            raise failed(error.strerror or str(error), Ended(0, "", "")) from None
        if ended.status:
            raise failed(f"signal: {ended.signal}" if ended.signal else f"exit status {ended.status}", ended)
        return Text(text=ended.stdout)


def _program(folder: Path, name: str) -> Path | None:
    """The entry of exactly that name: no name leads out of the folder."""
    try:
        found = name in os.listdir(folder)
    except OSError:
        return None
    path = folder / name
    return path if found and path.is_file() and os.access(path, os.X_OK) else None


def _extension(folder: Path, method: str) -> Path | None:
    return _program(folder, method) if _METHOD.fullmatch(method) else None


def _failure(status: str, stdout: object, stderr: object) -> ApiError:
    return ApiError("XENAPI_PLUGIN_FAILURE", status, stdout, stderr)


def plugin_result(output: str) -> str:
    """What a plug-in's response holds: a text. Raises XENAPI_PLUGIN_FAILURE, or the failure that it tells of."""
    try:
        value = response(output)
    except xmlrpc.client.Fault as fault:
        raise _failure("fault", fault.faultCode, fault.faultString) from None
    except (Unreadable, NoDescription) as problem:
        raise _failure("failed to parse plugin output", output, problem) from None
    if isinstance(value, str):
        return value
    raise _failure("unexpected XMLRPC result", output, "it is not a string")


class Unreadable(Exception):
    """A text is no XML-RPC response with a Status."""


class NoDescription(Exception):
    """A Failure whose description is no list of texts. `value`: what it is."""

    def __init__(self, value: Any) -> None:
        super().__init__(f"the failure's description is {value!r}")
        self.value = value


def response(output: str) -> Any:
    """The Value in a response. Raises `Unreadable`, `Fault`, `NoDescription`, and the error that a Failure gives."""
    try:
        (envelope,), _ = xmlrpc.client.loads(output)
    except xmlrpc.client.Fault:
        raise
    except (ExpatError, xmlrpc.client.Error, ValueError, TypeError, KeyError, IndexError) as error:
        raise Unreadable(error or type(error).__name__) from None
    if not isinstance(envelope, Mapping):
        raise Unreadable("there is no Status in it")
    if envelope.get("Status") == "Success":
        return envelope.get("Value", "")
    if envelope.get("Status") != "Failure":
        raise Unreadable("it is neither a Success nor a Failure")
    description = envelope.get("ErrorDescription")
    if isinstance(description, list) and description and all(isinstance(part, str) for part in description):
        raise ApiError(*description)
    raise NoDescription(description)

"""The plug-in for programs outside: each method of the interface is one run of the program (`docs/directory.md`).

The call comes on standard input, as for extensions, since it may hold a password.
"""

from __future__ import annotations

import os
import re
import xmlrpc.client
from pathlib import Path
from typing import Any, Final

from services.api.directory.plugin import AuthFailure, Configuration, ServiceError, SubjectNotFound, Tag
from services.api.host_side.plugins import Unreadable, response
from services.api.host_side.programs import TimedOut, run
from shared.errors import ApiError

PATIENCE: Final = 60.0
"""Seconds that one run may take."""

LONGEST_ERROR: Final = 1000
"""Characters of standard error that are told."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def find(folder: Path, name: str) -> Path | None:
    """The program of exactly that name. One that others than its owner may write is none of ours."""
    if not _NAME.fullmatch(name):
        return None
    path = folder / name
    try:
        status = path.stat()
    except OSError:
        return None
    owners = (0, os.geteuid())
    if not path.is_file() or status.st_uid not in owners or status.st_mode & 0o022 or not os.access(path, os.X_OK):
        return None
    return path


def _is_text(value: str) -> bool:
    """Whether XML can hold it."""
    return _NOT_XML.search(value) is None


class ProgramPlugin:
    """See `Plugin`. The program is told `auth_type`, `service_name` and the configuration with every call."""

    def __init__(self, path: Path, service_name: str, config: Configuration) -> None:
        self._path = path
        self._about = {"auth_type": path.name, "service_name": service_name}
        self._config = dict(config)

    async def authenticate_username_password(self, name: str, password: str) -> str:
        return await self._login("authenticate_username_password", name=name, password=password)

    async def authenticate_ticket(self, ticket: str) -> str:
        return await self._login("authenticate_ticket", ticket=ticket)

    async def _login(self, function: str, **arguments: str) -> str:
        if not all(map(_is_text, arguments.values())):
            raise AuthFailure("the name or password holds characters that cannot be passed on")
        return self._text(await self._call(function, **arguments))

    async def get_subject_identifier(self, name: str) -> str:
        return self._text(await self._call("get_subject_identifier", name=self._askable(name)))

    async def query_subject_information(self, identifier: str) -> dict[str, str]:
        answer = await self._call("query_subject_information", identifier=self._askable(identifier))
        if not isinstance(answer, dict) or not all(isinstance(value, str) for value in answer.values()):
            raise self._misbehaved("a struct of strings")
        if not answer.get("subject-name"):
            raise self._misbehaved("subject-name")
        return answer

    async def query_group_membership(self, identifier: str) -> list[str]:
        answer = await self._call("query_group_membership", identifier=self._askable(identifier))
        if not isinstance(answer, list) or not all(isinstance(value, str) for value in answer):
            raise self._misbehaved("an array of strings")
        return answer

    async def on_enable(self, config: Configuration) -> None:
        await self._call("on_enable")

    async def on_disable(self, config: Configuration) -> None:
        self._config.update(config)
        await self._call("on_disable")

    async def on_xapi_initialize(self, system_boot: bool) -> None:
        await self._call("on_xapi_initialize", system_boot="true" if system_boot else "false")

    async def on_xapi_exit(self) -> None:
        await self._call("on_xapi_exit")

    async def set_ldaps(self, ldaps: bool, force: bool) -> dict[str, str]:
        wanted = "true" if ldaps else "false"
        await self._call("set_ldaps", ldaps=wanted, force="true" if force else "false")
        return {"ldaps": wanted}

    # ---- calls

    async def _call(self, function: str, **arguments: str) -> Any:
        told = {**self._about, "config": self._config, **arguments}
        output = await self._run(xmlrpc.client.dumps((told,), function).encode())
        try:
            return response(output)
        except ApiError as failure:
            raise _meaning(failure) from failure
        except xmlrpc.client.Fault as fault:
            raise self._trouble(f"fault {fault.faultCode}: {fault.faultString}") from fault
        except Unreadable as error:
            raise self._trouble(f"its answer cannot be read: {error}") from error

    async def _run(self, call: bytes) -> str:
        try:
            ended = await run([str(self._path), "--xmlrpc"], stdin=call, timeout=PATIENCE)
        except TimedOut as error:
            raise ServiceError(Tag.E_UNAVAILABLE, f"{self._path.name} takes too long to answer") from error
        except OSError as error:
            raise self._trouble(str(error)) from error
        if ended.status:
            raise self._trouble(f"{ended.signal or f'status {ended.status}'}: {ended.stderr.strip()[-LONGEST_ERROR:]}")
        return ended.stdout

    def _trouble(self, text: str) -> ServiceError:
        return ServiceError(Tag.E_GENERIC, f"{self._path.name}: {text}")

    def _askable(self, text: str) -> str:
        if not _is_text(text):
            raise SubjectNotFound("the name holds characters that cannot be passed on")
        return text

    def _text(self, answer: Any) -> str:
        if not isinstance(answer, str) or not answer:
            raise self._misbehaved("an identifier")
        return answer

    def _misbehaved(self, wanted: str) -> ServiceError:
        return self._trouble(f"it did not answer {wanted}")


def _meaning(failure: ApiError) -> Exception:
    """Failures that the interface knows by their code; any other is the program's own trouble."""
    message = " ".join(failure.params)
    if failure.code == "AUTH_FAILURE":
        return AuthFailure(message)
    if failure.code == "NOT_FOUND":
        return SubjectNotFound(message)
    tag = Tag.__members__.get(failure.code)
    return ServiceError(tag, message) if tag is not None else ServiceError(Tag.E_GENERIC, str(failure))

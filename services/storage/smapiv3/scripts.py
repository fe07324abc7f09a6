"""One plug-in's folder: finding the script of a function, and calling it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import msgspec

from services.storage.plugins.errors import unimplemented
from services.storage.plugins.interface import ActivatedOnAnotherHost, Unimplemented
from services.storage.smapiv3 import compat, failures
from services.storage.smapiv3.declaration import Function, function
from services.storage.smapiv3.failures import Subject
from services.storage.smapiv3.interface_v5 import SR, Datapath, Plugin, Volume
from services.storage.smapiv3.run import Outcome, new_run, run
from shared.bus import context
from shared.errors import ApiError

log = logging.getLogger("storage.smapiv3")

P = ParamSpec("P")
R = TypeVar("R")

NEEDED = frozenset(
    function(declared).name
    for declared in (
        *(Plugin.query, SR.create, SR.attach, SR.detach, SR.destroy, SR.stat, SR.ls),
        *(Volume.create, Volume.destroy, Volume.stat),
        *(Datapath.attach, Datapath.activate, Datapath.deactivate, Datapath.detach),
    )
)
"""What every plug-in has to have: without the script it is broken. Without another, it cannot do something."""


class Scripts:
    """`version`: of the interface that the plug-in asked for, once it was asked. `bindings`: folder of the packages
    that scripts may import.
    """

    def __init__(self, folder: Path, bindings: Path) -> None:
        self.folder = folder
        self.version = compat.LATEST
        self._bindings = bindings
        self._names: dict[str, str] = {}

    async def has(self, declared: Callable[..., Any]) -> bool:
        """Whether there is a script for a function that can be run."""
        path = await asyncio.to_thread(self._find, function(declared).name)
        return path is not None and os.access(path, os.X_OK)

    def calls(self, host: str = "", sr: str = "") -> Calls:
        """`host`: uuid of the one it is done on. `sr`: uuid of the SR it is about."""
        return Calls(self, host, sr)

    async def call(self, host: str, subject: Subject, called: Function, given: dict[str, Any]) -> Any:
        """Raises ApiError (SCRIPT_MISSING, SCRIPT_NOT_EXECUTABLE, SCRIPT_FAILED, SCRIPT_RETURNED_RPC_ERROR, or what the
        script reports), `Unimplemented`, `ActivatedOnAnotherHost`.
        """
        arguments = compat.arguments(self.version, called.name, given)
        script = await asyncio.to_thread(self._find, called.name)
        if script is None:
            if compat.may_be_missing(self.version, called.name):
                return None
            if called.name not in NEEDED:
                raise Unimplemented(f"{called.name}: {self.folder} has no such script")
            raise failures.missing(self.folder / called.name)
        if not os.access(script, os.X_OK):
            raise failures.not_executable(script)
        name = new_run()
        log.info("%s: running %s", name, script)
        try:
            outcome = await run(name, script, _encoded(name, arguments), self._environment(host))
        except OSError as error:
            outcome = Outcome(name, error.errno or -1, b"", str(error))
            raise failures.failed(script, "it cannot be started", error.strerror, outcome) from error
        if outcome.status or outcome.endless:
            raise _foreseen(called, _failure(script, outcome, subject), subject)
        return _result(script, outcome, called, lambda raw: compat.result(self.version, called.name, given, raw))

    def _find(self, name: str) -> Path | None:
        """Names are matched without regard to case: `Plugin.Query` is common."""
        for attempt in range(2):
            known = self._names.get(name.lower())
            if known is not None and (self.folder / known).is_file():
                return self.folder / known
            if not attempt:
                try:
                    self._names = {entry.lower(): entry for entry in sorted(os.listdir(self.folder), reverse=True)}
                except OSError:
                    return None
        return None

    def _environment(self, host: str) -> dict[str, str]:
        """That of the service, without its own Python. `INSTALLATION_UUID`: the host, as its inventory calls it."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        return inherited | {"PYTHONPATH": str(self._bindings)} | ({"INSTALLATION_UUID": host} if host else {})


class Calls(NamedTuple):
    """`await calls(SR.stat, sr=...)` runs the script of a declared function; arguments and result have its types."""

    scripts: Scripts
    host: str
    sr: str

    async def __call__(self, declared: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Raises what `Scripts.call` raises."""
        called = function(declared)
        given = called.arguments(args, kwargs)
        subject = Subject(self.sr, str(given.get("key") or given.get("uri") or ""))
        result: R = await self.scripts.call(self.host, subject, called, given)
        return result


def _encoded(name: str, arguments: dict[str, Any]) -> bytes:
    """`dbg` names the run and the task it is part of, for the plug-in's own words."""
    task = context.current.get().task
    return msgspec.json.encode({"dbg": f"{name} {task}" if task else name, **arguments}) + b"\n"


def _failure(script: Path, outcome: Outcome, subject: Subject) -> Exception:
    error = failures.reported(script, outcome, subject)
    log.warning(
        "%s: %s ended with status %d: %s; it printed: %s",
        *(outcome.run, script, outcome.status, error, outcome.stdout[:4096].decode(errors="replace")),
    )
    return error


def _foreseen(called: Function, error: Exception, subject: Subject) -> Exception:
    """What nobody expects of a function that every plug-in has, or of one that is not about a volume."""
    if isinstance(error, Unimplemented) and called.name in NEEDED:
        return unimplemented(subject.sr)
    if isinstance(error, ActivatedOnAnotherHost) and not called.name.startswith(("Volume.", "Datapath.", "Data.")):
        return ApiError("SR_DEVICE_IN_USE")
    return error


def _result(script: Path, outcome: Outcome, called: Function, completed: Callable[[Any], Any]) -> Any:
    try:
        raw = msgspec.json.decode(outcome.stdout)
    except msgspec.MsgspecError as error:
        raise failures.failed(script, "bad json on stdout", error, outcome) from error
    if called.returns is type(None):
        if raw is not None:
            log.info("%s: %s returned what nobody expects", outcome.run, script)
        return None
    try:
        return msgspec.convert(completed(raw), called.returns)
    except msgspec.ValidationError as error:
        raise failures.wrong_result(script, error, outcome.run) from error

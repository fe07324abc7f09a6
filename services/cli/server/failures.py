"""How a command fails, and the text of each failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from services.cli.server.objects import Objects
from shared.datamodel import model
from shared.errors import ApiError

HINT = "For usage run: 'xe help'"
UNCOOPERATIVE = "VMS_FAILED_TO_COOPERATE"


class CommandError(Exception):
    """A failure of the command itself: shown as `Error: <text>`."""


class UsageError(Exception):
    """The command line cannot be understood: shown as it is, with a hint."""


class AuthenticationError(Exception):
    """Nobody was logged in."""


class PartialFailure(Exception):
    """`--multiple`: some objects failed. `failures`: uuid and error, last first."""

    def __init__(self, failures: Sequence[tuple[str, ApiError | CommandError]]) -> None:
        super().__init__(f"{len(failures)} operations failed")
        self.failures = failures


class Leave(Exception):
    """The command has said all it has to say; the client exits with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ErrorDecl(Protocol):
    """What the error catalogue tells about a code."""

    @property
    def params(self) -> Sequence[str]: ...
    @property
    def doc(self) -> str: ...


Catalogue = Mapping[str, ErrorDecl]


def labels(code: str, names: Sequence[str], values: Sequence[str]) -> list[tuple[str, str]]:
    """Each value with its parameter's name; surplus values are `<extra>`, missing ones `<unknown>`."""
    if code == UNCOOPERATIVE:
        return [("VM", value) for value in values]
    named = [(name, values[at] if at < len(values) else "<unknown>") for at, name in enumerate(names)]
    return named + [("<extra>", value) for value in values[len(names) :]]


async def describe(error: ApiError, catalogue: Catalogue, objects: Objects | None) -> list[str] | None:
    """The lines of a failure with a known code: its description, then `name: value`. None: the code is unknown.

    References become `uuid (name-label)` as far as `objects` can still read them.
    """
    known = catalogue.get(error.code)
    if known is None:
        return None
    lines = [" ".join(known.doc.split())]
    for name, value in labels(error.code, known.params, error.params):
        lines.append(f"{name}: {await _readable(name, value, error.params, objects)}")
    return lines


async def summary(error: ApiError, objects: Objects) -> str:
    """A failure in one line: its code and values, references readable."""
    values = [await _readable("", value, error.params, objects) for value in error.params]
    return " ".join([error.code, *values])


async def _readable(name: str, value: str, siblings: Sequence[str], objects: Objects | None) -> str:
    if objects is None or not value.startswith("OpaqueRef:") or value == "OpaqueRef:NULL":
        return value
    for cls in _candidates(name, siblings):
        try:
            record = await objects.record(cls, value)
        except ApiError:
            return value  # the session is no longer good for reading: the reference has to do
        if record is not None:
            uuid, label = str(record.get("uuid", value)), str(record.get("name_label", ""))
            return f"{uuid} ({label})" if label else uuid
    return value


_NAMED = {cls.lower(): cls for cls in model.classes if model.classes[cls].in_database}
_LIKELY = ("VM", "VDI", "SR", "host", "VBD", "VIF", "network", "PIF", "PBD", "pool", "task")
"""Classes of references in errors whose parameter is not named for its class."""


def _candidates(name: str, siblings: Sequence[str]) -> list[str]:
    """Classes to look a reference up in: the parameter's name, a class name beside it, then the usual ones."""
    named = [_NAMED[word.lower()] for word in (name, *siblings) if word.lower() in _NAMED]
    return list(dict.fromkeys([*named, *_LIKELY]))

"""What scripts report when they fail, as errors of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from services.storage.plugins.errors import Failure, backend_failure, volume_missing
from services.storage.plugins.interface import ActivatedOnAnotherHost, Unimplemented
from services.storage.smapiv3.interface_v5 import UNIMPLEMENTED
from services.storage.smapiv3.run import Outcome
from shared.bus import context
from shared.errors import ApiError

GENERIC = "SR_BACKEND_FAILURE"
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class Report(msgspec.Struct, frozen=True):
    """What a script prints when it ends with another status than 0."""

    code: str
    params: list[Any]
    backtrace: Any = None


class Subject(NamedTuple):
    """What a call was about: uuid of the SR, and key or URI of the volume ("" if unknown)."""

    sr: str = ""
    volume: str = ""


def log_line(run: str) -> str:
    """How errors name the run's lines in the log."""
    return f"log {run}"


def missing(script: Path) -> ApiError:
    return ApiError("SCRIPT_MISSING", script, "The plug-in has no script of that name")


def not_executable(script: Path) -> ApiError:
    return ApiError("SCRIPT_NOT_EXECUTABLE", script, "Its mode does not allow it to be run")


def failed(script: Path, reason: str, cause: object, outcome: Outcome) -> ApiError:
    """SCRIPT_FAILED [script, reason, cause, stdout, the log's line and the end of stderr]."""
    printed = outcome.stdout[:_SHOWN].decode(errors="replace")
    said = f"{log_line(outcome.run)}: {outcome.stderr}" if outcome.stderr else log_line(outcome.run)
    return ApiError("SCRIPT_FAILED", script, reason, cause, printed, said)


_SHOWN = 2048
"""Bytes of output that an error carries."""


_SIGNALLED = "signalled"


def was_killed(error: ApiError) -> bool:
    """Whether a signal has ended the script, so that it could say nothing."""
    return error.code == "SCRIPT_FAILED" and error.params[1] == _SIGNALLED


def wrong_result(script: Path, what: object, run: str) -> ApiError:
    """The result is not of the declared type."""
    return ApiError("SCRIPT_RETURNED_RPC_ERROR", script, what, log_line(run))


def reported(script: Path, outcome: Outcome, subject: Subject) -> Exception:
    """Of a script that ended with another status than 0."""
    if outcome.endless:
        return failed(script, "it printed more than a result can be", len(outcome.stdout), outcome)
    if outcome.status < 0:
        return failed(script, _SIGNALLED, -outcome.status, outcome)
    try:
        report = msgspec.json.decode(outcome.stdout, type=Report)
    except msgspec.MsgspecError:
        return failed(script, "non-zero exit and bad json on stdout", outcome.status, outcome)
    if not _CODE.fullmatch(report.code):
        return failed(script, "it reported what is no error code", repr(report.code), outcome)
    return translated(report.code, [str(param) for param in report.params], subject, outcome.run)


def translated(code: str, params: list[str], subject: Subject, run: str) -> Exception:
    """The bindings report a declared exception by its name: SR_BACKEND_FAILURE [name, text]."""
    name, *rest = params if code == GENERIC and params else [code, *params]
    if name in _DECLARED and len(rest) <= 1:
        return _DECLARED[name](rest[0] if rest else "", subject, run)
    if code.startswith(GENERIC):
        return ApiError(code, *_with_detail(params, log_line(run)))
    return ApiError(code, *params)


def _with_detail(params: list[str], detail: str) -> list[str]:
    """The family has three parameters, the last of which is for details."""
    first, second, third, *rest = [*params, "", "", ""] if len(params) < 3 else params
    more = [text for text in rest if text]
    return [first, second, f"{third} ({detail})" if third else detail, *more]


_DECLARED: dict[str, Callable[[str, Subject, str], Exception]] = {
    UNIMPLEMENTED: lambda text, subject, run: Unimplemented(f"{text} ({log_line(run)})"),
    "Activated_on_another_host": lambda text, subject, run: ActivatedOnAnotherHost(text, ""),
    "Volume_does_not_exist": lambda text, subject, run: volume_missing(subject.sr, subject.volume or text),
    "Sr_not_attached": lambda text, subject, run: ApiError("SR_NOT_ATTACHED", subject.sr or text),
    "SR_does_not_exist": lambda text, subject, run: backend_failure(
        Failure.SR_UNAVAILABLE, f"The SR does not exist: {text}", log_line(run)
    ),
    "Cancelled": lambda text, subject, run: ApiError("TASK_CANCELLED", context.current.get().task or text),
}

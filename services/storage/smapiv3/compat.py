"""Versions of the interface that plug-ins may ask for, and what version 3.0 has otherwise."""

from __future__ import annotations

from typing import Any

from shared.errors import ApiError

LATEST = "5.0"
PVS = "3.0"
SUPPORTED = (LATEST, PVS)

_WITH_URI = frozenset({"SR.create", "SR.attach"})
_OPTIONAL_THERE = frozenset({"Volume.set", "Volume.unset"})
_VOLUMES = frozenset({"SR.ls", "Volume.create", "Volume.stat", "Volume.snapshot", "Volume.clone", "Volume.copy"})


def missing_uri(why: str) -> ApiError:
    return ApiError("MISSING_URI", why)


def arguments(version: str, function: str, given: dict[str, Any]) -> dict[str, Any]:
    """What to give a script. In 3.0 an SR has a URI. Raises MISSING_URI."""
    if version != PVS or function not in _WITH_URI:
        return given
    uri = given["configuration"].get("uri")
    if uri is None:
        raise missing_uri("device_config needs a uri")
    return {**given, "uri": uri}


def result(version: str, function: str, given: dict[str, Any], returned: Any) -> Any:
    """What a script has returned, as the latest version has it. 3.0 knows no sharable volumes."""
    if version != PVS:
        return returned
    if function == "SR.create" and returned is None:
        return given["configuration"]
    if function in _VOLUMES:
        volumes = returned if isinstance(returned, list) else [returned]
        completed = [{"sharable": False, **each} if isinstance(each, dict) else each for each in volumes]
        return completed if isinstance(returned, list) else completed[0]
    return returned


def may_be_missing(version: str, function: str) -> bool:
    """Scripts whose absence means that there is nothing to do."""
    return version == PVS and function in _OPTIONAL_THERE

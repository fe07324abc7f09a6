"""Messages of class auth: questions to the external directory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.api.call import Call
from services.api.directory.plugin import Plugin, ServiceError, SubjectNotFound
from services.api.operation import operation
from shared.errors import ApiError

Result = TypeVar("Result")


async def _asked(call: Call, question: Callable[[Plugin], Awaitable[Result]]) -> Result:
    """Raises AUTH_IS_DISABLED, SUBJECT_CANNOT_BE_RESOLVED, AUTH_SERVICE_ERROR [message]."""
    try:
        return await question(await call.api.directory.own.plugin())
    except SubjectNotFound as error:
        raise ApiError("SUBJECT_CANNOT_BE_RESOLVED") from error
    except ServiceError as error:
        raise ApiError("AUTH_SERVICE_ERROR", error.message) from error


@operation("auth.get_subject_identifier")
async def get_subject_identifier(call: Call, subject_name: str) -> str:
    return await _asked(call, lambda plugin: plugin.get_subject_identifier(subject_name))


@operation("auth.get_subject_information_from_identifier")
async def get_subject_information_from_identifier(call: Call, subject_identifier: str) -> dict[str, str]:
    return await _asked(call, lambda plugin: plugin.query_subject_information(subject_identifier))


@operation("auth.get_group_membership")
async def get_group_membership(call: Call, subject_identifier: str) -> list[str]:
    return await _asked(call, lambda plugin: plugin.query_group_membership(subject_identifier))
